"""A network record as a torch module."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from genet.arch.layers import body
from genet.arch.network import Network, blocks
from genet.models.blocks import Classifier, ConvNorm, ResidualBlock


class Stage(nn.Sequential):
    """The blocks of one super-block."""

    def __init__(self, blocks: Iterable[ResidualBlock]) -> None:
        super().__init__(*blocks)

    @property
    def blocks(self) -> tuple[ResidualBlock, ...]:
        """The blocks in order."""
        return tuple(block for block in self if isinstance(block, ResidualBlock))


class GENet(nn.Module):
    """Stem, stages of residual blocks, 1x1 convolution if it has one, classifier: (N, channels, h, w) to (N, classes)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        stem, *middle, last = blocks(network)
        self.stem = ConvNorm(body(stem)[0], relu=True)
        parts = iter(middle)
        self.stages = nn.ModuleList(
            Stage(ResidualBlock(block) for block in islice(parts, superblock.depth)) for superblock in network.stages
        )
        self.final_conv = ConvNorm(body(last)[0], relu=True) if network.head else None
        self.head = Classifier(last.pooled_width, last.classes)

    @property
    def superblocks(self) -> tuple[Stage, ...]:
        """The super-blocks in order; one of depth 0 has no module of its own, and appears as an empty stage."""
        stages = (stage for stage in self.stages if isinstance(stage, Stage))
        return tuple(next(stages) if superblock.depth else Stage(()) for superblock in self.network.superblocks)

    def prefix(self, index: int) -> nn.Sequential:
        """Return the stem and the super-blocks before `index`; the modules are the network's own."""
        return nn.Sequential(self.stem, *self.superblocks[:index])

    def suffix(self, index: int) -> nn.Sequential:
        """Return super-block `index` and everything after it; `suffix(i)(prefix(i)(x))` is the network's answer."""
        return nn.Sequential(*self.superblocks[index:], *self._end)

    def reader(self, index: int) -> nn.Module:
        """Return the first layer that reads super-block `index`: a block, or at the end the 1x1 convolution or classifier."""
        following = (block for stage in self.superblocks[index + 1 :] for block in stage.blocks)
        return next(following, self._end[0])

    @property
    def _end(self) -> tuple[nn.Module, ...]:
        """Everything after the last super-block."""
        return (self.head,) if self.final_conv is None else (self.final_conv, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of a batch of images."""
        x = self.stem(x)
        for part in (*self.stages, *self._end):
            x = part(x)
        return x


def build(network: Network, seed: int = 0) -> GENet:
    """Return the network with fresh weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = GENet(network)
        initialise(module)
    return module


def initialise(module: nn.Module) -> None:
    """Draw weights by He initialisation (the paper's MSRA); each block's last BN starts at zero, leaving its shortcut."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.out_channels * part.kernel_size[0] ** 2 // part.groups
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, ResidualBlock):
            nn.init.zeros_(part.convs[-1].bn.weight)
