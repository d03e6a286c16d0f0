"""The pace of trainings here, from some steps of one that are timed: what it takes to begin, per epoch, and per step."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from genet.config.recipe import Recipe, Schedule
from genet.models.build import build
from genet.pipeline.train import TrainingSpec, teacher_of
from genet.training.image_sets import FirstImages
from genet.training.loop import Execution, TrainingInputs, train
from genet.training.splits import Splits
from genet.trials.probe import STEPS_RECORDED

SLOWED = 2.0  # times a step with one thread: then the others wait for cores that other work holds
PROBE_S = 0.5  # about as long are the shorter of the epochs that are timed, if a step is not longer


@dataclass(frozen=True)
class Pace:
    """The seconds of a final training of the MasterNet: to begin, to begin an epoch, and of a step of so many images.

    To begin takes building, recording and choosing kernels; to begin an epoch, the processes that decode its images.
    """

    start_s: float
    epoch_s: float
    step_s: float
    batch: int
    one_thread_step_s: float | None = None  # of a step with one CPU thread; None if there is no other

    @property
    def advice(self) -> str:
        """Say that steps are far faster with one CPU thread, and how to train with it; empty if they are not."""
        if self.one_thread_step_s is None or self.step_s <= SLOWED * self.one_thread_step_s:
            return ""
        threads = torch.get_num_threads()
        return (
            f"training steps take {1e3 * self.step_s:,.0f} ms with {threads} threads and "
            f"{1e3 * self.one_thread_step_s:,.0f} ms with 1, as other work holds the cores; to train with 1, set "
            f"OMP_NUM_THREADS=1 before the command, and give --threads {threads} to measure latencies as now"
        )

    def training_s(self, schedule: Schedule, images: int) -> float:
        """Return the seconds of a training on so many images; a step of another batch takes in proportion to its images."""
        step_s = self.step_s * min(schedule.batch, images) / self.batch
        return self.start_s + schedule.epochs * (self.epoch_s + steps_per_epoch(schedule, images) * step_s)


def steps_per_epoch(schedule: Schedule, images: int) -> int:
    """Return the steps of an epoch of so many images."""
    return max(1, images // schedule.batch)


def measure_pace(recipe: Recipe, splits: Splits, device: torch.device, batch: int) -> Pace:
    """Measure the pace by steps of a batch: two short trainings of two epochs, of which one has twice as many steps."""
    size = recipe.search_resolution
    batch = min(batch, splits.train.size)
    network = recipe.space.masternet(size)
    teacher = teacher_of(TrainingSpec(network, recipe.train, recipe.data, recipe.seed, recipe.augment), splits.labels)
    schedule = recipe.train.model_copy(update={"batch": batch, "learning_rate": 1e-6, "warmup_epochs": 0})

    def lasted(steps: int, epochs: int) -> list[float]:
        """Train, and return the seconds of each epoch; those of the first hold the start."""
        moments = [time.perf_counter()]
        brief = schedule.model_copy(update={"epochs": epochs})
        inputs = TrainingInputs(FirstImages(splits.train, steps * batch), brief, size, 0, teacher)
        train(build(network), inputs, Execution(device), lambda *_: moments.append(time.perf_counter()))
        return [after - before for before, after in itertools.pairwise(moments)]

    there = splits.train.size // batch
    first_s = sum(lasted(1, 1))  # decodes, and warms up
    steps = STEPS_RECORDED if device.type == "cuda" else min(STEPS_RECORDED, max(1, int(PROBE_S / first_s)))
    steps = min(steps, max(1, there // 2))
    short = lasted(steps, 2)
    if there == 1:
        return Pace(max(0.0, short[0] - short[1]), 0.0, short[1], batch)
    found = pace_of(short, lasted(2 * steps, 2), steps, batch)
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return found
    try:
        torch.set_num_threads(1)
        alone = lasted(1, 2)[1]
    finally:
        torch.set_num_threads(threads)
    return dataclasses.replace(found, one_thread_step_s=alone)


def pace_of(short: Sequence[float], long: Sequence[float], steps: int, batch: int) -> Pace:
    """Return the pace of two epochs of so many steps and of two that are twice as long, by their seconds.

    If the long ones took no longer, other work disturbed them: then all time counts as that of steps.
    """
    start_s, step_s = max(0.0, short[0] - short[1]), (sum(long) - sum(short)) / (2 * steps)
    if step_s <= 0:
        return Pace(start_s, 0.0, short[1] / steps, batch)
    return Pace(start_s, max(0.0, short[1] - steps * step_s), step_s, batch)
