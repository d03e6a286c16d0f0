"""The commands that choose, on a finished tiny run: fit, select with its reasons, more trials, validation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genet.cli.main import NONE_MET, main
from genet.config.budget import Budget
from genet.config.recipe import RegressionModel
from genet.pipeline.context import read_run
from genet.pipeline.distill import planned_trials
from genet.pipeline.fit import fit_trials
from genet.pipeline.report import write_report
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.search_state import SearchState
from genet.pipeline.select import select_from_evidence
from genet.progress import Progress
from genet.search.certificate import Selection
from genet.search.regression import Regression
from genet.search.validation import Validation
from genet.trials.results import read_results
from tests.fixtures.commands import answer


def current_inputs(run: RunFolder, model: RegressionModel) -> str:
    """What a regression of this model is made from."""
    return fit_trials(read_run(run.path, Progress()), model).inputs


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_papers_model_can_be_asked_for_and_both_errors_are_told(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = Regression.load(copy.regression)
    found = answer(capsys, "fit", copy.path, "--model", "paper")
    assert before.model == "auto"
    assert found["model"] == "paper"
    errors = {"auto", "size alone", "no change"}
    assert {*errors, "paper"} >= set(found["left_out_errors"]) >= errors
    assert Regression.load(copy.regression).model == "paper"


def test_a_selection_follows_another_model(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = copy.read(copy.selection, Selection)
    answer(capsys, "fit", copy.path, "--model", "paper")
    answer(capsys, "select", copy.path)
    assert copy.read(copy.selection, Selection).inputs != before.inputs


def test_a_selection_names_the_model_that_predicts_and_the_one_that_would_do_so_better(
    copy: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, "fit", copy.path, "--model", "auto")
    assert main(["select", str(copy.path), "--budget", "1000"]) == 0
    assert "accuracies are predicted by model auto, which is off by " in capsys.readouterr().out
    found = Regression.load(copy.regression)
    worse = found.model_copy(update={"model": "paper", "left_out_errors": {"auto": 0.01, "paper": 0.13}})
    worse.model_copy(update={"inputs": current_inputs(copy, "paper")}).save(copy.regression)
    assert main(["select", str(copy.path), "--budget", "1000"]) == 0
    said = capsys.readouterr().out
    assert (
        "by model paper, which is off by 13.00 points on trials left out one at a time; model auto is off by 1.00, "
        "see `genet fit" in said
    )


def test_a_budget_that_no_network_is_predicted_to_meet_is_said_to_be_out_of_reach(copy: RunFolder) -> None:
    found = select_from_evidence(SearchState(read_run(copy.path, Progress())), tuple(map(Budget.parse, ("0.0001x", "50x"))))
    unmeasured = tuple(choice.model_copy(update={"measured_ms_per_image": None}) for choice in found.choices)
    (said,) = found.model_copy(update={"choices": unmeasured}).unmet
    assert said.startswith("budget 0.0001x ")
    assert "cannot be met by any network on offer: the fastest is predicted at " in said


def test_too_few_trials_are_named_in_one_sentence_with_what_is_missing(
    copy: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, "fit", copy.path)
    main(["fit", str(copy.path)])
    said = capsys.readouterr().out
    lacking = [gradient for gradient in Regression.load(copy.regression).gradients if gradient.missing]
    assert lacking, "two trials are too few for a type that is not the MasterNet's own"
    assert len(lacking) > 1
    assert said.count("too few finished trials") == 1
    _, sentence = " ".join(said.split()).split("too few finished trials")
    for gradient in lacking:
        assert f"{gradient.index + 1} as {gradient.block_type} ({gradient.trials} of 3)" in sentence


def test_a_selection_learns_from_trials_that_came_since_the_fit(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = Regression.load(copy.regression)
    answer(capsys, "distill", copy.path, "--extra", 2)
    assert Regression.load(copy.regression) == fitted
    answer(capsys, "select", copy.path)
    renewed = Regression.load(copy.regression)
    assert sum(gradient.trials for gradient in renewed.gradients) == sum(gradient.trials for gradient in fitted.gradients) + 2


def test_an_answer_goes_past_networks_that_are_known_to_break_the_budget(
    copy: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever was measured, one of the two holds: the answer is not known to break its budget, or every network is too slow."""
    job = read_run(copy.path, Progress())
    fastest = min(c.predicted_ms for front in SearchState(job).frontiers.values() for c in front)
    masternet = SearchState(job).reference_ms
    for budget in ("0.7x", "0.9x", "1.1x", "1.5x"):
        assert main(["select", str(copy.path), "--budget", budget, "--json"]) in (0, NONE_MET)
        (choice,) = json.loads(capsys.readouterr().out.splitlines()[-1])["choices"]
        assert choice["within"] is not False or float(budget[:-1]) * masternet < 2 * fastest


