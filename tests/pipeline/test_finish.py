"""A finished run: the same command has nothing to do and says so, and another setting is not measured in silence."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from genet.cli.main import main
from genet.config.budget import Budget
from genet.config.reader import to_yaml
from genet.config.recipe import Data, PretrainedMaster, Recipe
from genet.latency.table import settings
from genet.pipeline.context import open_run
from genet.pipeline.finish import FINISH, Finish, finish_of, mark_finished, note_place
from genet.pipeline.run_folder import RunFolder
from genet.progress import SILENT, Progress
from genet.search.race import Entrants
from genet.storage import write_atomic
from genet.training.image_identity import ImageContents
from tests.fixtures.commands import answer, fault
from tests.fixtures.tiny import tiny_recipe

WITHOUT_TORCH = """
import sys
from genet.cli.main import main
code = main(sys.argv[1:])
assert not {"torch", "timm", "sklearn", "matplotlib"} & set(sys.modules)
sys.exit(code)
"""


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_same_command_says_when_it_was_done_and_its_table_without_torch_in_three_seconds(copy: RunFolder) -> None:
    before, began = stamps(copy.path), seconds_of_children()
    command = [sys.executable, "-c", WITHOUT_TORCH, "run", str(copy.recipe_file), "--run", str(copy.path)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert seconds_of_children() - began < 3
    assert told.returncode == 0, told.stderr
    first, *rest = told.stdout.splitlines()
    assert re.fullmatch(rf"tiny in {copy.path}: done on \d{{4}}-\d\d-\d\d \d\d:\d\d, nothing to do", first)
    assert rest[0].split() == ["network", "budget", "ms/image", "test", "%", "compared", "to", "params"]
    assert f"report: {copy.report}" in rest
    assert told.stderr.startswith("budget 0.000001ms/image (")
    assert stamps(copy.path) == before


def other_budget(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"select": recipe.select.model_copy(update={"budgets": (Budget.parse("3x"),)})})


def other_batch(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"measure": recipe.measure.model_copy(update={"batch": 32})})


@pytest.mark.parametrize("change", [other_budget, other_batch])
def test_another_recipe_is_not_done(copy: RunFolder, change: Callable[[Recipe], Recipe]) -> None:
    recipe = copy.recipe()
    assert finish_of(copy, recipe)
    assert finish_of(copy, change(recipe)) is None


def from_a_folder(recipe: Recipe, folder: Path) -> Recipe:
    return recipe.model_copy(update={"master": PretrainedMaster(folder=str(folder))})


def with_a_teacher(recipe: Recipe, folder: Path) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"teacher": str(folder)})})


def on_evidence(recipe: Recipe, folder: Path) -> Recipe:
    file = str(folder / "latency.jsonl")
    return recipe.model_copy(update={"measure": recipe.measure.model_copy(update={"latency_file": file})})


@pytest.mark.parametrize(
    ("naming", "file"),
    [
        (from_a_folder, "model.safetensors"),
        (from_a_folder, "labels.txt"),
        (with_a_teacher, "model.safetensors"),
        (on_evidence, "latency.jsonl"),
    ],
)
def test_other_files_in_the_places_that_the_recipe_names_are_not_done_and_lost_ones_are(
    copy: RunFolder, tmp_path: Path, naming: Callable[[Recipe, Path], Recipe], file: str
) -> None:
    source, recipe = tmp_path / "source" / file, naming(copy.recipe(), tmp_path / "source")
    write_atomic(source, b"before")
    mark_finished(copy, recipe, failed=False)
    assert finish_of(copy, recipe)
    source.write_bytes(b"behind")
    assert finish_of(copy, recipe) is None
    source.unlink()
    assert finish_of(copy, recipe)


def lose_a_weight(run: RunFolder) -> None:
    next(run.path.glob("networks/*/model.safetensors")).unlink()


def lose_the_report(run: RunFolder) -> None:
    run.report.unlink()


def add_a_trial(run: RunFolder) -> None:
    run.trials.path.write_text(run.trials.path.read_text() * 2)


def damage_the_note(run: RunFolder) -> None:
    (run.path / FINISH).write_text("{")


@pytest.mark.parametrize("change", [lose_a_weight, lose_the_report, add_a_trial, damage_the_note])
def test_a_folder_that_has_changed_is_not_done(copy: RunFolder, change: Callable[[RunFolder], None]) -> None:
    change(copy)
    assert finish_of(copy, copy.recipe()) is None


def test_where_images_lie_and_who_decodes_them_makes_no_other_recipe(copy: RunFolder) -> None:
    recipe = copy.recipe()
    data = recipe.data.model_copy(update={"workers": 3})
    (copy.path / ".recipe.yaml.swp").write_text("an editor's")
    assert finish_of(copy, recipe.model_copy(update={"data": data}))


def test_a_finished_run_notes_where_its_images_lie_now_and_follows_them_from_there(tmp_path: Path) -> None:
    run, kept = RunFolder(tmp_path / "project" / "run"), tiny_recipe(tmp_path)
    contents = ImageContents(train={}, validation={})
    before, now = (
        kept.model_copy(update={"data": Data(name="folder", root=str(tmp_path / "project" / name))}) for name in ("a", "b")
    )
    run.note_of(before.data, contents).keep(run.path, SILENT)
    run.adopt(before)
    Path(now.data.root or "").mkdir()
    note_place(run, now)
    assert run.recipe() == now
    (tmp_path / "project").rename(tmp_path / "moved")
    assert RunFolder(tmp_path / "moved" / "run").recipe().data.root == str(tmp_path / "moved" / "b")


def test_the_end_is_noted_once_and_not_while_something_is_to_be_tried_again(copy: RunFolder) -> None:
    recipe, note = copy.recipe(), copy.path / FINISH
    first = Finish.load(note)
    first.model_copy(update={"when": "2000-01-01 00:00"}).save(note)
    mark_finished(copy, recipe, failed=False)
    assert Finish.load(note).when == "2000-01-01 00:00"
    note.unlink()
    mark_finished(copy, recipe, failed=True)
    assert not note.exists()
    entrants = Entrants.load(copy.entrants)
    entrants.model_copy(update={"inputs": ""}).save(copy.entrants)  # a design that could not be timed
    mark_finished(copy, recipe, failed=False)
    assert not note.exists()
    straddling = {"measured_ms_per_image": 1.0, "interval_ms_per_image": 3.0}
    unmet = tuple(each.model_copy(update=straddling) for each in entrants.unmet)
    entrants.model_copy(update={"unmet": unmet}).save(copy.entrants)  # a budget that could not be certified
    mark_finished(copy, recipe, failed=False)
    assert not note.exists()
    entrants.save(copy.entrants)
    mark_finished(copy, recipe, failed=False)
    assert note.exists()


@pytest.mark.parametrize(
    ("given", "was", "asked"),
    [
        (("--batch", "32"), "batch 64", "batch 32"),
        (("--runtime", "onnxruntime"), "eager", "onnxruntime, onnxruntime "),
        (("--device", "estimate:v100"), "contiguous", "estimate:v100"),
    ],
)
def test_another_setting_is_told_first_in_one_line_and_not_measured_without_being_asked(
    copy: RunFolder, given: tuple[str, str], was: str, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stamps(copy.path)
    said = fault(capsys, "run", copy.recipe_file, "--run", copy.path, *given)
    assert "\n" not in said
    assert said.startswith(f"{copy.path}: got ")
    _, now, told = re.split(r": got |, expected ", said)
    assert (was in told) is (was != "contiguous")
    assert asked in now
    assert told.endswith(
        ", with which the run was measured; give genet run --remeasure to measure again, or the earlier settings"
    )
    assert stamps(copy.path) == before


@pytest.mark.parametrize("command", [("profile",), ("select",), ("validate",), ("distill", "--extra", "1")])
def test_no_step_measures_in_another_setting_than_the_run(
    copy: RunFolder, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    write_atomic(copy.recipe_file, to_yaml(other_batch(copy.recipe())).encode())
    before = copy.latency.path.read_bytes()
    step, *options = command
    said = fault(capsys, step, copy.path, *options)
    assert said.startswith(f"{copy.path}: got batch 32, expected batch 64, with which the run was measured; ")
    assert copy.latency.path.read_bytes() == before
    for measures_nothing in ("fit", "race"):
        answer(capsys, measures_nothing, copy.path)


def test_what_is_asked_to_be_measured_anew_is(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(copy.recipe_file), "--run", str(copy.path), "--remeasure"]) == 0
    told = capsys.readouterr().out
    assert "nothing to do" not in told
    assert "MasterNet's latency" in told, "the pre-flight"
    with open_run(copy.path, Progress(), other_batch(copy.recipe())) as job:
        assert job.meter.setting.digest not in settings(copy.latency)
    assert copy.recipe().measure.batch == 32
