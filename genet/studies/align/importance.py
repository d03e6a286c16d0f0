"""How much the loss depends on each channel and each residual block: Taylor's first order, squared image by image.

A gate of one on what the layers of a group read, channel by channel, has the sum of weight times gradient over all weights that
read the channel as its derivative (Molchanov et al., 2019). Its mean over images vanishes in a trained network; half the mean of
its square is the second order of the loss, with Fisher's information for its curvature (Theis et al., 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genet.progress import UNSEEN, Tracker
from genet.studies.align.channel_groups import ChannelGroup
from genet.studies.align.module_subject import ModuleSubject
from genet.training.image_sets import ImageSet
from genet.training.learner import computing_on, on_device

IMAGES = 512  # images that it is averaged over
AT_ONCE = 16  # images at a time, whose activations are all held in memory

Gates = list[tuple[str, Tensor]]  # of a layer or block: a factor of one for each image and channel


@dataclass(frozen=True)
class Importance:
    """The change of each image's loss, to first order, once a unit of a group (images, units) or a block (images) is gone."""

    units: Mapping[str, Tensor]
    blocks: Mapping[str, Tensor]

    def of(self, group: ChannelGroup) -> Tensor:
        """Return the rise of the loss with each unit of a group: a criterion for those that a cut keeps."""
        return self.units[group.name].square().mean(dim=0) / 2

    def lost(self, group: ChannelGroup, counts: Iterable[int]) -> tuple[float, ...]:
        """Return the rise of the loss once a group is cut to so many units, for each count.

        It is that of the units one by one or, if more, of all together, whose changes may add up in the same images. It never
        falls while more are cut.
        """
        alone = self.of(group).double()
        worst_first = alone.argsort(descending=True, stable=True).flip(0)
        together = self.units[group.name].double()[:, worst_first].cumsum(dim=1).square().mean(dim=0) / 2
        rises = torch.maximum(together, alone[worst_first].cumsum(dim=0)).cummax(dim=0).values
        return tuple(float(rises[group.units - count - 1]) if count < group.units else 0.0 for count in counts)

    def lost_with(self, block: str) -> float:
        """Return the rise of the loss once a block is gone."""
        return float(self.blocks[block].square().mean()) / 2


def importance_of(subject: ModuleSubject, images: ImageSet, device: torch.device, tracker: Tracker = UNSEEN) -> Importance:
    """Measure the importance of all groups and blocks that may move or go; every batch of images is counted."""
    probe, blocks = copy.deepcopy(subject.source).to(device).eval().requires_grad_(False), subject.removable
    places = {group.name: _read_places(probe, group, device) for group in subject.tied.groups if not group.fixed}
    gates: Gates = []
    for layer in dict.fromkeys(layer for readers in places.values() for layer in readers):
        probe.get_submodule(layer).register_forward_pre_hook(partial(_gate_on_input, layer, gates))
    for block in blocks:
        _gate_block(probe.get_submodule(block), block, gates)
    units: dict[str, list[Tensor]] = {name: [] for name in places}
    of_blocks: dict[str, list[Tensor]] = {block: [] for block in blocks}
    with computing_on(device), torch.enable_grad():
        for pixels, labels in on_device(images.on(device).batches(AT_ONCE, subject.resolution), device):
            gates.clear()
            loss = nn.functional.cross_entropy(probe(pixels), labels, reduction="sum")
            changes = _changes(loss, gates)
            for name, readers in places.items():
                by_reader = [changes[layer][:, each].sum(dim=2) for layer, each in readers.items()]
                units[name].append(torch.stack(by_reader).sum(dim=0).cpu())
            for block, parts in of_blocks.items():
                parts.append(changes[block].flatten().cpu())
            tracker.advance()
    return Importance(*({name: torch.cat(parts) for name, parts in found.items()} for found in (units, of_blocks)))


def _changes(loss: Tensor, gates: Gates) -> dict[str, Tensor]:
    """Return the derivative of each image's loss by the gates of each layer or block, (images, channels), over all its runs."""
    slopes = torch.autograd.grad(loss, [gate for _, gate in gates], allow_unused=True, materialize_grads=True)
    found: dict[str, Tensor] = {}
    for (name, _), slope in zip(gates, slopes, strict=True):
        found[name] = found[name] + slope.flatten(1) if name in found else slope.flatten(1)
    return found


def _read_places(module: nn.Module, group: ChannelGroup, device: torch.device) -> dict[str, Tensor]:
    """Return the positions of each unit, (units, positions), in what each layer that reads the group reads.

    A convolution with groups of channels that come and go with it is no reader: what it writes is read in turn.
    """
    layers = {member.layer: module.get_submodule(member.layer) for member in group.members}
    return {
        member.layer: torch.tensor(member.places, device=device)
        for member in group.members
        if member.side == "in" and getattr(layers[member.layer], "groups", 1) == 1
    }


def _gate_on_input(name: str, gates: Gates, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    read = inputs[0]
    shape = [1] * read.dim()
    axis = 1 if isinstance(layer, nn.Conv2d) else -1
    shape[0], shape[axis] = read.shape[0], read.shape[axis]
    gates.append((name, torch.ones(shape, device=read.device, requires_grad=True)))
    return (read.clone() * gates[-1][1], *inputs[1:])  # another module may write into what was read


def _gate_block(block: nn.Module, name: str, gates: Gates) -> None:
    """Put a gate on what a block adds to what it reads."""
    read: list[Tensor] = []

    def remember(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        read[:] = [inputs[0].detach().clone()]

    def gate(_: nn.Module, __: Any, written: Tensor) -> Tensor:
        ones = torch.ones([len(written)] + [1] * (written.dim() - 1), device=written.device, requires_grad=True)
        gates.append((name, ones))
        return written + (ones - 1) * (written.detach() - read.pop())

    block.register_forward_pre_hook(remember)
    block.register_forward_hook(gate)
