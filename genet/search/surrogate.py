"""What trainings of whole networks teach: a Gaussian process over their scores, -log(error).

A score is a sum of four functions of what a network is, each as large as the trainings say: of its size (logarithms of MACs and
parameters), which costs nothing to know; of what all places share, such as one more block anywhere; of what stands at each place;
and a remainder that is alike for networks that are alike. Every training adds noise. With few trainings size explains nearly all,
and the more there are the more local effects are believed: how much of each, the marginal likelihood decides (Rasmussen and
Williams, Gaussian Processes for Machine Learning, chapter 5), under weak priors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky

SIZE, SHARED, LOCAL, REMAINDER, NOISE = range(5)
SPREADS = np.array([0.7, 0.4, 0.4, 0.4, 0.5])  # of each part, before anything is known, as shares of the scores' spread
DOUBT = 0.7  # standard deviation of the logarithms of these spreads
LEVEL = 2.0  # spread of the mean score, in the same share: nothing is known of it
JITTER = 1e-6  # of the scores' variance, for matrices that rounding has made indefinite
ROUNDING = 1e-9  # features that differ by a smaller share are equal
LEAST_ERROR = 1e-3  # beyond it, a score would be infinite


def score(accuracy: np.ndarray) -> np.ndarray:
    """Return -log(error) of accuracies from 0 to 1: no prediction of it is beyond 100 %."""
    return np.asarray(-np.log(np.maximum(1 - np.asarray(accuracy, float), LEAST_ERROR)))


@dataclass(frozen=True)
class Pool:
    """Networks to choose among, as the surrogate sees them; a row each, every column with mean 0 and deviation 1."""

    size: np.ndarray  # (networks, 2)
    shared: np.ndarray  # (networks, features)
    local: np.ndarray  # (networks, places x features)

    @classmethod
    def of(cls, features: Sequence[np.ndarray], macs: np.ndarray, parameters: np.ndarray) -> Pool:
        """Describe networks by the features (networks, features) of what stands at each place, their MACs and parameters."""
        size = np.column_stack([np.log(macs), np.log(parameters)])
        return cls(_standardized(size), _standardized(np.sum(features, axis=0)), _standardized(np.column_stack(features)))

    def __len__(self) -> int:
        return len(self.size)

    def take(self, rows: Sequence[int] | np.ndarray) -> Pool:
        """Return these rows, in this order."""
        return Pool(*(each[np.asarray(rows, int)] for each in (self.size, self.shared, self.local)))

    def kernels(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return how alike networks are in each part (4, rows, others); 1 is usual for a network and itself."""
        local, other = self.local[rows], self.local[others]
        distances = (local**2).sum(1)[:, None] + (other**2).sum(1) - 2 * local @ other.T
        linear = [each[rows] @ each[others].T / each.shape[1] for each in (self.size, self.shared, self.local)]
        return np.stack([*linear, np.exp(-distances / (2 * local.shape[1]))])

    def variances(self, rows: np.ndarray) -> np.ndarray:
        """Return the diagonals of `kernels` of these networks with themselves (4, rows)."""
        linear = [(each[rows] ** 2).mean(1) for each in (self.size, self.shared, self.local)]
        return np.stack([*linear, np.ones(len(rows))])


@dataclass(frozen=True)
class Surrogate:
    """The posterior of the score of every network of a pool, given trainings of some."""

    pool: Pool
    rows: np.ndarray  # (trained,) in the pool, each once
    scores: np.ndarray  # (trained,) means over the trainings of each
    trainings: np.ndarray  # (trained,) how many each had
    variances: np.ndarray  # (5,) of the parts and of the noise of one training

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected scores and their standard errors, without the noise of a training."""
        across = self._covariance(rows, self.rows)
        own = self.variances[:NOISE] @ self.pool.variances(rows) + self._level
        known = np.einsum("ij,ji->i", across, cho_solve(self._factor, across.T))
        return self._mean + across @ self._weights, np.sqrt(np.maximum(own - known, 0.0))

    def sample(self, rows: np.ndarray, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
        """Return the scores of these networks in one sample of the posterior.

        `scale` multiplies the deviation of the sample from the expected scores.
        """
        across = self._covariance(rows, self.rows)
        left = self._covariance(rows, rows) - across @ cho_solve(self._factor, across.T)
        left[np.diag_indices_from(left)] += JITTER * np.trace(left) / len(left) + JITTER * self._level
        deviation = cholesky(left, lower=True) @ rng.normal(size=len(rows))
        return np.asarray(self._mean + across @ self._weights + scale * deviation)

    @property
    def _level(self) -> float:
        return float((LEVEL * _spread(self.scores)) ** 2)

    @property
    def _mean(self) -> float:
        return float(np.average(self.scores, weights=self.trainings))

    def _covariance(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.tensordot(self.variances[:NOISE], self.pool.kernels(rows, others), 1) + self._level

    @cached_property
    def _factor(self) -> tuple[np.ndarray, bool]:
        known = self._covariance(self.rows, self.rows)
        known[np.diag_indices_from(known)] += self.variances[NOISE] / self.trainings + JITTER * _spread(self.scores) ** 2
        factor, lower = cho_factor(known, lower=True)
        return factor, lower

    @cached_property
    def _weights(self) -> np.ndarray:
        return np.asarray(cho_solve(self._factor, self.scores - self._mean))


def fit_surrogate(pool: Pool, rows: Sequence[int] | np.ndarray, scores: Sequence[float] | np.ndarray) -> Surrogate:
    """Fit the posterior to the scores of trainings; a network may have been trained more than once.

    ValueError for no training at all.
    """
    from scipy.optimize import minimize  # takes half a second to import

    if not len(rows):
        raise ValueError("fitting a surrogate failed: got no training, expected one at least")
    trained, places, trainings = np.unique(np.asarray(rows, int), return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=np.asarray(scores, float)) / trainings
    kernels = pool.kernels(trained, trained)
    usual = np.log(SPREADS * _spread(means))
    level, jitter = (LEVEL * _spread(means)) ** 2, JITTER * _spread(means) ** 2
    off = means - np.average(means, weights=trainings)

    def negative_log_likelihood(logs: np.ndarray) -> float:
        variances = np.exp(2 * logs)
        known = np.tensordot(variances[:NOISE], kernels, 1) + level + np.diag(variances[NOISE] / trainings + jitter)
        factor = cholesky(known, lower=True)
        explained = off @ cho_solve((factor, True), off) / 2 + np.log(np.diag(factor)).sum()
        return float(explained + (((logs - usual) / DOUBT) ** 2).sum() / 2)

    found = minimize(negative_log_likelihood, usual, method="L-BFGS-B", bounds=[(each - 3, each + 3) for each in usual])
    return Surrogate(pool, trained, means, trainings, np.exp(2 * found.x))


def _spread(scores: np.ndarray) -> float:
    """Return the deviation of scores, which is never 0."""
    return float(np.std(scores)) + 1e-3


def _standardized(columns: np.ndarray) -> np.ndarray:
    """Return columns with mean 0 and deviation 1, without those that are the same for all; one of zeros if all are."""
    varied = columns[:, np.ptp(columns, axis=0) > ROUNDING * np.abs(columns).max(0, initial=1.0)]
    if not varied.shape[1]:
        return np.zeros((len(columns), 1))
    return np.asarray((varied - varied.mean(0)) / varied.std(0))
