"""What every runner must do, whichever way it executes trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from genet.errors import EvidenceError
from genet.files import Journal
from genet.trials.plan import Trial, TrialResult, plan_trials
from genet.trials.runner import Runner, in_process, read_results, run_trials
from tests.tiny import tiny_recipe

RUNNERS = {"in-process": in_process}


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> Runner:
    return RUNNERS[request.param]


@pytest.fixture
def trials(tmp_path: Path) -> tuple[Trial, ...]:
    space = tiny_recipe(tmp_path).space
    return plan_trials(space, space.widths_on_offer(), 16, 0)


def work(trial: Trial) -> TrialResult:
    """A stand-in for training: the contract is about bookkeeping."""
    return TrialResult(
        trial=trial.id,
        index=trial.index,
        superblock=trial.superblock,
        accuracy=trial.superblock.width / 100,
        failure=None,
        seconds=0.0,
    )


class Killed(BaseException):
    """Stands for a signal."""


def test_every_trial_gets_its_own_result(runner: Runner, trials: tuple[Trial, ...], tmp_path: Path) -> None:
    results = run_trials(trials, Journal(tmp_path / "t.jsonl"), runner, work, lambda _: None)
    assert results == {trial.id: work(trial) for trial in trials}


def test_finished_trials_are_not_run_again(runner: Runner, trials: tuple[Trial, ...], tmp_path: Path) -> None:
    journal, ran = Journal(tmp_path / "t.jsonl"), []
    run_trials(trials[:2], journal, runner, work, lambda _: None)
    run_trials(trials, journal, runner, work, lambda result: ran.append(result.trial))
    assert sorted(ran) == sorted(trial.id for trial in trials[2:])


def test_a_result_is_on_the_disk_before_the_user_hears_of_it(runner: Runner, trials: tuple[Trial, ...], tmp_path: Path) -> None:
    journal = Journal(tmp_path / "t.jsonl")
    run_trials(trials, journal, runner, work, lambda result: _must_hold(journal, result))


def _must_hold(journal: Journal, result: TrialResult) -> None:
    assert read_results(journal)[result.trial] == result


def test_a_kill_loses_only_the_trial_at_work(runner: Runner, trials: tuple[Trial, ...], tmp_path: Path) -> None:
    journal = Journal(tmp_path / "t.jsonl")

    def dies_at_the_third(trial: Trial) -> TrialResult:
        if trial == trials[2]:
            raise Killed
        return work(trial)

    with pytest.raises(Killed):
        run_trials(trials, journal, runner, dies_at_the_third, lambda _: None)
    assert set(read_results(journal)) == {trial.id for trial in trials[:2]}
    assert len(run_trials(trials, journal, runner, work, lambda _: None)) == len(trials)


def test_a_line_that_is_no_result_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "t.jsonl")
    journal.append({"trial": "abc"})
    with pytest.raises(EvidenceError, match=r"t\.jsonl: every line must be a trial's result"):
        read_results(journal)
