"""The surrogate: what it believes of networks that were not trained, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.search.surrogate import Pool, fit_surrogate, score

PLACES, OPTIONS = 5, 3


def networks(count: int, seed: int) -> tuple[Pool, np.ndarray]:
    """Networks of five places with three options each, and their true scores: size, and what stands at the last place."""
    rng = np.random.default_rng(seed)
    choices = rng.integers(0, OPTIONS, (count, PLACES))
    features = [
        np.column_stack([choices[:, place] == option for option in range(1, OPTIONS)]).astype(float) for place in range(PLACES)
    ]
    macs = 1e6 * (1 + choices.sum(1) + rng.random(count))
    pool = Pool.of(features, macs, macs * rng.uniform(0.9, 1.1, count))
    return pool, 1 + 0.2 * np.log(macs / macs.mean()) + 0.15 * (choices[:, -1] == 2)


@given(st.lists(st.floats(0, 0.99), min_size=1))
def test_a_score_reads_back_as_its_accuracy(accuracies: list[float]) -> None:
    assert 1 - np.exp(-score(np.array(accuracies))) == pytest.approx(accuracies, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_networks_that_were_not_trained_are_ranked_and_errors_are_of_the_size_they_claim(seed: int) -> None:
    pool, truth = networks(300, seed)
    rows = np.random.default_rng(seed).choice(300, 40, replace=False)
    noisy = truth[rows] + np.random.default_rng(seed).normal(0, 0.02, 40)
    mean, error = fit_surrogate(pool, rows, noisy).predict(np.arange(300))
    others = np.setdiff1d(np.arange(300), rows)
    assert np.corrcoef(mean[others], truth[others])[0, 1] > 0.9
    assert 0.4 < np.sqrt(np.mean(((mean - truth)[others] / error[others]) ** 2)) < 2.5


def test_one_training_tells_nothing_but_the_level_and_more_size_is_no_worse() -> None:
    pool, truth = networks(50, 0)
    mean, error = fit_surrogate(pool, [3], [truth[3]]).predict(np.arange(50))
    assert np.isfinite(mean).all()
    assert (error > 0).all()
    with pytest.raises(ValueError, match="got no training, expected one at least"):
        fit_surrogate(pool, [], [])


def test_a_network_that_was_trained_again_is_known_better() -> None:
    pool, truth = networks(50, 0)
    rows = list(range(12))
    once = fit_surrogate(pool, rows, truth[rows]).predict(np.array([3]))[1]
    again = fit_surrogate(pool, [*rows, 3, 3, 3], truth[[*rows, 3, 3, 3]]).predict(np.array([3]))[1]
    assert again < once


def test_samples_scatter_about_what_is_expected_as_far_as_it_is_unsure() -> None:
    pool, truth = networks(60, 1)
    surrogate, rows = fit_surrogate(pool, list(range(20)), truth[:20]), np.arange(60)
    mean, error = surrogate.predict(rows)
    rng = np.random.default_rng(0)
    samples = np.stack([surrogate.sample(rows, rng) for _ in range(300)])
    assert np.abs(samples.mean(0) - mean).max() < 5 * error.max() / np.sqrt(300)
    assert samples.std(0) == pytest.approx(error, rel=0.3)


def test_columns_that_are_the_same_for_all_tell_nothing() -> None:
    pool = Pool.of([np.ones((4, 2))], np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 4]))
    assert (pool.local == 0).all()
    assert pool.size.std(0) == pytest.approx([1, 1])


@pytest.mark.parametrize("width", [0.1, 4.087462841250339, 5.700439718141092])
def test_columns_that_rounding_alone_makes_differ_tell_nothing_either(width: float) -> None:
    for count in range(2, 40):
        same, rising = np.full(count, width), np.arange(1.0, count + 1)
        pool = Pool.of([np.column_stack([same, rising])] * 2, rising, same)
        assert pool.size.shape[1] == pool.shared.shape[1] == 1
        assert pool.local.shape[1] == 2
