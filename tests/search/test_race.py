"""Who is trained fully, who once more, and who wins."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.config.recipe import Race, Schedule, Training
from genet.search.race import (
    Entrant,
    finalists,
    in_doubt,
    outcomes,
    raced_networks,
    short_training,
    trainings_at_most,
)
from genet.search.scores import Score

SHARES = st.floats(0.01, 0.99)


def entrant(network: str, budget: float = 1.0, design: str | None = None, within: tuple[float, ...] = (1.0, 2.0, 3.0)) -> Entrant:
    """A network just within its budget, and certified for these."""
    return Entrant(
        budget=budget,
        budget_ms_per_image=budget,
        within=within,
        design=design,
        name=network,
        network=network,
        resolution=32,
        ms_per_image=budget,
        interval_ms_per_image=0.0,
        parameters=1,
        macs=1,
    )


def score(*held_out: float, images: int = 1000) -> Score:
    return Score(held_out=held_out, test=held_out, held_out_images=images, test_images=images)


def test_a_short_training_has_two_fifths_of_the_epochs_and_warms_up_for_a_quarter_of_them_at_most() -> None:
    short = short_training(Schedule(epochs=40, learning_rate=0.1, warmup_epochs=5))
    assert (short.epochs, short.warmup_epochs) == (16, 4)
    assert short_training(Schedule(epochs=2, learning_rate=0.1, warmup_epochs=1)).epochs == 1
    averaged = short_training(Training(epochs=40, learning_rate=0.1, ema=0.9999))
    assert isinstance(averaged, Training)
    assert averaged.ema is None


def test_a_training_of_one_epoch_is_its_own_short_one_so_that_the_race_trains_nothing_twice() -> None:
    brief = Training(epochs=1, learning_rate=0.1, ema=0.9999)
    assert short_training(brief) == brief


@given(st.lists(st.tuples(SHARES, st.booleans()), min_size=1, max_size=12), st.floats(0.05, 1.0))
def test_the_best_share_is_trained_fully_with_the_best_of_both_kinds(found: list[tuple[float, bool]], share: float) -> None:
    entrants = [entrant(f"n{k}", design="known" if known else None) for k, (_, known) in enumerate(found)]
    reached = {f"n{k}": accuracy for k, (accuracy, _) in enumerate(found)}
    chosen = finalists(entrants, reached, share)
    assert len(chosen) == len(set(chosen)) >= min(len(found), max(2, math.ceil(share * len(found))))
    for kind in (True, False):
        own = [f"n{k}" for k, (_, known) in enumerate(found) if known == kind]
        if own:
            assert max(reached[name] for name in own) == max(reached[name] for name in chosen if name in own)


def test_a_network_whose_short_training_failed_is_no_finalist() -> None:
    assert finalists([entrant("a"), entrant("b")], {"b": 0.5}, 1 / 3) == ("b",)


def test_those_within_two_standard_errors_of_the_best_are_trained_once_more() -> None:
    entrants = [entrant("a"), entrant("b"), entrant("c")]
    scores = {"a": score(0.90), "b": score(0.89), "c": score(0.80)}
    assert in_doubt(entrants, scores) == ("a", "b")
    assert in_doubt(entrants, {"a": score(0.9), "c": score(0.8)}) == ()
    assert in_doubt([entrants[0]], scores) == ()


def test_the_error_on_test_images_has_the_luck_of_test_accuracies_alone() -> None:
    few = Score(held_out=(0.8, 0.9), test=(0.85, 0.85), held_out_images=40, test_images=10_000)
    (found,) = raced_networks([entrant("a")], {"a": few})
    assert found.test_error == pytest.approx(math.sqrt(0.85 * 0.15 / 10_000))
    assert found.held_out_error > 0.05


@pytest.mark.parametrize(("inherited", "said"), [(False, ", which began with new weights"), (True, "")])
def test_a_lead_over_a_design_that_began_with_new_weights_is_told_as_one(inherited: bool, said: str) -> None:
    scores = {name: score(0.8).model_copy(update={"inherited": name == "a" or inherited}) for name in ("a", "b")}
    (won,) = outcomes([entrant("a"), entrant("b", design="known")], scores)
    assert f"points ahead of b, the best known design{said}; a tie" in won.verdict


def test_a_verdict_tells_accuracy_and_lead_with_errors_and_the_latency_of_a_faster_network_that_ties() -> None:
    slow, fast = entrant("a"), entrant("b", design="known").model_copy(update={"ms_per_image": 0.75})
    (won,) = outcomes([slow.model_copy(update={"ms_per_image": 1.0}), fast], {"a": score(0.81), "b": score(0.80)})
    held_out = 100 * math.sqrt(0.81 * 0.19 / 1000)
    assert f"a reaches 81.0 ± {held_out:.1f} % on the held-out images, 1.0 ± " in won.verdict
    assert won.verdict.endswith("; a tie, as that is less than one standard error, and b has 25% less latency")


@pytest.mark.parametrize(("interval", "ends"), [(0.0032, "less than one standard error"), (0.0001, "and b has 1% less latency")])
def test_a_difference_of_latency_within_its_noise_is_not_told(interval: float, ends: str) -> None:
    entrants = [
        each.model_copy(update={"ms_per_image": ms, "interval_ms_per_image": interval})
        for each, ms in ((entrant("a"), 0.1399), (entrant("b", design="known"), 0.1382))
    ]
    (won,) = outcomes(entrants, {"a": score(0.81), "b": score(0.80)})
    assert won.verdict.endswith(ends)


@given(st.lists(st.tuples(SHARES, st.sampled_from([1.0, 2.0, 3.0]), st.booleans()), min_size=1, max_size=9))
def test_no_larger_budget_gets_a_network_that_is_worse_on_the_images_held_out(found: list[tuple[float, float, bool]]) -> None:
    entrants = [
        entrant(f"n{k}", budget, "known" if known else None, tuple(each for each in (1.0, 2.0, 3.0) if each >= budget))
        for k, (_, budget, known) in enumerate(found)
    ]
    won = outcomes(entrants, {f"n{k}": score(accuracy) for k, (accuracy, *_) in enumerate(found)})
    by_budget = sorted(won, key=lambda outcome: outcome.budget_ms_per_image)
    reached = [outcome.held_out_accuracy for outcome in by_budget]
    assert reached == sorted(reached)
    for outcome in won:
        within = [accuracy for accuracy, budget, _ in found if budget <= outcome.budget_ms_per_image]
        assert outcome.held_out_accuracy == pytest.approx(max(within))
        assert outcome.searched == (outcome.design is None)


def test_a_network_of_a_larger_budget_wins_a_smaller_one_that_it_is_certified_for() -> None:
    scores = {"slow": score(0.8), "fast": score(0.9)}
    slow = entrant("slow", 1.0, within=(1.0, 2.0))
    won = outcomes([slow, entrant("fast", 2.0, within=(1.0, 2.0))], scores)
    assert {outcome.budget.amount: outcome.name for outcome in won} == {1.0: "fast", 2.0: "fast"}
    won = outcomes([slow, entrant("fast", 2.0, within=(2.0,))], scores)
    assert {outcome.budget.amount: outcome.name for outcome in won} == {1.0: "slow", 2.0: "fast"}


def test_a_lead_of_less_than_one_standard_error_over_the_other_kind_is_a_tie() -> None:
    entrants = [entrant("own"), entrant("resnet", design="resnet")]
    (close,) = outcomes(entrants, {"own": score(0.900), "resnet": score(0.888)})
    (clear,) = outcomes(entrants, {"own": score(0.900), "resnet": score(0.881)})
    assert (close.tie, clear.tie) == (True, False)
    assert close.known is not None
    assert close.best_searched is not None
    assert (close.known.name, close.best_searched.name) == ("resnet", "own")


def test_where_a_known_design_wins_the_best_of_the_search_is_exported_beside_it() -> None:
    entrants = [entrant("own"), entrant("resnet", design="resnet")]
    (outcome,) = outcomes(entrants, {"own": score(0.8), "resnet": score(0.9)})
    assert not outcome.searched
    assert [each.name for each in outcome.exported] == ["resnet", "own"]
    (outcome,) = outcomes(entrants, {"own": score(0.9), "resnet": score(0.8)})
    assert [each.name for each in outcome.exported] == ["own"]


def test_a_budget_none_of_whose_networks_could_be_trained_takes_no_other_with_it() -> None:
    entrants = [entrant("small", 1.0, within=(1.0,)), entrant("large", 2.0, within=(2.0,))]
    assert [outcome.budget.amount for outcome in outcomes(entrants, {"large": score(0.5)})] == [2.0]
    assert outcomes(entrants, {}) == ()


def test_a_network_measured_for_two_budgets_is_told_with_the_longer_measurement() -> None:
    short, long = (
        entrant("a", budget).model_copy(update={"interval_ms_per_image": each}) for budget, each in ((1.0, 0.1), (2.0, 0.3))
    )
    for order in ((short, long), (long, short)):
        assert {each.interval_ms_per_image for each in outcomes(order, {"a": score(0.5)})} == {0.1}


def test_the_cost_of_a_race_is_told_in_full_trainings() -> None:
    schedule = Schedule(epochs=10, learning_rate=0.1)
    assert trainings_at_most(9, 2, 5, Race(effort="quick"), schedule) == pytest.approx(0.4 * 5 + 2 * (0.4 * 9 + 4))
    assert trainings_at_most(2, 1, 0, Race(), schedule) == pytest.approx(4)  # two need no short trainings
    assert trainings_at_most(3, 1, 0, Race(), Schedule(epochs=2, learning_rate=0.1)) == pytest.approx(0.5 * 3 + 6)
