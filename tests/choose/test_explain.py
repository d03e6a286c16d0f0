"""Why a network was chosen: steps, price and rivals, held against all networks of a small space."""

from __future__ import annotations

import itertools
import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genet.choose.explain import Explanation, explain
from genet.choose.fit import fit
from genet.choose.offers import Offers, tabulate
from genet.choose.regression import Regression
from genet.choose.selection import Candidate, frontier
from genet.latency.ops import network_ops
from genet.spec.cost import network_cost
from genet.spec.network import Block, Network, SuperBlock, blocks
from genet.spec.reader import read_space
from genet.spec.recipe import Distill
from genet.spec.space import Widths
from genet.trials.plan import plan_trials
from tests.choose.test_fit import ACCURACY, IMAGES, NOISY

DIGITS = read_space("digits")
SPACE = DIGITS.model_copy(update={"superblocks": DIGITS.superblocks[:2]})
WIDTHS = SPACE.widths_on_offer()
PLAN = plan_trials(SPACE, WIDTHS, 32, 0, Distill(epochs=1, learning_rate=0.1))
RIVALS = 3
HOST_MS = 0.17
HOSTS = pytest.mark.parametrize("host_ms", [0.0, HOST_MS], ids=["the device decides", "the host may decide"])


def block_ms(block: Block) -> float:
    """Wider blocks are slower, but not always."""
    return 0.1 + block.width / 50 + zlib.crc32(str(block).encode()) % 1009 / 2000


def reading_ms(block: Block, in_widths: Sequence[int]) -> np.ndarray:
    made = [
        Block(block.kind, block.kernel, block.ratio, w, block.width, block.stride, block.size, block.classes) for w in in_widths
    ]
    return np.array([block_ms(each) for each in made])


@cache
def regression() -> Regression:
    """Of noisy trials."""
    return fit(SPACE.masternet(32), ACCURACY, NOISY.results(PLAN), IMAGES)


@dataclass(frozen=True)
class Scored:
    """A network, with its latency and accuracy summed the plain way."""

    network: Network
    ms: float
    accuracy: float


@dataclass(frozen=True)
class Case:
    """All networks of the space beside the tables made of it."""

    offers: Offers
    layers: tuple[Candidate, ...]
    every: tuple[Scored, ...]

    def budgets(self) -> list[float]:
        """Small ones to large ones, none of them the latency of a network."""
        return [float(limit) + 1e-5 for limit in np.quantile([one.ms for one in self.every], [0.02, 0.1, 0.4, 0.8, 1.0])]

    def within(self, budget: float) -> list[Scored]:
        """The networks within a budget, the most accurate first."""
        return sorted((one for one in self.every if one.ms <= budget), key=lambda one: -one.accuracy)

    def why(self, network: Network, budget: float, rivals: int = RIVALS) -> Explanation:
        return explain(self.offers, regression(), self.layers, network, budget, rivals)


def table(widths: Widths = WIDTHS, host_ms: float = 0.0) -> Offers:
    return tabulate(SPACE, widths, 32, ACCURACY, regression().gain, reading_ms, host_ms)


@cache
def case(host_ms: float = 0.0) -> Case:
    offers = table(host_ms=host_ms)
    every = []
    for superblocks in itertools.product(*(SPACE.choices(index, WIDTHS) for index in range(2))):
        network = SPACE.network(superblocks, 32)
        ms = max(sum(map(block_ms, blocks(network))), host_ms * len(network_ops(network)))
        every.append(Scored(network, ms, regression().accuracy_of(network)))
    return Case(offers, frontier(offers, RIVALS + 1), tuple(every))


def scored(host_ms: float, network: Network) -> Scored:
    return {one.network: one for one in case(host_ms).every}[network]


def some_networks(count: int) -> list[Network]:
    return [one.network for one in random.Random(0).sample(case().every, count)]


def test_the_space_is_small_enough_to_try_all_of_it_and_the_host_decides_some() -> None:
    assert len(case().every) == 546
    slower = [one.ms > other.ms for one, other in zip(case(HOST_MS).every, case().every, strict=True)]
    assert 0.1 < np.mean(slower) < 0.9


# steps


def neighbours(network: Network) -> dict[tuple[int, str], SuperBlock]:
    """The next of the widths and depths on offer to either side, written down from the space."""
    found = {}
    for index, own in enumerate(network.superblocks):
        lines = (("width", WIDTHS[index, own.block_type]), ("depth", SPACE.depths(index)))
        for (along, line), (more, less) in zip(lines, (("wider", "narrower"), ("deeper", "shallower")), strict=True):
            place = line.index(getattr(own, along))
            if place + 1 < len(line):
                found[index, more] = own.model_copy(update={along: line[place + 1]})
            if place > 0:
                found[index, less] = own.model_copy(update={along: line[place - 1]})
    return found


