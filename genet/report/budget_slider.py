"""The networks that a page offers for budgets beyond those asked for, and what is known of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from genet.latency.noise import with_interval
from genet.search.certificate import Certificate
from genet.search.outcome import RacedNetwork, percent
from genet.search.solver import Candidate


class Offer(NamedTuple):
    """A network, the least budget in milliseconds per image that it is offered for, and what is known of it, in words."""

    from_ms_per_image: float
    known: str
    network: str


def slowdown(candidates: Sequence[Candidate], measured: Mapping[str, Certificate]) -> float:
    """Return how many times its predicted latency a measured candidate takes, by the median; 1 if it is not slower."""
    ratios = [measured[each.network].ms / each.predicted_ms for each in candidates if each.network in measured]
    return max(1.0, median(ratios)) if ratios else 1.0


def offers(
    candidates: Sequence[Candidate], measured: Mapping[str, Certificate], trained: Mapping[str, RacedNetwork], batch: int
) -> tuple[Offer, ...]:
    """Return the networks that are predicted best for budgets, from the smallest budget on.

    A network that was measured is offered only for budgets that its interval is within, whatever was predicted of its latency;
    the others are taken to be slower than predicted as the measured ones are. `trained` are those trained fully, by notation.
    """
    slower = slowdown(candidates, measured)
    found, best = list[Offer](), -math.inf

    def limit_ms(each: Candidate) -> float:
        certificate = measured.get(each.network)
        return certificate.ms + certificate.interval_ms if certificate else slower * each.predicted_ms

    for each in sorted(candidates, key=limit_ms):
        if each.predicted_accuracy > best:
            best, certificate = each.predicted_accuracy, measured.get(each.network)
            if certificate:
                latency = f"{with_interval(certificate.ms / batch, certificate.interval_ms / batch)} ms measured"
            else:
                latency = f"{slower * each.predicted_ms / batch:.4f} ms predicted, not measured"
            known = f"{latency}; {_accuracy(each, trained.get(each.network))}"
            found.append(Offer(limit_ms(each) / batch, known, each.network))
    return tuple(found)


def _accuracy(each: Candidate, trained: RacedNetwork | None) -> str:
    if trained is None:
        return f"accuracy {percent(each.predicted_accuracy)} predicted, not trained"
    return f"accuracy {percent(trained.test_accuracy)} ± {percent(trained.test_error)} on test images"
