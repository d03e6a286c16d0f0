"""Rounds of trainings: which networks are trained, and that the best is found with few."""

from __future__ import annotations

import numpy as np
import pytest

from genet.search.rounds import AT_ONCE, LEAST, START, promising, race, search, single_changes, spread
from genet.search.surrogate import fit_surrogate
from tests.search.test_surrogate import networks


@pytest.mark.parametrize("seed", range(3))
def test_a_search_comes_closer_to_the_best_than_as_many_random_trainings_and_stays_within_the_budget(seed: int) -> None:
    pool, truth = networks(400, seed)
    costs, trained = np.arange(400) / 400, list[int]()
    reached = 1 - np.exp(-truth)

    def train(rows: np.ndarray) -> np.ndarray:
        trained.extend(rows)
        return np.asarray(reached[rows] + np.random.default_rng(seed).normal(0, 0.005, len(rows)))

    chosen = search(pool, costs, 0.6, train, 24, np.random.default_rng(seed))
    assert len(trained) == 24
    assert max(costs[trained]) <= 0.6
    assert costs[chosen] <= 0.6
    within = np.flatnonzero(costs <= 0.6)
    assert (reached[within] > reached[chosen]).mean() < 0.05


def test_half_of_the_trainings_are_spread_and_none_of_these_comes_twice() -> None:
    pool, _ = networks(200, 0)
    rows = spread(pool, np.arange(200), max(LEAST, round(START * 24)), np.random.default_rng(0))
    assert len(set(rows)) == len(rows) == 12
    assert len(spread(pool, np.arange(5), 12, np.random.default_rng(0))) == 5


def test_a_spread_start_tells_more_of_every_effect_than_a_random_one() -> None:
    pool, _ = networks(400, 0)

    def least_known(rows: np.ndarray) -> float:
        return float(np.linalg.eigvalsh(pool.local[rows].T @ pool.local[rows] + 0.1 * np.eye(pool.local.shape[1])).prod())

    designed = least_known(spread(pool, np.arange(400), 14, np.random.default_rng(0)))
    assert all(designed > least_known(np.random.default_rng(seed).choice(400, 14, replace=False)) for seed in range(10))


def test_what_may_be_best_is_trained_next() -> None:
    pool, truth = networks(200, 0)
    surrogate = fit_surrogate(pool, list(range(30)), truth[:30])
    found = promising(surrogate, np.arange(200), AT_ONCE, np.random.default_rng(0))
    assert len(found) == AT_ONCE
    assert truth[found].min() > np.median(truth)


def test_a_budget_that_nothing_is_within_is_refused() -> None:
    pool, _ = networks(10, 0)
    with pytest.raises(ValueError, match=r"got 5\.0 at least, expected a network within it"):
        search(pool, np.full(10, 5.0), 1.0, lambda rows: rows, 8, np.random.default_rng(0))


def test_single_changes_are_those_that_differ_least_from_the_centre() -> None:
    pool, _ = networks(300, 0)
    rows = single_changes(pool, 7, 6, np.random.default_rng(0))
    changed = (np.abs(pool.local - pool.local[7]) > 1e-9).sum(1)
    assert 7 not in rows
    assert changed[rows].max() <= np.sort(np.delete(changed, 7))[5]


def test_a_race_is_won_by_who_is_best_of_the_best_when_trained_longer() -> None:
    rows, reached = np.array([4, 5, 6, 7]), np.array([0.5, 0.9, 0.8, 0.1])
    assert race(rows, reached, lambda last: np.where(last == 6, 1.0, 0.0), finalists=2) == 6
    assert race(rows, reached, lambda last: np.where(last == 7, 1.0, 0.0), finalists=2) == 5
