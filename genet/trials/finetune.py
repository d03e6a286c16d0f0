"""One trial: build the child, inherit the MasterNet's weights, fine-tune what must adapt, take its accuracy."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from genet.errors import NonFiniteLossError
from genet.nets.build import GENet
from genet.nets.data import Splits
from genet.nets.inherit import adapting_parts, inherit
from genet.nets.training import accuracy, train
from genet.spec.network import Network
from genet.spec.recipe import Schedule
from genet.trials.plan import Trial, TrialResult


@dataclass(frozen=True)
class FineTune:
    """Calling it with a trial runs the trial; the result depends on the trial and its seed alone."""

    parent: GENet
    splits: Splits
    schedule: Schedule
    resolution: int
    device: torch.device

    def __call__(self, trial: Trial) -> TrialResult:
        """Run one trial. A loss that is not finite is a failed trial, never accuracy 0."""
        start = time.perf_counter()
        reached: float | None = None
        failure: str | None = None
        try:
            child = inherit(self.parent, Network.parse(trial.network), trial.seed)
            parts = adapting_parts(child, trial.index)
            train(child, self.splits.train, self.schedule, self.resolution, self.device, trial.seed, parts)
            reached = accuracy(child, self.splits.nas_validation, self.resolution, self.device)
        except NonFiniteLossError as fault:
            failure = str(fault)
        return TrialResult(
            trial=trial.id,
            index=trial.index,
            superblock=trial.superblock,
            accuracy=reached,
            failure=failure,
            seconds=time.perf_counter() - start,
        )
