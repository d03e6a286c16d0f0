"""Why a network was chosen: what one more step would cost and give, what the budget is worth, and who came close."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from genet.choose.offers import Offers
from genet.choose.regression import Estimate, Regression
from genet.choose.selection import Candidate
from genet.files import Record
from genet.spec.network import Network, SuperBlock

APART = 1.96  # standard errors of a difference, from which on two networks are told apart
NEARBY = 0.1  # share of the budget over which its price is taken

Direction = Literal["wider", "narrower", "deeper", "shallower"]

DIRECTIONS: tuple[tuple[Direction, str, str, int], ...] = (
    ("wider", "width", "depth", 1),
    ("narrower", "width", "depth", -1),
    ("deeper", "depth", "width", 1),
    ("shallower", "depth", "width", -1),
)


class Step(Record):
    """The network with one super-block one step larger or smaller."""

    index: int
    direction: Direction
    superblock: str
    ms: float  # per batch, against the network
    accuracy: Estimate  # against the network
    over_budget_ms: float | None  # per batch; None where it is predicted to be within the budget


class Rival(Record):
    """Another of the best networks within the budget, and how sure it is that it is worse."""

    network: str
    predicted_ms: float
    parameters: int
    behind: Estimate  # accuracy of the network chosen over this one
    apart: bool  # whether the trials can tell them apart


class Explanation(Record):
    """Why this network: all latencies are per batch, as predicted."""

    network: str
    resolution: int
    budget_ms: float
    short_of_best: float  # predicted accuracy that the exact optimum within the budget has over it
    price: float | None  # accuracy for one more millisecond per batch; None where the frontier ends
    steps: tuple[Step, ...]
    rivals: tuple[Rival, ...]
    beyond_trials: tuple[int, ...]  # super-blocks (from 0) of sizes that no trial came near


def explain(
    offers: Offers, regression: Regression, layers: Sequence[Candidate], network: Network, budget_ms: float, rivals: int
) -> Explanation:
    """Explain one choice; `layers` is the frontier with the layers below it that hold so many rivals."""
    return Explanation(
        network=str(network),
        resolution=offers.resolution,
        budget_ms=budget_ms,
        short_of_best=max(0.0, _best(layers, budget_ms, -math.inf) - regression.accuracy_of(network)),
        price=_price(layers, budget_ms),
        steps=tuple(_steps(offers, regression, network, budget_ms)),
        rivals=tuple(_rivals(regression, layers, network, budget_ms, rivals)),
        beyond_trials=regression.beyond_trials(network),
    )


def _price(front: Sequence[Candidate], budget_ms: float) -> float | None:
    """The slope of the frontier over a tenth of the budget to either side."""
    low, high = (1 - NEARBY) * budget_ms, (1 + NEARBY) * budget_ms
    worse = _best(front, low, -math.inf)
    return (_best(front, high, worse) - worse) / (high - low) if math.isfinite(worse) else None


def _best(front: Sequence[Candidate], limit_ms: float, none: float) -> float:
    return max((c.predicted_accuracy for c in front if c.predicted_ms <= limit_ms), default=none)


def _steps(offers: Offers, regression: Regression, network: Network, budget_ms: float) -> Iterator[Step]:
    """One step to every side; none for a network that is not on offer, as where the evidence has changed since."""
    pairs = list(zip(offers.superblocks, network.superblocks, strict=True))
    if not all(own in offer.choices for offer, own in pairs):
        return
    places = [offer.choices.index(own) for offer, own in pairs]
    own_ms = float(offers.totals(np.array([places])).ms[0])
    for index, (offer, own) in enumerate(pairs):
        for direction, choice in _neighbours(offer.choices, own):
            picks = [*places[:index], offer.choices.index(choice), *places[index + 1 :]]
            ms = float(offers.totals(np.array([picks])).ms[0])
            yield Step(
                index=index,
                direction=direction,
                superblock=str(choice),
                ms=ms - own_ms,
                accuracy=regression.difference(offers.network(picks), network),
                over_budget_ms=ms - budget_ms if ms > budget_ms else None,
            )


def _neighbours(choices: Sequence[SuperBlock], own: SuperBlock) -> Iterator[tuple[Direction, SuperBlock]]:
    """The next choices of the same block type in width and in depth."""
    alike = [choice for choice in choices if choice.block_type == own.block_type]
    for direction, along, fixed, sign in DIRECTIONS:
        line = {sign * getattr(c, along): c for c in alike if getattr(c, fixed) == getattr(own, fixed)}
        further = [place for place in line if place > sign * getattr(own, along)]
        if further:
            yield direction, line[min(further)]


def _rivals(
    regression: Regression, layers: Sequence[Candidate], network: Network, budget_ms: float, count: int
) -> Iterator[Rival]:
    """The best of the others within the budget; of equals the one with fewer parameters first."""
    within = [c for c in layers if c.predicted_ms <= budget_ms and c.network != str(network)]
    for candidate in sorted(within, key=lambda c: (-c.predicted_accuracy, c.parameters))[:count]:
        behind = regression.difference(network, Network.parse(candidate.network))
        yield Rival(
            network=candidate.network,
            predicted_ms=candidate.predicted_ms,
            parameters=candidate.parameters,
            behind=behind,
            apart=abs(behind.value) > APART * behind.error,
        )
