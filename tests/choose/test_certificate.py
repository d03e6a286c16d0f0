"""From predictions to a network that was measured to be within the budget."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.choose.certificate import best_predicted, best_within
from genet.choose.selection import Candidate
from genet.errors import EvidenceError


def front(size: int) -> list[Candidate]:
    """Candidates of 1, 2, 3... ms whose predicted accuracy rises with their latency."""
    return [
        Candidate(network=f"net{n}", resolution=32, predicted_ms=float(n), predicted_accuracy=0.5 + n / 1000)
        for n in range(1, size + 1)
    ]


def test_the_best_candidate_measured_within_the_budget_is_named() -> None:
    candidate, ms = best_within(5.0, front(10), 1.0, lambda c: c.predicted_ms, count=3)
    assert (candidate.network, ms) == ("net5", 5.0)


def test_when_predictions_are_too_low_slower_candidates_are_left_aside() -> None:
    measured: list[str] = []

    def twice_as_slow(candidate: Candidate) -> float:
        measured.append(candidate.network)
        return 2 * candidate.predicted_ms

    candidate, ms = best_within(10.0, front(40), 1.0, twice_as_slow, count=2)
    assert (candidate.network, ms) == ("net5", 10.0)
    assert len(measured) <= 4, "one wrong guess, then the corrected one"


def test_a_budget_that_none_can_meet_gives_the_fastest_with_its_latency() -> None:
    candidate, ms = best_within(0.5, front(10), 1.0, lambda c: c.predicted_ms, count=3)
    assert (candidate.network, ms) == ("net1", 1.0)


def test_the_fastest_is_tried_even_when_it_is_predicted_to_break_the_budget() -> None:
    candidate, ms = best_within(0.9, front(10), 1.0, lambda c: c.predicted_ms / 2, count=3)
    assert (candidate.network, ms) == ("net1", 0.5)


@given(st.floats(0.3, 3.0), st.floats(0.5, 45), st.integers(1, 5), st.integers(0, 10_000))
def test_no_named_network_breaks_a_budget_that_any_measured_one_meets(bias: float, budget: float, count: int, seed: int) -> None:
    draw = random.Random(seed)
    measured: dict[str, float] = {}

    def noisy_device(candidate: Candidate) -> float:
        measured[candidate.network] = candidate.predicted_ms * bias * draw.uniform(0.9, 1.1)
        return measured[candidate.network]

    candidate, ms = best_within(budget, front(40), 1.0, noisy_device, count)
    assert measured[candidate.network] == ms
    if ms > budget:
        assert ms == min(measured.values())
        assert "net1" in measured


def test_one_wildly_slow_reading_does_not_rule_out_all_but_the_fastest() -> None:
    slow = {"net20": 100.0, "net19": 100.0}
    candidate, ms = best_within(20.0, front(20), 1.0, lambda c: slow.get(c.network, c.predicted_ms), count=2)
    assert ms <= 20.0
    assert candidate.predicted_ms >= 3


def test_an_empty_frontier_is_said() -> None:
    with pytest.raises(EvidenceError, match="the frontier is empty"):
        best_within(1.0, [], 1.0, lambda c: 1.0, 1)


def test_without_a_device_the_scaled_prediction_decides() -> None:
    assert best_predicted(5.0, front(10), scale=1.0).network == "net5"
    assert best_predicted(5.0, front(10), scale=2.0).network == "net2"
    assert best_predicted(0.1, front(10), scale=1.0).network == "net1"
