"""Rounds of trainings: which networks are trained, and that the best is found with few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from genet.search.rounds import AT_ONCE, START, Evidence, Quota, promising, race, ranked, search, single_changes, spread
from genet.search.surrogate import Pool, fit_surrogate, score
from tests.search.test_surrogate import networks


@dataclass(frozen=True)
class Rows:
    """Rows of a pool as the networks of a budget; one may be trained again."""

    all: Pool
    rows: Sequence[int]

    def near(self, proposed: Sequence[int], _draw: np.random.Generator) -> list[int]:
        return [row for row in self.rows if row not in proposed]

    def alike(self, _evidence: Evidence[int], proposed: Sequence[int], rng: np.random.Generator) -> list[int]:
        return self.near(proposed, rng)

    def pool(self, rows: Sequence[int]) -> Pool:
        return self.all.take(rows)


class Trainings:
    """Trainings that reach what is true, with noise; `rounds` are what was asked for at once."""

    def __init__(self, truth: np.ndarray, noise: float = 0.005) -> None:
        self.reached, self.rounds = 1 - np.exp(-truth), list[Sequence[tuple[int, int]]]()
        self.evidence, self._noise = Evidence[int]([], []), noise

    def __call__(self, proposals: Sequence[tuple[int, int]]) -> Evidence[int]:
        self.rounds.append(proposals)
        rows = [row for _, row in proposals]
        noise = np.random.default_rng(len(self.rounds)).normal(0, self._noise, len(rows))
        scores = [*self.evidence.scores, *score(self.reached[rows] + noise)]
        self.evidence = Evidence([*self.evidence.networks, *rows], scores)
        return self.evidence


@pytest.mark.parametrize("seed", range(3))
def test_a_search_comes_closer_to_the_best_than_as_many_random_trainings_and_stays_within_the_budget(seed: int) -> None:
    pool, truth = networks(400, seed)
    within, train = range(240), Trainings(truth)
    assert search([Quota(Rows(pool, within), 24)], train.evidence, train, seed) == (24,)
    assert len(train.evidence.networks) == 24
    assert set(train.evidence.networks) <= set(within)
    chosen = ranked(Rows(pool, within), train.evidence)[0]
    assert (truth[within] > truth[chosen]).mean() < 0.05


def test_half_of_the_trainings_are_spread_at_once_and_every_round_has_two_at_least() -> None:
    pool, truth = networks(200, 0)
    alone, shared = Trainings(truth), Trainings(truth)
    search([Quota(Rows(pool, range(200)), 12)], alone.evidence, alone, 0)
    assert [len(each) for each in alone.rounds[:-1]] == [START * 12] + [AT_ONCE] * (len(alone.rounds) - 2)
    search([Quota(Rows(pool, range(start, 200)), 8) for start in (0, 100, 150)], shared.evidence, shared, 0)
    assert [len(each) for each in shared.rounds] == [3 * START * 8] + [3] * 4
    assert all(len({row for _, row in each}) == len(each) for each in shared.rounds)  # no network for two budgets


def test_a_search_that_was_stopped_goes_on_as_one_that_was_not() -> None:
    pool, truth = networks(200, 0)
    whole, halved = Trainings(truth, noise=0), Trainings(truth, noise=0)
    budgets = [Rows(pool, range(100)), Rows(pool, range(100, 200))]
    search([Quota(each, 12) for each in budgets], whole.evidence, whole, 0)
    halved.evidence = Evidence(whole.evidence.networks[:16], whole.evidence.scores[:16])  # the start, and two rounds
    search([Quota(each, 12, 8) for each in budgets], halved.evidence, halved, 0)
    assert halved.evidence.networks == whole.evidence.networks


def test_a_budget_that_runs_out_of_networks_leaves_the_others_their_trainings() -> None:
    pool, truth = networks(50, 0)
    train = Trainings(truth)
    assert search([Quota(Rows(pool, []), 6), Quota(Rows(pool, range(50)), 6)], train.evidence, train, 0) == (0, 6)


def test_a_budget_that_random_networks_miss_begins_with_rounds() -> None:
    class Missed(Rows):
        def near(self, _proposed: Sequence[int], _draw: np.random.Generator) -> list[int]:
            return []

        def alike(self, _evidence: Evidence[int], _proposed: Sequence[int], _draw: np.random.Generator) -> list[int]:
            return list(self.rows)

    pool, truth = networks(50, 0)
    train = Trainings(truth)
    train([(0, 1), (0, 2)])
    assert search([Quota(Missed(pool, range(50)), 6)], train.evidence, train, 0) == (6,)


def test_a_spread_start_has_no_network_twice() -> None:
    pool, _ = networks(200, 0)
    rows = spread(pool, np.arange(200), 12, np.random.default_rng(0))
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
    found = [promising(surrogate, np.arange(200), np.random.default_rng(seed)) for seed in range(3)]
    assert truth[found].min() > np.median(truth)


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
