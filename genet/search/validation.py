"""Validation of the predictions: networks that the regression never saw, trained, against its predictions for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

import numpy as np

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.search.choice_tables import ChoiceTables
from genet.search.solver import Candidate
from genet.statistics import kendall, spearman
from genet.storage import Derived, Record

SAMPLED = 20_000  # random networks among which to find some of a certain latency or accuracy

AS_FAST = 0.03  # relative difference of latencies
Role = Literal["frontier", "random, as fast", "random"]


class ValidationNetwork(Record):
    """A network to train, and its predictions; latency per batch."""

    network: str
    role: Role
    partner: str | None = None  # for a random network: the frontier's network that is as fast
    predicted_accuracy: float
    predicted_ms: float


class ValidationResult(Record):
    """A trained network with its results: one accuracy per training; latency per batch, None if nothing is measured here."""

    subject: ValidationNetwork
    accuracies: tuple[float, ...]
    measured_ms: float | None

    @property
    def accuracy(self) -> float:
        """The mean over trainings."""
        return fmean(self.accuracies)


class Agreement(Record):
    """The rank agreement of a prediction with the results. Errors are standard errors over networks drawn with replacement."""

    kendall: float
    error: float
    spearman: float


class Validation(Derived):
    """The quality of the predictions, on networks without trials."""

    epochs: int
    verdicts: tuple[ValidationResult, ...]
    accuracy: Agreement
    free: dict[str, Agreement]  # free proxies, by name
    ceiling: tuple[float, ...]  # Kendall of every training with the mean of the others; empty for one training each
    perfect: float | None  # expected Kendall of a perfect prediction; None for one training each
    bias: float  # mean of predicted minus trained accuracy, as the trials' schedule differs
    left: float  # root mean square of the rest of the difference
    advantage: float | None  # mean accuracy of the frontier's networks over random ones as fast; None without pairs
    advantage_error: float | None  # its standard error
    latency: Agreement | None
    latency_error: float | None  # mean relative error, absolute


def validation_networks(
    tables: ChoiceTables, front: Sequence[Candidate], known: set[str], count: int, seed: int
) -> tuple[ValidationNetwork, ...]:
    """Return `count` networks without trials: some of the frontier, for each a random one as fast, and random ones.

    A quarter is of the frontier, spread evenly over it; the last half is spread evenly over the predicted accuracies.
    """
    rng = np.random.default_rng(seed)
    picks = np.unique(tables.random_picks(SAMPLED, rng), axis=0)
    found = tables.totals(picks)
    picks, found = picks[np.isfinite(found.ms)], type(found)(*(values[np.isfinite(found.ms)] for values in found))
    excluded = set(known)

    def nearest(values: np.ndarray, target: float, role: Role, partner: str | None = None) -> ValidationNetwork | None:
        for one in np.argsort(np.abs(values - target), kind="stable")[:200]:
            if partner and abs(values[one] / target - 1) > AS_FAST:
                return None
            network = str(tables.network(picks[one].tolist()))
            if network not in excluded:
                excluded.add(network)
                accuracy, ms = float(found.accuracy[one]), float(found.ms[one])
                return ValidationNetwork(
                    network=network, role=role, partner=partner, predicted_accuracy=accuracy, predicted_ms=ms
                )
        return None

    chosen: list[ValidationNetwork | None] = []
    fresh = [candidate for candidate in front if candidate.network not in excluded]
    for candidate in _evenly(fresh, count // 4):
        excluded.add(candidate.network)
        best, ms = candidate.predicted_accuracy, candidate.predicted_ms
        chosen.append(ValidationNetwork(network=candidate.network, role="frontier", predicted_accuracy=best, predicted_ms=ms))
    chosen += [nearest(found.ms, s.predicted_ms, "random, as fast", s.network) for s in tuple(chosen) if s]
    low, high = float(found.accuracy.min()), float(found.accuracy.max())
    rest = count - len(chosen)
    chosen += [nearest(found.accuracy, low + (high - low) * (k + 0.5) / rest, "random") for k in range(rest)]
    return tuple(subject for subject in chosen if subject)


def _evenly(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return candidates spread over a frontier, without its ends if there is room."""
    count = min(count, len(candidates))
    return [candidates[math.floor((k + 0.5) * len(candidates) / count)] for k in range(count)]


