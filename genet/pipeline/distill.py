"""Distill: the trials, run by one worker or many, and their progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from genet.device import give_back_memory
from genet.errors import EvidenceError, RunError
from genet.latency.staircase.space_sweeps import Staircases
from genet.models.weights import load_weights
from genet.names import counted, damaged_lines, quoted
from genet.pipeline.context import RunContext
from genet.pipeline.master import anew_with, master_schedule
from genet.progress import Tracker, WorkItem, duration
from genet.search.outcome import TrainedNetwork
from genet.search.unlearnt import remedy
from genet.storage import Record, is_locked
from genet.trials.checkpoint import forget
from genet.trials.context import TrialContext
from genet.trials.plan import Trial, groups, plan_trials
from genet.trials.probe import expected_seconds
from genet.trials.results import TRIED_AGAIN, Event, ProgressDelta, TrialResult, progress_by_superblock, read_results
from genet.trials.runners.opening import open_runner
from genet.trials.runners.runner import Runner, run_trials
from genet.trials.work import FineTune

PACE_EVERY_S = 2.0
AS_THEY_ARE = "its weights were taken as they are (master.epochs and master.learning_rate train them further)"
PRICE = (  # of going on although the MasterNet has learnt nothing
    "its trials say little, so networks are chosen almost blindly, and full trainings may learn nothing either, "
    "at the cost of a whole search"
)
OpenRunner = Callable[[str], Runner]  # the kinds of a recipe's device


class Pace(Record):
    """The pace of the trials, written every few seconds for other processes to read."""

    workers: int
    position: float  # trials done, including parts of those under way
    total: int
    elapsed_s: float
    left_s: float | None
    updated: float  # seconds since 1970


class MoreTrials(Record):
    """Requested trials beyond the recipe's, in the order of the requests."""

    trials: tuple[Trial, ...]


def run_planned_trials(
    job: RunContext, runner: OpenRunner = open_runner, retry: bool = False, any_master: bool = False
) -> tuple[TrialResult, ...]:
    """Run the trials: perturbed networks with the MasterNet's weights, fine-tuned. Returns all their results.

    Trials that failed because of the machine or the images are run again; with `retry` all except those with a non-finite loss.
    EvidenceError if the MasterNet has learnt nothing, so that trials would tell nothing, unless `any_master` is set.
    """
    planned, _ = planned_trials(job), job.splits  # the images must not have changed
    results = {result.id: result for result in _results_of(job, planned)}
    missing = [trial for trial in planned if trial.id not in results or _should_rerun(results[trial.id], retry)]
    damaged = job.folder.trials.read().damaged
    if damaged and len(results) < len(planned):
        job.progress.say(f"  {damaged_lines('trials.jsonl', damaged)}, and their trials run again")
    if retry and not missing:
        job.progress.say("  there is no trial to run again")
    forget(job.folder.trials_under_way, {trial.id for trial in planned} - {trial.id for trial in missing})
    if missing:
        weights = job.folder.master.with_suffix(".safetensors")
        if not (job.folder.master.exists() and weights.exists()):
            raise RunError(f"{weights}: does not exist, but the trials need the MasterNet; `genet master RUN` trains it")
        _check_learnt(job, any_master)
        opened = runner(job.recipe.measure.device if job.recipe.measure.here else "auto")
        work = FineTune(trial_context(job), str(job.device))
        with _show_progress(job, planned, missing, results, opened.workers) as tell:
            expected = "expected time not known yet"
            if opened.speed:
                expected = f"about {duration(expected_seconds(work.context, missing, job.device) / opened.speed)}"
            give_back_memory(job.device)
            job.progress.say(f"  {counted(len(missing), 'trial')} to run, {opened.workers} at a time, {expected}")
            run_trials(groups(missing, opened.workers), job.folder.trials, opened, work, tell)
    found = _results_of(job, planned)
    _report_missing(job, planned, found)
    return found


def _check_learnt(job: RunContext, any_master: bool) -> None:
    """Raise EvidenceError if the MasterNet is no better than chance; only report it if `any_master` is set."""
    master, classes = job.folder.read(job.folder.master, TrainedNetwork), job.recipe.space.input.classes
    why = master.why_unlearnt(classes)
    if why and any_master:
        job.progress.say(f"  going on although the MasterNet has learnt nothing: {why}; {PRICE}")
    elif why:
        schedule = master_schedule(job.recipe)
        losses = [loss for _, loss, _ in master.curve]
        cause, change = remedy(losses, schedule, classes) if schedule else (AS_THEY_ARE, "")
        command = anew_with(job, change) if change else f"genet check {quoted(job.folder.recipe_file)}"
        raise EvidenceError(
            f"the MasterNet has learnt nothing: {why}; {cause}, unless the augmentation hides what tells the classes "
            "apart, or images are in the wrong folders (for other images give --new-run); --any-master goes on anyway, "
            f"but {PRICE}; next: {command}"
        )


def trial_context(job: RunContext) -> TrialContext:
    """Return the common context of all trials of the run."""
    recipe = job.recipe
    masternet = load_weights(job.masternet, job.folder.master.with_suffix(".safetensors"))
    return TrialContext(
        masternet, job.splits, recipe.distill, recipe.search_resolution, recipe.seed, job.folder.trials_under_way.absolute()
    )


