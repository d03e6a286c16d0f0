"""The aim of an alignment, and the value of a choice of widths for it (tail-effect paper, equations 6 and 7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from genet.studies.align.place import Option, Place

Mode = Literal["latency", "accuracy"]
Chosen = tuple[Option, ...]  # one option per place
NANOSECOND = 6  # digits of milliseconds


@dataclass(frozen=True)
class Objective:
    """In latency mode the most milliseconds saved, with a sum of parameter gains from `least` to `most` (equation 7).

    In accuracy mode the most parameters gained, with a sum of latency gains, in milliseconds, of at least `least` (equation 6).
    `count` gives the use of a choice if the sum over its places does not: parameters between two layers are the product of both
    widths.
    """

    mode: Mode
    least: float
    most: float = math.inf
    count: Callable[[Chosen], float] | None = None

    def value(self, place: Place, option: Option) -> float:
        """Return the quantity to maximise."""
        return place.latency_gain(option) if self.mode == "latency" else place.parameter_gain(option)

    def room(self, place: Place, option: Option) -> float:
        """Return the bounded quantity, in nanoseconds if it is latency, so that rounding decides nothing."""
        return place.parameter_gain(option) if self.mode == "latency" else round(place.latency_gain(option), NANOSECOND)

    def worth(self, places: Sequence[Place], chosen: Chosen) -> float:
        """Return the sum of the quantity to maximise."""
        return math.fsum(self.value(place, option) for place, option in zip(places, chosen, strict=True))

    def used(self, places: Sequence[Place], chosen: Chosen) -> float:
        """Return the bounded quantity of all places together."""
        if self.count:
            return self.count(chosen)
        return math.fsum(self.room(place, option) for place, option in zip(places, chosen, strict=True))

    def allows(self, used: float) -> bool:
        """Return whether a sum is within the bounds, up to rounding."""
        slack = 1e-9 * max(1.0, abs(used))
        return self.least - slack <= used <= self.most + slack


def stay(places: Sequence[Place]) -> Chosen:
    """Return the choice that leaves every place as it is."""
    return tuple(place.now for place in places)
