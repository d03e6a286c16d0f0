"""A network with other widths: channels cut off, or new ones added so that the network still computes the same.

A new channel is written by fresh filters and read by weights of zero, which training then changes. A forward may know its number
of channels, pad them, or mix them, which no graph shows: so groups are tried before they move.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genet.studies.align.channel_groups import ChannelGroup, ChannelGroups, Side, segments

KeptUnits = Mapping[str, Sequence[int]]  # of a group, the units to keep, ascending; by default the first ones
NEW = -1  # in an order: a new channel
MORE = 3  # units to widen a group by, as a test
CLOSE = 1e-3  # of the largest logit
REASON = "with another width there the network fails or gives another output"
WHILE_TRAINED = "with another width there the network fails in training"


def resized(module: nn.Module, tied: ChannelGroups, widths: Mapping[str, int], kept: KeptUnits | None = None) -> nn.Module:
    """Return a copy in which groups have other widths."""
    result = copy.deepcopy(module)
    groups = [group for group in tied.groups if widths.get(group.name, group.width) != group.width]
    touched = dict.fromkeys((member.layer, member.side) for group in groups for member in group.members)
    for layer, side in touched:
        part = result.get_submodule(layer)
        order = _order(_length(part, side), layer, side, groups, widths, kept or {})
        _reorder(part, side, order)
    return result


def _length(part: nn.Module, side: Side) -> int:
    if isinstance(part, nn.Conv2d):
        return part.out_channels if side == "out" else part.in_channels
    if isinstance(part, nn.Linear):
        return part.out_features if side == "out" else part.in_features
    assert isinstance(part, _BatchNorm)  # no other layer is in a group that may move
    return part.num_features


def _order(
    length: int, layer: str, side: Side, groups: Sequence[ChannelGroup], widths: Mapping[str, int], kept: KeptUnits
) -> list[int]:
    """Return the new order of the axis: indices of the channels that stay, and NEW for added ones, behind their group's last."""
    dropped: set[int] = set()
    added: dict[int, int] = {}
    for group in groups:
        wanted = widths[group.name] // group.unit
        for member in group.members:
            if (member.layer, member.side) == (layer, side):
                stays = set(kept.get(group.name, range(min(wanted, group.units))))
                dropped |= {index for unit, places in enumerate(member.places) if unit not in stays for index in places}
                added |= {behind: size * max(0, wanted - group.units) for behind, size in segments(member)}
    return [index for old in range(length) for index in _at(old, dropped, added)]


def _at(old: int, dropped: set[int], added: Mapping[int, int]) -> Iterator[int]:
    if old not in dropped:
        yield old
    yield from [NEW] * added.get(old, 0)


def _reorder(part: nn.Module, side: Side, order: list[int]) -> None:
    """Reorder one axis of a layer's tensors; new filters are drawn, and new inputs are read with zeros."""
    if isinstance(part, nn.Conv2d):
        written, read = part.out_channels // part.groups, part.in_channels // part.groups  # by each group of its channels
        if side == "out":
            _replace(part, "weight", 0, order, "drawn")
            _replace(part, "bias", 0, order, "zero")
            part.out_channels = len(order)
            if part.groups > 1:  # whole groups come and go, with what they read
                part.groups = len(order) // written
                part.in_channels = part.groups * read
        elif part.groups == 1:
            _replace(part, "weight", 1, order, "zero")
            part.in_channels = len(order)
    elif isinstance(part, nn.Linear):
        _replace(part, "weight", 0 if side == "out" else 1, order, "drawn" if side == "out" else "zero")
        if side == "out":
            _replace(part, "bias", 0, order, "zero")
            part.out_features = len(order)
        else:
            part.in_features = len(order)
    elif isinstance(part, _BatchNorm):
        for name, fill in (("weight", "one"), ("bias", "zero"), ("running_mean", "zero"), ("running_var", "one")):
            _replace(part, name, 0, order, fill)
        part.num_features = len(order)


def _replace(part: nn.Module, name: str, dim: int, order: list[int], fill: str) -> None:
    before: Tensor | None = getattr(part, name)
    if before is None:
        return
    index = torch.tensor(order, device=before.device)
    picked = before.detach().index_select(dim, index.clamp(min=0))
    fresh = torch.ones_like(picked) if fill == "one" else torch.zeros_like(picked)
    if fill == "drawn":
        nn.init.kaiming_normal_(fresh, mode="fan_out", nonlinearity="relu")
    is_new = (index == NEW).view([-1 if axis == dim else 1 for axis in range(picked.dim())])
    after = torch.where(is_new, fresh, picked)
    if isinstance(before, nn.Parameter):
        setattr(part, name, nn.Parameter(after, requires_grad=before.requires_grad))
    else:
        setattr(part, name, after)


@torch.inference_mode()
def verify_resizable(module: nn.Module, tied: ChannelGroups, image: tuple[int, int, int]) -> ChannelGroups:
    """Return the groups, fixing those with which the network cannot be widened unchanged, cut, or trained afterwards.

    All are tried together, and one by one only if that fails.
    """
    probe = _Probe(_varied(module), tied, torch.randn(2, *image, generator=torch.Generator().manual_seed(0)))
    free = [group for group in tied.groups if not group.fixed]
    if probe.why_fixed(free) is None:
        return tied
    why = {group.name: probe.why_fixed([group]) for group in free}
    groups = tuple(dataclasses.replace(group, fixed=group.fixed or why[group.name]) for group in tied.groups)
    return dataclasses.replace(tied, groups=groups)


def _varied(module: nn.Module) -> nn.Module:
    """Return a copy whose normalisations pass everything on, as a scale of zero would hide errors before it."""
    probe = copy.deepcopy(module).eval()
    draw = torch.Generator().manual_seed(0)
    for part in probe.modules():
        if isinstance(part, _BatchNorm) and part.weight is not None:
            part.weight.copy_(torch.rand(part.weight.shape, generator=draw) + 0.5)
    return probe


class _Probe:
    """A network on which widths are tried, with its answer to some images."""

    def __init__(self, module: nn.Module, tied: ChannelGroups, images: Tensor) -> None:
        self._module, self._tied, self._images, self._wanted = module, tied, images, module(images)
        self._trains = _runs(copy.deepcopy(module).train(), images)  # auxiliary heads read channels that evaluation does not show

    def why_fixed(self, groups: Sequence[ChannelGroup]) -> str | None:
        """Return why these groups cannot move, all at once; None if they can."""
        wider = {group.name: group.width + MORE * group.unit for group in groups}
        narrower = {group.name: max(1, group.units // 2) * group.unit for group in groups}
        try:
            widened = resized(self._module, self._tied, wider)
            answer = widened(self._images)
            resized(self._module, self._tied, narrower)(self._images)
        except Exception:  # any error of a network whose shapes do not fit
            return REASON
        wanted = self._wanted
        if answer.shape != wanted.shape or not (answer - wanted).abs().max() <= CLOSE * wanted.abs().max():
            return REASON
        return WHILE_TRAINED if self._trains and not _runs(widened.train(), self._images) else None


def _runs(module: nn.Module, images: Tensor) -> bool:
    try:
        module(images)
    except Exception:  # as above
        return False
    return True
