"""The work of a runner: a group of trials on one device, as many at a time as fit, with every failure classified."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.device import device_fault, free_bytes, give_back_memory, open_device
from genet.errors import DataError, LostDeviceError
from genet.trials.checkpoint import CheckpointPlace, TrialCheckpoints
from genet.trials.context import TrialContext
from genet.trials.finetune import fine_tune
from genet.trials.plan import Trial
from genet.trials.results import Event, FailureKind, ProgressDelta, TrialResult, failed

BYTES_PER_PARAMETER = 16  # weight, gradient, momentum, and room for a 16-bit copy
SHARE_OF_MEMORY = 0.5  # the rest is for activations


@dataclass(frozen=True)
class FineTune:
    """A callable that runs trials of one super-block; it can be sent to another process.

    A trial's result depends on the context and its own seed, not on its group, the worker or the order.
    """

    context: TrialContext
    device: str
    share: float = 1.0  # share of the device's memory

    @property
    def silence_s(self) -> float | None:
        """A trial checks its limit only when its losses are read, so silence has the same limit for steps that never end."""
        return self.context.distill.time_limit_s

    def on(self, device: str, share: float = 1.0) -> FineTune:
        """See `Work`."""
        return dataclasses.replace(self, device=device, share=share)

    def failed(self, task: Trial, kind: FailureKind, message: str) -> TrialResult:
        """See `Work`."""
        return failed(task, kind, message)

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Event]:
        """Run the trials in groups that fit into memory and are equally advanced.

        A group that does not fit after all is tried again in halves, down to single trials.

        LostDeviceError if the device stops answering: only another process can go on.
        """
        device = open_device(self.device)
        checkpoints, at_once = TrialCheckpoints(self.context, device), self._trials_at_once(trials, device)
        by_place: dict[CheckpointPlace, list[Trial]] = {}
        for trial in trials:
            by_place.setdefault(checkpoints.place(trial), []).append(trial)
        for equally_far in by_place.values():
            for start in range(0, len(equally_far), at_once):
                yield from self._attempt(equally_far[start : start + at_once], device)

    def _trials_at_once(self, trials: Sequence[Trial], device: torch.device) -> int:
        """Return the number of trials of this size that fit side by side."""
        free = free_bytes(device)
        if free is None:
            return len(trials)
        largest = max(network_cost(Network.parse(trial.network)).parameters for trial in trials)
        return max(1, int(free * self.share * SHARE_OF_MEMORY / (largest * BYTES_PER_PARAMETER)))

    def _attempt(self, trials: Sequence[Trial], device: torch.device, deterministic: bool = True) -> Iterator[Event]:
        left, done = list(trials), 0.0
        try:
            for event in fine_tune(self.context, trials, device, deterministic):
                if isinstance(event, ProgressDelta):
                    done += event.tasks
                else:
                    left = [trial for trial in left if trial.id != event.id]
                yield event
            return
        except Exception as fault:
            no_engine = deterministic and device_fault(fault) == "no engine"
            kind, message = classify_failure(fault)
        finished = len(trials) - len(left)
        yield ProgressDelta(finished - done)  # the work of the others is lost
        if no_engine:
            yield from self._attempt(left, device, deterministic=False)
        elif kind in ("out of memory", "worker killed") and len(left) > 1:
            give_back_memory(device)
            middle = math.ceil(len(left) / 2)
            for half in filter(None, (left[:middle], left[middle:])):
                yield from self._attempt(half, device, deterministic)
        else:
            yield from (failed(trial, kind, message, len(trials)) for trial in left)
            yield ProgressDelta(len(left))


def classify_failure(fault: Exception) -> tuple[FailureKind, str]:
    """Return the kind of a failure, and one line about it; LostDeviceError if only another process can go on."""
    text = (str(fault).strip().splitlines() or [""])[0]
    known = device_fault(fault)
    if known == "out of memory":
        return "out of memory", "a single trial does not fit into the device's memory; lower distill.batch"
    if isinstance(fault, DataError):
        return "data", str(fault)
    if text.startswith("DataLoader worker"):
        return "worker killed", f"a process that decodes images ended ({text})"
    if isinstance(fault, LostDeviceError) or known == "device lost":
        raise LostDeviceError(f"the device stopped answering ({text}); give the same command again") from fault
    if known == "no engine":
        return "no kernels", text
    last = traceback.extract_tb(fault.__traceback__)[-1]
    return "bug", f"{type(fault).__name__}: {text} ({Path(last.filename).name}:{last.lineno})"