def validate(verdicts: Sequence[ValidationResult], epochs: int, inputs: str = "") -> Validation:
    """Compare results with predictions, of at least three networks."""
    predicted = np.array([verdict.subject.predicted_accuracy for verdict in verdicts])
    trained = np.array([verdict.accuracies for verdict in verdicts])
    found = np.array([verdict.accuracy for verdict in verdicts])
    networks = [Network.parse(verdict.subject.network) for verdict in verdicts]
    reached = {verdict.subject.network: verdict.accuracy for verdict in verdicts}
    gains = [reached[v.subject.partner] - v.accuracy for v in verdicts if v.subject.partner in reached]
    latencies = [(v.subject.predicted_ms, v.measured_ms) for v in verdicts if v.measured_ms is not None]
    ms, measured = np.array(latencies).T if latencies else (np.empty(0), np.empty(0))
    left = predicted - found - (predicted - found).mean()
    return Validation(
        inputs=inputs,
        epochs=epochs,
        verdicts=tuple(verdicts),
        accuracy=agreement(predicted, found),
        free={name: agreement(values, found) for name, values in free_proxies(networks).items()},
        ceiling=ceiling(trained),
        perfect=perfect_prediction(trained),
        bias=float((predicted - found).mean()),
        left=float(np.sqrt(np.mean(left**2))),
        advantage=fmean(gains) if gains else None,
        advantage_error=float(np.std(gains, ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else None,
        latency=agreement(ms, measured) if len(ms) > 2 else None,
        latency_error=float(np.mean(np.abs(ms / measured - 1))) if len(ms) else None,
    )


def agreement(predicted: np.ndarray, found: np.ndarray) -> Agreement:
    """Return the rank correlations of a prediction with the results; 0 if a prediction is constant."""
    rng, size = np.random.default_rng(0), len(found)
    samples = [_kendall(predicted[k], found[k]) for k in (rng.integers(0, size, size) for _ in range(200))]
    ranks = spearman(predicted.tolist(), found.tolist()) or 0.0
    return Agreement(kendall=_kendall(predicted, found), error=float(np.std(samples)), spearman=ranks)


def _kendall(one: np.ndarray, other: np.ndarray) -> float:
    return kendall(one.tolist(), other.tolist()) or 0.0


def ceiling(accuracies: np.ndarray) -> tuple[float, ...]:
    """Return the agreement of one training with the mean of the others: (networks, trainings) -> Kendall of each."""
    trainings = accuracies.shape[1]
    if trainings < 2:
        return ()
    return tuple(_kendall(accuracies[:, k], np.delete(accuracies, k, axis=1).mean(1)) for k in range(trainings))


def perfect_prediction(accuracies: np.ndarray) -> float | None:
    """Return the expected Kendall of a perfect prediction with the mean over trainings, which is noisy too.

    (networks, trainings) -> the mean over 200 draws; None for one training each. The part of the means' spread that is due to
    noise is removed first.
    """
    trainings = accuracies.shape[1]
    if trainings < 2:
        return None
    means, noise = accuracies.mean(1), float(np.sqrt(accuracies.var(1, ddof=1).mean() / trainings))
    spread = float(means.var(ddof=1))
    true = means.mean() + (means - means.mean()) * math.sqrt(max(0.0, 1 - noise**2 / spread)) if spread else means
    rng = np.random.default_rng(0)
    return fmean(_kendall(true, true + rng.normal(0, noise, len(true))) for _ in range(200))


def free_proxies(networks: Sequence[Network]) -> Mapping[str, np.ndarray]:
    """Return rankings of networks without any training, which the regression must beat to be worth its cost."""
    costs = [network_cost(network) for network in networks]
    return {
        "log-widths": np.array([sum(math.log2(s.width) for s in network.stages) for network in networks]),
        "depths": np.array([float(sum(s.depth for s in network.superblocks)) for network in networks]),
        "log-parameters": np.array([math.log2(cost.parameters) for cost in costs]),
        "log-MACs": np.array([math.log2(cost.macs) for cost in costs]),
    }
