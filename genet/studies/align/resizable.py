"""A test that groups can move: the network is built with other widths and run, as a graph does not show everything.

A forward may know its number of channels, pad them, or mix them; then the network with other widths fails, or gives another
answer.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genet.studies.align.channel_groups import Group, Tied
from genet.studies.align.resize import resized

MORE = 3  # units
CLOSE = 1e-3  # of the largest logit
REASON = "the network fails or answers otherwise with another width there"
WHILE_TRAINED = "the network fails with another width there while it is trained"


@torch.inference_mode()
def verify_resizable(module: nn.Module, tied: Tied, image: tuple[int, int, int]) -> Tied:
    """Return the groups, fixing those with which the network cannot be widened unchanged, cut, or trained afterwards.

    All are tried together, and one by one only if that fails.
    """
    probe = _varied(module)
    images = torch.randn(2, *image, generator=torch.Generator().manual_seed(0))
    wanted = probe(images)
    trains = _runs(copy.deepcopy(probe).train(), images)  # auxiliary heads read channels that evaluation does not show
    free = [group for group in tied.groups if not group.fixed]
    if _stuck(probe, tied, free, images, wanted, trains) is None:
        return tied
    why = {group.name: _stuck(probe, tied, [group], images, wanted, trains) for group in free}
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


def _stuck(probe: nn.Module, tied: Tied, groups: list[Group], images: Tensor, wanted: Tensor, trains: bool) -> str | None:
    """Return why these groups cannot move, all at once; None if they can."""
    wider: Mapping[str, int] = {group.name: group.width + MORE * group.unit for group in groups}
    narrower = {group.name: max(1, group.units // 2) * group.unit for group in groups}
    try:
        widened = resized(probe, tied, wider)
        answer = widened(images)
        resized(probe, tied, narrower)(images)
    except Exception:  # any error of a network whose shapes do not fit
        return REASON
    if answer.shape != wanted.shape or not (answer - wanted).abs().max() <= CLOSE * wanted.abs().max():
        return REASON
    return WHILE_TRAINED if trains and not _runs(widened.train(), images) else None


def _runs(module: nn.Module, images: Tensor) -> bool:
    try:
        module(images)
    except Exception:  # as above
        return False
    return True
