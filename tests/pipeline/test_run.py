"""The whole job on a tiny recipe: real digits, real timing, real export."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

import genet
from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.cli.main import main
from genet.cli.parser import parser
from genet.config.budget import Budget
from genet.config.overrides import Override
from genet.config.reader import read_recipe, with_overrides
from genet.errors import EvidenceError, RunError
from genet.export.manifest import Exports
from genet.latency.estimate.roofline import RunRoof
from genet.latency.noise import with_interval
from genet.latency.staircase.space_sweeps import Staircases
from genet.pipeline import export as exporting
from genet.pipeline.context import open_run, read_run
from genet.pipeline.distill import run_planned_trials
from genet.pipeline.export import export_selected
from genet.pipeline.fit import fit_trials
from genet.pipeline.master import train_master
from genet.pipeline.profile import profile_device
from genet.pipeline.race import run_race
from genet.pipeline.report import write_report
from genet.pipeline.run import run_job
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.search_state import SearchState
from genet.pipeline.select import select_from_evidence, select_networks
from genet.progress import Progress
from genet.search.certificate import Selection
from genet.search.outcome import Outcomes
from genet.storage import Journal
from genet.trials.results import read_results
from tests.fixtures.tiny import RECIPE, tiny_recipe, write_recipe

NOT_FINITE = {"kind": "non-finite loss", "message": "the loss must stay finite"}


def stamps(folder: Path) -> dict[str, int]:
    """Which files are there, and when each was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_run_folder_holds_every_step(finished: RunFolder) -> None:
    for name in (
        "recipe.yaml",
        "environment.json",
        "latency.jsonl",
        "staircase.json",
        "master.safetensors",
        "trials.jsonl",
        "regression.json",
        "selection.json",
        "entrants.json",
        "race.jsonl",
        "results.json",
        "report.html",
        "roof.json",
    ):
        assert (finished.path / name).is_file(), name
    assert not [path for path in finished.path.rglob(".*") if path.name != ".lock"]


def test_the_masternets_own_width_is_always_on_offer(finished: RunFolder) -> None:
    masternet = finished.recipe().space.superblocks
    for stair in Staircases.load(finished.staircase).staircases:
        own = masternet[stair.superblock].width
        assert own in stair.kept


def test_the_winner_was_measured_within_its_budget(finished: RunFolder) -> None:
    outcomes = Outcomes.load(finished.results)
    assert [str(outcome.budget) for outcome in outcomes.outcomes] == ["2x"]
    for outcome in outcomes.outcomes:
        assert outcome.ms_per_image is not None
        assert outcome.ms_per_image <= outcome.budget_ms_per_image


def test_a_budget_that_none_can_meet_is_kept_as_such(finished: RunFolder) -> None:
    *_, impossible = Selection.load(finished.selection).choices
    assert str(impossible.budget) == "0.000001ms/image"
    assert impossible.within is False
    assert impossible.measured_ms_per_image is not None


def test_the_export_is_the_trained_network(finished: RunFolder) -> None:
    (outcome,) = Outcomes.load(finished.results).outcomes
    module = genet.load(finished.path / outcome.export)
    assert str(module.network) == outcome.network
    assert sum(parameter.numel() for parameter in module.parameters()) == outcome.parameters
    size = outcome.resolution
    assert module(torch.zeros(3, 1, size, size)).shape == (3, 10)
    card = (finished.path / outcome.export).parent / "card.md"
    assert with_interval(outcome.ms_per_image, outcome.interval_ms_per_image) in card.read_text()


def test_running_again_repeats_nothing(copy: RunFolder) -> None:
    before = stamps(copy.path)
    with open_run(copy.path, Progress(), copy.recipe()) as job:
        run_job(job)
    changed = {name for name, stamp in stamps(copy.path).items() if before.get(name) != stamp}
    assert changed <= {"recipe.yaml", "environment.json", "regression.json", "report.html"} | {
        name for name in before if name.endswith("card.md")
    }


