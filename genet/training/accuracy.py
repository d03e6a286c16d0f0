"""The accuracy of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genet.training.distributed import SINGLE_PROCESS, ProcessGroup
from genet.training.image_sets import ImageSet
from genet.training.learner import computing_on, mixed_precision, on_device

EVALUATION_BATCH = 256


def accuracy(
    module: nn.Module, images: ImageSet, resolution: int, device: torch.device, world: ProcessGroup = SINGLE_PROCESS
) -> float:
    """Return the share of correctly classified images, 0 to 1; every image counts once, for any number of processes."""
    (right,) = world.total(int(right_answers(module, images, resolution, device).sum()))
    return right / images.size


def right_answers(module: nn.Module, images: ImageSet, resolution: int, device: torch.device) -> Tensor:
    """Return which of this process's images are classified correctly, (N,), in the order of the set."""
    module.to(device).to(memory_format=torch.channels_last).eval()
    with mixed_precision(device):
        return _among_best(module, (1,), images, resolution, device)[0]


def top_k_accuracy(
    forward: Callable[[Tensor], Tensor],
    ks: tuple[int, ...],
    images: ImageSet,
    resolution: int,
    device: torch.device,
    world: ProcessGroup = SINGLE_PROCESS,
) -> tuple[float, ...]:
    """Return per k the share of images whose label is among the k likeliest answers, (N, classes) for (N, C, H, W)."""
    right = _among_best(forward, ks, images, resolution, device).sum(1)
    return tuple(total / images.size for total in world.total(*right.tolist()))


@torch.inference_mode()
def _among_best(
    forward: Callable[[Tensor], Tensor], ks: tuple[int, ...], images: ImageSet, resolution: int, device: torch.device
) -> Tensor:
    """Return per k and image of this process whether the label is among the k likeliest answers, (ks, N)."""
    found = [torch.zeros(len(ks), 0, dtype=torch.bool, device=device)]
    with computing_on(device):
        for pixels, labels in on_device(images.on(device).batches(EVALUATION_BATCH, resolution), device):
            logits = forward(pixels)
            best = logits.topk(min(max(ks), logits.shape[1])).indices == labels[:, None]
            found.append(torch.stack([best[:, :k].any(1) for k in ks]))
    return torch.cat(found, 1)
