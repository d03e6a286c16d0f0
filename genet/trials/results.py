"""The results of trials: an accuracy with its learning curve and its cost, or the failure; and what they tell together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import ValidationError

from genet.errors import EvidenceError
from genet.storage import Journal, Record
from genet.trials.plan import Change, Trial

FailureKind = Literal["out of memory", "non-finite loss", "data", "time limit", "worker killed", "no kernels", "bug"]
TRIED_AGAIN: tuple[FailureKind, ...] = ("data", "worker killed", "bug")  # not caused by the network: the next command tries again


class Failure(Record):
    """The failure of a trial; never an accuracy of 0."""

    kind: FailureKind
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class Seconds(Record):
    """The time of a trial by kind of work; a group's common work is divided among its trials.

    On a GPU a step is one piece: `training` holds its images and prefix too.
    """

    images: float = 0.0  # reading and augmenting
    prefix: float = 0.0  # the frozen part before the super-block
    training: float = 0.0
    statistics: float = 0.0  # of the batch normalisations, computed again at the end
    validation: float = 0.0

    @property
    def total(self) -> float:
        """The total time."""
        return self.images + self.prefix + self.training + self.statistics + self.validation


class TrialResult(Trial):
    """The result of a trial: NAS validation accuracy (0 to 1) after the last epoch, or the reason why there is none."""

    accuracy: float | None
    failure: Failure | None = None
    curve: tuple[float, ...] = ()  # NAS validation accuracy after every epoch
    group: int = 1  # trials that shared batches and prefix with it, itself included
    seconds: Seconds = Seconds()


@dataclass(frozen=True, slots=True)
class ProgressDelta:
    """Work done since the last event, in tasks; taken back (negative) if a group has to start again."""

    tasks: float
    earlier: bool = False  # done by an earlier run, and read from its checkpoints


class Task(Protocol):
    """A unit of work of a runner, a trial or a training; it can be pickled."""

    @property
    def id(self) -> str:
        """Names it."""
        ...


class Result(Task, Protocol):
    """The result of a task; it has the task's name."""

    @property
    def failure(self) -> Failure | None:
        """The failure; None if there is none."""
        ...


Event = ProgressDelta | Result


def failed(trial: Trial, kind: FailureKind, message: str, group: int = 1, seconds: Seconds | None = None) -> TrialResult:
    """Return the result of a trial that failed."""
    failure = Failure(kind=kind, message=message)
    return TrialResult(**{**dict(trial), "accuracy": None, "failure": failure}, group=group, seconds=seconds or Seconds())


def settled(curve: Sequence[float], patience: int) -> bool:
    """Return whether none of the last `patience` epochs was better than the best before them; never if patience is 0."""
    return 0 < patience < len(curve) and max(curve[-patience:]) <= max(curve[:-patience])


def read_results(journal: Journal) -> dict[str, TrialResult]:
    """Return trial id -> result, the latest if there are several. A damaged line counts as a trial not run."""
    results = {}
    for record in journal.read().records:
        try:
            result = TrialResult.model_validate(record)
        except ValidationError:
            raise EvidenceError(
                f"{journal.path}: every line must be a trial's result, got {record!r:.80}; "
                "move the file away to run the trials anew"
            ) from None
        results[result.id] = result
    return results


class Additivity(Record):
    """Root mean squares over all paired trials whose parts were tried too, of changes of accuracy against the controls."""

    paired_trials: int
    interaction: float  # of the difference between the change of a pair and the sum of its parts
    effect: float  # of the sums


def additivity(results: Iterable[TrialResult]) -> Additivity | None:
    """Return how well effects add up, as the regression assumes, by paired trials; None if none has parts to compare."""
    found = [(result, result.accuracy) for result in results if result.accuracy is not None]
    controls = {result.index: accuracy for result, accuracy in found if result.reference}
    single = {
        Change(index=result.index, superblock=result.superblock): accuracy - controls[result.index]
        for result, accuracy in found
        if not (result.also or result.control) and result.index in controls
    }
    pairs = []
    for result, accuracy in found:
        parts = [Change(index=result.index, superblock=result.superblock), *result.also]
        if result.also and result.index in controls and all(part in single for part in parts):
            pairs.append((accuracy - controls[result.index], sum(single[part] for part in parts)))
    if not pairs:
        return None
    return Additivity(
        paired_trials=len(pairs),
        interaction=math.sqrt(sum((change - total) ** 2 for change, total in pairs) / len(pairs)),
        effect=math.sqrt(sum(total**2 for _, total in pairs) / len(pairs)),
    )


class SuperBlockProgress(Record):
    """The progress of the trials of one super-block."""

    index: int
    planned: int
    done: int
    failed: int
    control: float | None  # accuracy of the MasterNet fine-tuned likewise
    best: float | None
    best_superblock: str | None
    seconds_per_trial: float | None

    def __str__(self) -> str:
        return "" if self.best is None else f"best {self.best:.1%} as {self.best_superblock}"


def progress_by_superblock(planned: Iterable[Trial], results: Iterable[TrialResult]) -> tuple[SuperBlockProgress, ...]:
    """Return the progress per super-block; paired trials are counted with their first."""
    planned, results = list(planned), list(results)
    found = []
    for index in sorted({trial.index for trial in planned}):
        here = [result for result in results if result.index == index]
        good = [result for result in here if result.accuracy is not None]
        single = [result for result in good if not result.also]
        best = max(single, key=lambda result: result.accuracy or 0.0, default=None)
        found.append(
            SuperBlockProgress(
                index=index,
                planned=sum(trial.index == index for trial in planned),
                done=len(here),
                failed=len(here) - len(good),
                control=next((result.accuracy for result in single if result.reference), None),
                best=best.accuracy if best else None,
                best_superblock=str(best.superblock) if best else None,
                seconds_per_trial=sum(result.seconds.total for result in good) / len(good) if good else None,
            )
        )
    return tuple(found)