@pytest.mark.slow
def test_other_budgets_repeat_no_measured_block_and_no_trial(copy: RunFolder) -> None:
    recipe = copy.recipe()
    blocks_before = sum(record["row"] == "block" for record in copy.latency.read().records)
    trials_before = copy.trials.read()
    changed = recipe.model_copy(update={"select": recipe.select.model_copy(update={"budgets": (Budget.parse("1.9x"),)})})
    with open_run(copy.path, Progress(), changed) as job:
        outcomes = run_job(job)
    assert [str(outcome.budget) for outcome in outcomes.outcomes] == ["1.9x"]
    assert sum(record["row"] == "block" for record in copy.latency.read().records) == blocks_before
    assert copy.trials.read() == trials_before


def test_a_folder_of_another_recipe_is_refused_and_left_alone(copy: RunFolder) -> None:
    before = stamps(copy.path)
    other = copy.recipe().model_copy(update={"seed": 1})
    with pytest.raises(RunError, match="got a run of another recipe"), open_run(copy.path, Progress(), other):
        pass
    assert stamps(copy.path) == before


def test_a_run_of_another_recipe_tells_the_keys_that_differ_and_how_to_go_on_with_it(tmp_path: Path) -> None:
    files = RunFolder(tmp_path / "run")
    files.adopt(tiny_recipe(tmp_path))
    files.trials.path.touch()
    changes = {"seed": "1", "distill.epochs": "7", "train.epochs": "9"}  # the last is none that trials depend on
    other = with_overrides(files.recipe(), [Override(f"--set {key}", key, text) for key, text in changes.items()])
    with pytest.raises(RunError) as refused:
        files.check_free_for(other)
    assert "(distill.epochs: 7 here, 1 in the run, seed: 1 here, 0 in the run), expected one of this recipe" in str(refused.value)
    assert f"`genet run {files.recipe_file} --run {files.path}` resumes that run" in str(refused.value)


def test_a_folder_with_other_files_is_refused_and_left_alone(copy: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="got other files in it"), open_run(tmp_path / "home", Progress(), copy.recipe()):
        pass
    assert list(stamps(tmp_path / "home")) == ["thesis.tex"]


def test_two_runs_at_once_in_one_folder_are_refused(copy: RunFolder) -> None:
    with (
        open_run(copy.path, Progress()),
        pytest.raises(RunError, match="another process is working in it"),
        open_run(copy.path, Progress()),
    ):
        pass


def test_a_lost_trial_line_is_run_again_and_nothing_else(copy: RunFolder) -> None:
    results = read_results(copy.trials)
    lines = (copy.path / "trials.jsonl").read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("accuracy", "accurocy")
    (copy.path / "trials.jsonl").write_text("".join(lines))
    with open_run(copy.path, Progress()) as job:
        again = run_planned_trials(job)
    assert {result.id: result.accuracy for result in again} == {trial: result.accuracy for trial, result in results.items()}
    assert len(copy.trials.read().records) == len(results)