@HOSTS
def test_the_steps_are_the_next_choices_of_the_same_block_type_with_what_they_change_in_the_whole(host_ms: float) -> None:
    directions = set()
    for network, budget in itertools.product(some_networks(10), case(host_ms).budgets()[1:2]):
        own, expected = scored(host_ms, network), neighbours(network)
        steps = case(host_ms).why(network, budget).steps
        assert {(step.index, step.direction): step.superblock for step in steps} == {k: str(s) for k, s in expected.items()}
        assert len(steps) == len(expected)
        for step in steps:
            superblocks = list(network.superblocks)
            superblocks[step.index] = expected[step.index, step.direction]
            other = scored(host_ms, SPACE.network(tuple(superblocks), 32))
            assert step.ms == pytest.approx(other.ms - own.ms)
            assert step.accuracy.value == pytest.approx(other.accuracy - own.accuracy)
            assert step.accuracy == regression().difference(other.network, network)
            directions.add((step.index, step.direction))
    assert len(directions) == 8


@HOSTS
def test_a_step_is_over_the_budget_exactly_where_the_whole_network_then_is_and_by_as_much(host_ms: float) -> None:
    over = []
    for network, budget in itertools.product(some_networks(5), case(host_ms).budgets()):
        own = scored(host_ms, network)
        for step in case(host_ms).why(network, budget).steps:
            excess = own.ms + step.ms - budget
            over.append(excess > 0)
            assert step.over_budget_ms == (pytest.approx(excess) if excess > 0 else None)
    assert 0.1 < np.mean(over) < 0.9


def test_a_step_that_takes_all_of_the_budget_is_within_it() -> None:
    network = SPACE.masternet(32)
    steps = case().why(network, math.floor(scored(0.0, network).ms)).steps
    wider = next(step for step in steps if step.direction == "wider" and step.over_budget_ms)
    picks = [offer.choices.index(own) for offer, own in zip(case().offers.superblocks, network.superblocks, strict=True)]
    picks[wider.index] = [str(choice) for choice in case().offers.superblocks[wider.index].choices].index(wider.superblock)
    exactly = float(case().offers.totals(np.array([picks])).ms[0])
    for budget, fits in ((exactly, True), (math.nextafter(exactly, 0.0), False)):
        (again,) = (s for s in case().why(network, budget).steps if (s.index, s.direction) == (wider.index, "wider"))
        assert (again.over_budget_ms is None) == fits


@HOSTS
def test_no_step_from_the_optimum_that_fits_the_budget_brings_predicted_accuracy(host_ms: float) -> None:
    fitting = 0
    for budget in case(host_ms).budgets():
        best = case(host_ms).within(budget)[0].network
        for step in case(host_ms).why(best, budget).steps:
            fitting += step.over_budget_ms is None
            assert step.over_budget_ms is not None or step.accuracy.value <= 1e-12
    assert fitting > 8


def test_where_a_width_is_not_on_offer_the_next_one_is_the_step() -> None:
    thinned = {key: tuple(w for w in kept if w != 24 or key[0] == 0) for key, kept in WIDTHS.items()}
    own = SPACE.superblocks[1]  # 32 wide; the next narrower is 24, then 16
    assert 24 in WIDTHS[1, own.block_type]
    why = explain(table(thinned), regression(), case().layers, SPACE.masternet(32), 9.0, RIVALS)
    (narrower,) = (step for step in why.steps if (step.index, step.direction) == (1, "narrower"))
    assert narrower.superblock == str(own.model_copy(update={"width": 16}))


def test_a_network_that_is_not_on_offer_has_no_steps() -> None:
    thinned = {key: tuple(w for w in kept if w != 32) for key, kept in WIDTHS.items()}
    masternet = SPACE.masternet(32)
    gone = explain(table(thinned), regression(), case().layers, masternet, 9.0, RIVALS)
    assert gone.steps == ()
    assert len(gone.rivals) == RIVALS
    assert case().why(masternet, 9.0).steps


# price


@HOSTS
def test_the_price_is_the_slope_of_the_frontier_around_the_budget(host_ms: float) -> None:
    prices = []
    for budget in np.linspace(case(host_ms).budgets()[0], case(host_ms).budgets()[-1], 9).tolist():
        price = case(host_ms).why(SPACE.masternet(32), budget).price
        low, high = (case(host_ms).within(budget * share) for share in (0.9, 1.1))
        if low:
            assert price == pytest.approx((high[0].accuracy - low[0].accuracy) / (0.2 * budget), abs=1e-12)
            prices.append(price)
        else:
            assert price is None
    assert len(prices) < 9
    assert max(prices) > 0.001


def test_there_is_nothing_to_buy_beyond_the_slowest_network() -> None:
    assert case().why(SPACE.masternet(32), 2 * case().budgets()[-1]).price == 0


# how good the choice is


