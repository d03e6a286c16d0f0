"""Explanation of a chosen network: the cost and gain of one more step, the value of the budget, and the closest rivals.

And the trials that would tell it from them in the least time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from genet.arch.network import Network, SuperBlock
from genet.search.choice_tables import ChoiceTables
from genet.search.regression import Estimate, Regression
from genet.search.solver import ExactSolver
from genet.storage import Record
from genet.trials.plan import Trial

APART = 1.96  # standard errors of a difference from which on two networks are told apart
NEARBY = 0.1  # share of the budget added to find the gain of a longer one
RIVALS, LOOKED_AT = 3, 12  # rivals named, and candidates for them, as some may be known to break the budget

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

    @property
    def points(self) -> str:
        """Distance behind the network chosen, or ahead of it, in points with its standard error."""
        side = "behind" if self.behind.value >= 0 else "ahead"
        return f"{abs(100 * self.behind.value):.2f} ± {100 * self.behind.error:.2f} points {side}"


class Explanation(Record):
    """Why this network was chosen."""

    network: str
    resolution: int
    budget_ms: float
    measured_over_predicted: float  # its latency; 1 if it was not measured
    short_of_best: float  # accuracy that the best network predicted to be within the budget has over it
    more: float  # accuracy that a tenth more latency would buy
    slowest_ms: float  # of the frontier: a longer budget buys nothing
    steps: tuple[Step, ...]
    rivals: tuple[Rival, ...]
    beyond_trials: tuple[int, ...]  # super-blocks (from 0) of sizes that no trial came near

    @property
    def extrapolation(self) -> str:
        """A sentence about super-blocks with sizes outside the range of the trials; empty if there are none."""
        places = ", ".join(str(index + 1) for index in self.beyond_trials)
        which = f"super-blocks {places} have sizes" if len(self.beyond_trials) > 1 else f"super-block {places} has a size"
        return f"{which} outside the range of the trials, so the prediction extrapolates" if places else ""


def explain(
    solved: ExactSolver,
    regression: Regression,
    network: Network,
    budget_ms: float,
    measured_ms: float | None = None,
    broken: Container[str] = (),
) -> Explanation:
    """Explain one choice, which took `measured_ms`; networks that were measured and broke the budget are not rivals."""
    tables = solved.tables
    scale = measured_ms / tables.predict(network).ms if measured_ms and tables.holds(network) else 1.0
    limit = budget_ms / scale
    best, nearby = (solved.best(limit * share, 1) for share in (1.0, 1 + NEARBY))
    best_accuracy = best[0].predicted_accuracy if best else regression.accuracy_of(network)
    return Explanation(
        network=str(network),
        resolution=tables.resolution,
        budget_ms=budget_ms,
        measured_over_predicted=scale,
        short_of_best=max(0.0, best_accuracy - regression.accuracy_of(network)),
        more=nearby[0].predicted_accuracy - best_accuracy if nearby else 0.0,
        slowest_ms=scale * solved.frontier()[-1].predicted_ms,
        steps=tuple(_steps(tables, regression, network, budget_ms, scale)),
        rivals=tuple(_rivals(solved, regression, network, limit, scale, broken)),
        beyond_trials=regression.beyond_trials(network),
    )


def _steps(tables: ChoiceTables, regression: Regression, network: Network, budget_ms: float, scale: float) -> Iterator[Step]:
    """Yield one step to every side; none for a network that is not on offer, as after a change of the evidence."""
    if not tables.holds(network):
        return
    own_ms = tables.predict(network).ms
    for index, (table, own) in enumerate(zip(tables.superblocks, network.superblocks, strict=True)):
        for direction, choice in _neighbours(table.choices, own):
            superblocks = (*network.superblocks[:index], choice, *network.superblocks[index + 1 :])
            other = network.model_copy(update={"superblocks": superblocks})
            more_ms = scale * (tables.predict(other).ms - own_ms)
            if not math.isfinite(more_ms):  # its block could not be measured
                continue
            over = scale * own_ms + more_ms - budget_ms
            yield Step(
                index=index,
                direction=direction,
                superblock=str(choice),
                ms=more_ms,
                accuracy=regression.difference(other, network),
                over_budget_ms=over if over > 0 else None,
            )


def _neighbours(choices: Sequence[SuperBlock], own: SuperBlock) -> Iterator[tuple[Direction, SuperBlock]]:
    """Yield the next choices of the same block type in width and in depth; below one block there is no block, of any type."""
    alike = [choice for choice in choices if choice.block_type == own.block_type and choice.depth]
    none = {c.depth: c for c in choices if not c.depth}
    for direction, along, fixed, sign in DIRECTIONS:
        line = {sign * getattr(c, along): c for c in alike if getattr(c, fixed) == getattr(own, fixed)}
        line |= none if along == "depth" else {}
        further = [place for place in line if place > sign * getattr(own, along)]
        if further:
            yield direction, line[min(further)]


def _rivals(
    solved: ExactSolver, regression: Regression, network: Network, limit_ms: float, scale: float, broken: Container[str]
) -> Iterator[Rival]:
    """Yield the best of the others within the budget; among equals the one with fewer parameters first."""
    found = solved.best(limit_ms, LOOKED_AT)
    others = [candidate for candidate in found if candidate.network != str(network) and candidate.network not in broken]
    for candidate in others[:RIVALS]:
        behind = regression.difference(network, Network.parse(candidate.network))
        yield Rival(
            network=candidate.network,
            predicted_ms=scale * candidate.predicted_ms,
            parameters=candidate.parameters,
            behind=behind,
            apart=abs(behind.value) > APART * behind.error,
        )


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
    vectors = np.array([regression.trial_vector(trial.index, trial.superblock) for trial in trials])
    costs = np.array([seconds(trial) for trial in trials])
    found: list[Proposal] = []
    while len(found) < count and trials and rivals:
        open_variance = float(np.einsum("ij,jk,ik->", differences, covariance, differences))
        projected = vectors @ covariance  # (trials, coefficients)
        noise = regression.noise**2 + np.einsum("ij,ij->i", projected, vectors)
        reductions = ((projected @ differences.T) ** 2).sum(1) / noise
        best = int(np.argmax(reductions / costs))
        if not reductions[best] > 0:
            break
        trial = trials.pop(best)
        found.append(Proposal(trial=trial, seconds=seconds(trial), share=float(reductions[best]) / open_variance))
        covariance = covariance - np.outer(projected[best], projected[best]) / noise[best]
        vectors, costs = np.delete(vectors, best, axis=0), np.delete(costs, best)
    return tuple(found)
