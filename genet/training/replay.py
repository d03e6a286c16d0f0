"""A function of tensors that is called over and over: recorded as a CUDA graph, so that the host launches it as a whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from genet.device import record_graph, side_stream
from genet.errors import first_line

CALLS_BEFORE = 3  # ordinary calls, in which libraries choose their kernels and allocators settle


class Replayed:
    """A function that calls `work` on inputs of fixed shapes; from the fourth call on a GPU replays its recording.

    The host's part of `work` happens only in the first four calls, so it must not depend on the call. Elsewhere, if `recorded` is
    false, or if the work cannot be captured (`refused` then says why), every call is an ordinary one. Call `forget` when it is no
    longer needed: a graph that the garbage collector frees while another is captured spoils that one.
    """

    def __init__(self, work: Callable[..., None], device: torch.device, recorded: bool = True) -> None:
        self._work: Callable[..., None] | None = work
        self._device, self._recorded = device, recorded and device.type == "cuda"
        self._calls, self._inputs = 0, tuple[Tensor, ...]()
        self._replay: Callable[[], None] | None = None
        self.refused: str | None = None

    def __call__(self, *inputs: Tensor) -> None:
        """Do the work on these inputs."""
        assert self._work is not None, "called after it was forgotten"
        if self._recorded and self._calls >= CALLS_BEFORE:
            self._record(self._work, inputs)
        self._calls += 1
        if self._replay is not None:
            for kept, given in zip(self._inputs, inputs, strict=True):
                kept.copy_(given, non_blocking=True)
            self._replay()
        elif self._recorded:
            with side_stream(self._device):
                self._work(*inputs)
        else:
            self._work(*inputs)

    def _record(self, work: Callable[..., None], inputs: tuple[Tensor, ...]) -> None:
        """Record the work once; a work that refuses leaves all calls ordinary ones."""
        if self._replay is not None:
            return
        self._inputs = tuple(each.clone() for each in inputs)
        try:
            self._replay = record_graph(partial(work, *self._inputs), self._device)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as fault:
            self._recorded, self.refused, self._inputs = False, first_line(fault), ()

    def forget(self) -> None:
        """Release the work and its recording."""
        self._work, self._replay, self._inputs = None, None, ()
