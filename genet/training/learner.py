"""A module's parameters under training: the step that the final training and the trials share.

Everything is computed in channels_last, which is fast on a CPU and on a GPU, and on a GPU in 16 bits if that is safe (autocast).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genet.config.recipe import Schedule
from genet.device import current, fp32_as_served, keep_memory
from genet.training.image_sets import Batch

STEPS_UNREAD = 50
NARROW = 16  # channels read, below which oneDNN writes out of bounds


class Account(NamedTuple):
    """The result of a learner's steps since the last account."""

    loss: float  # summed over the good steps
    good: int  # steps before the first bad one
    bad: float | None  # the loss of a step that was not taken, nor any after it; None if all were

    def fault(self, first: int, epoch: int) -> str:
        """Return a message about the bad step; `first` is the number of the account's first step in the epoch, both from 0."""
        return (
            f"training failed in epoch {epoch + 1}, step {first + self.good + 1}: got a loss of {self.bad}, expected the loss "
            "and its gradients to stay finite; lower learning_rate"
        )


class Learner:
    """A module's parameters under training, with their optimizer: all of them, or those of some parts.

    A step never waits for the device: the learning rate, the losses and the mark of a bad step are tensors there, read by
    `account`. From the first loss or gradient that is not finite on, steps change nothing; in fp16, whose scaled gradients
    overflow now and then, such steps alone do.
    """

    def __init__(
        self, module: nn.Module, schedule: Schedule, parts: Iterable[nn.Module] | None = None, clip: float | None = None
    ) -> None:
        self._parameters = _trainable(module, parts)
        device = self._parameters[0].device
        if device.type == "cpu":
            _slice_narrow_convolutions(module)
        self._rate = torch.zeros((), device=device)
        self._optimizer = _optimizer(self._parameters, schedule, self._rate)
        self._scaler = torch.amp.GradScaler(enabled=number_format(device) == torch.float16)
        self._clip = clip
        self._loss, self._good, self._bad, self._bad_loss = torch.zeros(4, device=device).unbind()

    @property
    def recordable(self) -> bool:
        """Return whether a CUDA graph can hold its steps; scaling the loss of fp16 needs the host."""
        return not self._scaler.is_enabled()

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        self._rate.fill_(rate)

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient of this loss."""
        self.forget()
        self.add(loss)
        self.descend(loss.detach())

    def add(self, loss: Tensor) -> None:
        """Add the gradients of a part of a batch."""
        self._scaler.scale(loss).backward()

    def descend(self, loss: Tensor) -> None:
        """Take one step along the gradients added; `loss` is the whole batch's."""
        if self._scaler.is_enabled():  # it skips steps whose gradients are not finite, and lowers its scale
            bad = ~loss.isfinite()
            if self._clip:
                self._scaler.unscale_(self._optimizer)
                nn.utils.clip_grad_norm_(self._parameters, self._clip)
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            bad = ~(loss.isfinite() & norm.isfinite())
            if self._clip:
                nn.utils.clip_grads_with_norm_(self._parameters, self._clip, norm)
            self._optimizer.found_inf = torch.maximum(self._bad, bad)  # type: ignore[attr-defined]
            self._optimizer.step()
        self._note(loss, bad)

    def _note(self, loss: Tensor, bad: Tensor) -> None:
        earlier = self._bad.bool()
        self._bad_loss.copy_(torch.where(bad & ~earlier, loss, self._bad_loss))
        self._bad.copy_(earlier | bad)
        self._good.add_(1 - self._bad)
        self._loss.add_(torch.where(earlier | bad, 0, loss))

    def forget(self) -> None:
        """Drop all gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def tally(self) -> Tensor:
        """Return the values for `account`, (4,), to read together with those of others."""
        return torch.stack([self._loss, self._good, self._bad, self._bad_loss])

    def account(self, tally: list[float]) -> Account:
        """Close the account of the steps so far, given their `tally`; an account with a bad step stays open."""
        loss, good, bad, bad_loss = tally
        if not bad:
            self._loss.zero_()
            self._good.zero_()
        return Account(loss, int(good), bad_loss if bad else None)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self._optimizer.load_state_dict(state["optimizer"])
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate  # loading has put a copy in its place
        self._scaler.load_state_dict(state["scaler"])


class SlicedConv(nn.Conv2d):
    """A strided 1x1 convolution that reads only the pixels that count while it is trained; it computes the same.

    oneDNN's gradient of the weights of a narrow one writes out of bounds in channels_last (issue 6035 of oneDNN): the process
    dies, or the gradient is wrong.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution's output, (N, width, out_size, out_size)."""
        if not self.training:
            return super().forward(x)
        down, across = self.stride
        return nn.functional.conv2d(x[:, :, ::down, ::across], self.weight, self.bias, groups=self.groups)


def _slice_narrow_convolutions(module: nn.Module) -> None:
    for conv in module.modules():
        if type(conv) is not nn.Conv2d or conv.kernel_size != (1, 1) or conv.padding != (0, 0):
            continue
        if max(conv.stride) > 1 and conv.in_channels // conv.groups < NARROW:
            conv.__class__ = SlicedConv


def steps_unread(device: torch.device) -> int:
    """Return the number of steps between two accounts, as reading one waits until a GPU has done all its work."""
    return STEPS_UNREAD if device.type == "cuda" else 1


def learning_rate(schedule: Schedule, batch: int, epoch: float) -> float:
    """Return the rate: a linear warm-up to the rate for this batch size, then half a cosine to zero. `epoch` counts fractions."""
    peak = schedule.learning_rate * batch / 256
    if epoch < schedule.warmup_epochs:
        return peak * epoch / schedule.warmup_epochs
    done = (epoch - schedule.warmup_epochs) / (schedule.epochs - schedule.warmup_epochs)
    return peak * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@contextmanager
def computing_on(device: torch.device, deterministic: bool = True) -> Iterator[None]:
    """Compute with deterministic kernels; otherwise a killed run would not end like an undisturbed one."""
    if device.type == "cpu":
        keep_memory()  # page faults alone made a step three times as long
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=deterministic, allow_tf32=True)
    with current(device), fp32_as_served(), flags:
        yield


def mixed_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context for convolutions in 16 bits on a GPU. Use one per step: it keeps the weights' copies in 16 bits."""
    dtype = number_format(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def number_format(device: torch.device) -> torch.dtype:
    """Return the number format: bf16 on GPUs that have it in hardware (Ampere and later), fp16 on older ones, fp32 elsewhere."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches in the layout that a module on `device` reads fastest."""
    for pixels, labels in batches:
        yield pixels.to(device, memory_format=torch.channels_last, non_blocking=True), labels.to(device, non_blocking=True)


def _trainable(module: nn.Module, parts: Iterable[nn.Module] | None) -> list[nn.Parameter]:
    """Return the parameters to train; all others are frozen, so nothing is computed for them."""
    if parts is None:
        return list(module.parameters())
    module.requires_grad_(False)
    chosen = list(dict.fromkeys(parameter for part in parts for parameter in part.parameters()))  # parts may overlap
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _optimizer(parameters: list[nn.Parameter], schedule: Schedule, rate: Tensor) -> torch.optim.Optimizer:
    """Return SGD with Nesterov momentum; as in timm, batch normalisation and biases are not decayed.

    Fused, it skips a step by a mark on the device (`found_inf`), and takes its rate from there.
    """
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=schedule.momentum, nesterov=schedule.momentum > 0, fused=True)
    for parameter in parameters if schedule.momentum else ():  # created by a skipped first step it would hold arbitrary values
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
