"""The one training loop behind the MasterNet, the trials and the final networks.

A run's result depends on its seed alone: batches come from (seed, epoch), so a run that continues from its last
whole epoch ends where an undisturbed one ends.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genet.device import current
from genet.errors import DeviceError, NonFiniteLossError, StorageError
from genet.files import digest, read_checked, write_checked
from genet.nets.data import ImageSet
from genet.spec.recipe import Schedule

EVALUATION_BATCH = 256
EpochDone = Callable[[int, float], None]  # epochs done, mean training loss of the last one


def train(
    module: nn.Module,
    images: ImageSet,
    schedule: Schedule,
    resolution: int,
    device: torch.device,
    seed: int,
    parts: Iterable[nn.Module] | None = None,
    checkpoint: Path | None = None,
    epoch_done: EpochDone | None = None,
) -> None:
    """Train `module` in place (only `parts` of it, if given), from its checkpoint where there is one.

    NonFiniteLossError stops before the step that would spoil the weights; DeviceError where a batch does not fit.
    """
    with _training_on(device, schedule, resolution):
        module.to(device).train()
        parameters = _trainable(module, parts)
        optimizer = _optimizer(parameters, schedule)
        loss_of = nn.CrossEntropyLoss(label_smoothing=schedule.label_smoothing)
        start = _resume(checkpoint, module, optimizer) if checkpoint else 0
        batch = min(schedule.batch, images.size)
        steps = max(1, images.size // batch)
        for epoch in range(start, schedule.epochs):
            total = 0.0
            for step, (pixels, labels) in enumerate(images.batches(batch, resolution, _epoch_seed(seed, epoch))):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(schedule, batch, epoch + (step + 0.5) / steps)
                loss = loss_of(module(pixels.to(device)), labels.to(device))
                value = loss.item()
                if not math.isfinite(value):
                    where = f"epoch {epoch + 1}, step {step + 1}"
                    raise NonFiniteLossError(f"the loss must stay finite, and is {value} in {where}; lower the learning rate")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += value
            if checkpoint:
                _save(checkpoint, module, optimizer, epoch + 1)
            if epoch_done:
                epoch_done(epoch + 1, total / steps)
        module.eval()


@contextmanager
def _training_on(device: torch.device, schedule: Schedule, resolution: int) -> Iterator[None]:
    """Deterministic kernels, or a killed run would not end where an undisturbed one ends; too little memory is said."""
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True)
    try:
        with current(device), flags:
            yield
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"training at {resolution} pixels must fit into the device's memory, and batch {schedule.batch} does not; "
            "lower the schedule's batch"
        ) from None


@torch.inference_mode()
def accuracy(module: nn.Module, images: ImageSet, resolution: int, device: torch.device) -> float:
    """Share of images classified rightly, 0 to 1."""
    module.to(device).eval()
    right = 0
    for pixels, labels in images.batches(EVALUATION_BATCH, resolution):
        right += int((module(pixels.to(device)).argmax(1) == labels.to(device)).sum())
    return right / images.size


def learning_rate(schedule: Schedule, batch: int, epoch: float) -> float:
    """Linear warm-up to the rate for this batch size, then half a cosine to zero. `epoch` counts fractions."""
    peak = schedule.learning_rate * batch / 256
    if epoch < schedule.warmup_epochs:
        return peak * epoch / schedule.warmup_epochs
    done = (epoch - schedule.warmup_epochs) / (schedule.epochs - schedule.warmup_epochs)
    return peak * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _trainable(module: nn.Module, parts: Iterable[nn.Module] | None) -> list[nn.Parameter]:
    """The parameters to train; all others are frozen, so nothing is computed for their sake."""
    if parts is None:
        return list(module.parameters())
    module.requires_grad_(False)
    chosen = [parameter for part in parts for parameter in part.parameters()]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _optimizer(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum; as in timm, batch normalisation and biases are not decayed."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    nesterov = schedule.momentum > 0
    return torch.optim.SGD(groups, lr=schedule.learning_rate, momentum=schedule.momentum, nesterov=nesterov)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(digest(f"{seed}/{epoch}")[:12], 16)


def _save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    buffer = io.BytesIO()
    torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epochs}, buffer)
    write_checked(path, buffer.getvalue())


def _resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Epochs already done: 0 where there is no checkpoint, or none whose checksum holds."""
    if not path.exists():
        return 0
    try:
        data = read_checked(path)
    except StorageError:
        return 0
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epochs"])
