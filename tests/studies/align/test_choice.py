"""Choosing widths: the paper's greedy way keeps its bounds, and the exact one is the optimum of the same choice."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genet.studies.align.objective import Objective, exact, greedy, stay
from genet.studies.align.place import Option, Place

NETWORK = 1_000_000  # parameters


def place(name: str, left: tuple[float, int] | None = None, right: tuple[float, int] | None = None) -> Place:
    """A place of 10 ms whose edges save so much time and so many parameters, or cost so much."""
    return Place(
        name=name,
        layers=(name,),
        now=Option(width=32, ms=10.0, parameters=NETWORK),
        left=Option(width=24, ms=10.0 - left[0], parameters=NETWORK - left[1]) if left else None,
        right=Option(width=40, ms=10.0 + right[0], parameters=NETWORK + right[1]) if right else None,
        where="inside",
    )


@st.composite
def places(draw: st.DrawFn) -> list[Place]:
    edge = st.none() | st.tuples(st.floats(-0.2, 3.0), st.integers(0, 60_000))
    return [place(str(index), draw(edge), draw(edge)) for index in range(draw(st.integers(1, 6)))]


aims = st.builds(lambda bound: Objective("latency", -bound, bound), st.floats(0, 60_000)) | st.just(Objective("accuracy", 0.0))


@example([place("0", (1.0, 0), (-1e-6, 0))], Objective("accuracy", 0.0))
@given(places(), aims)
def test_the_exact_choice_is_the_best_of_all_that_keep_the_bounds(some: list[Place], objective: Objective) -> None:
    allowed = [
        chosen
        for chosen in itertools.product(*(each.options for each in some))
        if objective.allows(objective.bounded_total(some, chosen))
    ]
    found = exact(some, objective)
    assert objective.allows(objective.bounded_total(some, found))
    assert objective.total_value(some, found) == pytest.approx(
        max(objective.total_value(some, chosen) for chosen in allowed), rel=1e-6, abs=1e-6
    )


@example([place("0", None, (1e-12, 1))], Objective("accuracy", 0.0))
@given(places(), aims)
def test_the_greedy_choice_keeps_the_bounds_and_is_never_better_than_the_exact_one(
    some: list[Place], objective: Objective
) -> None:
    found = greedy(some, objective)
    assert objective.allows(objective.bounded_total(some, found))
    worth = objective.total_value(some, found)
    assert 0 <= worth <= objective.total_value(some, exact(some, objective)) * (1 + 1e-6) + 1e-6


def test_the_layer_with_the_most_to_gain_moves_left_and_the_one_with_the_least_moves_right() -> None:
    some = [
        place("slow", (3.0, 30_000), (1.0, 30_000)),
        place("even", (1.0, 5_000), (0.5, 5_000)),
        place("free", None, (0.0, 28_000)),
    ]
    found = dict(zip(["slow", "even", "free"], greedy(some, Objective("latency", -4_000, 4_000)), strict=True))
    assert (found["slow"].width, found["even"].width, found["free"].width) == (24, 32, 40)


@pytest.mark.parametrize(("least", "widths"), [(-20_000, (24, 40)), (-4_000, (32, 32))])
def test_what_moves_together_is_counted_together(least: float, widths: tuple[int, int]) -> None:
    some = [place("slow", (3.0, 30_000), None), place("reader", None, (0.0, 28_000))]
    together = {(32, 32): 0.0, (24, 32): -30_000.0, (32, 40): 28_000.0, (24, 40): -16_000.0}
    objective = Objective("latency", least, 20_000, lambda chosen: together[chosen[0].width, chosen[1].width])
    assert tuple(option.width for option in greedy(some, objective)) == widths


def test_for_accuracy_widths_that_cost_no_time_grow_and_slower_ones_are_paid_for() -> None:
    some = [place("free", None, (0.0, 9_000)), place("dear", None, (2.0, 50_000)), place("thrifty", (2.5, 1_000), None)]
    widths = [option.width for option in greedy(some, Objective("accuracy", 0.0))]
    assert widths == [40, 40, 24]
    assert [option.width for option in greedy(some[:2], Objective("accuracy", 0.0))] == [40, 32]  # nobody pays for the dear one


def test_a_move_that_nothing_balances_is_taken_back() -> None:
    some = [place("slow", (3.0, 30_000), None), place("small", (1.0, 2_000), None)]
    assert [option.width for option in greedy(some, Objective("latency", -4_000, 4_000))] == [32, 24]


@pytest.mark.parametrize("solve", [greedy, exact])
def test_where_nothing_may_move_or_no_choice_keeps_the_bounds_all_stay(solve) -> None:  # type: ignore[no-untyped-def]
    assert solve([], Objective("accuracy", 0.0)) == ()
    some = [place("fixed"), place("slow", None, (1.0, 1_000))]
    assert solve(some, Objective("accuracy", 5.0)) == stay(some)
