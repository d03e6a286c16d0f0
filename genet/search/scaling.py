"""The largest scale of a design within a latency, over its widths and then its depths, found by measuring few of them.

Latency over scale is a staircase of its own: what lies between two measured scales is read off the line between them, and beyond
the widest that fits some more are measured, for a step may end further on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

REACH, LOOKS = 0.2, 3  # how much further than the limit a step is looked for, as a share of it, and how often
MOST = 10  # scales measured in search of those that fit
NARROW = 0.5  # of a design's widths: below it, a shallower form is tried too
TRIES = 4  # scales that are certified, from the widest measured within the limit on downwards

N = TypeVar("N")  # what is scaled
C = TypeVar("C")  # what certifies it


class Scales(Generic[N]):
    """The scales of a design in the order of their MACs, and what is known of their latencies in milliseconds per batch.

    `measure` times one, infinite if it cannot be timed; `ms_per_mac` is what to expect before anything is known.
    """

    def __init__(self, scales: Sequence[N], macs: Sequence[int], measure: Callable[[N], float], ms_per_mac: float) -> None:
        self._scales, self._macs = tuple(scales), np.array(macs, float)
        self._measure, self._ms_per_mac = measure, ms_per_mac
        self._known: dict[int, float] = {}  # place -> ms

    def widest_within(self, limit_ms: float, certify: Callable[[N], C | None]) -> tuple[N, C] | None:
        """Return the widest scale that has a certificate of being within the limit, with that; None if none has."""
        for _ in range(MOST):
            place = self._widest_expected(limit_ms)
            if place in self._known:
                break
            self._look(place)
        for _ in range(MOST):  # as long as looking further finds another within
            before = self._widest_expected(limit_ms)
            beyond = self._fitting(limit_ms * (1 + REACH), after=before)
            for place in beyond[np.linspace(0, len(beyond) - 1, min(LOOKS, len(beyond))).round().astype(int)]:
                self._look(int(place))
            if self._widest_expected(limit_ms) <= before:
                break
        within = sorted((place for place, ms in self._known.items() if ms <= limit_ms), reverse=True)
        if not within:
            return None
        near = range(within[0], max(-1, within[0] - TRIES), -1)
        for place in (*near, *[place for place in within if place not in near][:TRIES]):
            found = certify(self._scales[place]) if self._look(place) <= limit_ms else None
            if found is not None:
                return self._scales[place], found
        return None

    def macs_of(self, scale: N) -> int:
        """Return the MACs of one of the scales."""
        return int(self._macs[self._scales.index(scale)])

    @property
    def fastest_ms(self) -> float:
        """The shortest latency measured; infinite if none was."""
        return min(self._known.values(), default=math.inf)

    def _look(self, place: int) -> float:
        if place not in self._known:
            self._known[place] = self._measure(self._scales[place])
        return self._known[place]

    def _widest_expected(self, limit_ms: float) -> int:
        fitting = self._fitting(limit_ms)
        return int(fitting[-1]) if len(fitting) else 0

    def _fitting(self, limit_ms: float, after: int = -1) -> np.ndarray:
        """Return the places after one that are expected to be within a latency."""
        fitting = np.flatnonzero(self._expected() <= limit_ms)
        return np.asarray(fitting[fitting > after])

    def _expected(self) -> np.ndarray:
        """Return milliseconds per batch of every scale: on a line between those known, else in proportion to the MACs."""
        known = sorted((place, ms) for place, ms in self._known.items() if math.isfinite(ms))
        places = np.array([place for place, _ in known], int)
        ms = np.array([ms for _, ms in known])
        if known:
            octaves = np.log(self._macs)
            expected = np.exp(np.interp(octaves, octaves[places], np.log(ms)))
            first, last = places[0], places[-1]
            expected[:first] = ms[0] * self._macs[:first] / self._macs[first]
            expected[last:] = ms[-1] * self._macs[last:] / self._macs[last]
        else:
            expected, last = self._macs * self._ms_per_mac, -1
        failed = [place for place, value in self._known.items() if math.isinf(value)]
        if failed:  # what is more than half as large as one that failed would too, unless it is known not to
            expected[last + 1 :][self._macs[last + 1 :] > self._macs[min(failed)] / 2] = math.inf
        for place, value in self._known.items():
            expected[place] = value
        return np.asarray(expected)


def largest_within(
    forms: Sequence[Scales[N]], limit_ms: float, certify: Callable[[N], C | None], whole_macs: int
) -> tuple[N, C] | None:
    """Return among a design's forms, the deepest first, the scale within the limit that has the most MACs, and its certificate.

    `whole_macs` are those of the design as it was published. A shallower form is looked at only if the deeper ones have to give
    up more than half of their widths.
    """
    found: list[tuple[int, N, C]] = []
    for form in forms:
        widest = form.widest_within(limit_ms, certify)
        if widest is None:
            continue
        found.append((form.macs_of(widest[0]), *widest))
        if found[-1][0] >= whole_macs * NARROW**2:
            break
    if not found:
        return None
    _, network, certificate = max(found, key=lambda each: each[0])
    return network, certificate
