"""A place: layers whose width can only change together, the width they have now, and the edges of their staircase beside it.

This is step 1 of the tail-effect paper's algorithm 2, and its equations 5a, 5b, 8a and 8b for one layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from genet.latency.staircase.staircase import Staircase, tail_effect_candidates
from genet.storage import Record
from genet.studies.align.subject import Movable

StepPosition = Literal["edge", "inside", "no step"]


class Option(Record):
    """A width of a place, while all other places keep theirs.

    `ms` is per batch, of all layers that the width changes: its writers and its readers. `parameters` are those of
    the whole network. `utilization` is the share of its step that the width fills, None if no step up was seen behind it;
    `throughput` is the MACs per second.
    """

    width: int
    ms: float
    parameters: int
    utilization: float | None = None
    throughput: float | None = None


class Place(Record):
    """Layers of one width, and the wave-aligned widths beside it: the nearest narrower and the nearest wider one.

    If the present step does not end within the measured widths, `right` is the widest width on offer. `where` tells whether the
    width ends a step of the staircase or lies inside one, or whether latency has no steps here.
    """

    name: str
    layers: tuple[str, ...]
    now: Option
    left: Option | None
    right: Option | None
    where: StepPosition

    def latency_gain(self, option: Option) -> float:
        """Return milliseconds per batch that the option saves (equation 5a)."""
        return self.now.ms - option.ms

    def parameter_gain(self, option: Option) -> int:
        """Return parameters that the option adds: PG of equation 5b, positive for a wider layer as its text has it."""
        return option.parameters - self.now.parameters

    @property
    def options(self) -> tuple[Option, ...]:
        """To stay, to move to the left edge (equation 8a), to move to the right edge (equation 8b)."""
        return tuple(option for option in (self.now, self.left, self.right) if option)


def place(movable: Movable, staircase: Staircase, parameters: Mapping[int, int]) -> Place:
    """Read the options of a width off its staircase; `parameters` are the network's at every width of it.

    The edges are where utilization times throughput peaks (equation 4), on all steps except the last, whose end was not seen; an
    edge is dropped if a later step is as fast. To the right it is the nearest that the place may have; if there is none, the
    widest one near it is offered, which ends no step. If latency rises without steps there is no tail to remove, so there is no
    edge on either side.
    """
    width, widest = movable.width, movable.widest or staircase.widths[-1]
    near = max(each for each in staircase.widths if each <= movable.near)  # wider ones may not fit into memory
    rates = staircase.throughput or (None,) * len(staircase.widths)
    rows = zip(staircase.widths, staircase.fitted_ms, staircase.utilization, rates, strict=True)
    facts = {at: (ms, utilization, rate) for at, ms, utilization, rate in rows}
    edges = [
        peak
        for tread in staircase.treads[:-1]
        for peak in tail_effect_candidates(staircase)
        if tread.first <= peak <= tread.last
        and all(facts[peak][0] < ms for wider, (ms, _, _) in facts.items() if wider > tread.last)
    ]
    narrower, wider = [edge for edge in edges if edge < width], [edge for edge in edges if width < edge <= widest]
    if not wider and width < near and not stepless(staircase):
        wider = [near]

    def option(at: int) -> Option:
        ms, utilization, rate = facts[at]
        seen = at < staircase.treads[-1].first
        return Option(width=at, ms=ms, parameters=parameters[at], utilization=utilization if seen else None, throughput=rate)

    return Place(
        name=movable.name,
        layers=movable.layers,
        now=option(width),
        left=option(narrower[-1]) if narrower else None,
        right=option(wider[0]) if wider else None,
        where="no step" if stepless(staircase) else "edge" if width in edges else "inside",
    )


def stepless(staircase: Staircase) -> bool:
    """Return whether latency rises with width, and nowhere by a step."""
    return staircase.pattern == "slope" and len(staircase.treads) == 1
