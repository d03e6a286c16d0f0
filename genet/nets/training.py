"""How networks are trained here: the loop behind the MasterNet and the final networks, and the step it shares with trials.

A run's result depends on its seed alone: batches come from (seed, epoch), so a run that continues from its last
whole epoch ends where an undisturbed one ends. Everything is computed in channels_last, which a CPU likes as much as a
GPU does, and on a GPU in 16 bits where that is safe (autocast).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genet.device import current, keep_memory
from genet.errors import DeviceError, NonFiniteLossError, StorageError
from genet.files import digest, read_checked, write_checked
from genet.nets.data import Batch, ImageSet
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
    batch = min(schedule.batch, images.size)
    steps = max(1, images.size // batch)
    with _memory_said(schedule, resolution), computing_on(device):
        module.to(device).to(memory_format=torch.channels_last).train()
        learner = Learner(module, schedule, parts)
        loss_of = nn.CrossEntropyLoss(label_smoothing=schedule.label_smoothing)
        start = _resume(checkpoint, module, learner) if checkpoint else 0
        for epoch in range(start, schedule.epochs):
            total = 0.0
            shown = on_device(images.batches(batch, resolution, epoch_seed(seed, epoch)), device)
            for step, (pixels, labels) in enumerate(shown):
                with mixed_precision(device):
                    loss = loss_of(module(pixels), labels)
                rate = learning_rate(schedule, batch, epoch + (step + 0.5) / steps)
                total += learner.step(loss, rate, f"epoch {epoch + 1}, step {step + 1}")
            if checkpoint:
                _save(checkpoint, module, learner, epoch + 1)
            if epoch_done:
                epoch_done(epoch + 1, total / steps)
        module.eval()


class Learner:
    """A module's parameters under training, with their optimizer: all of them, or those of some parts."""

    def __init__(self, module: nn.Module, schedule: Schedule, parts: Iterable[nn.Module] | None = None) -> None:
        parameters = _trainable(module, parts)
        self._optimizer = _optimizer(parameters, schedule)
        self._scaler = torch.amp.GradScaler(enabled=number_format(parameters[0].device) == torch.float16)

    def step(self, loss: Tensor, rate: float, where: str) -> float:
        """One step down at this learning rate; returns the loss. NonFiniteLossError, before the step, where it would spoil."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        value = loss.item()
        if not (math.isfinite(value) and self._finite_gradients()):
            raise NonFiniteLossError(
                f"the loss and its gradients must stay finite, and the loss is {value} in {where}; lower learning_rate"
            )
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return value

    def _finite_gradients(self) -> bool:
        """Whether all gradients are finite; in fp16 the scaler skips the steps where they are not."""
        if self._scaler.is_enabled():
            return True
        gradients = [p.grad for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        return bool(torch.nn.utils.get_total_norm(gradients).isfinite())

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to go on."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Deterministic kernels, or a killed run would not end where an undisturbed one ends."""
    if device.type == "cpu":
        keep_memory()  # page faults alone made a step three times as long
    with current(device), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True):
        yield


def mixed_precision(device: torch.device) -> AbstractContextManager[None]:
    """Convolutions in 16 bits on a GPU. One context per step: within it the weights' copies in 16 bits are kept."""
    dtype = number_format(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def number_format(device: torch.device) -> torch.dtype:
    """bf16 on GPUs that have it in hardware (Ampere and later), fp16 on older ones, fp32 elsewhere."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches as a module on `device` reads them fastest."""
    for pixels, labels in batches:
        yield pixels.to(device, memory_format=torch.channels_last, non_blocking=True), labels.to(device, non_blocking=True)


@torch.inference_mode()
def accuracy(module: nn.Module, images: ImageSet, resolution: int, device: torch.device) -> float:
    """Share of images classified rightly, 0 to 1."""
    module.to(device).to(memory_format=torch.channels_last).eval()
    right = torch.zeros((), dtype=torch.long, device=device)
    with computing_on(device), mixed_precision(device):
        for pixels, labels in on_device(images.batches(EVALUATION_BATCH, resolution), device):
            right += (module(pixels).argmax(1) == labels).sum()
    return int(right) / images.size


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
    chosen = list(dict.fromkeys(parameter for part in parts for parameter in part.parameters()))  # parts may overlap
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


@contextmanager
def _memory_said(schedule: Schedule, resolution: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"training at {resolution} pixels must fit into the device's memory, and batch {schedule.batch} does not; "
            "lower the schedule's batch"
        ) from None


def epoch_seed(seed: int, epoch: int) -> int:
    """Decides an epoch's order and augmentation."""
    return int(digest(f"{seed}/{epoch}")[:12], 16)


def _save(path: Path, module: nn.Module, learner: Learner, epochs: int) -> None:
    buffer = io.BytesIO()
    torch.save({"module": module.state_dict(), "learner": learner.state(), "epochs": epochs}, buffer)
    write_checked(path, buffer.getvalue())


def _resume(path: Path, module: nn.Module, learner: Learner) -> int:
    """Epochs already done: 0 where there is no checkpoint, or none whose checksum holds."""
    if not path.exists():
        return 0
    try:
        data = read_checked(path)
    except StorageError:
        return 0
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    module.load_state_dict(state["module"])
    learner.restore(state["learner"])
    return int(state["epochs"])
