"""`genet.design`: the recipe that it chooses, the run that it goes on with, and the faults that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import genet
from genet.config.reader import read_recipe
from genet.config.recipe import Measure
from genet.errors import GenetError, SpecError
from genet.pipeline.design import recipe_for_images
from genet.pipeline.run_folder import RunFolder
from genet.progress import SILENT
from tests.fixtures.commands import answer
from tests.fixtures.images import draw_images
from tests.fixtures.tiny import SPACE, tiny_recipe

SHORT = {
    "master": {"epochs": 1, "batch": 16, "learning_rate": 0.1},
    "train": {"epochs": 2, "batch": 16, "learning_rate": 0.1},
    "distill.epochs": 1,
    "search.joint_trials": 0,
    "measure.calibration_networks": 3,
}


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two classes, to work beside."""
    monkeypatch.chdir(tmp_path)
    return draw_images(tmp_path / "photos", {"cat": 30, "dog": 30}, size=(40, 36))


@pytest.mark.usefixtures("one_thread")  # or timings would choose their number
def test_the_recipe_chosen_for_images_is_what_init_writes(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "init", "photos.yaml", "--data", images)
    assert recipe_for_images("photos", images, Measure(), (), SILENT) == read_recipe("photos.yaml")


def test_other_budgets_of_a_run_repeat_neither_measurements_nor_trials(
    copy: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = copy.trials.path.read_bytes()
    run = genet.design(budget=["2.0x", 0.000002], folder=copy.path)
    assert (run.folder, [str(each) for each in run.recipe.select.budgets]) == (copy.path, ["2x", "0.000002ms/image"])
    assert copy.trials.path.read_bytes() == before
    assert len(run.outcomes) == 1
    assert [line.split(" (")[0] for line in run.shortfalls] == ["budget 0.000002ms/image"]
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_images_become_networks_and_the_same_call_finds_them(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.yaml").write_text(SPACE.replace("channels: 1, classes: 10", "channels: 3, classes: 2"))
    asked: dict[str, Any] = {"budget": "2x", "space": "tiny.yaml", "device": "cpu", "batch": 1, "overrides": SHORT}
    run = genet.design("photos", **asked)
    assert str(run.folder) == "runs/photos"
    assert (run.recipe.measure.batch, run.recipe.train.epochs, run.recipe.space.name) == (1, 2, "tiny")
    assert genet.load(next(run.folder.glob("networks/*/export"))).labels == ("cat", "dog")
    assert capsys.readouterr().out == ""
    made = (run.folder / "results.json").stat().st_mtime_ns
    assert genet.design("photos", **asked, quiet=False).recipe == run.recipe
    assert (run.folder / "results.json").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("asked", "law"),
    [
        ({}, "data: got none, expected a folder of images; give one, or a recipe, or the folder of a run"),
        ({"runtime": "tflite"}, "runtime must be 'auto', 'eager'"),
        ({"bugdet": "5ms"}, "bugdet must be one of device, runtime, "),
        ({"budget": ["5ms", "5s"]}, "budget must be milliseconds per batch"),
        ({"overrides": {"train.epochs": 0}}, "overrides train.epochs must be at least 1 (got 0)"),
        ({"overrides": {"train": {"epochs": 2}}}, "overrides train.learning_rate must be given"),
        ({"overrides": {"train.warmup_epochs": 2}}, "overrides train.warmup_epochs must be fewer than the 2 epochs (got 2)"),
        ({"overrides": {"master.warmup_epochs": 2, "master.epochs": 1}}, "overrides master.warmup_epochs must be fewer than the"),
        ({"space": "digit"}, "digit: must be a file or one of cifar10, digits, masternet; did you mean digits?"),
    ],
)
def test_what_cannot_be_is_named_as_it_was_given(tmp_path: Path, asked: dict[str, Any], law: str) -> None:
    recipe = tiny_recipe(tmp_path) if asked else None
    with pytest.raises(SpecError) as told:
        genet.design(recipe=recipe, folder=tmp_path / "run", **asked)
    assert law in str(told.value)
    assert not (tmp_path / "run").exists()


def test_a_fault_names_the_argument_and_not_the_option_of_a_command(images: Path, finished: RunFolder) -> None:
    def told(**asked: Any) -> str:
        with pytest.raises(GenetError) as caught:
            genet.design(**asked)
        return str(caught.value)

    assert told(data="nowhere").endswith("expected the folder of the images; give data=FOLDER, where they are now")
    classes = told(data="photos", space="digits", folder="new")
    assert classes.endswith("got 2 classes, expected the search space's 10; give others, or overrides={'space.input.classes': 2}")
    assert "expected one of this recipe; give another folder; `genet run " in told(recipe="cifar10", folder=finished.path)
    assert told(folder=finished.path, device="estimate:v100").endswith(
        "; give another folder to measure again, or the earlier settings"
    )
