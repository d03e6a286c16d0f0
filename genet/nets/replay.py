"""A function of tensors that is called over and over: recorded as a CUDA graph, so that the host launches it as one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from genet.device import record_graph, side_stream
from genet.errors import first_line

CALLS_BEFORE = 3  # ordinary calls, in which libraries choose their kernels and the optimizer makes its state


class Replayed:
    """Calls `work` on inputs of ever the same shapes; from the fourth call on a GPU replays what it recorded.

    What `work` does on the host happens in the first four calls alone, so it must not depend on the call. Elsewhere, if
    `recorded` is false, or if the work cannot be captured (`refused` then says why), every call is an ordinary one.
    """

    def __init__(self, work: Callable[..., None], device: torch.device, recorded: bool = True) -> None:
        self._work, self._device = work, device
        self._recorded = recorded and device.type == "cuda"
        self._calls, self._inputs = 0, tuple[Tensor, ...]()
        self._replay: Callable[[], None] | None = None
        self.refused: str | None = None

    def __call__(self, *inputs: Tensor) -> None:
        """Do the work on these inputs."""
        if not self._recorded:
            self._work(*inputs)
            return
        if self._calls < CALLS_BEFORE:
            self._calls += 1
            with side_stream(self._device):
                self._work(*inputs)
            return
        if self._replay is None:
            self._inputs = tuple(each.clone() for each in inputs)
            try:
                self._replay = record_graph(partial(self._work, *self._inputs), self._device)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as fault:
                self._recorded, self.refused = False, first_line(fault)
                self._work(*inputs)
                return
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        self._replay()
