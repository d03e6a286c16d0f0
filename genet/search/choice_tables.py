"""The choices for every super-block in tables: the predicted gain of each, and its cost by the width it reads.

The selection, the paper's random draw and the explanation of a choice all read these tables.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from genet.arch.cost import block_cost
from genet.arch.network import Block, Network, SuperBlock, blocks, superblock_blocks
from genet.arch.space import SearchSpace, WidthsOnOffer
from genet.latency.ops import kernel_count
from genet.search.features import attainable

MsByInWidth = Callable[[Block, Sequence[int]], np.ndarray]  # latency of a block that reads each of these widths
Gain = Callable[[int, SuperBlock], float | None]  # None if there is no evidence


@dataclass(frozen=True)
class ChoiceTable:
    """The choices for one super-block; their costs have the shape (widths read, choices)."""

    choices: tuple[SuperBlock, ...]
    reads: dict[int, int]  # width -> row
    widths: np.ndarray  # width that each choice writes: the width read if it has no block
    gain: np.ndarray  # (choices,), predicted change of accuracy
    ms: np.ndarray  # per batch; infinite for blocks that could not be measured
    parameters: np.ndarray
    kernels: np.ndarray

    @cached_property
    def place(self) -> dict[SuperBlock, int]:
        """The position of each choice."""
        return {choice: column for column, choice in enumerate(self.choices)}


class Prediction(NamedTuple):
    """Milliseconds per batch, accuracy and parameters of one network."""

    ms: float
    accuracy: float
    parameters: int


class Totals(NamedTuple):
    """Milliseconds per batch, accuracy and parameters of many networks."""

    ms: np.ndarray
    accuracy: np.ndarray
    parameters: np.ndarray


@dataclass(frozen=True)
class ChoiceTables:
    """All super-blocks of a space at one resolution, with the stem before them and the head after."""

    space: SearchSpace
    resolution: int
    accuracy: float  # of the MasterNet
    stem: tuple[float, int, int]  # ms, parameters, kernels
    superblocks: tuple[ChoiceTable, ...]
    head: dict[int, tuple[float, int, int]]  # by the width read
    host_ms: float  # per kernel: no network is faster than its launches by the host; 0 if that does not matter

    def network(self, choices: Sequence[int]) -> Network:
        """Return the network of one choice per super-block."""
        picked = (table.choices[choice] for table, choice in zip(self.superblocks, choices, strict=True))
        return self.space.network(tuple(picked), self.resolution)

    def random_picks(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw so many networks, each a row of one choice per super-block."""
        return np.column_stack([rng.integers(len(table.choices), size=count) for table in self.superblocks])

    def holds(self, network: Network) -> bool:
        """Return whether every super-block of a network is on offer."""
        return all(own in table.place for table, own in zip(self.superblocks, network.superblocks, strict=True))

    def predict(self, network: Network) -> Prediction:
        """Return the predictions for a network that is on offer."""
        places = [table.place[own] for table, own in zip(self.superblocks, network.superblocks, strict=True)]
        found = self.totals(np.array([places]))
        return Prediction(float(found.ms[0]), float(found.accuracy[0]), int(found.parameters[0]))

    def totals(self, picks: np.ndarray) -> Totals:
        """Return the predictions for many networks, each a row of one choice per super-block."""
        count = len(picks)
        ms, parameters, kernels = (np.full(count, value) for value in self.stem)
        accuracy, row = np.full(count, self.accuracy), np.zeros(count, int)
        after = [*(table.reads for table in self.superblocks[1:]), {width: row for row, width in enumerate(self.head)}]
        for table, picked, reads in zip(self.superblocks, picks.T, after, strict=True):
            ms, accuracy = ms + table.ms[row, picked], accuracy + table.gain[picked]
            parameters, kernels = parameters + table.parameters[row, picked], kernels + table.kernels[row, picked]
            row = np.array([reads[width] for width in table.widths[row, picked].tolist()], int)
        head = np.array(list(self.head.values()))[row]
        ms = np.maximum(ms + head[:, 0], self.host_ms * (kernels + head[:, 2]))
        return Totals(ms, attainable(accuracy, self.accuracy), parameters + head[:, 1].astype(int))