@HOSTS
def test_the_optimum_is_short_of_nothing_and_every_other_network_of_what_the_optimum_has_over_it(host_ms: float) -> None:
    for budget in case(host_ms).budgets():
        best, *others = case(host_ms).within(budget)
        assert case(host_ms).why(best.network, budget).short_of_best == pytest.approx(0, abs=1e-12)
        for one in random.Random(1).sample(others, min(8, len(others))):
            short = case(host_ms).why(one.network, budget).short_of_best
            assert short == pytest.approx(best.accuracy - one.accuracy, abs=1e-12)
            assert (short > 1e-9) == (one.accuracy < best.accuracy - 1e-9)
    assert len(others) > 500


def test_a_network_over_the_budget_is_not_short_of_what_is_worse() -> None:
    best = case().within(math.inf)[0]
    assert case().why(best.network, case().budgets()[1]).short_of_best == 0


# rivals


@HOSTS
def test_the_rivals_are_the_best_of_the_others_within_the_budget(host_ms: float) -> None:
    for budget in case(host_ms).budgets():
        within = case(host_ms).within(budget)
        for chosen in (within[0].network, within[1].network, within[-1].network):
            expected = [one.accuracy for one in within if one.network != chosen][:RIVALS]
            rivals = case(host_ms).why(chosen, budget).rivals
            found = [scored(host_ms, Network.parse(rival.network)) for rival in rivals]
            assert [one.accuracy for one in found] == pytest.approx(expected, abs=1e-12)
            assert len({one.network for one in found} | {chosen}) == RIVALS + 1
            for rival, one in zip(rivals, found, strict=True):
                assert one.ms <= budget
                assert rival.predicted_ms == pytest.approx(one.ms)
                assert rival.parameters == network_cost(one.network).parameters
                assert rival.behind == regression().difference(chosen, one.network)


def test_of_equally_accurate_rivals_those_with_fewest_parameters_come_first() -> None:
    networks = some_networks(5)
    facts = zip(networks, (0.7, 0.7, 0.8, 0.7, 0.6), (30, 10, 99, 20, 1), strict=True)
    layers = [
        Candidate(network=str(network), resolution=32, predicted_ms=2.0, predicted_accuracy=accuracy, parameters=parameters)
        for network, accuracy, parameters in facts
    ]
    chosen = SPACE.masternet(32)
    for count, parameters in ((9, [99, 10, 20, 30, 1]), (3, [99, 10, 20]), (0, [])):
        why = explain(case().offers, regression(), layers, chosen, 2.0, count)
        assert [rival.parameters for rival in why.rivals] == parameters
    assert explain(case().offers, regression(), layers, chosen, 1.9, 9).rivals == ()
    assert [r.parameters for r in explain(case().offers, regression(), layers, networks[1], 2.0, 9).rivals] == [99, 20, 30, 1]


def doubted(share: float) -> Regression:
    """The same with other standard errors."""
    covariance = share**2 * np.array(regression().covariance)
    return Regression(**{**dict(regression()), "covariance": tuple(map(tuple, covariance.tolist()))})


@settings(max_examples=15)
@given(st.data())
def test_rivals_are_apart_exactly_beyond_1_96_standard_errors(data: st.DataObject) -> None:
    chosen, other = data.draw(st.permutations(some_networks(12)).map(lambda networks: networks[:2]))
    candidate = Candidate(network=str(other), resolution=32, predicted_ms=1.0, predicted_accuracy=0.5, parameters=1)
    difference = regression().difference(chosen, other)
    limit = abs(difference.value) / (1.96 * difference.error)
    for share, apart in ((0.999 * limit, True), (1.001 * limit, False), (0.2 * limit, True), (5 * limit, False)):
        (rival,) = explain(case().offers, doubted(share), [candidate], chosen, 1.0, 1).rivals
        assert rival.behind.value == pytest.approx(difference.value)
        assert rival.apart == apart


def test_some_rivals_are_apart_and_some_are_not() -> None:
    best, *others = case().within(math.inf)
    layers = [
        Candidate(network=str(one.network), resolution=32, predicted_ms=one.ms, predicted_accuracy=one.accuracy, parameters=1)
        for one in others[::20]
    ]
    rivals = explain(case().offers, regression(), layers, best.network, 99.0, len(layers)).rivals
    assert len(rivals) == len(layers)
    assert {rival.apart for rival in rivals} == {True, False}


# what else it says


def test_an_explanation_names_its_network_its_budget_and_what_lies_beyond_the_trials() -> None:
    narrow = fit(SPACE.masternet(32), ACCURACY, NOISY.results(t for t in PLAN if t.superblock.width <= 32), IMAGES)
    found = set()
    for network in some_networks(20):
        why = explain(case().offers, narrow, case().layers, network, 7.5, RIVALS)
        assert (why.network, why.resolution, why.budget_ms) == (str(network), 32, 7.5)
        assert set(why.beyond_trials) >= {index for index, each in enumerate(network.superblocks) if each.width > 32}
        assert why.beyond_trials == narrow.beyond_trials(network)
        found.add(why.beyond_trials)
        assert Explanation.model_validate_json(why.model_dump_json()) == why
    assert len(found) > 1
