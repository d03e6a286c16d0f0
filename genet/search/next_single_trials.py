"""Choice of the trials that would tell the best candidates apart in the least time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from genet.arch.network import Network
from genet.search.regression import Regression
from genet.storage import Record
from genet.trials.plan import Trial


class Proposal(Record):
    """A trial worth running, and the expected reduction of uncertainty about the rivals."""

    trial: Trial
    seconds: float  # expected seconds
    share: float  # of the variance of these differences that it should take away, after the proposals before it


def propose(
    regression: Regression,
    rivals: Sequence[tuple[Network, Network]],
    possible: Iterable[Trial],
    seconds: Callable[[Trial], float],
    count: int,
) -> tuple[Proposal, ...]:
    """Choose `count` trials greedily, each the one that cuts the variance of the rivals' differences most per second.

    A trial is a noisy reading of a sum of terms, so the coefficients' remaining covariance is known before its accuracy is. There
    are fewer if no other trial would tell anything.
    """
    trials = list(possible)
    covariance = np.array(regression.covariance).reshape(len(regression.coefficients), -1)
    differences = np.array([regression.vector(one) - regression.vector(other) for one, other in rivals])
    readings = np.array([regression.reading(trial.index, trial.superblock) for trial in trials])
    costs = np.array([seconds(trial) for trial in trials])
    found: list[Proposal] = []
    while len(found) < count and trials and rivals:
        open_variance = float(np.einsum("ij,jk,ik->", differences, covariance, differences))
        heard = readings @ covariance  # (trials, coefficients)
        noise = regression.noise**2 + np.einsum("ij,ij->i", heard, readings)
        taken = ((heard @ differences.T) ** 2).sum(1) / noise
        best = int(np.argmax(taken / costs))
        if not taken[best] > 0:
            break
        trial = trials.pop(best)
        found.append(Proposal(trial=trial, seconds=seconds(trial), share=float(taken[best]) / open_variance))
        covariance = covariance - np.outer(heard[best], heard[best]) / noise[best]
        readings, costs = np.delete(readings, best, axis=0), np.delete(costs, best)
    return tuple(found)
