"""Which whole networks to train next: a spread start near the budgets, then rounds by Thompson sampling.

A round draws samples from the surrogate's posterior, and trains the network that is best in each: the likelier a network is the
best, the likelier it is trained. The rounds ask for candidates and trainings alone: a job trains its own networks, and benchmarks
look up those that others trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from genet.search.surrogate import Pool, Surrogate, fit_surrogate

START = 0.5  # share of the trainings that are spread before anything is known
BOLDNESS = 0.5  # scale of the posterior deviation in a sample; below 1 it prefers what is known to be good, for rounds are few
AT_ONCE = 2  # trainings of a round at least, over all budgets
NEAR = 0.75  # of the budget: cheaper networks tell little about those that are selected
CONSIDERED = 400  # networks that are sampled: those that two standard errors could make the best
SPREAD_OVER = 800  # networks that the start is chosen from

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Evidence(Generic[T]):
    """Networks that were trained, with the score of each training, -log(error); a network may stand there more than once."""

    networks: Sequence[T]
    scores: Sequence[float]


class Candidates(Protocol[T]):
    """The networks that may be trained for one budget; they decide whether one that a round has proposed may be once more."""

    def near(self, proposed: Sequence[T], rng: np.random.Generator) -> Sequence[T]:
        """Return networks near the budget, to spread the start over."""

    def alike(self, evidence: Evidence[T], proposed: Sequence[T], rng: np.random.Generator) -> Sequence[T]:
        """Return networks near the budget that resemble the best of those trained."""

    def pool(self, networks: Sequence[T]) -> Pool:
        """Describe networks to the surrogate."""


@dataclass(frozen=True)
class Quota(Generic[T]):
    """How many trainings a budget gets, and how many of them are done."""

    candidates: Candidates[T]
    wanted: int
    done: int = 0


TrainRound = Callable[[Sequence[tuple[int, T]]], Evidence[T]]  # networks, each with its quota's place -> all evidence thereafter


def search(quotas: Sequence[Quota[T]], evidence: Evidence[T], train: TrainRound[T], seed: int) -> tuple[int, ...]:
    """Train networks until every quota is met or none is near its budget any more; return how many each had."""
    done, turns = [quota.done for quota in quotas], list(range(len(quotas)))
    while turns := [place for place in turns if done[place] < quotas[place].wanted]:
        proposals, at_once = list[tuple[int, T]](), math.ceil(AT_ONCE / len(turns))
        for place in turns.copy():
            quota, others, new = quotas[place], [network for _, network in proposals], list[T]()
            start = math.ceil(START * quota.wanted) - done[place]
            if start > 0:
                new += spread_start(quota.candidates, start, others, _rng(seed, place, done[place]))
            for count in range(done[place], min(done[place] + at_once, quota.wanted) if not new else 0):
                new += next_network(quota.candidates, evidence, [*others, *new], _rng(seed, place, count))
            proposals += [(place, network) for network in new]
            done[place] += len(new)
            if not new:
                turns.remove(place)
        if proposals:
            evidence = train(proposals)
    return tuple(done)


def _rng(*seeds: int) -> np.random.Generator:
    """Return random numbers for one proposal alone, so that a later command repeats what this one found."""
    return np.random.default_rng(seeds)


def spread_start(candidates: Candidates[T], count: int, proposed: Sequence[T], rng: np.random.Generator) -> list[T]:
    """Return `count` networks near a budget that say most about all effects together."""
    near = candidates.near(proposed, rng)
    return [near[row] for row in spread(candidates.pool(near), np.arange(len(near)), count, rng)] if near else []


def next_network(candidates: Candidates[T], evidence: Evidence[T], proposed: Sequence[T], rng: np.random.Generator) -> list[T]:
    """Return a network that may be the best of a budget, given all trainings; none if there is none."""
    new = candidates.alike(evidence, proposed, rng)
    if not new or not evidence.networks:
        return []
    surrogate, known = _fitted(candidates, evidence, new)
    return [new[promising(surrogate, np.arange(known, known + len(new)), rng) - known]]


def ranked(candidates: Candidates[T], evidence: Evidence[T]) -> list[T]:
    """Return the trained networks, each once, the one first that is best by what all trainings together tell."""
    if not evidence.networks:
        return []
    surrogate, known = _fitted(candidates, evidence, ())
    mean, _ = surrogate.predict(np.arange(known))
    trained = list(dict.fromkeys(evidence.networks))
    return [trained[row] for row in np.argsort(-mean)]


def _fitted(candidates: Candidates[T], evidence: Evidence[T], others: Sequence[T]) -> tuple[Surrogate, int]:
    """Return a surrogate whose pool is the trained networks and others after them, and how many were trained."""
    rows = {network: row for row, network in enumerate(dict.fromkeys(evidence.networks))}
    pool = candidates.pool([*rows, *others])
    return fit_surrogate(pool, [rows[network] for network in evidence.networks], evidence.scores), len(rows)


def spread(pool: Pool, rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return networks that tell most about all effects together: a greedy D-optimal design."""
    rows = rng.choice(rows, min(SPREAD_OVER, len(rows)), replace=False)
    effects = np.column_stack([pool.size[rows], pool.local[rows] / np.sqrt(pool.local.shape[1])])
    unknown, chosen = 4 * np.eye(effects.shape[1]), list[int]()
    for _ in range(min(count, len(rows))):
        variance = np.einsum("ij,jk,ik->i", effects, unknown, effects)
        variance[chosen] = -1.0
        chosen.append(int(variance.argmax()))
        step = unknown @ effects[chosen[-1]]
        unknown -= np.outer(step, step) / (1 + effects[chosen[-1]] @ step)
    return np.asarray(rows[chosen])


def promising(surrogate: Surrogate, rows: np.ndarray, rng: np.random.Generator) -> int:
    """Return the row of the network that is best in one sample of the surrogate's posterior."""
    mean, error = surrogate.predict(rows)
    considered = rows[np.argsort(-(mean + 2 * error))[:CONSIDERED]]
    return int(considered[surrogate.sample(considered, rng, BOLDNESS).argmax()])


def best(surrogate: Surrogate, rows: np.ndarray) -> int:
    """Return the network that is expected to be best."""
    mean, _ = surrogate.predict(rows)
    return int(rows[mean.argmax()])


def single_changes(pool: Pool, centre: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return networks that differ least from one, as single trials do of the MasterNet (GENet paper, section 4.2)."""
    changed = (np.abs(pool.local - pool.local[centre]) > 1e-9).sum(1)
    nearest = np.argsort(changed + rng.random(len(pool)) / 2)
    return np.asarray(nearest[nearest != centre][:count])


def race(rows: np.ndarray, accuracies: np.ndarray, train_longer: Callable[[np.ndarray], np.ndarray], finalists: int) -> int:
    """Return among the networks that read best the one that is best when they are trained longer."""
    last = rows[np.argsort(-accuracies)[:finalists]]
    return int(last[train_longer(last).argmax()])
