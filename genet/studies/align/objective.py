"""The objective of an alignment (tail-effect paper, equations 6 and 7), and the widths chosen for it: greedily, or exactly.

Both ways look at the edges beside each width alone. Edges farther off would trade accuracy for latency: equal parameters mean
equal accuracy only as long as the shape of the network stays, not if early layers shrink and late ones grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from genet.studies.align.place import Option, Place

ObjectiveMode = Literal["latency", "accuracy"]
Chosen = tuple[Option, ...]  # one option per place
NANOSECOND = 6  # digits of milliseconds


@dataclass(frozen=True)
class Objective:
    """In latency mode the most milliseconds saved, with a sum of parameter gains from `least` to `most` (equation 7).

    In accuracy mode the most parameters gained, with a sum of latency gains, in milliseconds, of at least `least` (equation 6).
    `count` gives the use of a choice if the sum over its places does not: parameters between two layers are the product of both
    widths.
    """

    mode: ObjectiveMode
    least: float
    most: float = math.inf
    count: Callable[[Chosen], float] | None = None

    def value(self, place: Place, option: Option) -> float:
        """Return the quantity to maximise."""
        return place.latency_gain(option) if self.mode == "latency" else place.parameter_gain(option)

    def bounded_value(self, place: Place, option: Option) -> float:
        """Return the bounded quantity, in nanoseconds if it is latency, so that rounding decides nothing."""
        return place.parameter_gain(option) if self.mode == "latency" else round(place.latency_gain(option), NANOSECOND)

    def total_value(self, places: Sequence[Place], chosen: Chosen) -> float:
        """Return the sum of the quantity to maximise."""
        return math.fsum(self.value(place, option) for place, option in zip(places, chosen, strict=True))

    def bounded_total(self, places: Sequence[Place], chosen: Chosen) -> float:
        """Return the bounded quantity of all places together."""
        if self.count:
            return self.count(chosen)
        return math.fsum(self.bounded_value(place, option) for place, option in zip(places, chosen, strict=True))

    def allows(self, total: float) -> bool:
        """Return whether a sum is within the bounds, up to rounding."""
        slack = 1e-9 * max(1.0, abs(total))
        return self.least - slack <= total <= self.most + slack


def stay(places: Sequence[Place]) -> Chosen:
    """Return the choice that leaves every place as it is."""
    return tuple(place.now for place in places)


def greedy(places: Sequence[Place], objective: Objective) -> Chosen:
    """Move the place with the most to gain, and balance it with moves the other way: algorithm 2, lines 7 to 13.

    For latency a layer is scaled down to its left edge, and layers with the least latency gain are scaled up until the parameters
    are back in range; for accuracy a layer is scaled up, and those with the most latency gain are scaled down until the time is.
    If the queue ends before the balance is found, or the balance costs more than the move gains, the move is undone: so the
    answer keeps the bounds, which the paper's own loop does not ensure. Widths stay if the bounds cannot be kept at all.
    """
    down_first = objective.mode == "latency"
    moves = [(place.left, place.right) if down_first else (place.right, place.left) for place in places]  # ahead, and back
    gains = [objective.value(place, ahead) if ahead else 0.0 for place, (ahead, _) in zip(places, moves, strict=True)]
    saved = [place.latency_gain(place.left) if place.left else 0.0 for place in places]
    chosen = list(stay(places))
    queue = sorted(range(len(places)), key=lambda index: -gains[index])
    while queue and gains[queue[0]] > 0:
        first, *rest = queue
        trial = list(chosen)
        trial[first] = moves[first][0] or trial[first]
        total = objective.bounded_total(places, tuple(trial))
        for last in sorted(rest, key=saved.__getitem__, reverse=not down_first):
            if total >= objective.least:
                break
            back = moves[last][1]
            if back is None:
                continue
            moved = objective.bounded_total(places, (*trial[:last], back, *trial[last + 1 :]))
            if total < moved <= objective.most:
                trial[last], total = back, moved
                rest.remove(last)
        balanced = objective.allows(total)
        better = objective.total_value(places, tuple(trial)) > objective.total_value(places, tuple(chosen))
        chosen, queue = (trial, rest) if balanced and better else (chosen, queue[1:])
    return tuple(chosen)


def exact(places: Sequence[Place], objective: Objective) -> Chosen:
    """Return the options with the largest value within the bounds, by an integer program with one option per place.

    Every width stays if nothing is within the bounds.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    pairs = [(index, option) for index, place in enumerate(places) for option in place.options]
    if not pairs:
        return ()
    values = np.array([objective.value(places[index], option) for index, option in pairs], float)
    bounded = np.array([objective.bounded_value(places[index], option) for index, option in pairs], float)
    scale = 1e-3 * (float(np.abs(bounded).max()) or 1.0)  # the solver's tolerance is absolute, a millionth: of a thousand here
    once = np.array([[float(index == row) for index, _ in pairs] for row in range(len(places))])
    found = milp(
        -values / (float(np.abs(values).max()) or 1.0),
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(once, 1, 1),
            LinearConstraint(bounded[None] / scale, objective.least / scale, objective.most / scale),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        return stay(places)
    chosen = dict(pair for pair, share in zip(pairs, found.x, strict=True) if share > 0.5)
    return tuple(chosen[index] for index in range(len(places)))
