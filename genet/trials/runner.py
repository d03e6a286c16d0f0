"""Runs the trials that the journal lacks; each finished one is in the journal before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from pydantic import ValidationError

from genet.errors import EvidenceError
from genet.files import Journal
from genet.trials.plan import Trial, TrialResult


class Runner(Protocol):
    """How trials are executed: yields one result per trial, in any order, as soon as it is there."""

    def __call__(self, trials: Iterable[Trial], work: Callable[[Trial], TrialResult]) -> Iterator[TrialResult]:
        """Run `work` on every trial."""
        ...


def in_process(trials: Iterable[Trial], work: Callable[[Trial], TrialResult]) -> Iterator[TrialResult]:
    """One trial after the other, in this process."""
    return map(work, trials)


def read_results(journal: Journal) -> dict[str, TrialResult]:
    """Trial id -> result. A damaged line counts as a trial not run."""
    results = {}
    for record in journal.read().records:
        try:
            result = TrialResult.model_validate(record)
        except ValidationError:
            raise EvidenceError(
                f"{journal.path}: every line must be a trial's result, got {record!r:.80}; "
                "move the file away to run the trials anew"
            ) from None
        results[result.trial] = result
    return results


def run_trials(
    trials: Iterable[Trial],
    journal: Journal,
    runner: Runner,
    work: Callable[[Trial], TrialResult],
    finished: Callable[[TrialResult], None],
) -> dict[str, TrialResult]:
    """Run what is missing and return every trial's result by id."""
    results = read_results(journal)
    for result in runner([trial for trial in trials if trial.id not in results], work):
        journal.append(result.model_dump(mode="json"))
        results[result.trial] = result
        finished(result)
    return results
