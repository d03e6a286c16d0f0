"""Ways to pick the next network of a sample-based search (utilization paper, algorithm 1), each of which learns from rewards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

Choices = tuple[int, ...]  # positions among the options

POPULATION, TOURNAMENT = 10, 3  # of regularized evolution, as in NATS-Bench
RATE, MOMENTUM = 0.1, 0.9  # of REINFORCE: the policy's step, and its baseline


class Searcher(Protocol):
    """A searcher proposes networks of a space and learns from their rewards.

    Proposals depend on the seed and the rewards alone.
    """

    def propose(self) -> Choices:
        """Return the next network; a known one costs nothing."""

    def learn(self, choices: Choices, reward: float) -> None:
        """Learn the reward of a proposal."""


class RandomSearch:
    """Any network, as likely as any other."""

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        self._sizes, self._draw = sizes, np.random.default_rng(seed)

    def propose(self) -> Choices:
        """See `Searcher`."""
        return tuple(self._draw.integers(self._sizes).tolist())

    def learn(self, choices: Choices, reward: float) -> None:
        """Learn nothing."""


class Evolution:
    """Regularized evolution (Real et al., 2019): the best of a few of the population is mutated, and the oldest dies."""

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        self._sizes, self._draw = sizes, np.random.default_rng(seed)
        self._population: deque[tuple[float, Choices]] = deque(maxlen=POPULATION)

    def propose(self) -> Choices:
        """See `Searcher`."""
        if len(self._population) < POPULATION:
            return tuple(self._draw.integers(self._sizes).tolist())
        few = self._draw.choice(len(self._population), TOURNAMENT, replace=False)
        parent = max(self._population[place] for place in few)[1]
        movable = [place for place, size in enumerate(self._sizes) if size > 1]
        place = int(self._draw.choice(movable)) if movable else 0
        other = int(self._draw.integers(max(1, self._sizes[place] - 1)))
        changed = other + (other >= parent[place]) if self._sizes[place] > 1 else 0
        return (*parent[:place], changed, *parent[place + 1 :])

    def learn(self, choices: Choices, reward: float) -> None:
        """See `Searcher`."""
        self._population.append((reward, choices))


class Reinforce:
    """A softmax over the options of every position, moved along the gradient of the expected reward (Williams, 1992).

    Rewards count against their running mean, over their running deviation.
    """

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self._logits = [np.zeros(size) for size in sizes]
        self._mean: float | None = None
        self._square = 0.0

    def propose(self) -> Choices:
        """See `Searcher`."""
        return tuple(int(self._draw.choice(len(logits), p=_softmax(logits))) for logits in self._logits)

    def learn(self, choices: Choices, reward: float) -> None:
        """See `Searcher`."""
        if self._mean is None:
            self._mean = reward
        ahead = reward - self._mean
        self._square = MOMENTUM * self._square + (1 - MOMENTUM) * ahead**2
        self._mean += (1 - MOMENTUM) * ahead
        if self._square > 0:
            step = RATE * ahead / np.sqrt(self._square)
            for logits, choice in zip(self._logits, choices, strict=True):
                gradient = -_softmax(logits)
                gradient[choice] += 1
                logits += step * gradient


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


SEARCHERS: dict[str, Callable[[Sequence[int], int], Searcher]] = {
    "REINFORCE": Reinforce,
    "evolution": Evolution,
    "random": RandomSearch,
}
