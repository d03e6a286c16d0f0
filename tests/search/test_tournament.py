"""Who goes on in a tournament for the MasterNet, what it costs, and how its contenders stand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.config.recipe import Measure, Schedule, Training
from genet.latency.table import Setting
from genet.search.tournament import (
    LAST,
    Contender,
    Round,
    RoundResult,
    Tournament,
    cost_in_trainings,
    ranked,
    standings,
    tournament_rounds,
)
from tests.fixtures.cards import CARD

SCHEDULE = Schedule(epochs=40, learning_rate=0.1, warmup_epochs=5)


def tournament(*rounds: dict[str, str], winner: str | None = None) -> Tournament:
    contenders = tuple(
        Contender(design=name, name=name, network=name, ms_per_image=0.5, interval_ms_per_image=0.0, parameters=1)
        for name in "abcd"
    )
    return Tournament(
        inputs="",
        setting=Setting.of(CARD, Measure()),
        contenders=contenders,
        planned=2,
        rounds=tuple(Round(epochs=8 * 2**number, trainings=each) for number, each in enumerate(rounds)),
        winner=winner,
    )


@given(st.integers(2, 81))  # beyond, full trainings are reached before three are left
def test_a_third_goes_on_for_twice_as_long_until_three_or_fewer_decide(designs: int) -> None:
    rounds = tournament_rounds(designs, SCHEDULE)
    sizes, epochs = [size for size, _ in rounds], [schedule.epochs for _, schedule in rounds]
    assert sizes[0] == designs
    assert 2 <= sizes[-1] <= LAST
    assert all(after == math.ceil(before / 3) for before, after in itertools.pairwise(sizes))
    assert all(after == min(40, 2 * before) for before, after in itertools.pairwise(epochs))
    assert epochs[0] == (8 if designs > LAST else 16)
    assert cost_in_trainings(designs, SCHEDULE) == sum(map(int.__mul__, sizes, epochs)) / 40


@given(st.integers(2, 200), st.integers(1, 60))
def test_no_round_repeats_the_trainings_of_another(designs: int, epochs: int) -> None:
    schedule = Training(epochs=epochs, learning_rate=0.1, ema=0.99)
    rounds = tournament_rounds(designs, schedule)
    sizes, lengths = [size for size, _ in rounds], [training.epochs for _, training in rounds]
    assert sizes[0] == designs
    assert all(after <= math.ceil(before / 3) for before, after in itertools.pairwise(sizes))
    assert lengths == sorted(set(lengths))
    assert all((training == schedule) == (training.epochs == epochs) for _, training in rounds)
    assert cost_in_trainings(designs, schedule) == sum(map(int.__mul__, sizes, lengths)) / epochs


@pytest.mark.parametrize(("designs", "cost"), [(0, 0.0), (1, 0.0), (2, 0.8), (6, 2.0), (10, 5.2), (26, 11.2)])
def test_a_tournament_costs_some_full_trainings_and_one_design_alone_none(designs: int, cost: float) -> None:
    assert cost_in_trainings(designs, SCHEDULE) == pytest.approx(cost)


def test_a_training_as_long_as_the_full_one_is_the_full_one() -> None:
    full = Training(epochs=40, learning_rate=0.1, ema=0.99)
    *_, (_, last) = tournament_rounds(100, full)
    assert last == full


def test_of_equals_the_first_stays_first_and_what_failed_is_out() -> None:
    assert ranked("abcd", {"b": 0.5, "c": 0.7, "a": 0.5}) == ("c", "a", "b")


def test_contenders_stand_by_how_far_they_came_and_then_by_what_they_reached() -> None:
    first = dict(zip("abcd", "1234", strict=True))
    ended = {"1": RoundResult(accuracy=0.5, images=100), "2": RoundResult(accuracy=None, images=0)}
    ended["3"] = RoundResult(accuracy=0.7, images=100)
    begun = [(each.contender.design, each.state) for each in standings(tournament(first), ended)]
    assert begun == [("c", "leads"), ("a", "in"), ("d", "in"), ("b", "failed")]

    ended |= {"4": RoundResult(accuracy=0.6, images=100), "6": RoundResult(accuracy=0.8, images=400)}
    later = standings(tournament(first, {"c": "5", "d": "6"}), ended)
    assert [(each.contender.design, each.state) for each in later] == [("d", "leads"), ("c", "in"), ("a", "out"), ("b", "failed")]
    assert later[0].reached == (0.6, 0.8)
    assert later[0].error == pytest.approx(0.02)
    assert later[1].reached == (0.7, None)

    ended["5"] = RoundResult(accuracy=0.8, images=400)
    over = tournament(first, {"c": "5", "d": "6"}, winner="d")
    assert [(each.contender.design, each.state) for each in standings(over, ended)][:2] == [("d", "won"), ("c", "out")]
    assert over.won is not None
    assert over.won.design == "d"
    assert over.trainings == {*"123456"}


def test_before_any_round_all_are_in() -> None:
    assert {each.state for each in standings(tournament(), {})} == {"in"}
    assert tournament().won is None
