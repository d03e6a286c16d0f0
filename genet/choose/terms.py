"""What the regression sees of a super-block: terms by name, each with a value that is 0 for the MasterNet's own.

Some terms are shared by the whole network and cost nothing to believe in: more width, more depth and more parameters
seldom hurt. The others belong to a super-block (`2 width`), to a block type (`DW k3 r6`), or to a type in its place
(`2 DW k3 r6 width`), and only trials can tell what they are worth.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from genet.spec.cost import block_cost, network_cost
from genet.spec.network import Block, Network, SuperBlock, blocks, superblock_blocks

Scale = Literal["linear", "log2"]
SHARED = ("width", "depth", "parameters")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a super-block stands in the MasterNet."""

    own: SuperBlock
    in_width: int
    size: int
    reader: Block  # the first block after it
    elsewhere: int  # parameters of all other blocks

    def parameters(self, superblock: SuperBlock) -> int:
        """Of the MasterNet with this super-block in the place of its own."""
        first, *rest = superblock_blocks(superblock, self.in_width, self.size)
        reader = dataclasses.replace(self.reader, in_width=superblock.width)
        repeated = len(rest) * block_cost(rest[0]).parameters if rest else 0
        return self.elsewhere + block_cost(first).parameters + repeated + block_cost(reader).parameters


class Terms:
    """How the change from the MasterNet's super-block to another is described.

    Widths and depths count by their logarithms or linearly; a linear width is in widths of the MasterNet's own, so that
    twice as wide is 1 either way. Parameters count in doublings of the whole network's.
    """

    def __init__(self, masternet: Network, width: Scale, depth: Scale) -> None:
        self._width, self._depth = width, depth
        self._parameters = network_cost(masternet).parameters
        self._places = _places(masternet, self._parameters)

    def __call__(self, index: int, superblock: SuperBlock) -> dict[str, float]:
        """The terms of `superblock` at `index` (from 0)."""
        place, kind = self._places[index], superblock.block_type
        moves = {"width": self._wider(superblock, place.own), "depth": self._deeper(superblock, place.own)}
        terms = {**moves, "parameters": math.log2(place.parameters(superblock) / self._parameters)}
        for name, value in moves.items():
            terms[f"{index + 1} {name}"] = terms[f"{index + 1} {kind} {name}"] = value
        return terms if kind == place.own.block_type else {**terms, str(kind): 1.0, f"{index + 1} {kind}": 1.0}

    def _wider(self, superblock: SuperBlock, own: SuperBlock) -> float:
        ratio = superblock.width / own.width
        return math.log2(ratio) if self._width == "log2" else ratio - 1

    def _deeper(self, superblock: SuperBlock, own: SuperBlock) -> float:
        return math.log2(superblock.depth / own.depth) if self._depth == "log2" else float(superblock.depth - own.depth)


def fine_tuning_terms(index: int) -> dict[str, float]:
    """What fine-tuning changes in every trial of a super-block, its control included."""
    return {"fine-tuning": 1.0, f"{index + 1} fine-tuning": 1.0}


def _places(masternet: Network, parameters: int) -> list[_Place]:
    """Where every super-block of the MasterNet stands."""
    _, *middle, head = blocks(masternet)
    places, start = [], 0
    for own in masternet.superblocks:
        first, end = middle[start], start + own.depth
        reader = [*middle, head][end]
        mine = sum(block_cost(block).parameters for block in (*middle[start:end], reader))
        places.append(_Place(own, first.in_width, first.size, reader, parameters - mine))
        start = end
    return places
