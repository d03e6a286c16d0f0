"""Criteria for the channels that a cut keeps: the largest filters, or the feature maps of the highest rank.

A third, how much the loss depends on them, is in `importance`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genet.studies.align.channel_groups import ChannelGroup, ChannelGroups

NORMS = ("l1", "l2")  # of filters; the other criteria, `rank` and `taylor`, look at images
AT_ONCE = 25  # images at a time, whose feature maps are all held in memory
Scores = Callable[[ChannelGroup], Tensor]  # one number per unit of a group


def kept_channels(tied: ChannelGroups, widths: Mapping[str, int], scores: Scores) -> dict[str, list[int]]:
    """Return for every group that is cut the units with the highest scores."""
    found = {}
    for group in tied.groups:
        count = widths.get(group.name, group.width) // group.unit
        if count < group.units:
            found[group.name] = sorted(scores(group).argsort(descending=True, stable=True)[:count].tolist())
    return found


def by_filter(module: nn.Module, filters: Callable[[str], Tensor]) -> Scores:
    """Return the sum over the convolutions that write a unit; `filters` gives one number per filter of a convolution."""

    def scores(group: ChannelGroup) -> Tensor:
        total = torch.zeros(group.units)
        for member in group.members:
            if member.side == "out" and isinstance(module.get_submodule(member.layer), nn.Conv2d):
                total += filters(member.layer)[torch.tensor(member.places)].sum(dim=1)
        return total

    return scores


def norms(module: nn.Module, power: int) -> Scores:
    """Return the L1 norm of a filter (Li et al., 2016), or its L2 norm, which soft filter pruning takes (He et al., 2018)."""

    def filters(layer: str) -> Tensor:
        weight = module.get_submodule(layer).weight
        assert isinstance(weight, Tensor)
        return weight.detach().flatten(1).norm(p=power, dim=1)

    return by_filter(module, filters)


def ranks(module: nn.Module, images: Tensor) -> Scores:
    """Return the rank of a filter's maps after normalisation and ReLU, summed over images (HRank: Lin et al., 2020)."""
    return by_filter(module, dict(_ranks(module, images)).__getitem__)


@torch.inference_mode()
def _ranks(module: nn.Module, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Follow each convolution's output to the normalisation that reads it; without one use its own output."""
    found: dict[str, Tensor] = {}
    written: dict[int, tuple[str, Tensor]] = {}  # keeps the tensors, so that no other can take their identity
    handles = []

    def add(name: str, maps: Tensor) -> None:
        found[name] = found.get(name, torch.zeros(maps.shape[1])) + torch.linalg.matrix_rank(maps.relu()).float().sum(dim=0)

    def convolved(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        written[id(output)] = name, output

    def normalised(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if id(inputs[0]) in written:
            add(written.pop(id(inputs[0]))[0], output)

    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            handles.append(layer.register_forward_hook(partial(convolved, name)))
        elif isinstance(layer, _BatchNorm):
            handles.append(layer.register_forward_hook(normalised))
    for some in images.split(AT_ONCE):
        module.eval()(some)
        for name, output in written.values():
            add(name, output)
        written.clear()
    for handle in handles:
        handle.remove()
    yield from found.items()