def test_a_command_for_other_budgets_says_that_the_table_will_lack_the_earlier_ones(
    copy: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("genet.pipeline.run.run_job", lambda job, *_: Outcomes.load(job.folder.results))
    assert main(["run", str(copy.recipe_file), "--run", str(copy.path), "--budget", "1.9x"]) == 0
    told = " ".join("".join(capsys.readouterr()).split())
    assert "will lack the earlier budgets; add --budget 2x --budget 0.000001ms/image to keep them" in told


def test_selection_for_other_budgets_needs_no_device_and_writes_nothing(copy: RunFolder) -> None:
    before = stamps(copy.path)
    job = read_run(copy.path, Progress())
    selection = select_from_evidence(SearchState(job), tuple(map(Budget.parse, ("0.9x", 1000.0))))
    assert "device" not in vars(job)
    assert stamps(copy.path) == before
    small, large = selection.choices
    latency = small.measured_ms_per_image or small.predicted_ms_per_image
    assert (latency <= small.budget_ms_per_image) is not (small.within is False)  # one that breaks its budget says so
    assert large.predicted_accuracy >= small.predicted_accuracy
    assert Network.parse(large.network)


def test_the_same_evidence_gives_the_same_selection(copy: RunFolder) -> None:
    before = Selection.load(copy.selection)
    copy.selection.unlink()
    with open_run(copy.path, Progress()) as job:
        assert select_networks(job) == before


def test_a_step_out_of_order_names_the_command_it_needs(copy: RunFolder) -> None:
    copy.staircase.unlink()
    with open_run(copy.path, Progress()) as job, pytest.raises(RunError, match=r"staircase\.json.*`genet profile RUN`"):
        run_planned_trials(job)


def test_the_report_is_one_file_that_asks_nothing_of_the_network(finished: RunFolder) -> None:
    text, found = finished.report.read_text(), Outcomes.load(finished.results)
    handed_out = {row.name for outcome in found.outcomes for row in outcome.exported}
    assert text.count("<svg") == 6 + len(handed_out), "trials of one epoch have no curves"
    linked = re.findall(r'href="(?!#)([^"]*)"', text)
    assert all((finished.path / place).is_file() for place in linked)
    assert len(linked) > 5 * len(handed_out)
    assert re.findall(r"src=|url\((?!#)[^)]*\)|@import", text) == []
    for outcome in found.outcomes:
        assert outcome.network in text


def test_the_report_runs_the_script_that_it_names_and_no_other(finished: RunFolder) -> None:
    text = finished.report.read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    named = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{named}'" in text
    (frontier,) = re.findall(r'<script type="application/json" id="frontier">(.*?)</script>', text, re.S)
    latencies = [ms for ms, _, _ in json.loads(frontier)]
    assert latencies == sorted(latencies)
    assert len(latencies) > 1


def test_every_command_in_the_report_can_be_given(finished: RunFolder) -> None:
    commands = re.findall(r"<code>genet ([^<]+)</code>", finished.report.read_text())
    assert {command.split()[0] for command in commands} == {"select", "run"}
    for command in commands:
        parser().parse_args(command.split())


def test_exports_are_timed_with_the_threads_of_the_recipe(copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, recipe = list[int](), copy.recipe()
    monkeypatch.setattr(exporting, "with_latencies", lambda exports, *_: seen.append(torch.get_num_threads()) or exports)
    served = recipe.model_copy(update={"measure": recipe.measure.model_copy(update={"threads": 1})})
    threads = torch.get_num_threads()
    try:
        with open_run(copy.path, Progress(), served) as job:
            torch.set_num_threads(2)
            export_selected(job, ["safetensors"])
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}


def test_no_column_of_the_report_has_a_heading_too_long_for_a_narrow_screen(finished: RunFolder) -> None:
    text = finished.report.read_text()
    headings = re.findall(r"<th[ >](.*?)</th>", text, re.S)
    assert len(headings) > 20
    assert max(len(re.sub(r'<br>|class="n">', " ", each)) for each in headings) <= 36
    (outcome,) = Outcomes.load(finished.results).outcomes
    serving = Exports.load(finished.path / outcome.export / "exports.json").serving
    assert serving
    assert f"in its own runtime when it was exported, on {serving.setting}." in text


def test_the_report_tells_how_well_the_networks_use_the_device(finished: RunFolder) -> None:
    roof = RunRoof.load(finished.roof).roof
    selection = Selection.load(finished.selection)
    (text,) = re.findall(r'<table id="uses">.*?</table>', finished.report.read_text(), re.S)
    rows = re.findall(r"<tr><td>(.*?)</td><td><code>(.*?)</code></td>.*?>([\d.]+%)</td></tr>", text, re.S)
    roles = {(each.network, f"winner for {each.budget}") for each in Outcomes.load(finished.results).outcomes}
    roles |= {(choice.network, f"selected for {choice.budget}") for choice in selection.answers} | {(rows[0][1], "MasterNet")}
    assert {(network, role) for names, network, _ in rows for role in names.split(", ")} == roles
    macs = network_cost(Network.parse(rows[0][1])).macs
    share = 2 * macs / (selection.masternet_ms_per_image * 1e9) / roof.tflops_per_sec
    assert rows[0][2] == f"{share:.1%}"


def test_a_selection_filtered_by_utilization_chooses_among_what_no_faster_candidate_beats(copy: RunFolder) -> None:
    recipe = copy.recipe()
    filtered = recipe.model_copy(update={"select": recipe.select.model_copy(update={"filter": "utilization"})})
    with open_run(copy.path, Progress(), filtered) as job:
        selection = select_networks(job)
        (front,) = SearchState(job, job.table).frontiers.values()
    rates = [(c.predicted_ms, network_cost(Network.parse(c.network)).macs / c.predicted_ms) for c in front]
    assert rates == sorted(rates)  # slower ones do more per time, or they would have been left out
    assert selection.answers


def test_the_report_escapes_what_it_shows(copy: RunFolder) -> None:
    text = (copy.path / "recipe.yaml").read_text()
    (copy.path / "recipe.yaml").write_text(text.replace("name: digits", "name: digits\n  root: <script>alert(1)</script>", 1))
    write_report(read_run(copy.path, Progress()))
    assert "&lt;script&gt;" in copy.report.read_text()
    assert "<script>alert" not in copy.report.read_text()


def rewrite_trials(run: RunFolder, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Write the trials' journal again, each record changed or left out."""
    changed = [change(record) for record in run.trials.read().records]
    run.trials.path.unlink()
    for record in changed:
        if record is not None:
            run.trials.append(record)


def test_a_selection_from_part_of_the_trials_is_made_anew_when_the_rest_is_there(copy: RunFolder) -> None:
    whole = Selection.load(copy.selection)
    lost = next(record["network"] for record in copy.trials.read().records if not record["control"])
    rewrite_trials(copy, lambda record: None if record["network"] == lost else record)
    with open_run(copy.path, Progress()) as job:
        fit_trials(job)
        assert select_networks(job).inputs != whole.inputs
        run_job(job)
    assert Selection.load(copy.selection).choices == whole.choices


def test_results_follow_a_new_selection(copy: RunFolder) -> None:
    before = Outcomes.load(copy.results)
    selection = Selection.load(copy.selection)
    selection.model_copy(update={"choices": selection.choices[1:]}).save(copy.selection)
    with open_run(copy.path, Progress()) as job:
        assert run_race(job).inputs != before.inputs


def test_a_block_type_all_of_whose_trials_failed_is_not_offered(copy: RunFolder) -> None:
    def fail_dw_first(record: dict[str, Any]) -> dict[str, Any]:
        failed = record["index"] == 0 and record["superblock"]["type"] == "DW"
        return {**record, "accuracy": None, "failure": NOT_FINITE} if failed else record

    rewrite_trials(copy, fail_dw_first)
    with open_run(copy.path, Progress()) as job:
        fit_trials(job)
        for choice in select_networks(job).choices:
            assert Network.parse(choice.network).superblocks[0].type == "XX"


def test_a_superblock_all_of_whose_trials_failed_keeps_the_masternets_own_and_is_named(copy: RunFolder) -> None:
    rewrite_trials(copy, lambda record: {**record, "accuracy": None, "failure": NOT_FINITE} if record["index"] == 1 else record)
    said: list[str] = []
    with open_run(copy.path, Progress()) as job:
        job.progress.say = said.append  # type: ignore[method-assign]
        run_planned_trials(job)
        fit_trials(job)
        own = job.recipe.space.superblocks[1]
        assert {Network.parse(choice.network).superblocks[1] for choice in select_networks(job).choices} == {own}
    assert [line for line in said if "super-block 2" in line and "stays as in the MasterNet" in line]


@pytest.mark.parametrize("lost", ["master.safetensors", "master.json"])
def test_a_lost_masternet_is_trained_again_to_the_same_weights(copy: RunFolder, lost: str) -> None:
    before = (copy.path / "master.safetensors").read_bytes()
    (copy.path / lost).unlink()
    with open_run(copy.path, Progress()) as job:
        train_master(job)
    assert (copy.path / "master.safetensors").read_bytes() == before


@pytest.mark.slow
def test_another_final_training_trains_the_same_networks_again(copy: RunFolder) -> None:
    recipe = copy.recipe()
    longer = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 3})})
    before = {file: file.read_bytes() for file in (copy.path / "networks").glob("*/model.safetensors")}
    with open_run(copy.path, Progress(), longer) as job:
        (outcome,) = run_race(job).outcomes
        export_selected(job)
    weights = (copy.path / outcome.export).parent / "model.safetensors"
    assert weights.read_bytes() != before.get(weights)
    assert (copy.path / outcome.export / "model.safetensors").read_bytes() == weights.read_bytes()


