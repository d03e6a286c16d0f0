"""Widths and blocks that lose the least importance within a latency, exactly: an integer program.

Latency is a sum over layers, each over the widths it reads and writes together, as in MDP (Sun et al., 2024): a matrix for each
pair of groups. A product of two choices is made linear by a share for each pair of widths, whose sums over one width are the
choice of the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

Term = tuple[int, float]  # a variable, and its factor
SCALE = 1e3  # of the largest number in a row: the solver's tolerances are absolute
GAP = 1e-6  # relative, between the choice and what no choice can beat


@dataclass(frozen=True)
class GroupOffer:
    """The widths on offer for a group, ascending, the present one last, and the importance lost at each.

    `importance` is that of all of its channels, `block` the removable block that all of its layers lie in, if they do.
    """

    name: str
    widths: tuple[int, ...]
    lost: tuple[float, ...]
    importance: float
    block: str | None = None


@dataclass(frozen=True)
class LayerCost:
    """Milliseconds of layers over the widths of up to two groups, an axis each; none if the block around them is removed.

    Infinite ones could not be measured, and are not chosen.
    """

    groups: tuple[str, ...]
    ms: np.ndarray
    block: str | None = None


@dataclass(frozen=True)
class PruningChoice:
    """A width for each group outside the blocks that are removed."""

    widths: Mapping[str, int]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """What is on offer, the importance lost with each block that may be removed, and the latency of all that depends on it."""

    offers: tuple[GroupOffer, ...]
    blocks: Mapping[str, float]
    costs: tuple[LayerCost, ...]

    @property
    def present(self) -> PruningChoice:
        """The choice that leaves everything as it is."""
        return PruningChoice({offer.name: offer.widths[-1] for offer in self.offers})

    def ms(self, choice: PruningChoice) -> float:
        """Return the predicted milliseconds of all layers that depend on the choice."""
        offers = (offer for offer in self.offers if offer.name in choice.widths)
        index = {offer.name: offer.widths.index(choice.widths[offer.name]) for offer in offers}
        there = (cost for cost in self.costs if cost.block not in choice.removed)
        return math.fsum(float(cost.ms[tuple(index[name] for name in cost.groups)]) for cost in there)

    def lost(self, choice: PruningChoice) -> float:
        """Return the importance that is lost."""
        kept = (offer for offer in self.offers if offer.name in choice.widths)
        lost = (offer.lost[offer.widths.index(choice.widths[offer.name])] for offer in kept)
        return math.fsum((*lost, *(self.blocks[block] for block in choice.removed)))

    @property
    def importance(self) -> float:
        """Return the importance of all channels and blocks together."""
        return math.fsum((*(offer.importance for offer in self.offers), *self.blocks.values()))


def fastest(program: Program) -> PruningChoice:
    """Return the choice with the least latency."""
    found = least_lost(program, None)
    assert found is not None  # to stay as it is can always be chosen
    return found


@dataclass
class _Rows:
    """The variables and rows of a program: a share for each width and each pair of widths, and one for each block that stays."""

    program: Program
    lost: list[float] = field(default_factory=list)  # by variable
    ms: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    rows: list[tuple[list[Term], float, float]] = field(default_factory=list)
    stays: dict[str, int] = field(default_factory=dict)
    widths: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for block, lost in self.program.blocks.items():
            self.stays[block] = self._variable(lost=-lost)
        for offer in self.program.offers:
            self.widths[offer.name] = [self._variable(lost=lost) for lost in offer.lost]
            self._share(self.widths[offer.name], offer.block)
        block_of = {offer.name: offer.block for offer in self.program.offers}
        for cost in _added_up(self.program.costs):
            if not cost.groups:
                if cost.block is not None:
                    self.ms[self.stays[cost.block]] += float(cost.ms)
            elif len(cost.groups) == 1 and block_of[cost.groups[0]] == cost.block:
                for variable, ms in zip(self.widths[cost.groups[0]], cost.ms.tolist(), strict=True):
                    self._take(variable, ms)
            else:
                self._pairs(cost)

    def _variable(self, lost: float = 0.0, whole: bool = True) -> int:
        self.lost.append(lost)
        self.ms.append(0.0)
        self.most.append(1.0)
        self.whole.append(int(whole))
        return len(self.lost) - 1

    def _take(self, variable: int, ms: float) -> None:
        """Add milliseconds to a variable; one that could not be measured is not chosen."""
        if math.isfinite(ms):
            self.ms[variable] += ms
        else:
            self.most[variable] = 0.0

    def _share(self, variables: Iterable[int], block: str | None) -> None:
        """Have the variables sum to 1, or to 0 once the block is removed."""
        terms = [(variable, 1.0) for variable in variables]
        if block is None:
            self.rows.append((terms, 1.0, 1.0))
        else:
            self.rows.append(([*terms, (self.stays[block], -1.0)], 0.0, 0.0))

    def _pairs(self, cost: LayerCost) -> None:
        """Add a share for each combination of widths; the shares of one width sum to no more than its own."""
        shares = np.empty(cost.ms.shape, int)
        for place, ms in np.ndenumerate(cost.ms):
            shares[place] = self._variable(whole=False)
            self._take(int(shares[place]), float(ms))
        self._share(shares.ravel().tolist(), cost.block)
        for axis, name in enumerate(cost.groups):
            for chosen, along in zip(self.widths[name], np.moveaxis(shares, axis, 0), strict=True):
                self.rows.append(([*((int(share), 1.0) for share in along.ravel()), (chosen, -1.0)], -math.inf, 0.0))


def _added_up(costs: Iterable[LayerCost]) -> Iterator[LayerCost]:
    """Yield the costs with those of the same groups and block as one."""
    sums: dict[tuple[tuple[str, ...], str | None], np.ndarray] = {}
    for cost in costs:
        order = sorted(range(len(cost.groups)), key=lambda axis: cost.groups[axis])
        key = tuple(cost.groups[axis] for axis in order), cost.block
        sums[key] = sums.get(key, 0.0) + np.transpose(cost.ms, order)
    for (groups, block), ms in sums.items():
        yield LayerCost(groups, ms, block)


def least_lost(program: Program, most_ms: float | None) -> PruningChoice | None:
    """Return the choice that loses the least importance within a latency, or without one the fastest; None if none is within."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = _Rows(program)
    ms, lost = np.array(rows.ms), np.array(rows.lost)
    wanted = ms if most_ms is None else lost
    if not rows.lost:
        return program.present
    counts = [len(terms) for terms, _, _ in rows.rows]
    columns, factors = zip(*itertools.chain.from_iterable(terms for terms, _, _ in rows.rows), strict=True)
    sums = csr_array((factors, (np.repeat(np.arange(len(counts)), counts), columns)), (len(counts), len(lost)))
    constraints = [LinearConstraint(sums, *(np.array([row[bound] for row in rows.rows]) for bound in (1, 2)))]
    if most_ms is not None:
        step = float(np.abs(ms).max()) / SCALE or 1.0
        unchanged = math.fsum(float(cost.ms) for cost in program.costs if not cost.groups and cost.block is None)
        constraints.append(LinearConstraint(csr_array(ms[None] / step), -math.inf, (most_ms - unchanged) / step))
    found = milp(
        wanted * (SCALE / (float(np.abs(wanted).max()) or 1.0)),
        integrality=np.array(rows.whole),
        bounds=Bounds(0, np.array(rows.most)),
        constraints=constraints,
        options={"mip_rel_gap": GAP},
    )
    if found.x is None:
        return None
    removed = tuple(block for block, variable in rows.stays.items() if found.x[variable] < 0.5)
    widths = {
        offer.name: offer.widths[int(np.argmax(found.x[rows.widths[offer.name]]))]
        for offer in program.offers
        if offer.block not in removed
    }
    return PruningChoice(widths, removed)
