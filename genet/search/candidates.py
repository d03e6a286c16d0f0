"""Networks of a space that a round may train: random ones near a budget, and neighbours of those that did best so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from genet.arch.cost import block_cost, network_cost
from genet.arch.network import Network, SuperBlock, out_size, superblock_blocks
from genet.arch.space import SearchSpace
from genet.search.choice_tables import ChoiceTables
from genet.search.features import HALF_A_BLOCK
from genet.search.rounds import NEAR
from genet.search.surrogate import Pool

SAMPLED = 4000  # random networks of a resolution or about a parent, of which those near the budget stay
KEPT = 600  # of them at most
STEEPEST = 50.0  # fall of a probability over the latencies of a super-block, as a power of e: hardly any but the fastest is drawn
SLOPES = 4  # of probabilities over latencies, for one draw
MOVES = 3  # super-blocks in which a neighbour differs at most


def near_budget(tables: ChoiceTables, limit_ms: float, rng: np.random.Generator) -> list[Network]:
    """Return random networks that are predicted to be within a latency in ms per batch, and not far below it."""
    return _within(tables, _picks_about(tables, (1 + NEAR) / 2 * limit_ms, rng), limit_ms)


def _picks_about(tables: ChoiceTables, target_ms: float, rng: np.random.Generator) -> np.ndarray:
    """Draw networks, some evenly, others with fast choices likelier, up to where half of them are faster than `target_ms`.

    Even draws seldom come near a budget far below the median of the space. Probabilities that fall exponentially with latency, or
    rise, leave the choices as even as a mean latency allows: they have the most entropy.
    """
    from scipy.optimize import bisect  # takes half a second to import

    costs = [offer.ms.mean(0) for offer in tables.superblocks]  # over the widths that each choice may read
    chances = rng.random((len(costs), SAMPLED))

    def picks(slope: float) -> np.ndarray:
        shares = (np.cumsum(_shares(ms, slope)[:-1]) for ms in costs)
        return np.column_stack([np.searchsorted(upto, chance, "right") for upto, chance in zip(shares, chances, strict=True)])

    def above(slope: float) -> float:
        return float(np.median(tables.totals(picks(slope)).ms)) - target_ms

    spans = [float(np.ptp(ms[np.isfinite(ms)])) for ms in costs if np.isfinite(ms).any()]
    steepest = STEEPEST / min((span for span in spans if span > 0), default=1.0)
    if above(steepest) >= 0 or above(-steepest) <= 0:
        slope = math.copysign(steepest, above(0.0))
    else:
        slope = bisect(above, -steepest, steepest, xtol=steepest / 1e6)
    return np.concatenate([picks(share * slope)[part::SLOPES] for part, share in enumerate(np.linspace(0, 1, SLOPES))])


def _shares(ms: np.ndarray, slope: float) -> np.ndarray:
    """Return the probabilities of choices with these latencies: none for one that could not be measured, unless all could not."""
    measured = np.isfinite(ms)
    if not measured.any():
        return np.full(len(ms), 1 / len(ms))
    fall = slope * np.where(measured, ms, 0.0)
    weights = np.where(measured, np.exp(fall[measured].min() - fall), 0.0)
    return np.asarray(weights / weights.sum())


def neighbours(tables: ChoiceTables, network: Network, limit_ms: float, rng: np.random.Generator) -> list[Network]:
    """Return random networks near the budget that differ from one in three super-blocks at most; none if that is not on offer."""
    if not tables.holds(network):
        return []
    own = [offer.place[each] for offer, each in zip(tables.superblocks, network.superblocks, strict=True)]
    picks = np.tile(own, (SAMPLED, 1))
    for row in picks:
        for place in rng.choice(len(own), min(len(own), int(rng.integers(1, MOVES + 1))), replace=False):
            row[place] = rng.integers(len(tables.superblocks[place].choices))
    return [each for each in _within(tables, picks, limit_ms) if str(each) != str(network)]


def _within(tables: ChoiceTables, picks: np.ndarray, limit_ms: float) -> list[Network]:
    ms = tables.totals(picks).ms
    near = np.unique(picks[(ms <= limit_ms) & (ms >= NEAR * limit_ms)], axis=0)
    return [tables.network(pick.tolist()) for pick in near[np.linspace(0, len(near) - 1, min(KEPT, len(near))).astype(int)]]


def fits(network: Network, space: SearchSpace) -> bool:
    """Return whether a network has the super-blocks of a space, one by one with its strides, so that places can be compared."""
    return [each.stride for each in network.superblocks] == [each.stride for each in space.superblocks]


def pool_of(networks: Sequence[Network]) -> Pool:
    """Describe networks of one space to the surrogate: every super-block by its type, width, depth and parameters."""
    costs = [network_cost(network) for network in networks]
    described = np.array([[_described(*each) for each in _with_parameters(network)] for network in networks])
    return Pool.of(
        [described[:, place] for place in range(described.shape[1])],
        np.array([cost.macs for cost in costs], float),
        np.array([cost.parameters for cost in costs], float),
    )


def _with_parameters(network: Network) -> Iterator[tuple[SuperBlock, int, int]]:
    """Yield every super-block with the width that it writes and its parameters."""
    width, size = network.stem.width, out_size(network.input.resolution, network.stem.stride)
    for superblock in network.superblocks:
        parameters = sum(block_cost(block).parameters for block in superblock_blocks(superblock, width, size))
        width, size = superblock.writes(width), out_size(size, superblock.stride)
        yield superblock, width, parameters


def _described(superblock: SuperBlock, width: int, parameters: int) -> tuple[float, ...]:
    """Return what the surrogate compares super-blocks by; one without blocks is of no type and counts as a convolution of 1x1."""
    there = superblock.depth > 0
    return (
        float(there and superblock.type == "BL"),
        float(there and superblock.type == "DW"),
        math.log2(width),
        math.log2(superblock.depth or HALF_A_BLOCK),
        math.log2(parameters or width**2),
    )
