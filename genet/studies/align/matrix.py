"""Latency over pairs of widths: what each layer takes at the widths it reads and the widths it writes.

A layer that reads the channels of several groups, put side by side by a concatenation, is measured with the fewest and with the
most of them: the channels that it reads enter its work linearly, while those it writes make the stairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genet.arch.network import Block
from genet.studies.align.layer import Layer
from genet.studies.align.program import LayerCost

Widths = Mapping[str, int]
Cell = Callable[[Layer, Widths], tuple[Block, ...]]


@dataclass(frozen=True)
class Matrices:
    """Layers, and the widths on offer by group, ascending, the present one last.

    `blocks` gives those to time for a layer at some widths, `around` the removable block that a layer lies in.
    """

    layers: Sequence[Layer]
    offered: Mapping[str, tuple[int, ...]]
    blocks: Cell
    around: Callable[[str], str | None]

    def wanted(self) -> tuple[Block, ...]:
        """Return all blocks to time, each once."""
        cells = (self.blocks(layer, widths) for layer in self.layers for widths in self._cells(layer))
        return tuple(dict.fromkeys(block for cell in cells for block in cell))

    def costs(self, ms: Callable[[Block], float]) -> tuple[LayerCost, ...]:
        """Return the latency of all layers that a choice changes, from that of their blocks."""
        return tuple(cost for layer in self.layers for cost in self._costs(layer, ms))

    def _groups(self, layer: Layer) -> tuple[str, ...]:
        return tuple(name for name in self.offered if layer.touches(name))

    def _written(self, layer: Layer) -> tuple[str, ...]:
        return tuple(name for name in self.offered if name in layer.writes.tied)

    def _cells(self, layer: Layer) -> Iterator[Widths]:
        """Yield the widths at which a layer is measured."""
        groups = self._groups(layer)
        if len(groups) <= 2:
            yield from self._combinations(groups)
            return
        for written in self._combinations(self._written(layer)):
            for end in (0, -1):
                yield {**{name: self.offered[name][end] for name in groups}, **written}

    def _combinations(self, groups: Iterable[str]) -> Iterator[Widths]:
        names = tuple(groups)
        for widths in itertools.product(*(self.offered[name] for name in names)):
            yield dict(zip(names, widths, strict=True))

    def _costs(self, layer: Layer, ms: Callable[[Block], float]) -> Iterator[LayerCost]:
        groups, block = self._groups(layer), self.around(layer.name)
        layer_ms = np.array([sum(map(ms, self.blocks(layer, widths))) for widths in self._cells(layer)], float)
        if len(groups) <= 2:
            if groups or block is not None:
                yield LayerCost(groups, layer_ms.reshape([len(self.offered[name]) for name in groups]), block)
            return
        written = self._written(layer)
        fewest, most = layer_ms.reshape(-1, 2).T
        shape = [len(self.offered[name]) for name in written]
        yield LayerCost(written, most.reshape(shape), block)
        read = [name for name in groups if name not in written]
        channels = {name: self._channels(layer, name) for name in read}
        apart = sum(int(each[-1] - each[0]) for each in channels.values()) or 1
        per_channel = np.array([(m - f) / apart if m < np.inf and f < np.inf else 0.0 for f, m in zip(fewest, most, strict=True)])
        for name, each in channels.items():
            yield LayerCost((name, *written), np.multiply.outer(each - each[-1], per_channel).reshape(len(each), *shape), block)

    def _channels(self, layer: Layer, group: str) -> np.ndarray:
        """Return the channels that a layer reads at each width of a group, the others as they are."""
        return np.array([self.blocks(layer, {group: width})[0].in_width for width in self.offered[group]])
