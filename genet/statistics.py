"""Means and variances of repeated measurements and trainings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import stdev, variance

CONFIDENCE = 0.999  # confidence of an interval: of many selections none should be wrong


def pooled_variance(samples: Iterable[Sequence[float]]) -> float:
    """Return the variance from one value to the next within a sample, pooled over all samples; 0 if none has two values."""
    several = [each for each in samples if len(each) > 1]
    freedom = sum(len(each) - 1 for each in several)
    return sum(variance(each) * (len(each) - 1) for each in several) / freedom if freedom else 0.0


def half_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Return half the width of the confidence interval of a mean; infinite for a single sample that could vary."""
    if len(samples) < 2:
        return math.inf
    spread = stdev(samples)
    return spread * intervals_per_deviation(len(samples), confidence) if spread else 0.0


def intervals_per_deviation(count: int, confidence: float = CONFIDENCE) -> float:
    """Return half the confidence interval of a mean of so many values over their standard deviation (Student's t)."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, (1 + confidence) / 2)) / math.sqrt(count)


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's rank correlation (tau-b); None if all values of one are equal."""
    from scipy.stats import kendalltau  # takes a second to import

    return float(kendalltau(one, other).statistic) if _vary(one, other) else None


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None if all values of one are equal."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic) if _vary(one, other) else None


def _vary(*samples: Sequence[float]) -> bool:
    return all(len(set(each)) > 1 for each in samples)
