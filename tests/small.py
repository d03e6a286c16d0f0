"""A small network with the look of a trained one, for tests of its exports."""

from __future__ import annotations

import torch
from torch import nn

from genet.nets.build import GENet
from genet.spec.network import Network

NETWORK = Network.parse(
    "@12x1 | Conv k3 c8 s2 | XX k5 c16 s1 d1 | DW k3 c16 s1 d1 r2 | BL k7 c24 s2 d1 r1 | Conv k1 c16 | 10", name="small"
)


def with_own_statistics(module: GENet, seed: int = 0) -> GENet:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                for tensor in (part.weight, part.bias, part.running_mean):
                    tensor.copy_(torch.rand(tensor.shape, generator=draw) - 0.3)
                part.running_var.copy_(torch.rand(part.running_var.shape, generator=draw) + 0.5)
        module.head.fc.weight.copy_(torch.rand(module.head.fc.weight.shape, generator=draw) - 0.5)
    return module
