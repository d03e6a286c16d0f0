"""A module's parameters under training: the step that the final training and the trials share.

Everything is computed in channels_last, which a CPU likes as much as a GPU does, and on a GPU in 16 bits where that is safe
(autocast).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genet.device import current, keep_memory
from genet.errors import NonFiniteLossError
from genet.nets.data import Batch
from genet.spec.recipe import Schedule


class Learner:
    """A module's parameters under training, with their optimizer: all of them, or those of some parts."""

    def __init__(
        self, module: nn.Module, schedule: Schedule, parts: Iterable[nn.Module] | None = None, clip: float | None = None
    ) -> None:
        self._parameters = _trainable(module, parts)
        self._optimizer = _optimizer(self._parameters, schedule)
        self._scaler = torch.amp.GradScaler(enabled=number_format(self._parameters[0].device) == torch.float16)
        self._clip = clip

    def step(self, loss: Tensor, rate: float, where: str) -> float:
        """One step down at this learning rate; returns the loss. NonFiniteLossError, before the step, where it would spoil."""
        self.add(loss)
        return self.descend(loss.item(), rate, where)

    def add(self, loss: Tensor) -> None:
        """Add the gradients of a part of a batch."""
        self._scaler.scale(loss).backward()

    def descend(self, loss: float, rate: float, where: str) -> float:
        """See `step`: down along the gradients added, which are then forgotten."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if self._clip:
            self._scaler.unscale_(self._optimizer)
        if not (math.isfinite(loss) and self._finite_gradients()):
            self.forget()
            raise NonFiniteLossError(
                f"the loss and its gradients must stay finite, and the loss is {loss} in {where}; lower learning_rate"
            )
        if self._clip:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.forget()
        return loss

    def forget(self) -> None:
        """Drop all gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def _finite_gradients(self) -> bool:
        """Whether all gradients are finite; in fp16 the scaler skips the steps where they are not."""
        if self._scaler.is_enabled():
            return True
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        return bool(nn.utils.get_total_norm(gradients).isfinite())

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to go on."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


def learning_rate(schedule: Schedule, batch: int, epoch: float) -> float:
    """Linear warm-up to the rate for this batch size, then half a cosine to zero. `epoch` counts fractions."""
    peak = schedule.learning_rate * batch / 256
    if epoch < schedule.warmup_epochs:
        return peak * epoch / schedule.warmup_epochs
    done = (epoch - schedule.warmup_epochs) / (schedule.epochs - schedule.warmup_epochs)
    return peak * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


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
