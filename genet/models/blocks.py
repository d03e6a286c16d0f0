"""XX, BL and DW blocks as torch modules (GENet paper, figure 1), built from the convolutions that `arch.layers` lists.

Parameter names follow timm's ByobNet, so weights load from and into timm's gernet models unchanged.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from genet.arch.layers import Conv, body, shortcut
from genet.arch.network import Block

M = TypeVar("M", bound=nn.Module)


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and, if requested, ReLU."""

    conv: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(self, conv: Conv, relu: bool) -> None:
        super().__init__()
        padding = conv.kernel // 2
        self.conv = nn.Conv2d(conv.in_width, conv.width, conv.kernel, conv.stride, padding, groups=conv.groups, bias=False)
        self.bn = nn.BatchNorm2d(conv.width)
        if relu:
            self.relu = nn.ReLU(inplace=True)


class ResidualBlock(nn.Module):
    """Body plus shortcut, then ReLU: (N, in_width, size, size) to (N, width, out_size, out_size)."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        convs = body(block)
        self.names = tuple(conv.name for conv in convs)
        for conv in convs:
            self.add_module(conv.name, ConvNorm(conv, relu=conv is not convs[-1]))
        projection = shortcut(block)
        self.shortcut = None if projection is None else ConvNorm(projection, relu=False)

    @property
    def convs(self) -> tuple[ConvNorm, ...]:
        """The body's convolutions in order."""
        return tuple(getattr(self, name) for name in self.names)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual sum; no ReLU before the addition, one after it."""
        y = x
        for conv in self.convs:
            y = conv(y)
        return torch.relu_(y + (x if self.shortcut is None else self.shortcut(x)))


class Classifier(nn.Module):
    """Average pooling and the linear layer: (N, width, h, w) to (N, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.fc(x.mean((2, 3)))


class HeadBlock(nn.Sequential):
    """The 1x1 convolution with its pooling and classifier as one block, as the latency table measures it."""

    def __init__(self, block: Block) -> None:
        super().__init__(ConvNorm(body(block)[0], relu=True), Classifier(block.width, block.classes))


def build_block(block: Block) -> nn.Module:
    """Return the module of one block, whatever its kind."""
    if block.kind in ("Conv", "Depthwise"):
        return ConvNorm(body(block)[0], relu=True)
    if block.kind == "Classifier":
        return Classifier(block.in_width, block.classes)
    return HeadBlock(block) if block.kind == "Head" else ResidualBlock(block)


def fused(module: M) -> M:
    """Return a copy in eval mode whose convolutions have the batch normalisations' scales, and their shifts as biases."""
    copied = copy.deepcopy(module).eval()
    for part in copied.modules():
        if isinstance(part, ConvNorm):
            part.conv, part.bn = fuse_conv_bn_eval(part.conv, part.bn), nn.Identity()  # type: ignore[assignment]
    return copied
