"""The largest scale of a design within a latency, over its widths and then its depths, found by measuring few of them.

Latency over scale is a staircase of its own: scales between two measured ones are read off the line between them, and beyond the
widest that fits some more are measured, as a step may end further on. What launching the kernels takes grows with no width, so
that wider scales are expected on the line through the narrowest and the widest measured, and not on the one through the origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

REACH, LOOKS = 0.2, 2  # how far beyond the limit a step is searched for, as a share of it, and how often
MOST = 12  # scales measured in search of the widest within a limit
CLOSE = 1.15  # MACs of the narrowest known to be over a limit over those of the widest within, at which the search ends
TRIES = 2  # scales certified from the widest within on downwards, before narrower ones are searched for
TIGHTER = (1.0, 0.96, 0.9, 0.8, 0.65)  # shares of a limit to aim at: a machine may have become slower, or too noisy to be sure
FAR = 2.0  # MACs of a scale beyond over those of the widest within, at most: what takes far longer may not fit into memory
LEAP = 4.0  # MACs of a scale measured next over those of the widest known, at most
NARROW = 0.5  # of a design's widths: below it, a shallower form is tried too
MUCH_MORE = 2.0  # MACs of a shallower form over a deeper one's from which it is worth racing beside it

N = TypeVar("N")  # the type of a scaled network
C = TypeVar("C")  # the type of its certificate


class Scales(Generic[N]):
    """The scales of a design in the order of their MACs, and their known latencies in milliseconds per batch.

    `measure` times one, infinite if it cannot be timed; `ms_per_mac` is the expectation before anything is known.
    """

    def __init__(self, scales: Sequence[N], macs: Sequence[int], measure: Callable[[N], float], ms_per_mac: float) -> None:
        self._scales, self._macs = tuple(scales), np.array(macs, float)
        self._measure, self._ms_per_mac = measure, ms_per_mac
        self._known: dict[int, float] = {}  # place -> ms

    def certified_within(self, limit_ms: float, certify: Callable[[N], C | None]) -> C | None:
        """Return what certifies the widest scale that can be certified to be within the limit; None if there is none."""
        tried: set[int] = set()
        for share in TIGHTER:
            widest = self._widest_within(limit_ms * share, look_beyond=share == 1)
            if widest is None:
                return None
            near = [place for place in range(widest, -1, -1) if place not in tried][:TRIES]
            for place in (place for place in near if self._look(place) <= limit_ms * share):
                tried.add(place)
                found = certify(self._scales[place])
                if found is not None:
                    return found
        return None

    def can_be_within(self, limit_ms: float, macs: float = 0) -> bool:
        """Return whether the narrowest scale, or the narrowest of so many MACs, is within the limit."""
        narrowest = int(np.searchsorted(self._macs, macs))
        return narrowest < len(self._scales) and self._look(narrowest) <= limit_ms

    @property
    def fastest(self) -> tuple[N, float] | None:
        """The scale with the shortest latency measured, and that latency; None if none could be measured."""
        place, ms = min(self._known.items(), key=lambda known: known[1], default=(0, math.inf))
        return (self._scales[place], ms) if math.isfinite(ms) else None

    def _widest_within(self, limit_ms: float, look_beyond: bool) -> int | None:
        """Measure scales until the widest within the limit is known to some percent, and beyond it if a step may end there."""
        for look in range(MOST):
            place = self._between(limit_ms, halve=look % 2 == 1)
            if place is None:
                break
            self._look(place)
        widest = self._known_within(limit_ms)
        while widest is not None and look_beyond:
            beyond = np.flatnonzero(self._expected() <= limit_ms * (1 + REACH))
            beyond = beyond[(beyond > widest) & (self._macs[beyond] <= FAR * self._macs[widest])]
            for place in beyond[np.linspace(0, len(beyond) - 1, min(LOOKS, len(beyond))).round().astype(int)]:
                self._look(int(place))
            before, widest = widest, self._known_within(limit_ms)
            if widest == before:
                break
        return widest

    def _between(self, limit_ms: float, halve: bool) -> int | None:
        """Return the place to measure next: between the widest known within and the next known over the limit.

        None if nothing can be within, or they are close enough. The narrowest comes second: if launching kernels takes the time,
        the line through the origin that gives the first guess tells nothing.
        """
        within = self._known_within(limit_ms)
        if within is None:
            return None if 0 in self._known else 0 if self._known else self._in_proportion(limit_ms / self._ms_per_mac, 0)
        if within == len(self._scales) - 1:
            return None
        over = min((place for place in self._known if place > within), default=None)
        if over is None:
            most = LEAP * self._macs[within]
            macs = self._macs[within] + (limit_ms - self._known[within]) / self._ms_per_mac_beyond
            return self._in_proportion(min(macs, most), within + 1)
        if over == within + 1 or self._macs[over] <= CLOSE * self._macs[within]:
            return None
        rise = self._known[over] - self._known[within]
        if halve or not math.isfinite(rise):
            return (within + over) // 2
        macs = self._macs[within] + (limit_ms - self._known[within]) / rise * (self._macs[over] - self._macs[within])
        return min(over - 1, self._in_proportion(macs, within + 1))

    def _in_proportion(self, macs: float, least: int) -> int:
        """Return the last place with at most so many MACs, but none before `least`."""
        return max(least, int(np.searchsorted(self._macs, macs, side="right")) - 1)

    @property
    def _ms_per_mac_beyond(self) -> float:
        """Expected rise of latency per MAC beyond the widest known: as between it and the narrowest, if that is less."""
        first, last = self._timed[0], self._timed[-1]
        in_proportion, rise = self._known[last] / self._macs[last], self._known[last] - self._known[first]
        return float(min(in_proportion, rise / (self._macs[last] - self._macs[first])) if rise > 0 else in_proportion)

    @property
    def _timed(self) -> list[int]:
        """The places that were timed, in their order."""
        return sorted(place for place, ms in self._known.items() if math.isfinite(ms))

    def _known_within(self, limit_ms: float) -> int | None:
        return max((place for place, ms in self._known.items() if ms <= limit_ms), default=None)

    def _look(self, place: int) -> float:
        if place not in self._known:
            self._known[place] = self._measure(self._scales[place])
        return self._known[place]

    def _expected(self) -> np.ndarray:
        """Return milliseconds per batch of every scale: on lines between those known, and on one that goes on beyond them."""
        places = self._timed
        ms = np.array([self._known[place] for place in places])
        octaves, first, last = np.log(self._macs), places[0], places[-1]
        expected = np.exp(np.interp(octaves, octaves[places], np.log(ms)))
        expected[:first] = ms[0] * self._macs[:first] / self._macs[first]
        expected[last:] = ms[-1] + self._ms_per_mac_beyond * (self._macs[last:] - self._macs[last])
        failed = [place for place, value in self._known.items() if math.isinf(value)]
        if failed:  # scales more than half as large as one that failed are taken to fail too, unless known not to
            expected[last + 1 :][self._macs[last + 1 :] > self._macs[min(failed)] / 2] = math.inf
        for place, value in self._known.items():
            expected[place] = value
        return np.asarray(expected)


def forms_within(
    forms: Sequence[Scales[N]],
    limit_ms: float,
    certify: Callable[[N], tuple[N, C] | None],
    macs_of: Callable[[N], int],
    whole_macs: int,
) -> list[tuple[N, C]]:
    """Return the scales of a design's forms, the deepest first, that are worth racing within the limit, with their certificates.

    The deepest form that is within is always one of them. If it has to give up more than half of the published widths, whose
    MACs are `whole_macs`, shallower ones are too that have many more MACs. `certify` may return a wider network than the scale
    that it is given, if that is as fast; it is this network's MACs that count.
    """
    found: list[tuple[N, C]] = []
    macs = 0
    for form in forms:
        if not found and form is not forms[0] and not forms[-1].can_be_within(limit_ms):
            break  # all in between take longer than the shallowest
        if found and (macs >= whole_macs * NARROW**2 or not form.can_be_within(limit_ms, MUCH_MORE * macs)):
            continue
        widest = form.certified_within(limit_ms, certify)
        if widest is not None and macs_of(widest[0]) >= MUCH_MORE * macs:
            found.append(widest)
            macs = macs_of(widest[0])
    return found
