"""The processes that train one network together: one per GPU, started by torchrun; or this one alone."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from genet.errors import GenetError


class ProcessGroup(NamedTuple):
    """This process's rank among all."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Return whether this process writes and prints for all."""
        return self.rank == 0

    def total(self, *values: float) -> tuple[float, ...]:
        """Return each value summed over all processes; all must call."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=_device())
        dist.all_reduce(summed)
        return tuple(summed.tolist())

    def mean(self, value: Tensor) -> Tensor:
        """Return a tensor averaged over all processes, without waiting for a GPU; all must call."""
        if self.size == 1:
            return value
        dist.all_reduce(value)
        return value / self.size

    def leave(self) -> None:
        """Leave the process group, at the end."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def wait(self) -> None:
        """Wait until all processes reach this call."""
        if self.size > 1:
            dist.barrier()

    def device(self, wanted: torch.device) -> torch.device:
        """Return the device of this process: the wanted one if it is alone, else its own GPU."""
        return wanted if self.size == 1 else _device()

    def joined(self, module: nn.Module) -> nn.Module:
        """Return the module for training: gradients are averaged over all processes, and batch statistics include all of them."""
        if self.size == 1:
            return module
        device = _device()
        if device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
            return nn.parallel.DistributedDataParallel(module, device_ids=[device])
        for part in module.modules():
            if type(part) is nn.BatchNorm2d:
                part.__class__ = _SharedBatchNorm
        return nn.parallel.DistributedDataParallel(module)


SINGLE_PROCESS = ProcessGroup()


def join() -> ProcessGroup:
    """Return the group of processes that torchrun started, or this process alone.

    GenetError if a GPU is missing for one of the processes of this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return SINGLE_PROCESS
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise GenetError(
            f"several processes need {', '.join(missing)} set, as torchrun does; start them with it, or unset WORLD_SIZE"
        )
    if torch.cuda.is_available():
        here, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if here >= gpus:
            raise GenetError(f"every process needs a GPU of its own, got {gpus} here; torchrun --nproc-per-node {gpus}")
        torch.cuda.set_device(here)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return ProcessGroup(dist.get_rank(), size)


def _device() -> torch.device:
    """Return the device of this process, and the backend of its sums."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch statistics over the images of all processes, on a CPU, where torch has no such layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) by the statistics of the whole batch."""
        if not self.training:
            return super().forward(x)
        images: Any = x.shape[0] * x.shape[2] * x.shape[3] * dist.get_world_size()
        mean = _Summed.apply(x.sum((0, 2, 3))) / images
        centred = x - mean.view(1, -1, 1, 1)
        variance = _Summed.apply((centred * centred).sum((0, 2, 3))) / images
        with torch.no_grad():
            share = self.momentum or 0.0
            self.running_mean.lerp_(mean, share)  # type: ignore[union-attr]
            self.running_var.lerp_(variance * images / (images - 1), share)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class _Summed(torch.autograd.Function):
    """A sum over all processes, whose gradient is the sum of all gradients."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        """Sum (C,) of this process over all processes."""
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        """Sum the gradient over all processes."""
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed
