"""Means and variances of repeated measurements and trainings."""

from __future__ import annotations

import math
import statistics

import pytest

from genet.statistics import half_interval, intervals_per_deviation, pooled_variance

VALUES = (0.98, 0.99, 1.0, 1.01, 1.02)


def test_a_single_value_has_no_variance_and_several_samples_share_theirs() -> None:
    assert pooled_variance([(0.8, 0.82), (0.5,), (0.6, 0.6)]) == pytest.approx(0.0001)
    assert pooled_variance([(0.8,)]) == 0


def test_an_interval_is_students_and_one_value_has_none() -> None:
    assert half_interval(VALUES) == pytest.approx(8.610 * statistics.stdev(VALUES) / math.sqrt(5), rel=1e-3)  # t(4), 99.9 %
    assert half_interval((1.0,)) == math.inf
    assert half_interval((1.0, 1.0, 1.0)) == 0


def test_more_values_of_the_same_deviation_leave_a_narrower_interval() -> None:
    assert intervals_per_deviation(5) == pytest.approx(8.610 / math.sqrt(5), rel=1e-3)
    assert intervals_per_deviation(20) < intervals_per_deviation(6) < intervals_per_deviation(3)
