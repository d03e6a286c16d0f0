"""The expected cost of the trials here, from a few steps of the MasterNet's own fine-tune in every super-block."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import torch

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.errors import DeviceError
from genet.training.accuracy import EVALUATION_BATCH
from genet.training.image_sets import FirstImages
from genet.training.splits import Splits
from genet.trials.context import TrialContext
from genet.trials.finetune import NORM_IMAGES
from genet.trials.plan import Trial, groups
from genet.trials.results import Seconds, TrialResult
from genet.trials.work import FineTune

STEPS, STEPS_RECORDED = 2, 20  # steps in an epoch of the probe; a GPU's first few record the graph that the others replay
TOGETHER = 2  # trials in the probe's group, which share the common work


def expected_seconds(context: TrialContext, trials: Sequence[Trial], device: torch.device) -> float:
    """Return the seconds of one worker for the trials; networks larger than the MasterNet count for more by their MACs."""
    return sum(_group_seconds(context, group, device) for group in groups(trials, workers=1))


def _group_seconds(context: TrialContext, group: Sequence[Trial], device: torch.device) -> float:
    """Return the expected seconds of a group, from probes of one epoch and of two, which differ by an epoch."""
    distill, train = context.distill, context.splits.train.size
    batch = min(distill.batch, train)
    steps = min(STEPS_RECORDED if device.type == "cuda" else STEPS, max(1, train // batch))
    validated = min(EVALUATION_BATCH, context.splits.nas_validation.size)
    few = Splits(
        FirstImages(context.splits.train, steps * batch),
        FirstImages(context.splits.nas_validation, validated),
        context.splits.test,
    )
    own = group[0].model_copy(update={"network": str(context.parent.network), "also": ()})

    def probe(epochs: int) -> tuple[TrialResult, float]:
        short = distill.model_copy(update={"epochs": epochs, "warmup_epochs": 0, "patience": 0})
        work = FineTune(dataclasses.replace(context, splits=few, folder=None, distill=short), str(device))
        began = time.perf_counter()
        *_, last = (event for event in work([own] * TOGETHER) if isinstance(event, TrialResult))
        if last.failure:
            raise DeviceError(f"the MasterNet's own fine-tune failed here: {last.failure}")
        return last, time.perf_counter() - began

    probe(1)  # warms up
    (once, wall_s), (twice, _) = probe(1), probe(2)
    epoch = Seconds(**{kind: max(0.0, spent - getattr(once.seconds, kind)) for kind, spent in twice.seconds})
    start_s = max(0.0, wall_s / once.group - epoch.total - once.seconds.statistics)
    macs = [network_cost(Network.parse(trial.network)).macs for trial in group]
    trials = sum(macs) / network_cost(context.parent.network).macs  # cost in MasterNets
    all_steps = distill.epochs * max(1, train // batch)
    shared = (epoch.images + epoch.prefix) * once.group / steps
    seen = min(steps, math.ceil(NORM_IMAGES / batch)) * batch
    statistics = once.seconds.statistics * min(NORM_IMAGES, train) / seen
    validation = epoch.validation * distill.epochs * context.splits.nas_validation.size / validated
    return start_s * len(group) + shared * all_steps + trials * (epoch.training / steps * all_steps + statistics + validation)
