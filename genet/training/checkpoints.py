"""The checkpoints of one training, and the notes beside them on the end of an earlier process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from genet.errors import StorageError
from genet.storage import Record, read_checked, remove_checked, write_checked

PREEMPTED, BAD_BATCH = ".preempted.json", ".bad-batch.json"


class BadBatch(Record):
    """The facts of a batch with a non-finite loss; pixels and labels are this process's own."""

    epoch: int
    step: int
    learning_rate: float
    loss: str
    labels: tuple[int, ...]
    finite_pixels: float  # share
    largest_pixel: str


class Preempted(Record):
    """A note beside the checkpoint of a training that was asked to end (SIGTERM, Ctrl-C), until it is resumed."""

    epochs: int  # whole epochs done
    steps: int  # steps done of the next epoch
    at: str  # ISO 8601, UTC


class Checkpoints:
    """Checkpoints in two files in turn, so that a damaged one costs the progress since the other, and not the training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = [path, path.with_name(path.name + ".other")]
        self.damaged: list[Path] = []  # found by the last `read`

    def beside(self, mark: str) -> Path:
        """Return a file beside them that is named after them."""
        return self.path.with_suffix(mark)

    def delete_end_notes(self) -> None:
        """Delete the notes of an earlier process on its end."""
        for mark in (PREEMPTED, BAD_BATCH):
            self.beside(mark).unlink(missing_ok=True)

    def write(self, state: dict[str, Any]) -> None:
        """Save over the older of the two; the other one stays intact until this one is complete."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_checked(self._files[0], buffer.getvalue())
        self._files.reverse()

    def read(self) -> dict[str, Any] | None:
        """Return the most advanced state that is intact; None if there is none."""
        found = [(state, file) for file in self._files if (state := _whole(file))]
        self.damaged = [file for file in self._files if file.exists() and file not in [whole for _, whole in found]]
        if not found:
            return None
        state, newest = max(found, key=lambda each: (each[0]["epoch"], each[0]["step"]))
        self._files.sort(key=lambda file: file == newest)
        return state

    def remove(self) -> None:
        """Delete both, once the result is safe."""
        for file in self._files:
            remove_checked(file)


def _whole(path: Path) -> dict[str, Any] | None:
    """Return the state in a file; None if it is missing, damaged, or of an earlier version."""
    try:
        data = read_checked(path)
    except StorageError:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state if "loss" in state else None
