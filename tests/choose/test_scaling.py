"""The largest scale of a design within a latency."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from genet.choose.scaling import MOST, TRIES, Scales

MACS = [round(1000 * 2 ** (step / 12)) for step in range(60)]


def staircase(step: int) -> list[float]:
    """Latency that rises every so many scales alone."""
    return [MACS[place - place % step] / 1000 for place in range(len(MACS))]


@given(st.integers(1, 8), st.floats(1.0, 40.0), st.floats(0.3, 3.0))
def test_the_widest_within_is_that_of_a_full_scan_or_within_a_few_percent_of_its_macs(
    step: int, limit: float, guess: float
) -> None:
    ms, seen = staircase(step), []

    def measure(place: int) -> float:
        seen.append(place)
        return ms[place]

    found = Scales(range(len(MACS)), MACS, measure, guess / 1000).widest_within(limit, lambda place: place)
    assert found is not None
    place, _ = found
    best = max(each for each in range(len(MACS)) if ms[each] <= limit)
    assert ms[place] <= limit
    assert MACS[place] >= 0.8 * MACS[best]
    assert len(seen) == len(set(seen)) <= MOST + 3 + TRIES


def test_a_budget_below_the_narrowest_has_no_scale_and_tells_the_fastest() -> None:
    scales = Scales(range(len(MACS)), MACS, lambda place: 5.0 + place, 0.001)
    assert scales.widest_within(1.0, lambda place: place) is None
    assert scales.fastest_ms == 5.0


def test_a_scale_that_cannot_be_certified_gives_way_to_the_next_narrower() -> None:
    scales = Scales(range(len(MACS)), MACS, lambda place: MACS[place] / 1000, 0.001)
    found = scales.widest_within(8.0, lambda place: place if MACS[place] <= 7200 else None)
    assert found is not None
    assert 6000 <= MACS[found[0]] <= 7200


def test_a_scale_that_cannot_be_timed_is_never_taken() -> None:
    scales = Scales(range(len(MACS)), MACS, lambda place: math.inf if place > 20 else MACS[place] / 1000, 0.001)
    found = scales.widest_within(1e6, lambda place: place)
    assert found is not None
    assert found[0] <= 20


def test_a_second_budget_measures_little_anew() -> None:
    seen: list[int] = []

    def measure(place: int) -> float:
        seen.append(place)
        return MACS[place] / 1000

    scales = Scales(range(len(MACS)), MACS, measure, 0.002)
    scales.widest_within(10.0, lambda place: place)
    first = len(seen)
    scales.widest_within(10.1, lambda place: place)
    assert len(seen) <= first + 2
