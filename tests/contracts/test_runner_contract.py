"""What every runner must do, whichever way it executes trials, and whoever of its workers dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from genet.config.recipe import Distill, Recipe
from genet.errors import EvidenceError, RunError
from genet.models.build import build
from genet.storage import Journal
from genet.training.image_sets import TensorImages
from genet.training.splits import Splits, load_data
from genet.trials.context import TrialContext
from genet.trials.plan import Trial, groups, plan_trials
from genet.trials.results import Event, ProgressDelta, TrialResult, failed, read_results
from genet.trials.runners.on_ray import OnRay
from genet.trials.runners.processes import Processes
from genet.trials.runners.runner import InProcess, Runner, Work, run_trials
from genet.trials.work import FineTune
from tests.fixtures.stand_ins import Buggy, Deadly, DiesLast, DoesNotArrive, Hangs, OnAnyDevice, Slow, answer
from tests.fixtures.tiny import tiny_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = Distill(epochs=1, batch=128, learning_rate=0.1)
RUNNERS: dict[str, Callable[[], Runner]] = {
    "in-process": InProcess,
    "processes": lambda: Processes(["cpu", "cpu"]),
    "ray": lambda: OnRay(None, "cpu"),
}
RAY = pytest.param("ray", marks=pytest.mark.slow)


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A small cluster for all tests; its start takes longer than they do."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def opened(request: pytest.FixtureRequest) -> Runner:
    if request.param == "ray":
        request.getfixturevalue("ray_here")
    return RUNNERS[request.param]()


@pytest.fixture(scope="module", params=["in-process", "processes", RAY])
def runner(request: pytest.FixtureRequest) -> Runner:
    return opened(request)


@pytest.fixture(scope="module", params=["processes", RAY])
def apart(request: pytest.FixtureRequest) -> Runner:
    """The runners whose workers can die without their parent."""
    return opened(request)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def trials(recipe: Recipe) -> tuple[Trial, ...]:
    return plan_trials(recipe.space, recipe.space.widths_on_offer(), 16, 0, SHORT)


def walked(events: Sequence[Event]) -> float:
    return sum(event.tasks for event in events if isinstance(event, ProgressDelta))


def results_of(events: Sequence[Event]) -> list[TrialResult]:
    return [event for event in events if isinstance(event, TrialResult)]


def events_of(runner: Runner, groups: Sequence[Sequence[Trial]], work: Work) -> list[Event]:
    with closing(runner(groups, work)) as events:
        return list(events)


# When all is well


@dataclass
class Told:
    """What `tell` heard, and what the journal held when it did."""

    events: list[Event]
    journaled: list[bool]


@pytest.fixture(scope="module", params=RUNNERS)
def told(request: pytest.FixtureRequest, trials: tuple[Trial, ...], tmp_path_factory: pytest.TempPathFactory) -> Told:
    runner = opened(request)
    journal, heard = Journal(tmp_path_factory.mktemp("run") / "trials.jsonl"), Told([], [])

    def tell(event: Event) -> None:
        heard.events.append(event)
        if isinstance(event, TrialResult):
            heard.journaled.append(read_results(journal).get(event.id) == event)

    run_trials(groups(trials, runner.workers), journal, runner, OnAnyDevice(), tell)
    return heard


def test_every_trial_has_one_result_which_is_its_own(told: Told, trials: tuple[Trial, ...]) -> None:
    found = results_of(told.events)
    assert len(found) == len(trials)
    assert {result.id: result for result in found} == {trial.id: answer(trial) for trial in trials}


def test_a_result_is_in_the_journal_before_anybody_hears_of_it(told: Told, trials: tuple[Trial, ...]) -> None:
    assert told.journaled == [True] * len(trials)


def test_strides_add_up_to_the_trials(told: Told, trials: tuple[Trial, ...]) -> None:
    assert walked(told.events) == pytest.approx(len(trials))


def test_without_trials_there_is_nothing_to_do(runner: Runner) -> None:
    assert events_of(runner, [], OnAnyDevice()) == []


def test_a_runner_says_how_many_work_side_by_side(runner: Runner) -> None:
    assert runner.workers == (1 if isinstance(runner, InProcess) else 2)


def test_closing_the_events_stops_the_work(runner: Runner, trials: tuple[Trial, ...], tmp_path: Path) -> None:
    with closing(runner([[trial] for trial in trials], Slow(tmp_path))) as events:
        next(event for event in events if isinstance(event, TrialResult))
    time.sleep(0.5)  # what was begun may end
    begun = len(list(tmp_path.iterdir()))
    assert 1 <= begun < len(trials)
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == begun


def test_three_trials_that_fail_alike_stop_the_rest_and_all_results_so_far_are_kept(
    runner: Runner, trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    journal, heard = Journal(tmp_path / "trials.jsonl"), list[Event]()
    alone = [[trial] for trial in trials]
    with pytest.raises(EvidenceError, match=r"\d+ trials failed in the same way: bug: ZeroDivisionError: x \(blocks\.py:7\)"):
        run_trials(alone, journal, runner, Buggy(trials[0].id), heard.append)
    kept = read_results(journal)
    assert kept == {result.id: result for result in results_of(heard)}
    bad = [result for result in kept.values() if result.failure]
    assert 3 <= len(bad) < len(trials) - 1 or len({result.index for result in bad}) == len({trial.index for trial in trials})
    if isinstance(runner, InProcess):
        assert kept[trials[0].id] == answer(trials[0])


def test_one_super_block_whose_trials_all_fail_alike_stops_nothing(trials: tuple[Trial, ...], tmp_path: Path) -> None:
    class Partly(OnAnyDevice):
        def result(self, trial: Trial) -> TrialResult:
            return failed(trial, "bug", "x") if trial.index == 0 else answer(trial)

    run_trials(groups(trials, 1), Journal(tmp_path / "trials.jsonl"), InProcess(), Partly(), lambda _: None)
    assert len(read_results(Journal(tmp_path / "trials.jsonl"))) == len(trials)


def test_a_worker_that_is_killed_once_all_its_results_are_there_costs_nothing(trials: tuple[Trial, ...], tmp_path: Path) -> None:
    runner, journal = Processes(["cpu"]), Journal(tmp_path / "trials.jsonl")
    run_trials([trials], journal, runner, DiesLast(), lambda _: None)
    assert read_results(journal) == {trial.id: answer(trial) for trial in trials}


def test_trials_that_fail_each_in_their_own_way_stop_nothing(trials: tuple[Trial, ...], tmp_path: Path) -> None:
    class Varied(OnAnyDevice):
        def result(self, trial: Trial) -> TrialResult:
            return failed(trial, "bug", trial.id)

    run_trials([trials], Journal(tmp_path / "trials.jsonl"), InProcess(), Varied(), lambda _: None)
    assert len(read_results(Journal(tmp_path / "trials.jsonl"))) == len(trials)


def test_many_trials_that_are_the_networks_own_fault_stop_nothing(trials: tuple[Trial, ...], tmp_path: Path) -> None:
    class Diverging(OnAnyDevice):
        def result(self, trial: Trial) -> TrialResult:
            return failed(trial, "non-finite loss", "the loss must stay finite")

    run_trials([trials], Journal(tmp_path / "trials.jsonl"), InProcess(), Diverging(), lambda _: None)
    assert len(read_results(Journal(tmp_path / "trials.jsonl"))) == len(trials)


@pytest.fixture(scope="module")
def fine_tune(recipe: Recipe) -> FineTune:
    """The real work on a few hundred digits."""
    whole = load_data(recipe.data, recipe.space.input, 0)
    sets = (TensorImages(*next(images.batches(256, 8))) for images in (whole.train, whole.nas_validation, whole.test))
    return FineTune(TrialContext(build(recipe.space.masternet(16)), Splits(*sets), SHORT, 16, seed=3), "cpu")


@pytest.fixture(scope="module")
def accuracies(fine_tune: FineTune, trials: tuple[Trial, ...]) -> dict[str, float | None]:
    """Of every trial alone."""
    return {result.id: result.accuracy for trial in trials for result in results_of(list(fine_tune([trial])))}


@pytest.mark.slow
def test_the_accuracies_are_the_same_whoever_runs_the_trials(
    runner: Runner, trials: tuple[Trial, ...], fine_tune: FineTune, accuracies: dict[str, float | None]
) -> None:
    found = results_of(events_of(runner, groups(trials, runner.workers), fine_tune))
    assert {result.id: result.accuracy for result in found} == accuracies
    assert None not in accuracies.values()
    assert len(set(accuracies.values())) > 1


# When a worker dies


def test_a_worker_killed_once_changes_nothing(apart: Runner, trials: tuple[Trial, ...], tmp_path: Path) -> None:
    work = Deadly(trials[-1].id, tmp_path / "died", always=False)
    events = events_of(apart, groups(trials, 1), work)
    found = results_of(events)
    assert (tmp_path / "died").exists()
    assert len(found) == len(trials)
    assert {result.id: result for result in found} == {trial.id: answer(trial) for trial in trials}
    assert walked(events) == pytest.approx(len(trials))


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_its_trials_are_tried_again(trials: tuple[Trial, ...], tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl")
    run_trials(groups(trials, 2), journal, RUNNERS["processes"](), Hangs(trials[0].id, tmp_path / "mark"), lambda _: None)
    assert (tmp_path / "mark").exists()
    assert read_results(journal) == {trial.id: answer(trial) for trial in trials}


@pytest.mark.slow
def test_a_trial_that_always_kills_its_worker_fails_and_other_groups_do_not(
    apart: Runner, trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    first, second = groups(trials, 1)
    killer = second[2]
    events = events_of(apart, [first, second], Deadly(killer.id, tmp_path / "died", always=True))
    found = {result.id: result for result in results_of(events)}
    assert len(results_of(events)) == len(found) == len(trials)
    failure = found[killer.id].failure
    assert failure is not None
    assert failure.kind == "worker killed"
    assert found[killer.id].accuracy is None
    assert {id: found[id] for id in (trial.id for trial in first)} == {trial.id: answer(trial) for trial in first}
    assert {result.failure.kind for result in found.values() if result.failure} == {"worker killed"}
    if isinstance(apart, Processes):
        assert sum(result.failure is not None for result in found.values()) <= len(second) / 2  # those of its half
    assert walked(events) == pytest.approx(len(trials))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_does_not_start_is_said_and_nothing_is_tried_for_ever(trials: tuple[Trial, ...]) -> None:
    with pytest.raises(RunError, match="a worker on cpu failed to start 3 times, with exit code 1; use"):
        events_of(Processes(["cpu"]), [trials], DoesNotArrive())
