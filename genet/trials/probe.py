"""What the trials will cost here, from a few steps of the MasterNet's own fine-tune in every super-block."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from genet.errors import DeviceError
from genet.nets.data import FirstImages, Splits
from genet.nets.training import EVALUATION_BATCH
from genet.spec.cost import network_cost
from genet.spec.network import Network
from genet.trials.course import Course
from genet.trials.finetune import FineTune
from genet.trials.group import NORM_IMAGES
from genet.trials.plan import Trial, groups
from genet.trials.results import TrialResult

STEPS = 2
TOGETHER = 2  # trials in the probe's group, among which what is shared is divided


def expected_seconds(course: Course, trials: Sequence[Trial], device: torch.device) -> float:
    """Seconds that one worker needs for the trials; networks larger than the MasterNet count for more by their MACs."""
    return sum(_of_group(course, group, device) for group in groups(trials, workers=1))


def _of_group(course: Course, group: Sequence[Trial], device: torch.device) -> float:
    distill, train, held_out = course.distill, course.splits.train.size, course.splits.nas_validation.size
    batch = min(distill.batch, train)
    validated = min(EVALUATION_BATCH, held_out)
    few = Splits(
        FirstImages(course.splits.train, STEPS * batch),
        FirstImages(course.splits.nas_validation, validated),
        course.splits.test,
    )
    short = dataclasses.replace(
        course, splits=few, folder=None, distill=distill.model_copy(update={"epochs": 1, "warmup_epochs": 0})
    )
    own = group[0].model_copy(update={"network": str(course.parent.network), "also": ()})
    for _ in range(2):  # the first time warms up
        *_, last = (event for event in FineTune(short, str(device))([own] * TOGETHER) if isinstance(event, TrialResult))
    if last.failure:
        raise DeviceError(f"the MasterNet's own fine-tune must work here, and does not: {last.failure}")
    return _scaled(last, course, group, batch, validated)


def _scaled(probe: TrialResult, course: Course, group: Sequence[Trial], batch: int, validated: int) -> float:
    """From the probe's steps to all steps of a group."""
    seen = probe.seconds
    macs = [network_cost(Network.parse(trial.network)).macs for trial in group]
    trials = sum(macs) / network_cost(course.parent.network).macs  # in MasterNets
    epochs = course.distill.epochs
    steps = epochs * max(1, course.splits.train.size // batch)
    shared = (seen.images + seen.prefix) * probe.group / STEPS
    statistics = seen.statistics / min(STEPS, math.ceil(NORM_IMAGES / batch)) * min(NORM_IMAGES, course.splits.train.size) / batch
    validation = seen.validation * epochs * course.splits.nas_validation.size / validated
    return shared * steps + trials * (seen.training / STEPS * steps + statistics + validation)
