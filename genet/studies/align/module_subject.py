"""Any convolutional network as one whose widths can move: a timm model, or what a user's own function builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from genet.latency.part import Part, by_convolution
from genet.latency.trace import module_ops
from genet.nets.foreign import channels
from genet.spec.foreign import Foreign
from genet.spec.network import Block
from genet.studies.align.layer import Layer
from genet.studies.align.resize import Kept, resized
from genet.studies.align.subject import Movable, Widths, grid
from genet.studies.align.tied import Group, Tied, tie


@dataclass(frozen=True)
class ModuleSubject:
    """A network as its source builds it, and the widths it is cut to: a cut network does not grow beyond its source."""

    network: Foreign
    source: nn.Module
    cut: Widths = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name."""
        return self.network.name

    @cached_property
    def tied(self) -> Tied:
        """The source's layers and groups."""
        return tie(self.source, self._image, self.name)

    @property
    def _image(self) -> tuple[int, int, int]:
        reads = self.network.input
        return reads.channels, reads.resolution, reads.resolution

    @property
    def fixed(self) -> Mapping[str, str]:
        """Groups that stay, and why."""
        return {group.name: group.fixed for group in self.tied.groups if group.fixed}

    @cached_property
    def movable(self) -> tuple[Movable, ...]:
        """Groups that may move."""
        return tuple(self._movable(group) for group in self.tied.groups if not group.fixed)

    def _movable(self, group: Group) -> Movable:
        written = (layer for layer in self._touched(group.name) if layer.kind != "norm" and group.name in layer.writes.tied)
        width = self.cut.get(group.name, group.width)
        offered = grid(width, widest=group.width if self.cut else None)
        names = tuple(layer.name for layer in written)
        return Movable(group.name, names, width, offered, lambda at: self._blocks(group.name, at))

    def _touched(self, group: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.tied.layers.values() if layer.touches(group))

    def _blocks(self, group: str, width: int) -> tuple[Block, ...]:
        changes = self._changes({group: width})
        return tuple(block for layer in self._touched(group) for block in layer.blocks(changes))

    def _changes(self, widths: Widths) -> dict[str, int]:
        """How many channels groups have more than in the source."""
        return {name: width - self.tied.of(name).width for name, width in {**self.cut, **widths}.items()}

    def parameters(self, widths: Widths) -> int:
        """In closed form, from what the source has."""
        changes = self._changes(widths)
        layers = self.tied.layers.values()
        return self._parameters + sum(layer.parameters(changes) - layer.parameters({}) for layer in layers)

    @cached_property
    def _parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.source.parameters())

    def part(self, widths: Widths) -> Part:
        """The network with other widths, to be timed; which channels it keeps matters to no latency."""

        def build() -> nn.Module:
            return self.build(widths)

        return Part(self.name, self._image, lambda: tuple(by_convolution(module_ops(build(), self._image))), build)

    def build(self, widths: Widths, kept: Kept | None = None) -> nn.Module:
        """The network with other widths and the source's weights: `kept` names the channels that groups keep."""
        return resized(self.source, self.tied, {**self.cut, **widths}, kept)

    def described(self, module: nn.Module, name: str) -> Foreign:
        """What was built, as a record that anything here builds again without knowing of groups."""
        found = {}
        for layer, part in module.named_modules():
            now, before = channels(part), channels(self.source.get_submodule(layer))
            if now and now != before:
                found[layer] = now
        return self.network.model_copy(update={"name": name, "layers": self.network.layers | found})
