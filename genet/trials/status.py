"""Progress of the trials of every super-block."""

from __future__ import annotations

from collections.abc import Iterable

from genet.storage import Record
from genet.trials.plan import Trial
from genet.trials.results import TrialResult


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
