"""Checkpoints of trials that take long, so that a kill costs minutes and not the hours of a whole group.

All trials of a group are saved together, each in a file of its own that names how far it has come.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from genet.errors import StorageError
from genet.files import read_checked, remove_checked, write_checked
from genet.trials.plan import Trial

SHARE = 20  # saving takes at most one part in so many of the time


class Place(NamedTuple):
    """How far a trial has come: whole epochs, and steps of the next."""

    epoch: int
    step: int


BEGINNING = Place(0, 0)


class Checkpoints:
    """The checkpoints of a search's trials; none where there is no folder for them."""

    def __init__(self, folder: Path | None, every_s: float = math.inf) -> None:
        self._folder, self._every_s = folder, every_s
        self._next = time.monotonic() + self._every_s

    @property
    def due(self) -> bool:
        """Whether it is time to save again."""
        return self._folder is not None and time.monotonic() >= self._next

    def write(self, states: Mapping[Trial, Callable[[], dict[str, Any]]], place: Place) -> None:
        """Save these trials; what they had saved before is deleted."""
        if self._folder is None:
            return
        start = time.monotonic()
        for trial, state in states.items():
            before = self._files(trial)
            buffer = io.BytesIO()
            torch.save(state(), buffer)
            write_checked(self._folder / f"{trial.id}.{place.epoch}.{place.step}.checkpoint", buffer.getvalue())
            for path in before:
                remove_checked(path)
        now = time.monotonic()
        self._next = now + max(self._every_s, SHARE * (now - start))

    def place(self, trial: Trial) -> Place:
        """Where the trial can go on."""
        return max((_place(path) for path in self._files(trial)), default=BEGINNING)

    def read(self, trial: Trial, device: torch.device) -> dict[str, Any]:
        """The state saved at `place`."""
        (path,) = [path for path in self._files(trial) if _place(path) == self.place(trial)]
        state: dict[str, Any] = torch.load(io.BytesIO(read_checked(path)), map_location=device, weights_only=True)
        return state

    def forget(self, trial: Trial) -> None:
        """The trial's result is in the journal: only who writes that may forget."""
        for path in self._files(trial):
            remove_checked(path)

    def sweep(self, wanted: Iterable[Trial]) -> None:
        """Delete what belongs to none of these trials."""
        ids = {trial.id for trial in wanted}
        for path in self._folder.glob("*.checkpoint") if self._folder else ():
            if path.name.split(".")[0] not in ids:
                remove_checked(path)

    def _files(self, trial: Trial) -> list[Path]:
        """Checkpoints of the trial that are whole; a kill between two writes may leave two."""
        if self._folder is None:
            return []
        return [path for path in self._folder.glob(f"{trial.id}.*.checkpoint") if _whole(path)]


def _place(path: Path) -> Place:
    epoch, step = path.name.split(".")[1:3]
    return Place(int(epoch), int(step))


def _whole(path: Path) -> bool:
    try:
        read_checked(path)
    except StorageError:
        return False
    return True
