"""A network that sees several images as one, stacked along their channels (utilization paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genet.arch.network import Input


def unfolded(input_: Input, f: int) -> Input:
    """Return the input of the images that a network folded by f answers for."""
    return input_.model_copy(update={"channels": input_.channels // f, "classes": input_.classes // f})


class Folded(nn.Module):
    """A folded network behind its fold: (N, C, H, W) to (N, classes). A batch that f does not divide is padded with zeros."""

    def __init__(self, inside: nn.Module, f: int) -> None:
        super().__init__()
        self.inside, self.f = inside, f

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of every image."""
        count = len(images)
        missing = -count % self.f
        if missing:
            images = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        stacked = images.reshape(-1, self.f * images.shape[1], *images.shape[2:])
        logits: Tensor = self.inside(stacked)
        return logits.reshape(len(images), -1)[:count]