def test_every_answer_is_explained(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "select", copy.path)
    answers = [choice for choice in found["choices"] if choice["within"] is not False]
    assert answers
    assert [why["network"] for why in found["explanations"]] == [choice["network"] for choice in answers]
    for why in found["explanations"]:
        assert {step["direction"] for step in why["steps"]} <= {"wider", "narrower", "deeper", "shallower"}
        assert why["steps"]


def test_the_next_trials_are_named_and_nothing_is_written(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(copy.path)
    found = answer(capsys, "select", copy.path, "--suggest", 2)
    planned = {trial.id for trial in planned_trials(read_run(copy.path, Progress()))}
    proposed = [proposal["trial"]["network"] for proposal in found["next"]]
    assert 0 < len(proposed) <= 2
    assert not {trial.network for trial in planned_trials(read_run(copy.path, Progress()))} & set(proposed)
    assert planned == set(read_results(copy.trials))
    assert stamps(copy.path) == before


def test_more_trials_are_those_that_were_named_and_stay_in_the_plan(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    named = [p["trial"]["network"] for p in answer(capsys, "select", copy.path, "--suggest", 2)["next"]]
    before = len(read_results(copy.trials))
    answer(capsys, "distill", copy.path, "--extra", 2)
    after = read_results(copy.trials)
    assert sorted(result.network for result in list(after.values())[before:]) == sorted(named)
    assert len(after) == before + len(named)
    assert answer(capsys, "distill", copy.path)["trials"] == len(after), "asked once more, nothing is run"
    assert len(read_results(copy.trials)) == len(after)


def test_structures_can_be_drawn_as_the_paper_does_with_what_the_draw_misses(
    copy: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (exact,) = answer(capsys, "select", copy.path, "--budget", "4x")["choices"]
    text = (
        copy.recipe_file.read_text()
        .replace("method: exact", "method: random")
        .replace("random_samples: 100000", "random_samples: 1")
    )
    copy.recipe_file.write_text(text)
    found = answer(capsys, "select", copy.path, "--budget", "4x")
    (drawn,), (why,) = found["choices"], found["explanations"]
    missed = exact["predicted_accuracy"] - drawn["predicted_accuracy"]
    assert missed >= 0
    assert why["short_of_best"] == pytest.approx(missed)


def test_a_validation_trains_what_no_trial_was_of_and_repeats_nothing(
    copy: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "validate", copy.path, "--n", 6, "--trainings", 2)
    networks = {verdict["subject"]["network"] for verdict in found["verdicts"]}
    trials = {result.network for result in read_results(copy.trials).values()}
    assert 4 <= len(networks) <= 6  # one that cannot be measured or trained is left out
    assert not networks & trials
    assert [verdict["subject"]["role"] for verdict in found["verdicts"]].count("frontier") == 1
    assert all(len(verdict["accuracies"]) == 2 for verdict in found["verdicts"])
    assert len(found["ceiling"]) == 2
    before = stamps(copy.path / "validation")
    assert answer(capsys, "validate", copy.path, "--n", 6, "--trainings", 2)["verdicts"] == found["verdicts"]
    assert stamps(copy.path / "validation") == before
    lost = next(path for path in (copy.path / "validation").glob("*.json"))
    lost.unlink()
    assert answer(capsys, "validate", copy.path, "--n", 6, "--trainings", 2)["verdicts"] == found["verdicts"]
    assert "networks that no trial has trained" in write_report(read_run(copy.path, Progress())).read_text()
    assert Validation.load(copy.validation).epochs == found["epochs"]


def test_a_validation_of_too_few_networks_is_refused_in_one_line(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(copy.path), "--n", "2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not copy.validation.exists()
