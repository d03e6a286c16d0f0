"""Checkpoints of trials that take long, so that a kill costs minutes and not the hours of a whole group.

All trials of a group are saved together, each in a file of its own that names how far it has come.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import torch

from genet.errors import StorageError
from genet.storage import digest, read_checked, remove_checked, write_checked
from genet.training.learner import number_format
from genet.trials.context import TrialContext
from genet.trials.plan import Trial

SHARE = 20  # the largest share of the time that saving may take is one over this


class CheckpointPlace(NamedTuple):
    """How far a trial has come: whole epochs, and steps of the next."""

    epoch: int
    step: int


BEGINNING = CheckpointPlace(0, 0)


class TrialCheckpoints:
    """The checkpoints of a search's trials on a kind of device; none if the context has no folder for them."""

    def __init__(self, context: TrialContext, device: torch.device) -> None:
        self._folder, self._every_s = context.folder, context.checkpoint_every_s
        self._context_digest = ""  # named, as a trial must not go on with other weights
        if context.folder:
            self._context_digest = digest(f"{context.digest}/{number_format(device)}")[:8]
        self._next = time.monotonic() + self._every_s

    @property
    def due(self) -> bool:
        """Return whether it is time to save again."""
        return self._folder is not None and time.monotonic() >= self._next

    def write(self, states: Mapping[Trial, Callable[[], dict[str, Any]]], place: CheckpointPlace) -> None:
        """Save these trials; their earlier ones are deleted. On a full disk they go on without."""
        if self._folder is None:
            return
        start = time.monotonic()
        with contextlib.suppress(StorageError):
            for trial, state in states.items():
                before = self._files(trial)
                buffer = io.BytesIO()
                torch.save(state(), buffer)
                name = f"{trial.id}-{self._context_digest}.{place.epoch}.{place.step}.checkpoint"
                write_checked(self._folder / name, buffer.getvalue())
                for path in before:
                    remove_checked(path)
        now = time.monotonic()
        self._next = now + max(self._every_s, SHARE * (now - start))

    def place(self, trial: Trial) -> CheckpointPlace:
        """Return the place from which the trial can be resumed."""
        return max((_place(path) for path in self._files(trial) if _whole(path)), default=BEGINNING)

    def read(self, trial: Trial, device: torch.device) -> dict[str, Any]:
        """Return the state saved at `place`."""
        path = max(filter(_whole, self._files(trial)), key=_place)
        state: dict[str, Any] = torch.load(io.BytesIO(read_checked(path)), map_location=device, weights_only=True)
        return state

    def _files(self, trial: Trial) -> list[Path]:
        """Return checkpoints of the trial; a kill between two writes may leave two."""
        return list(self._folder.glob(f"{trial.id}-{self._context_digest}.*.checkpoint")) if self._folder else []


def forget(folder: Path, ids: Set[str]) -> None:
    """Delete all checkpoints of these trials. Only the process that has written their results into the journal may do so."""
    for path in folder.glob("*.checkpoint*"):
        if path.name.split("-")[0] in ids:
            remove_checked(path.with_name(path.name.removesuffix(".sha256")))


def _place(path: Path) -> CheckpointPlace:
    _, epoch, step, _ = path.name.split(".")
    return CheckpointPlace(int(epoch), int(step))


def _whole(path: Path) -> bool:
    try:
        read_checked(path)
    except StorageError:
        return False
    return True
