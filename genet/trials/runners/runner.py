"""The interface of runners of trials and trainings. Each finished trial is in the journal before it is reported."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

from genet.errors import EvidenceError
from genet.storage import Journal
from genet.trials.plan import Trial
from genet.trials.results import Event, FailureKind, Result, Task, TrialResult

ALIKE = 3  # trials that fail alike by a bug or by the data, after which the rest is not tried


class Work(Protocol):
    """The work on a group of tasks, such as the trials of one super-block. It can be pickled."""

    def __call__(self, tasks: Sequence[Any], /) -> Iterator[Event]:
        """Run the group; yield one result per task, and in between progress that adds up to the number of tasks."""
        ...

    def failed(self, task: Any, kind: FailureKind, message: str, /) -> Result:
        """Return the result of a task that its worker could not end."""
        ...

    @property
    def silence_s(self) -> float | None:
        """Seconds without an event after which a worker counts as hanging; None if silence means nothing."""
        ...

    def on(self, device: str, share: float = 1.0) -> Work:
        """Return the same work on another device, with this share of its memory."""
        ...


class Runner(Protocol):
    """The execution of groups of tasks. Every task gets one result, whatever happens to its worker."""

    @property
    def workers(self) -> int:
        """Groups at a time."""
        ...

    @property
    def speed(self) -> float | None:
        """Speed relative to this process alone; None if it is not known beforehand."""
        ...

    def __call__(self, groups: Iterable[Sequence[Task]], work: Work) -> Generator[Event]:
        """Run `work` on every group; yield events in any order, as soon as they are there. Closing it stops all work."""
        ...


class InProcess:
    """A runner of one group after the other, in this process."""

    workers, speed = 1, 1.0

    def __call__(self, groups: Iterable[Sequence[Task]], work: Work) -> Generator[Event]:
        """See `Runner`."""
        for group in groups:
            yield from work(group)


def run_trials(
    groups: Iterable[Sequence[Trial]], journal: Journal, runner: Runner, work: Work, tell: Callable[[Event], None]
) -> None:
    """Run the groups; only this function writes the journal.

    EvidenceError after three trials of different super-blocks, or of the only one, that failed alike by a bug, by the images or
    for lack of kernels, as the others would too.
    """
    groups = list(groups)
    enough = min(2, len({trial.index for group in groups for trial in group}))
    alike: dict[str, list[int]] = {}  # the super-blocks of the trials that failed by this message
    with closing(runner(groups, work)) as events:
        for event in events:
            if isinstance(event, TrialResult):
                journal.append(event.model_dump(mode="json"))
            tell(event)
            if isinstance(event, TrialResult) and event.failure and event.failure.kind in ("bug", "data", "no kernels"):
                found = alike.setdefault(event.failure.message, [])
                found.append(event.index)
                if len(found) >= ALIKE and len(set(found)) >= enough:
                    raise EvidenceError(f"{len(found)} trials failed in the same way: {event.failure}; the rest were not tried")
