"""A network whose widths can move: the movable widths, their steps, and the cost with other widths.

A network of super-blocks is a `NetworkSubject`, one that other code builds a `ModuleSubject`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count

from genet.arch.cost import network_cost
from genet.arch.network import MULTIPLE, Block, Network, SuperBlock, blocks, inner_width_is_exportable, superblock_blocks
from genet.config.options import Spelling, as_option
from genet.errors import SpecError
from genet.latency.workload import Workload, network_workload

NARROWEST, WIDEST = 0.5, 1.5  # range around the present width at which a place is measured
FARTHEST = 3.0  # larger range if its step does not end there
FINE = 16  # fewest widths on offer, if the layer has that many
STEPS = (8, 4, 2, 1)
NAMED = 12  # layers, in a message
LEFT_OUT = "it is left out"

Widths = Mapping[str, int]  # widths of places that move, by name


@dataclass(frozen=True)
class Scope:
    """The layers that may move, by patterns of their names or of the modules around them; without `include` all may."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def check(self, layers: Sequence[str], spelled: Spelling = as_option) -> None:
        """Raise SpecError with every pattern that no layer matches."""
        more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
        listed = f"{', '.join(layers[:NAMED])}{more}"
        options = {spelled("include"): self.include, spelled("exclude"): self.exclude}
        faults = [
            f"{option}: got {pattern!r}, expected a pattern that matches a layer or a module around it; the layers are {listed}"
            for option, patterns in options.items()
            for pattern in patterns
            if not any(_matches(layer, (pattern,)) for layer in layers)
        ]
        if faults:
            raise SpecError(faults)

    def bars(self, layers: Sequence[str]) -> str | None:
        """Return the reason why layers of one width stay; None if all of them may move."""
        out = [layer for layer in layers if _matches(layer, self.exclude) or (self.include and not _matches(layer, self.include))]
        if not out:
            return None
        return LEFT_OUT if len(out) == len(layers) else f"{out[0]}, whose channels it shares, is left out"


EVERYTHING = Scope()


def _matches(layer: str, patterns: Sequence[str]) -> bool:
    parts = layer.split(".")
    names = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


@dataclass(frozen=True)
class Movable:
    """Layers of one width, the widths to measure, and the blocks to time, which the width changes.

    Other widths it may have are the multiples of `multiple`, up to `widest` if there is one.
    """

    name: str
    layers: tuple[str, ...]
    width: int
    grid: tuple[int, ...]
    blocks: Callable[[int], tuple[Block, ...]]
    multiple: int = MULTIPLE
    widest: int | None = None

    @property
    def near(self) -> int:
        """The widest of the grid that it may have."""
        return self.grid[-1] if self.widest is None else min(self.grid[-1], self.widest)

    @property
    def farther(self) -> tuple[int, ...]:
        """Widths behind those of the grid, to measure if the present one's step does not end within it."""
        return tuple(width for width in grid(self.width, self.multiple, FARTHEST) if width > self.grid[-1])


def grid(width: int, multiple: int = 1, reach: float = WIDEST) -> tuple[int, ...]:
    """Return widths up to so many times the present one: multiples of 8, or of less if these are few near it."""
    low = max(multiple, round(width * NARROWEST))
    step = next(size for size in STEPS if size == 1 or (round(width * WIDEST) - low) // size >= FINE)
    step = -(-step // multiple) * multiple
    return tuple(sorted({width, *range(-(-low // step) * step, round(width * reach) + 1, step)}))


@dataclass(frozen=True)
class NetworkSubject:
    """A network of super-blocks: its stem, the widths of its super-blocks, and its head if it has one can move.

    Ratios stay, so inner widths follow.
    """

    network: Network
    scope: Scope = EVERYTHING

    @property
    def name(self) -> str:
        """Its own name."""
        return self.network.name

    @property
    def layers(self) -> tuple[str, ...]:
        """Stem, super-blocks and head, if there is one."""
        stages = (f"stages.{index}" for index in range(len(self.network.stages)))
        return ("stem", *stages, *(["head"] if self.network.head else []))

    @property
    def fixed(self) -> Mapping[str, str]:
        """Layers that the user excludes."""
        return {name: why for name in self.layers if (why := self.scope.bars((name,)))}

    @property
    def movable(self) -> tuple[Movable, ...]:
        """Stem, super-blocks and head, if there is one, without the fixed ones."""
        network = self.network
        found = [self._movable("stem", network.stem.width, MULTIPLE)]
        for index, superblock in enumerate(network.stages):
            found.append(self._movable(f"stages.{index}", superblock.width, _multiple(superblock)))
        found += [self._movable("head", network.head.width, MULTIPLE)] if network.head else []
        return tuple(place for place in found if place.name not in self.fixed)

    def _movable(self, name: str, width: int, multiple: int) -> Movable:
        return Movable(name, (name,), width, grid(width, multiple), lambda at: self._changed(name, at), multiple)

    def _changed(self, name: str, width: int) -> tuple[Block, ...]:
        """Return the blocks of a place and the first that reads it."""
        network = self.at({name: width})
        parts = [tuple(blocks(network))[:1]]
        in_width, size = parts[0][0].width, parts[0][0].out_size
        for superblock in network.stages:
            parts.append(tuple(superblock_blocks(superblock, in_width, size)))
            in_width, size = superblock.width, parts[-1][-1].out_size
        parts.append(tuple(blocks(network))[-1:])
        index = {"stem": 0, "head": len(parts) - 1}.get(name)
        index = int(name.removeprefix("stages.")) + 1 if index is None else index
        readers = parts[index + 1][:1] if index + 1 < len(parts) else ()
        return (*parts[index], *readers)

    def at(self, widths: Widths) -> Network:
        """Return the network with other widths."""
        network = self.network
        stem = network.stem.model_copy(update={"width": widths.get("stem", network.stem.width)})
        head = network.head and network.head.model_copy(update={"width": widths.get("head", network.head.width)})
        stages = (
            block.model_copy(update={"width": widths.get(f"stages.{index}", block.width)})
            for index, block in enumerate(network.stages)
        )
        superblocks = tuple(next(stages) if block.depth else block for block in network.superblocks)
        return network.model_copy(update={"stem": stem, "superblocks": superblocks, "head": head})

    def parameters(self, widths: Widths) -> int:
        """Count in closed form."""
        return network_cost(self.at(widths)).parameters

    @property
    def resolution(self) -> int:
        """Of its images, in pixels."""
        return self.network.input.resolution

    def workload(self, widths: Widths, resolution: int | None = None) -> Workload:
        """Return the workload of the whole network."""
        return network_workload(self.at(widths).at(resolution or self.resolution))


def _multiple(superblock: SuperBlock) -> int:
    """Return the least width of which all multiples keep the inner width a multiple of 8."""
    ratio = superblock.ratio
    return MULTIPLE if ratio is None else next(w for w in count(MULTIPLE, MULTIPLE) if inner_width_is_exportable(w, ratio))
