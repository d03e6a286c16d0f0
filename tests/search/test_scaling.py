"""The largest scale of a design within a latency."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.search.scaling import MOST, TIGHTER, Scales, forms_within

MACS = [round(1000 * 2 ** (step / 12)) for step in range(60)]


def staircase(step: int, floor: float) -> list[float]:
    """Latency that rises every so many scales alone, above what launching the kernels takes."""
    return [floor + MACS[place - place % step] / 1000 for place in range(len(MACS))]


@given(st.integers(1, 8), st.floats(1.0, 40.0), st.floats(0.3, 3.0), st.sampled_from([0.0, 0.5, 5.0, 50.0]))
def test_the_widest_within_is_that_of_a_full_scan_or_within_a_few_percent_of_its_macs(
    step: int, room: float, guess: float, floor: float
) -> None:
    ms, seen, limit = staircase(step, floor), [], floor + room

    def measure(place: int) -> float:
        seen.append(place)
        return ms[place]

    place = Scales(range(len(MACS)), MACS, measure, guess / 1000).certified_within(limit, lambda place: place)
    assert place is not None
    best = max(each for each in range(len(MACS)) if ms[each] <= limit)
    assert ms[place] <= limit
    assert MACS[place] >= 0.8 * MACS[best]
    assert len(seen) == len(set(seen)) <= MOST + 3


def test_if_launching_takes_nearly_all_of_the_time_the_widest_within_is_found_without_creeping_up_to_it() -> None:
    seen: list[int] = []

    def measure(place: int) -> float:
        seen.append(place)
        return 100 + MACS[place] / 1000

    found = Scales(range(len(MACS)), MACS, measure, 0.1).certified_within(118, lambda place: place)
    assert found is not None
    assert 0.8 * 18_000 <= MACS[found] <= 18_000
    assert len(seen) <= 8


def test_a_budget_below_the_narrowest_has_no_scale_and_tells_the_fastest() -> None:
    scales = Scales(range(len(MACS)), MACS, lambda place: 5.0 + place, 0.001)
    assert scales.certified_within(1.0, lambda place: place) is None
    assert scales.fastest == (0, 5.0)


def test_a_scale_that_cannot_be_certified_gives_way_to_the_next_narrower() -> None:
    scales = Scales(range(len(MACS)), MACS, lambda place: MACS[place] / 1000, 0.001)
    found = scales.certified_within(8.0, lambda place: place if MACS[place] <= 7200 else None)
    assert found is not None
    assert 6000 <= MACS[found] <= 7200


@pytest.mark.parametrize("slower", [1.0, 1.05, 1.2, 1.4])
def test_a_machine_that_became_slower_is_given_a_narrower_scale(slower: float) -> None:
    scales, certified = Scales(range(len(MACS)), MACS, lambda place: MACS[place] / 1000, 0.001), []

    def certify(place: int) -> int | None:
        certified.append(place)
        return place if slower * MACS[place] <= 8000 else None

    found = scales.certified_within(8.0, certify)
    assert found is not None
    assert 8000 * TIGHTER[-1] * 0.9 <= slower * MACS[found] <= 8000
    assert len(certified) == len(set(certified))


def test_a_scale_that_cannot_be_timed_is_never_taken() -> None:
    scales = Scales(range(len(MACS)), MACS, lambda place: math.inf if place > 20 else MACS[place] / 1000, 0.001)
    found = scales.certified_within(1e6, lambda place: place)
    assert found is not None
    assert found <= 20


def test_a_second_budget_measures_little_anew() -> None:
    seen: list[int] = []

    def measure(place: int) -> float:
        seen.append(place)
        return MACS[place] / 1000

    scales = Scales(range(len(MACS)), MACS, measure, 0.002)
    scales.certified_within(10.0, lambda place: place)
    first = len(seen)
    scales.certified_within(10.1, lambda place: place)
    assert len(seen) <= first + 2


def forms(ms_per_block: float, ms_per_mac: float, seen: list[tuple[int, int]]) -> list[Scales[tuple[int, int]]]:
    """A design of four blocks, of two and of one, which take so long for being launched and so long for each MAC."""

    def measure(scale: tuple[int, int]) -> float:
        seen.append(scale)
        blocks, place = scale
        return ms_per_block * blocks + ms_per_mac * MACS[place] * blocks / 4

    places = range(len(MACS))
    return [
        Scales([(blocks, place) for place in places], [MACS[place] * blocks // 4 for place in places], measure, 0.001)
        for blocks in (4, 2, 1)
    ]


def raced(scale: tuple[int, int]) -> tuple[tuple[int, int], str]:
    """The scale as it is, with a certificate."""
    return scale, "certified"


def macs_of(scale: tuple[int, int]) -> int:
    blocks, place = scale
    return MACS[place] * blocks // 4


def test_where_launching_blocks_takes_the_time_a_shallower_form_is_taken_at_full_width() -> None:
    found = forms_within(forms(1.0, 1e-6, []), 2.5, raced, macs_of, whole_macs=MACS[30])
    assert [scale for scale, _ in found] == [(2, len(MACS) - 1)]


def test_a_design_that_need_not_give_up_half_its_widths_keeps_its_depth_and_no_other_is_measured() -> None:
    seen: list[tuple[int, int]] = []
    ((found, _),) = forms_within(forms(0.0, 0.001, seen), MACS[20] / 1000, raced, macs_of, whole_macs=MACS[30])
    assert found[0] == 4
    assert {blocks for blocks, _ in seen} == {4}


def test_the_published_depth_races_whenever_it_is_within_and_a_shallower_form_beside_it_if_much_larger() -> None:
    found = forms_within(forms(1.0, 0.001, []), 5.2, raced, macs_of, whole_macs=MACS[-1])
    assert [blocks for (blocks, _), _ in found] == [4, 2]
    seen: list[tuple[int, int]] = []
    narrow = forms_within(forms(0.0, 0.001, seen), 1.2, raced, macs_of, whole_macs=MACS[-1])
    assert [blocks for (blocks, _), _ in narrow] == [4]
    assert [blocks for blocks, _ in seen if blocks < 4] == [2, 1], "one scale of each shallower form tells that it is no larger"


def test_a_shallower_form_is_held_against_the_widened_network_of_the_deeper_one_and_against_what_is_certified_of_it() -> None:
    def widened(scale: tuple[int, int]) -> tuple[tuple[int, int], str]:
        return ((4, len(MACS) - 1) if scale[0] == 4 else scale), "certified"

    def narrowed(scale: tuple[int, int]) -> tuple[tuple[int, int], str] | None:
        return raced(scale) if scale[0] == 4 or MACS[scale[1]] <= 2700 else None

    for certify in (widened, narrowed):
        found = forms_within(forms(1.0, 0.001, []), 5.2, certify, macs_of, whole_macs=MACS[-1])
        assert [blocks for (blocks, _), _ in found] == [4], "with the scale itself, two blocks would race beside four"


def test_of_a_design_that_is_within_no_limit_nothing_is_taken() -> None:
    assert forms_within(forms(1.0, 0.001, []), 0.5, raced, macs_of, whole_macs=MACS[30]) == []


def test_of_a_design_whose_shallowest_form_is_over_the_limit_no_other_but_the_deepest_is_timed() -> None:
    looked = list[tuple[int, int]]()

    def form(depth: int) -> Scales[tuple[int, int]]:
        def measure(scale: tuple[int, int]) -> float:
            looked.append(scale)
            return 10.0 * depth + scale[1]

        return Scales([(depth, width) for width in range(1, 9)], [depth * width for width in range(1, 9)], measure, 1.0)

    assert forms_within([form(4), form(2), form(1)], 5.0, raced, lambda scale: scale[0] * scale[1], 100) == []
    assert {depth for depth, _ in looked} == {4, 1}
    assert looked[-1] == (1, 1)
