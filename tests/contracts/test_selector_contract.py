"""The selection is exact: dynamic programming, brute force and integer programming agree on random instances."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from genet.arch.cost import network_cost
from genet.arch.network import Block, Network, SuperBlock, blocks, superblock_blocks
from genet.arch.space import SearchSpace, WidthsOnOffer
from genet.config.reader import read_space
from genet.latency.ops import block_ops
from genet.search.choice_tables import ChoiceTables, Predicted, tabulate_choices
from genet.search.solver import ExactSolver, filter_by_utilization, frontier, pareto, random_search

DIGITS = read_space("digits")
ACCURACY = 0.5  # of the MasterNet: so low that effects add up
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))]


@functools.cache
def drawn(key: str, low: float, high: float) -> float:
    """A random number, the same for the same key; brute force asks for that of a block in thousands of networks."""
    return random.Random(key).uniform(low, high)


@functools.cache
def kernels(block: Block) -> int:
    return len(block_ops(block))


class Instance:
    """A small space with random gains and random latencies, the same for the same seed.

    A third of them has no head; the first super-block may vanish, and in half of them the second too.
    """

    def __init__(self, seed: int, host_ms: float = 0.0) -> None:
        draw = random.Random(seed)
        head = None if seed % 3 == 0 else DIGITS.head
        first, second, third, _ = DIGITS.superblocks
        second = second.model_copy(update={"stride": 1}) if seed % 2 else second
        changes = {"superblocks": (first, second, third)[: draw.choice([2, 3])], "head": head}
        self.space: SearchSpace = DIGITS.model_copy(update=changes)
        offered = self.space.widths_on_offer()
        self.widths: WidthsOnOffer = {key: tuple(sorted(draw.sample(kept, min(2, len(kept))))) for key, kept in offered.items()}
        self._seed, self.host_ms = seed, host_ms
        self.ties = draw.random() < 0.3

    def ms(self, block: Block) -> float:
        draw = drawn(f"{self._seed}/{block}", 0.1, 2.0)
        return round(draw, 1) if self.ties else draw

    def reading_ms(self, block: Block, in_widths: Sequence[int]) -> np.ndarray:
        return np.array([self.ms(dataclasses.replace(block, in_width=width)) for width in in_widths])

    def gain(self, index: int, superblock: SuperBlock) -> float:
        draw = drawn(f"{self._seed}/{index}/{superblock}", -0.1, 0.05)
        return round(draw, 2) if self.ties else draw

    def tables(self) -> ChoiceTables:
        return tabulate_choices(self.space, self.widths, 32, Predicted(ACCURACY, self.gain, self.reading_ms, self.host_ms))

    def networks(self) -> list[Network]:
        """All of them."""
        choices = [list(self.space.choices(i, self.widths)) for i in range(len(self.space.superblocks))]
        return [self.space.network(superblocks, 32) for superblocks in itertools.product(*choices)]

    def score(self, network: Network) -> tuple[float, float]:
        """Latency and accuracy, summed the plain way."""
        ms = sum(self.ms(block) for block in blocks(network))
        accuracy = ACCURACY + sum(self.gain(i, superblock) for i, superblock in enumerate(network.superblocks))
        return max(ms, self.host_ms * sum(map(kernels, blocks(network)))), accuracy

    def ranked(self) -> list[tuple[float, float]]:
        """Latency and accuracy of all networks, the most accurate first."""
        return sorted(map(self.score, self.networks()), key=lambda score: -score[1])


@pytest.mark.parametrize("host_ms", [0.0, 0.1], ids=["the device decides", "the host may decide"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_frontier_is_brute_forces_frontier(seed: int, host_ms: float) -> None:
    instance = Instance(seed, host_ms)
    found = frontier(instance.tables())
    scores = np.array([instance.score(network) for network in instance.networks()])
    best = scores[pareto(scores[:, 0].round(9), scores[:, 1].round(9))]
    got = np.array([(c.predicted_ms, c.predicted_accuracy) for c in found])
    if not instance.ties:  # equal points may be told apart by rounding alone
        assert got == pytest.approx(best, abs=1e-9)
    for budget in np.linspace(scores[:, 0].min(), scores[:, 0].max(), 7):
        reachable = scores[scores[:, 0] <= budget + 1e-9]
        assert got[got[:, 0] <= budget + 1e-9][:, 1].max() == pytest.approx(reachable[:, 1].max(), abs=1e-9)


def test_some_instance_is_decided_by_its_host() -> None:
    bound = [Instance(seed, 0.1) for seed in range(8)]
    assert any(frontier(instance.tables()) != frontier(Instance(seed).tables()) for seed, instance in enumerate(bound))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", ["frontier", "best", "drawn"])
def test_every_candidate_scores_what_it_says(seed: int, how: str) -> None:
    instance = Instance(seed, host_ms=0.05)
    tables = instance.tables()
    ways = {
        "frontier": frontier,
        "best": lambda tables: ExactSolver(tables).best(3.0, 50),
        "drawn": lambda o: random_search(o, 100, seed),
    }
    for candidate in ways[how](tables):
        network = Network.parse(candidate.network)
        assert (candidate.predicted_ms, candidate.predicted_accuracy) == pytest.approx(instance.score(network))
        assert candidate.parameters == network_cost(network).parameters


@pytest.mark.parametrize("seed", SEEDS)
def test_the_three_best_networks_of_a_budget_are_brute_forces(seed: int) -> None:
    instance = Instance(seed)
    ranked, solved = instance.ranked(), ExactSolver(instance.tables())
    for budget in np.linspace(min(ms for ms, _ in ranked), max(ms for ms, _ in ranked), 7):
        best = [accuracy for ms, accuracy in ranked if ms <= budget + 1e-9][:3]
        assert [c.predicted_accuracy for c in solved.best(budget + 1e-9, 3)] == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_filtered_by_utilization_candidates_are_those_that_no_faster_one_beats_in_arithmetic_per_time(seed: int) -> None:
    found = frontier(Instance(seed).tables())
    rates = {c: network_cost(Network.parse(c.network)).macs / c.predicted_ms for c in found}
    expected = [
        one
        for one in found
        if not any(
            other.predicted_ms <= one.predicted_ms
            and rates[other] >= rates[one]
            and (other.predicted_ms, rates[other]) != (one.predicted_ms, rates[one])
            for other in found
        )
    ]
    assert list(filter_by_utilization(found)) == expected
    assert expected[0] == found[0]  # the fastest is beaten by none


@pytest.mark.parametrize("seed", SEEDS)
def test_of_networks_alike_in_both_the_one_with_fewest_parameters_is_chosen(seed: int) -> None:
    instance = Instance(seed)
    flat = tabulate_choices(
        instance.space, instance.widths, 32, Predicted(ACCURACY, lambda *_: 0.0, lambda _, reads: np.zeros(len(reads)), 0.0)
    )
    (only,) = frontier(flat)
    assert only.parameters == min(network_cost(network).parameters for network in instance.networks())


@pytest.mark.parametrize("seed", SEEDS)
def test_no_draw_is_better_than_the_exact_frontier(seed: int) -> None:
    tables = Instance(seed).tables()
    exact, random_ones = frontier(tables), random_search(tables, 50, seed)
    for one in random_ones:
        assert (
            max(c.predicted_accuracy for c in exact if c.predicted_ms <= one.predicted_ms + 1e-9) >= one.predicted_accuracy - 1e-9
        )


@pytest.mark.parametrize("seed", range(100, 110))
def test_the_optimum_is_integer_programmings(seed: int) -> None:
    instance = Instance(seed)
    front = frontier(instance.tables())
    low, high = front[0].predicted_ms, front[-1].predicted_ms
    budget = low + (high - low) * random.Random(seed).random()
    best = max(c.predicted_accuracy for c in front if c.predicted_ms <= budget)
    assert best == pytest.approx(solve_by_milp(instance, budget), abs=1e-6)


def superblock_ms(instance: Instance, superblock: SuperBlock, in_width: int, size: int) -> float:
    return sum(instance.ms(block) for block in superblock_blocks(superblock, in_width, size))


def solve_by_milp(instance: Instance, budget: float) -> float:
    """One binary per (super-block, incoming width, choice); exactly one each, widths must meet."""
    space, widths = instance.space, instance.widths
    stem, *_, end = blocks(space.masternet(32))
    variables, costs, gains = [], [], []
    incoming = {stem.width}
    for index, size in enumerate(space.sizes(32)[:-1]):
        offered = list(space.choices(index, widths))
        for in_width, superblock in itertools.product(sorted(incoming), offered):
            written = superblock.width if superblock.depth else in_width
            variables.append((index, in_width, written))
            costs.append(superblock_ms(instance, superblock, in_width, size))
            gains.append(instance.gain(index, superblock))
            if index == len(space.superblocks) - 1:
                costs[-1] += instance.ms(Block(end.kind, 1, None, written, end.width, 1, end.size, end.classes))
        incoming = {writes for place, _, writes in variables if place == index}
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
    return float(ACCURACY - result.fun)


@given(st.integers(0, 10**6), st.sampled_from([10, 2000, 20000]), st.sampled_from([1, 3]))
def test_pareto_of_many_points_is_that_of_sorting_them(seed: int, count: int, digits: int) -> None:
    draw = np.random.default_rng(seed)
    ms, gain = draw.random(count).round(digits), draw.random(count).round(digits)
    kept = pareto(ms, gain)
    order = np.lexsort((-gain, ms))
    best = np.maximum.accumulate(gain[order])
    assert kept.tolist() == order[np.concatenate([[True], best[1:] > best[:-1]])].tolist()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_pareto_keeps_exactly_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    ms, gain = (np.array(column, float) for column in zip(*points, strict=True))
    kept = {points[i] for i in pareto(ms, gain)}
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert kept == set(points) - beaten


def test_no_prediction_is_beyond_100_percent_and_the_best_stay_the_best() -> None:
    low = Instance(0).tables()
    high = dataclasses.replace(low, accuracy=0.99)
    summed, found = frontier(low), frontier(high)
    assert max(each.predicted_accuracy for each in summed) > low.accuracy + 0.02, "plain sums would be beyond 100 %"
    assert [each.network for each in found] == [each.network for each in summed]
    accuracies = [each.predicted_accuracy for each in found]
    assert accuracies == sorted(set(accuracies))
    assert 0.995 < accuracies[-1] <= 0.999, "at most nine tenths of its error go"
    assert [each.network for each in ExactSolver(high).best(3.0, 5)] == [each.network for each in ExactSolver(low).best(3.0, 5)]
    for each in found:
        assert high.predict(Network.parse(each.network)).accuracy == pytest.approx(each.predicted_accuracy)