@dataclass(frozen=True)
class Predicted:
    """Predictions for a space's networks: the MasterNet's accuracy, the gain of each choice, and latencies."""

    accuracy: float
    gain: Gain
    ms_by_in_width: MsByInWidth
    host_ms: float = 0.0  # per kernel that the host launches


def tabulate_choices(space: SearchSpace, widths: WidthsOnOffer, resolution: int, predicted: Predicted) -> ChoiceTables:
    """Return the choice tables of a space at a resolution.

    Choices without a predicted gain are not on offer; a super-block without any keeps the MasterNet's own.
    """
    stem, *_, head = blocks(space.masternet(resolution))
    reads: tuple[int, ...] = (stem.width,)
    tables = []
    for index, size in enumerate(space.sizes(resolution)[:-1]):
        gains = {choice: predicted.gain(index, choice) for choice in space.choices(index, widths)}
        known = {choice: change for choice, change in gains.items() if change is not None}
        tables.append(_choice_table(known or {space.superblocks[index]: 0.0}, reads, size, predicted.ms_by_in_width))
        reads = tuple(sorted(set(tables[-1].widths.ravel().tolist())))
    head_ms = predicted.ms_by_in_width(head, reads)
    return ChoiceTables(
        space=space,
        resolution=resolution,
        accuracy=predicted.accuracy,
        stem=(float(predicted.ms_by_in_width(stem, [stem.in_width])[0]), block_cost(stem).parameters, kernel_count(stem)),
        superblocks=tuple(tables),
        head={
            width: (float(ms), block_cost(dataclasses.replace(head, in_width=width)).parameters, kernel_count(head))
            for width, ms in zip(reads, head_ms, strict=True)
        },
        host_ms=predicted.host_ms,
    )


def _choice_table(gains: dict[SuperBlock, float], reads: tuple[int, ...], size: int, ms_by_in_width: MsByInWidth) -> ChoiceTable:
    """Return a choice table: choices that differ only in depth share their blocks, and one without blocks costs nothing."""
    choices = sorted(gains, key=lambda choice: (choice.depth > 0, choice.width, str(choice.block_type), choice.depth))
    shape = (len(reads), len(choices))
    ms, parameters, kernels = np.zeros(shape), np.zeros(shape, int), np.zeros(shape, int)
    column = sum(choice.depth == 0 for choice in choices)
    for _, alike in itertools.groupby(choices[column:], key=lambda choice: (choice.width, choice.block_type)):
        depths = [choice.depth for choice in alike]
        deepest = choices[column + len(depths) - 1]
        first, *rest = superblock_blocks(deepest, reads[0], size)
        here = np.s_[:, column : column + len(depths)]
        costs = _first_costs(first, reads)
        for table, firsts, repeated in (
            (ms, ms_by_in_width(first, reads), float(ms_by_in_width(rest[0], [rest[0].in_width])[0]) if rest else 0.0),
            (parameters, costs[0], block_cost(rest[0]).parameters if rest else 0),
            (kernels, costs[1], kernel_count(rest[0]) if rest else 0),
        ):
            rest_of_it = [(depth - 1) * repeated if depth > 1 else 0 for depth in depths]  # 0 times infinity counts as 0
            table[here] = np.add.outer(firsts, rest_of_it)
        column += len(depths)
    widths, gain = np.array([[c.writes(width) for c in choices] for width in reads]), np.array([gains[c] for c in choices])
    return ChoiceTable(tuple(choices), {width: row for row, width in enumerate(reads)}, widths, gain, ms, parameters, kernels)


def _first_costs(first: Block, reads: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the parameters and kernels of a first block by the width it reads; both are exact.

    Parameters are linear in that width, except for the projection, which only a stride or another width than its own needs.
    """
    other = dataclasses.replace(first, in_width=first.width + 1)
    another = dataclasses.replace(first, in_width=first.width + 2)
    same = dataclasses.replace(first, in_width=first.width)
    base, slope = block_cost(other).parameters, block_cost(another).parameters - block_cost(other).parameters
    own = np.array(reads) == first.width
    parameters = np.where(own, block_cost(same).parameters, base + slope * (np.array(reads) - other.in_width))
    return parameters, np.where(own, kernel_count(same), kernel_count(other))