def test_an_answer_without_a_measured_masternet_names_the_command_and_measures_nothing(copy: RunFolder) -> None:
    records = copy.latency.read().records
    copy.latency.path.unlink()
    for record in records:
        if record["row"] != "network":
            copy.latency.append(record)
    before = stamps(copy.path)
    with pytest.raises(EvidenceError, match=r"lacks @16x1.*`genet profile RUN` measures it"):
        select_from_evidence(SearchState(read_run(copy.path, Progress())), (Budget.parse("0.9x"),))
    assert stamps(copy.path) == before


def test_reading_a_run_needs_no_lock(copy: RunFolder) -> None:
    with open_run(copy.path, Progress()):
        assert select_from_evidence(SearchState(read_run(copy.path, Progress())), (Budget.parse("0.9x"),)).choices


def test_foreign_hidden_files_are_left_alone(copy: RunFolder) -> None:
    (copy.path / ".recipe.yaml.swp").write_text("an editor's")
    (copy.path / ".genet-selection.json.x1").write_text("ours, torn")
    with open_run(copy.path, Progress()):
        assert (copy.path / ".recipe.yaml.swp").exists()
        assert not (copy.path / ".genet-selection.json.x1").exists()


def test_a_report_of_an_unfinished_run_tells_what_there_is(finished: RunFolder, tmp_path: Path) -> None:
    for name in ("recipe.yaml", "latency.jsonl", "staircase.json"):
        shutil.copy(finished.path / name, tmp_path / name)
    text = write_report(read_run(tmp_path, Progress())).read_text()
    assert "Staircases" in text
    assert "Pseudo-gradients" not in text


@pytest.mark.slow
def test_a_plain_grid_of_widths_needs_no_staircase(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    space = tmp_path / "tiny-space.yaml"
    space.write_text(space.read_text().replace("widths: wave-aligned", "widths: {multiple_of: 8}"))
    with open_run(tmp_path / "run", Progress(), read_recipe(path)) as job:
        assert profile_device(job).staircases == ()
        offered = job.recipe.space.widths_on_offer()
        assert all(block in job.table for block in job.recipe.space.blocks(offered, 16))


def test_the_environment_tells_what_was_measured_on(finished: RunFolder) -> None:
    environment = json.loads(finished.environment.read_text())
    assert environment["kind"] == "cpu"
    assert environment["torch"] == torch.__version__
    assert environment["driver"] is None


def test_journals_are_lines_of_json_with_checksums(finished: RunFolder) -> None:
    for journal in (finished.latency, finished.trials):
        assert isinstance(journal, Journal)
        for line in journal.path.read_text().splitlines():
            assert set(json.loads(line)) == {"sha256", "record"}


def test_the_tiny_recipe_is_what_this_file_believes() -> None:
    assert "0.000001" in RECIPE
