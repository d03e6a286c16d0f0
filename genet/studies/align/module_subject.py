"""Any convolutional network as one whose widths can move: a timm model, or the network of a user's own function."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

from torch import nn

from genet.arch.external import ExternalModel
from genet.arch.network import Block
from genet.config.reader import read_widths
from genet.latency.workload import Workload, traced_workload
from genet.models.external import channels
from genet.studies.align.branches import removable_blocks, remove_blocks
from genet.studies.align.channel_groups import ChannelGroup, ChannelGroups, find_channel_groups
from genet.studies.align.layer import Layer
from genet.studies.align.resize import KeptUnits, resized, verify_resizable
from genet.studies.align.subject import EVERYTHING, WIDEST, Movable, NetworkSubject, Scope, Widths, grid


@dataclass(frozen=True)
class ModuleSubject:
    """A network as its source builds it, and the widths it is cut to: a cut network does not grow beyond its source."""

    network: ExternalModel
    source: nn.Module
    cut: Widths = field(default_factory=dict)
    scope: Scope = EVERYTHING

    @property
    def name(self) -> str:
        """Its name."""
        return self.network.name

    @cached_property
    def tied(self) -> ChannelGroups:
        """The source's layers and groups."""
        image = self.network.input.image
        return verify_resizable(self.source, find_channel_groups(self.source, image, self.name), image)

    @property
    def layers(self) -> tuple[str, ...]:
        """Its convolutions."""
        return tuple(dict.fromkeys(layer for group in self.tied.groups for layer in group.convolutions))

    @property
    def fixed(self) -> Mapping[str, str]:
        """Layers of the groups that stay, with the reasons."""
        stay = [(group, why) for group in self.tied.groups if (why := self._stays(group))]
        return {name: why for group, why in stay for name in (group.name, *group.convolutions[1:])}

    def _stays(self, group: ChannelGroup) -> str | None:
        return group.fixed or self.scope.bars(group.convolutions)

    @cached_property
    def movable(self) -> tuple[Movable, ...]:
        """Groups that may move."""
        return tuple(self._movable(group) for group in self.tied.groups if not self._stays(group))

    def _movable(self, group: ChannelGroup) -> Movable:
        written = (layer for layer in self._touched(group.name) if layer.kind != "norm" and group.name in layer.writes.tied)
        width = self.cut.get(group.name, group.width)
        widest = group.width if self.cut else None
        end = round(width * WIDEST) // group.unit * group.unit
        offered = sorted({*grid(width, group.unit), min(widest or width, end)})
        names = tuple(layer.name for layer in written)
        return Movable(group.name, names, width, tuple(offered), lambda at: self._blocks(group.name, at), group.unit, widest)

    def _touched(self, group: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.tied.layers.values() if layer.touches(group))

    def _blocks(self, group: str, width: int) -> tuple[Block, ...]:
        changes = self._changes({group: width})
        return tuple(block for layer in self._touched(group) for block in layer.blocks(changes))

    def _changes(self, widths: Widths) -> dict[str, int]:
        """Return the additional units of groups over the source."""
        wanted = {**self.cut, **widths}
        return {name: wanted[name] // group.unit - group.units for group in self.tied.groups if (name := group.name) in wanted}

    def parameters(self, widths: Widths) -> int:
        """Count in closed form, starting from the source."""
        changes = self._changes(widths)
        layers = self.tied.layers.values()
        return self._parameters + sum(layer.parameters(changes) - layer.parameters({}) for layer in layers)

    @cached_property
    def _parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.source.parameters())

    @property
    def resolution(self) -> int:
        """Resolution of its images, in pixels."""
        return self.network.input.resolution

    @cached_property
    def removable(self) -> tuple[str, ...]:
        """Residual blocks without which it runs, in running order, as far as the scope has all of their layers move."""
        image = self.network.input.image
        return tuple(name for name in removable_blocks(self.source, image) if not self.scope.bars(self._convolutions_in(name)))

    def _convolutions_in(self, block: str) -> tuple[str, ...]:
        parts = self.source.get_submodule(block).named_modules(prefix=block)
        return tuple(name for name, part in parts if isinstance(part, nn.Conv2d))

    def around(self, layer: str) -> str | None:
        """Return the removable block that a layer is in."""
        return next((block for block in self.removable if layer.startswith(f"{block}.")), None)

    def around_group(self, group: str) -> str | None:
        """Return the removable block that all layers of a group are in."""
        blocks = {self.around(member.layer) for member in self.tied.of(group).members}
        return blocks.pop() if len(blocks) == 1 else None

    def layer_blocks(self, layer: Layer, widths: Widths) -> tuple[Block, ...]:
        """Return the blocks to time for a layer at some widths."""
        return layer.blocks(self._changes(widths))

    def workload(self, widths: Widths, resolution: int | None = None, removed: Sequence[str] = ()) -> Workload:
        """Return the network with other widths, to be timed; which channels it keeps matters to no latency.

        Asking for its kernels raises SpecError if it does not run at another resolution.
        """
        size = resolution or self.resolution
        image = (self.network.input.channels, size, size)
        remedy = "scale its width alone" if size != self.resolution else "give it images of another size"
        return traced_workload(self.name, image, lambda: self.build(widths, removed=removed), remedy)

    def build(self, widths: Widths, kept: KeptUnits | None = None, removed: Sequence[str] = ()) -> nn.Module:
        """Return the network with other widths, without some blocks, and with the source's weights.

        `kept` names the units that groups keep.
        """
        return remove_blocks(resized(self.source, self.tied, {**self.cut, **widths}, kept), removed)

    def described(
        self, module: nn.Module, name: str, resolution: int | None = None, removed: Sequence[str] = ()
    ) -> ExternalModel:
        """Return the built network as a record that can be rebuilt without the groups."""
        found = {}
        for layer, part in module.named_modules():
            now, before = channels(part), channels(self.source.get_submodule(layer))
            if now and now != before:
                found[layer] = now
        inside = tuple(f"{block}." for block in removed)
        layers = {layer: now for layer, now in self.network.layers.items() if not layer.startswith(inside)}
        gone = (*(self.network.removed or ()), *removed)
        described = self.network.model_copy(update={"name": name, "layers": layers | found, "removed": gone or None})
        return described.at(resolution or self.resolution)


ResizableNetwork = NetworkSubject | ModuleSubject  # a network that can be built with other widths


def cut_to(subject: ModuleSubject, widths: str | Path) -> ModuleSubject:
    """Return a network cut to a list of widths, by file or name. SpecError lists every width that does not match its layers."""
    groups = subject.tied.groups
    tied = {layer: group for group in groups for layer in group.convolutions}
    fixed = {layer: group.fixed for layer, group in tied.items() if group.fixed}
    layers = {layer: cast("nn.Conv2d", subject.source.get_submodule(layer)).out_channels for layer in tied if layer not in fixed}
    layers |= {layer: tied[layer].width for layer in fixed}
    units = {layer: layers[layer] // group.units for layer, group in tied.items() if layer not in fixed}
    wanted = read_widths(widths, layers, {layer: group.name for layer, group in tied.items()}, fixed, units)
    free = {layer: width // units[layer] * tied[layer].unit for layer, width in wanted.items() if layer not in fixed}
    return dataclasses.replace(subject, cut={tied[layer].name: width for layer, width in free.items()})
