"""The statistics of batch normalisations after a cut: what the cut channels and blocks added is missing from every later mean."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from genet.training.image_sets import ImageSet
from genet.training.learner import computing_on, on_device

AT_ONCE = 128  # images


@torch.no_grad()
def renewed(module: nn.Module, images: ImageSet, resolution: int, device: torch.device) -> nn.Module:
    """Return a copy whose statistics are averaged anew over training images."""
    found = copy.deepcopy(module).to(device).eval()
    norms = [part for part in found.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
    with computing_on(device):
        for number, (pixels, _) in enumerate(on_device(images.on(device).batches(AT_ONCE, resolution), device), start=1):
            if len(pixels) == 1 and number > 1:
                break  # a map of one pixel has no variance in one image
            for norm in norms:
                norm.momentum = 1 / number  # an average over all batches
            found(pixels)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return found.cpu().eval()
