"""The selection step, exact: the whole frontier of predicted accuracy over predicted latency in one pass.

The paper draws random structures; but predicted accuracy is a sum over super-blocks, and so is latency once the width
that a super-block reads is known. Dynamic programming over (super-block, outgoing width), keeping for each the choices
that no other beats in both, therefore finds the best network for every budget at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from genet.errors import EvidenceError
from genet.files import Record
from genet.spec.network import Block, SuperBlock, blocks, superblock_blocks
from genet.spec.space import SearchSpace, Widths

BlockMs = Callable[[Block], float]
Gain = Callable[[int, SuperBlock], float | None]  # None where there is no evidence


class Candidate(Record):
    """A network on the frontier: no network of the space is predicted to be both faster and better."""

    network: str  # its notation
    resolution: int
    predicted_ms: float  # per batch
    predicted_accuracy: float


@dataclass(frozen=True, slots=True)
class _Front:
    """Non-dominated ways to one state, ascending in latency and gain, each with where it came from."""

    ms: np.ndarray
    gain: np.ndarray
    came_from: np.ndarray  # (n, 3): incoming width, position in that state's front, choice of the super-block


def frontier(
    space: SearchSpace, widths: Widths, resolution: int, accuracy: float, gain: Gain, block_ms: BlockMs
) -> tuple[Candidate, ...]:
    """Every non-dominated network of the space at a resolution, fastest first.

    `accuracy` is the MasterNet's, `gain` the predicted change per super-block, `block_ms` the latency of a block. What has
    no predicted change is not on offer; a super-block without any keeps the MasterNet's own.
    """
    stem, *_, head = blocks(space.masternet(resolution))
    start = _Front(np.array([block_ms(stem)]), np.array([accuracy]), np.full((1, 3), -1))
    stages: list[dict[int, _Front]] = [{stem.width: start}]
    choices: list[list[SuperBlock]] = []
    for index, size in enumerate(space.sizes(resolution)[:-1]):
        possible = {superblock: gain(index, superblock) for superblock in space.choices(index, widths)}
        known = {superblock: change for superblock, change in possible.items() if change is not None}
        known = known or {space.superblocks[index]: 0.0}
        choices.append(list(known))
        stages.append(_advance(stages[-1], choices[-1], list(known.values()), size, block_ms))
    ends = {
        width: _Front(
            front.ms + block_ms(dataclasses.replace(head, in_width=width)),
            front.gain,
            front.came_from,
        )
        for width, front in stages[-1].items()
    }
    return _candidates(space, resolution, stages, ends, choices)


def _advance(
    before: dict[int, _Front], offered: list[SuperBlock], gains: list[float], size: int, block_ms: BlockMs
) -> dict[int, _Front]:
    """One super-block further: for every outgoing width the best of all incoming fronts and choices."""
    by_width: dict[int, list[int]] = {}
    for choice, superblock in enumerate(offered):
        by_width.setdefault(superblock.width, []).append(choice)
    after = {}
    for width, members in by_width.items():
        grown = []
        for in_width, front in before.items():
            ms = np.array([superblock_ms(offered[choice], in_width, size, block_ms) for choice in members])
            gained = np.array([gains[choice] for choice in members])
            best = pareto(ms, gained)
            best = best[np.isfinite(ms[best])]  # what could not be measured is not on offer
            positions = np.repeat(np.arange(len(front.ms)), len(best))
            chosen = np.tile(np.array(members)[best], len(front.ms))
            grown.append(
                _Front(
                    np.add.outer(front.ms, ms[best]).ravel(),
                    np.add.outer(front.gain, gained[best]).ravel(),
                    np.column_stack([np.full(len(chosen), in_width), positions, chosen]),
                )
            )
        merged = _merge(grown)
        if len(merged.ms):
            after[width] = merged
    if not after:
        raise EvidenceError("every super-block must have a block that could be measured, and one has none; see latency.jsonl")
    return after


def superblock_ms(superblock: SuperBlock, in_width: int, size: int, block_ms: BlockMs) -> float:
    """Latency of a super-block that reads `in_width` channels of `size` x `size` pixels: the sum of its blocks'."""
    first, *rest = superblock_blocks(superblock, in_width, size)
    return block_ms(first) + (len(rest) * block_ms(rest[0]) if rest else 0.0)


def pareto(ms: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Positions of the points that none beats in both, ascending in `ms`; of equal points the first."""
    if not len(ms):
        return np.empty(0, int)
    order = np.lexsort((-gain, ms))
    best = np.maximum.accumulate(gain[order])
    rises = np.concatenate([[True], best[1:] > best[:-1]])
    return np.asarray(order[rises])


def _merge(fronts: Iterable[_Front]) -> _Front:
    parts = list(fronts)
    ms, gain = np.concatenate([part.ms for part in parts]), np.concatenate([part.gain for part in parts])
    keep = pareto(ms, gain)
    return _Front(ms[keep], gain[keep], np.concatenate([part.came_from for part in parts])[keep])


def _candidates(
    space: SearchSpace, resolution: int, stages: list[dict[int, _Front]], ends: dict[int, _Front], choices: list[list[SuperBlock]]
) -> tuple[Candidate, ...]:
    """Walk back from every point of the last front and write its network down."""
    widths = np.concatenate([np.full(len(front.ms), width) for width, front in ends.items()])
    positions = np.concatenate([np.arange(len(front.ms)) for front in ends.values()])
    ms = np.concatenate([front.ms for front in ends.values()])
    gain = np.concatenate([front.gain for front in ends.values()])
    found = []
    for point in pareto(ms, gain):
        width, position, superblocks = int(widths[point]), int(positions[point]), []
        for stage, offered in zip(reversed(stages[1:]), reversed(choices), strict=True):
            width, position, choice = map(int, stage[width].came_from[position])
            superblocks.append(offered[choice])
        network = space.network(tuple(reversed(superblocks)), resolution)
        found.append(
            Candidate(
                network=str(network),
                resolution=resolution,
                predicted_ms=float(ms[point]),
                predicted_accuracy=float(gain[point]),
            )
        )
    return tuple(found)
