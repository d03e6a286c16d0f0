"""The selection is exact: dynamic programming, brute force and integer programming agree on random instances."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from genet.choose.selection import frontier, pareto, superblock_ms
from genet.spec.network import Block, Network, SuperBlock, blocks
from genet.spec.reader import read_space
from genet.spec.space import SearchSpace, Widths

DIGITS = read_space("digits")


class Instance:
    """A small space with random gains and random latencies, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.space: SearchSpace = DIGITS.model_copy(update={"superblocks": DIGITS.superblocks[: draw.choice([2, 3])]})
        offered = self.space.widths_on_offer()
        self.widths: Widths = {key: tuple(sorted(draw.sample(kept, min(2, len(kept))))) for key, kept in offered.items()}
        self._seed = seed
        self.ties = draw.random() < 0.3

    def ms(self, block: Block) -> float:
        draw = random.Random(f"{self._seed}/{block}").uniform(0.1, 2.0)
        return round(draw, 1) if self.ties else draw

    def gain(self, index: int, superblock: SuperBlock) -> float:
        draw = random.Random(f"{self._seed}/{index}/{superblock}").uniform(-0.1, 0.05)
        return round(draw, 2) if self.ties else draw

    def networks(self) -> list[Network]:
        """All of them."""
        choices = [list(self.space.choices(i, self.widths)) for i in range(len(self.space.superblocks))]
        return [self.space.network(superblocks, 32) for superblocks in itertools.product(*choices)]

    def score(self, network: Network) -> tuple[float, float]:
        """Latency and accuracy, summed the plain way."""
        ms = sum(self.ms(block) for block in blocks(network))
        return ms, 0.9 + sum(self.gain(i, superblock) for i, superblock in enumerate(network.superblocks))


@pytest.mark.parametrize("seed", range(8))
def test_the_frontier_is_brute_forces_frontier(seed: int) -> None:
    instance = Instance(seed)
    found = frontier(instance.space, instance.widths, 32, 0.9, instance.gain, instance.ms)
    scores = np.array([instance.score(network) for network in instance.networks()])
    best = scores[pareto(scores[:, 0].round(9), scores[:, 1].round(9))]
    got = np.array([(c.predicted_ms, c.predicted_accuracy) for c in found])
    if not instance.ties:  # equal points may be told apart by rounding alone
        assert got == pytest.approx(best, abs=1e-9)
    for budget in np.linspace(scores[:, 0].min(), scores[:, 0].max(), 7):
        reachable = scores[scores[:, 0] <= budget + 1e-9]
        assert got[got[:, 0] <= budget + 1e-9][:, 1].max() == pytest.approx(reachable[:, 1].max(), abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_every_candidate_scores_what_it_says(seed: int) -> None:
    instance = Instance(seed)
    for candidate in frontier(instance.space, instance.widths, 32, 0.9, instance.gain, instance.ms):
        network = Network.parse(candidate.network)
        assert (candidate.predicted_ms, candidate.predicted_accuracy) == pytest.approx(instance.score(network))


@pytest.mark.parametrize("seed", range(100, 120))
def test_the_optimum_is_integer_programmings(seed: int) -> None:
    instance = Instance(seed)
    front = frontier(instance.space, instance.widths, 32, 0.9, instance.gain, instance.ms)
    low, high = front[0].predicted_ms, front[-1].predicted_ms
    budget = low + (high - low) * random.Random(seed).random()
    best = max(c.predicted_accuracy for c in front if c.predicted_ms <= budget)
    assert best == pytest.approx(solve_by_milp(instance, budget), abs=1e-6)


def solve_by_milp(instance: Instance, budget: float) -> float:
    """One binary per (super-block, incoming width, choice); exactly one each, widths must meet."""
    space, widths = instance.space, instance.widths
    stem, *_, head = blocks(space.masternet(32))
    variables, costs, gains = [], [], []
    incoming = {stem.width}
    for index, size in enumerate(space.sizes(32)[:-1]):
        offered = list(space.choices(index, widths))
        for in_width, superblock in itertools.product(sorted(incoming), offered):
            variables.append((index, in_width, superblock.width))
            costs.append(superblock_ms(superblock, in_width, size, instance.ms))
            gains.append(instance.gain(index, superblock))
            if index == len(space.superblocks) - 1:
                costs[-1] += instance.ms(Block("Head", 1, None, superblock.width, head.width, 1, head.size, head.classes))
        incoming = {superblock.width for superblock in offered}
    last = len(space.superblocks) - 1
    rows = [[float(v[0] == index) for v in variables] for index in range(last + 1)]
    bounds = [(1.0, 1.0)] * len(rows)
    for index in range(last):
        for width in {v[2] for v in variables if v[0] == index}:
            flow = [float(v[0] == index and v[2] == width) - float(v[0] == index + 1 and v[1] == width) for v in variables]
            rows.append(flow)
            bounds.append((0.0, 0.0))
    rows.append(costs)
    bounds.append((-np.inf, budget - instance.ms(stem)))
    lower, upper = zip(*bounds, strict=True)
    result = milp(
        -np.array(gains),
        constraints=LinearConstraint(np.array(rows), lower, upper),
        integrality=np.ones(len(variables)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    return float(0.9 - result.fun)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_pareto_keeps_exactly_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    ms, gain = (np.array(column, float) for column in zip(*points, strict=True))
    kept = {points[i] for i in pareto(ms, gain)}
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert kept == set(points) - beaten
