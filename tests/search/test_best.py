"""The best networks of a budget: held against all networks of small random spaces."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from genet.arch.cost import network_cost
from genet.arch.network import Block, Network, SuperBlock, blocks
from genet.arch.space import SearchSpace
from genet.config.reader import read_space
from genet.errors import EvidenceError
from genet.latency.ops import network_ops
from genet.search.choice_tables import ChoiceTables, Predicted, tabulate_choices
from genet.search.solver import Candidate, ExactSolver
from tests.fixtures.strategies import spaces
from tests.search.test_choice_tables import SHORT, SIZE, reading

ACCURACY = 0.25  # so low that effects add up
BY_ROUNDING = 1e-9


@dataclass(frozen=True)
class Scored:
    """A network, counted the plain way."""

    network: str
    ms: float
    accuracy: float
    parameters: int


@dataclass(frozen=True)
class Instance:
    """A few choices of every super-block, with random gains and latencies: the same for the same seed.

    With ties both are few binary fractions, whose sums are exact: what is alike is exactly so.
    """

    space: SearchSpace
    resolution: int
    seed: int
    ties: bool
    host_ms: float
    failing: float = 0.0  # share of the blocks that could not be measured

    def ms(self, block: Block) -> float:
        draw = random.Random(f"{self.seed}/{block}")
        if draw.random() < self.failing:
            return math.inf
        return draw.randint(1, 6) / 4 if self.ties else draw.uniform(0.1, 2.0)

    @cached_property
    def kept(self) -> list[list[SuperBlock]]:
        """One to five choices for every super-block."""
        draw, widths = random.Random(self.seed), self.space.widths_on_offer()
        choices = [list(self.space.choices(index, widths)) for index in range(len(self.space.superblocks))]
        return [draw.sample(offered, min(draw.randint(1, 5), len(offered))) for offered in choices]

    def gain(self, index: int, superblock: SuperBlock) -> float | None:
        if superblock not in self.kept[index]:
            return None
        draw = random.Random(f"{self.seed}/{index}/{superblock}")
        return draw.randint(-3, 3) / 64 if self.ties else draw.uniform(-0.1, 0.05)

    def tables(self) -> ChoiceTables:
        space = self.space
        return tabulate_choices(
            space, space.widths_on_offer(), self.resolution, Predicted(ACCURACY, self.gain, reading(self.ms), self.host_ms)
        )

    def every(self) -> list[Scored]:
        """All networks that could be measured, the most accurate first and of equals those with fewest parameters."""
        scored = []
        for superblocks in itertools.product(*self.kept):
            network = self.space.network(superblocks, self.resolution)
            ms = max(sum(map(self.ms, blocks(network))), self.host_ms * len(network_ops(network)))
            accuracy = ACCURACY + sum(self.gain(*each) or 0.0 for each in enumerate(superblocks))
            if math.isfinite(ms):
                scored.append(Scored(str(network), ms, accuracy, network_cost(network).parameters))
        return sorted(scored, key=lambda one: (-one.accuracy, one.parameters))


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    space = draw(spaces())
    return Instance(
        space=space,
        resolution=draw(st.sampled_from(space.input.resolutions)),
        seed=draw(st.integers(0, 10**6)),
        ties=draw(st.booleans()),
        host_ms=draw(st.sampled_from([0.0, 0.0625, 0.125])),
        failing=draw(st.sampled_from([0.0, 0.0, 0.1])),
    )


def solve(instance: Instance, every: list[Scored]) -> ExactSolver:
    """Solved, where there is anything to solve."""
    if not every:
        with pytest.raises(EvidenceError):
            ExactSolver(instance.tables()).frontier()
    assume(every)
    return ExactSolver(instance.tables())


def assert_best(found: tuple[Candidate, ...], every: list[Scored], budget: float, count: int) -> None:
    known = {one.network: one for one in every}
    assert len({candidate.network for candidate in found}) == len(found)
    for candidate in found:
        one = known[candidate.network]
        assert (candidate.predicted_ms, candidate.predicted_accuracy) == pytest.approx((one.ms, one.accuracy))
        assert candidate.parameters == one.parameters
        assert one.ms <= budget * (1 + 2 * BY_ROUNDING)
    expected = [one.accuracy for one in every if one.ms <= budget * (1 + BY_ROUNDING)][:count]
    assert [candidate.predicted_accuracy for candidate in found] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=15)
@given(instances())
def test_the_best_of_a_budget_are_those_of_all_networks(instance: Instance) -> None:
    every = instance.every()
    solved = solve(instance, every)
    latencies = [one.ms for one in every]
    budgets = [*np.linspace(min(latencies), 1.1 * max(latencies), 4), *np.quantile(latencies, [0.05, 0.3, 0.8])]
    for budget, count in itertools.product(map(float, budgets), (1, 20, len(every) + 5)):
        assert_best(solved.best(budget, count), every, budget, count)


def test_random_instances_are_decided_by_the_device_and_by_the_host_and_have_ties() -> None:
    digits = read_space("digits")
    one, other = (Instance(digits, 32, 3, ties=True, host_ms=host_ms).every() for host_ms in (0.0, 0.09375))
    slower = {scored.network: scored.ms for scored in other}
    assert 0.1 < np.mean([slower[scored.network] > scored.ms for scored in one]) < 0.9
    assert len({scored.accuracy for scored in one}) < len(one) / 4


@settings(max_examples=15)
@given(instances(), st.randoms(use_true_random=False))
def test_a_network_is_within_its_own_predicted_latency_and_not_within_less(instance: Instance, draw: random.Random) -> None:
    every = instance.every()
    solved = solve(instance, every)
    for one in draw.sample(every, min(5, len(every))):
        own = solved.tables.predict(Network.parse(one.network)).ms
        for budget, held in ((own, True), (one.ms, True), (own * (1 - 1e-6), False)):
            found = {candidate.network for candidate in solved.best(budget, len(every))}
            assert (one.network in found) == held


@settings(max_examples=10)
@given(instances())
def test_below_the_fastest_network_there_is_none_and_from_it_on_there_is_one(instance: Instance) -> None:
    every = instance.every()
    solved = solve(instance, every)
    fastest = min(one.ms for one in every)
    for budget in (0.0, fastest / 2, fastest * (1 - 1e-6)):
        assert solved.best(budget, 5) == ()
    assert solved.best(fastest, 5)
    assert solved.best(2 * fastest, 0) == ()


@settings(max_examples=8)
@given(instances().filter(lambda instance: instance.ties))
def test_of_equally_accurate_networks_those_with_fewer_parameters_come_first(instance: Instance) -> None:
    every = instance.every()
    solved = solve(instance, every)
    found = solved.best(max(one.ms for one in every), len(every) + 1)
    assert [(c.predicted_accuracy, c.parameters) for c in found] == [(one.accuracy, one.parameters) for one in every]
    for count in (2, 5):
        some = [(-c.predicted_accuracy, c.parameters) for c in solved.best(float(np.median([o.ms for o in every])), count)]
        assert some == sorted(some)


@settings(max_examples=10)
@given(instances())
def test_the_frontier_is_made_of_the_best_of_its_latencies(instance: Instance) -> None:
    solved = solve(instance, instance.every())
    for candidate in solved.frontier():
        (best,) = solved.best(candidate.predicted_ms, 1)
        assert best.predicted_accuracy == pytest.approx(candidate.predicted_accuracy, abs=1e-12)


def test_what_could_not_be_measured_is_never_among_the_best_however_good_it_is() -> None:
    def ms(block: Block) -> float:
        return math.inf if block.kind == "DW" else 1.0

    def gain(_: int, superblock: SuperBlock) -> float:
        return (1.0 if superblock.type == "DW" else 0.0) + superblock.width / 1024

    solved = ExactSolver(tabulate_choices(SHORT, SHORT.widths_on_offer(), SIZE, Predicted(ACCURACY, gain, reading(ms))))
    found = solved.best(1e9, 1000)
    choices = [len([c for c in SHORT.choices(index, SHORT.widths_on_offer()) if c.type != "DW"]) for index in range(2)]
    assert len(found) == math.prod(choices)
    assert all(s.type != "DW" for candidate in found for s in Network.parse(candidate.network).superblocks)


def test_of_networks_that_are_all_alike_a_few_are_found_without_a_look_at_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after trials that all ended at chance."""
    longer, looks = ExactSolver.extensions, itertools.count(1)

    def counted(self: ExactSolver, partial: object) -> object:
        assert next(looks) <= 1000
        return longer(self, partial)  # type: ignore[arg-type]

    monkeypatch.setattr(ExactSolver, "extensions", counted)
    space = read_space("digits")
    widths = space.widths_on_offer()
    solved = ExactSolver(
        tabulate_choices(space, widths, 32, Predicted(ACCURACY, lambda *_: 0.0, reading(lambda block: block.width / 100)))
    )
    assert math.prod(len(offer.choices) for offer in solved.tables.superblocks) > 4_900_000
    found = solved.best(99.0, 12)
    assert [candidate.predicted_accuracy for candidate in found] == [ACCURACY] * 12
    assert len({candidate.network for candidate in found}) == 12
