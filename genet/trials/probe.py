"""What the trials will cost here, from a few steps of the MasterNet's own fine-tune in every super-block."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from genet.nets.data import Batch, ImageSet, Splits
from genet.nets.training import EVALUATION_BATCH
from genet.spec.cost import network_cost
from genet.spec.network import Network
from genet.trials.group import NORM_IMAGES, Course, fine_tune
from genet.trials.plan import Trial, groups
from genet.trials.results import Seconds, TrialResult

STEPS = 2
TOGETHER = 2  # trials in the probe's group, among which what is shared is divided


@dataclass
class _FirstBatches:
    """The first batches of a set, for a probe."""

    images: ImageSet
    size: int

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """See `ImageSet`."""
        return itertools.islice(self.images.batches(batch, resolution, shuffle_seed), math.ceil(self.size / batch))


def expected_seconds(course: Course, trials: Sequence[Trial], device: torch.device) -> float:
    """Seconds that one worker needs for the trials; networks larger than the MasterNet count for more by their MACs."""
    return sum(_of_group(course, group, device) for group in groups(trials, workers=1))


def _of_group(course: Course, group: Sequence[Trial], device: torch.device) -> float:
    distill, train, held_out = course.distill, course.splits.train.size, course.splits.nas_validation.size
    batch = min(distill.batch, train)
    validated = min(EVALUATION_BATCH, held_out)
    few = Splits(
        _FirstBatches(course.splits.train, STEPS * batch),
        _FirstBatches(course.splits.nas_validation, validated),
        course.splits.test,
    )
    short = replace(course, splits=few, distill=distill.model_copy(update={"epochs": 1, "warmup_epochs": 0}))
    own = group[0].model_copy(update={"network": str(course.parent.network), "also": ()})
    for _ in range(2):  # the first time warms up
        *_, last = (event for event in fine_tune(short, [own] * TOGETHER, device) if isinstance(event, TrialResult))
    return _scaled(last.seconds, course, group, batch, validated)


def _scaled(seen: Seconds, course: Course, group: Sequence[Trial], batch: int, validated: int) -> float:
    """From the probe's steps to all steps of a group."""
    macs = [network_cost(Network.parse(trial.network)).macs for trial in group]
    trials = sum(macs) / network_cost(course.parent.network).macs  # in MasterNets
    epochs = course.distill.epochs
    steps = epochs * max(1, course.splits.train.size // batch)
    norm_steps = min(STEPS, math.ceil(NORM_IMAGES / batch))
    shared = (seen.images + seen.prefix) * TOGETHER / (STEPS + norm_steps)
    per_image = seen.validation / (validated + norm_steps * batch)
    read = epochs * course.splits.nas_validation.size + min(NORM_IMAGES, course.splits.train.size)
    return shared * (steps + NORM_IMAGES / batch) + trials * (seen.training / STEPS * steps + per_image * read)