def planned_trials(job: RunContext) -> tuple[Trial, ...]:
    """Return the trials of this run; they depend on the recipe, on the staircases found, and on later requests."""
    recipe, resolution = job.recipe, job.recipe.search_resolution
    staircases = job.folder.read(job.folder.staircase, Staircases)
    kept = job.kept_widths(staircases, resolution)
    planned = plan_trials(job.space, kept, resolution, recipe.seed, recipe.distill)
    return (*planned, *(trial for trial in requested_trials(job) if trial not in planned))


def requested_trials(job: RunContext) -> tuple[Trial, ...]:
    """Return the requested trials beyond the recipe's."""
    return MoreTrials.load(job.folder.more_trials).trials if job.folder.more_trials.exists() else ()


def request_trials(job: RunContext, trials: Iterable[Trial]) -> None:
    """Add trials to the plan; the next `distill` runs them."""
    requested = dict.fromkeys([*requested_trials(job), *trials])
    MoreTrials(trials=tuple(requested)).save(job.folder.more_trials)


def finished_trials(job: RunContext) -> tuple[TrialResult, ...]:
    """Return the results of the planned trials so far. The journal may hold others, from other staircases."""
    return _results_of(job, planned_trials(job))


def _results_of(job: RunContext, planned: Sequence[Trial]) -> tuple[TrialResult, ...]:
    results = read_results(job.folder.trials)
    return tuple(results[trial.id] for trial in planned if trial.id in results)


def _should_rerun(result: TrialResult, retry: bool) -> bool:
    """Return whether a trial that has a result is to be run again."""
    if result.failure is None:
        return False
    return result.failure.kind in TRIED_AGAIN or (retry and result.failure.kind != "non-finite loss")


def trial_pace(job: RunContext) -> Pace | None:
    """Return the pace that the working process wrote last; None if none works. A killed process leaves a file, but no lock."""
    if not (job.folder.trials_pace.exists() and is_locked(job.folder.path)):
        return None
    return Pace.load(job.folder.trials_pace)


@contextmanager
def _show_progress(
    job: RunContext, planned: Sequence[Trial], missing: Sequence[Trial], results: dict[str, TrialResult], workers: int
) -> Iterator[Callable[[Event], None]]:
    """Show the progress of all trials and of every super-block, and keep the file that shows it to other terminals."""
    counted = {trial.id for trial in missing}
    kept = {id: result for id, result in results.items() if id not in counted}

    def count(title: str, trials: Sequence[Trial], part: bool) -> WorkItem:
        return WorkItem(title, len(trials), sum(trial.id in kept for trial in trials), part)

    indices = sorted({trial.index for trial in planned})
    parts = [count(f"  super-block {index + 1}", [t for t in planned if t.index == index], True) for index in indices]
    with job.progress.tracks([count("trials", planned, False), *parts]) as (whole, *each):
        by_index, log = dict(zip(indices, each, strict=True)), job.log.under("trials")
        written = 0.0

        def tell(event: Event) -> None:
            nonlocal written
            if isinstance(event, ProgressDelta):
                whole.advance_by(event.tasks, event.earlier)
            elif isinstance(event, TrialResult):
                kept[event.id] = event
                if event.failure is None or event.failure.kind not in TRIED_AGAIN:
                    forget(job.folder.trials_under_way, {event.id})
                whole.complete(_note(event))
                if event.accuracy is not None:
                    log.write(whole.done, {f"super-block {event.index + 1}": event.accuracy})
                here = [trial for trial in planned if trial.index == event.index]
                (standing,) = progress_by_superblock(here, [kept[trial.id] for trial in here if trial.id in kept])
                by_index[event.index].advance(str(standing))
            if time.monotonic() - written > PACE_EVERY_S:
                _pace_of(whole, workers).save(job.folder.trials_pace)
                written = time.monotonic()

        _pace_of(whole, workers).save(job.folder.trials_pace)
        try:
            yield tell
        finally:
            job.folder.trials_pace.unlink(missing_ok=True)
            log.close()


def _pace_of(tracker: Tracker, workers: int) -> Pace:
    return Pace(
        workers=workers,
        position=tracker.position,
        total=tracker.total or 0,
        elapsed_s=tracker.elapsed_s,
        left_s=tracker.left_s,
        updated=time.time(),
    )


def _note(result: TrialResult) -> str:
    found = f"failed, {result.failure}" if result.failure else f"{result.accuracy:.1%}"
    return f"super-block {result.index + 1} as {result.superblock}: {found}"


def _report_missing(job: RunContext, planned: Sequence[Trial], found: Sequence[TrialResult]) -> None:
    """Report the super-blocks with failed trials, and those without any evidence."""
    for standing in progress_by_superblock(planned, found):
        kinds = sorted({str(r.failure.kind) for r in found if r.index == standing.index and r.failure})
        if kinds:
            left = sum(r.index == standing.index and r.failure is None and not (r.control or r.also) for r in found)
            lacks = f"{counted(left, 'other')} succeeded" if left else "none succeeded, so it stays as in the MasterNet"
            job.progress.say(
                f"  super-block {standing.index + 1}: {counted(standing.failed, 'trial')} failed ({', '.join(kinds)}); {lacks}"
            )
