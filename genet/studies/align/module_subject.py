"""Any convolutional network as one whose widths can move: a timm model, or what a user's own function builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from genet.latency.part import Part, by_convolution
from genet.latency.trace import module_ops
from genet.spec.network import Block
from genet.studies.align.layer import Layer
from genet.studies.align.resize import resized
from genet.studies.align.subject import Movable, Widths, grid
from genet.studies.align.tied import Group, Tied, tie


@dataclass(frozen=True)
class ModuleSubject:
    """A network as built, and how wide its groups may be: a pruned network does not grow beyond the one it was cut from."""

    source: Part
    module: nn.Module
    widest: Mapping[str, int]

    @property
    def name(self) -> str:
        """As the user named it."""
        return self.source.name

    @cached_property
    def tied(self) -> Tied:
        """Its layers and groups."""
        return tie(self.module, self.source.image, self.name)

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
        offered = grid(group.width, widest=self.widest.get(group.name))
        names = tuple(layer.name for layer in written)
        return Movable(group.name, names, group.width, offered, lambda width: self._blocks(group.name, width - group.width))

    def _touched(self, group: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.tied.layers.values() if layer.touches(group))

    def _blocks(self, group: str, more: int) -> tuple[Block, ...]:
        return tuple(block for layer in self._touched(group) for block in layer.blocks({group: more}))

    def parameters(self, widths: Widths) -> int:
        """In closed form, from what it has now."""
        changes = {name: width - self.tied.of(name).width for name, width in widths.items()}
        layers = self.tied.layers.values()
        return self._parameters + sum(layer.parameters(changes) - layer.parameters({}) for layer in layers)

    @cached_property
    def _parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    def part(self, widths: Widths) -> Part:
        """The network with other widths, to be timed; its new channels have weights of no meaning yet."""

        def build() -> nn.Module:
            return resized(self.module, self.tied, widths)

        image = self.source.image
        return Part(self.name, image, lambda: tuple(by_convolution(module_ops(build(), image))), build)


def pruned(dense: ModuleSubject, widths: Widths) -> ModuleSubject:
    """The dense network cut to other widths, up to which it may grow back; which channels it keeps matters to no latency."""
    widest = {group.name: group.width for group in dense.tied.groups}
    return ModuleSubject(dense.source, resized(dense.module, dense.tied, widths), widest)
