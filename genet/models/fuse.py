"""Inference form: every batch normalisation folded into its convolution."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from genet.models.blocks import ConvNorm

M = TypeVar("M", bound=nn.Module)


def fused(module: M) -> M:
    """Return a copy in eval mode whose convolutions have the batch normalisations' scales, and their shifts as biases."""
    copied = copy.deepcopy(module).eval()
    for part in copied.modules():
        if isinstance(part, ConvNorm):
            part.conv, part.bn = fuse_conv_bn_eval(part.conv, part.bn), nn.Identity()  # type: ignore[assignment]
    return copied
