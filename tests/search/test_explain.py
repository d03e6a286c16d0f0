"""Why a network was chosen: steps, what more latency buys and rivals, held against all networks of a small space."""

from __future__ import annotations

import itertools
import math
import random
import zlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genet.arch.cost import network_cost
from genet.arch.network import Block, Network, SuperBlock, blocks
from genet.arch.space import WidthsOnOffer
from genet.config.reader import read_space
from genet.config.recipe import Distill
from genet.latency.ops import network_ops
from genet.search.choice_tables import ChoiceTables, MsByInWidth, Predicted, tabulate_choices
from genet.search.explain import LOOKED_AT, NEARBY, RIVALS, Explanation, explain
from genet.search.fit import fit
from genet.search.regression import Regression
from genet.search.solver import ExactSolver
from genet.trials.plan import plan_trials
from tests.search.test_fit import ACCURACY, IMAGES, NOISY

DIGITS = read_space("digits")
SPACE = DIGITS.model_copy(update={"superblocks": DIGITS.superblocks[:2]})
WIDTHS = SPACE.widths_on_offer()
PLAN = plan_trials(SPACE, WIDTHS, 32, 0, Distill(epochs=1, learning_rate=0.1))
HOST_MS = 0.17
HOSTS = pytest.mark.parametrize("host_ms", [0.0, HOST_MS], ids=["the device decides", "the host may decide"])


def block_ms(block: Block) -> float:
    """Wider blocks are slower, but not always."""
    return 0.1 + block.width / 50 + zlib.crc32(str(block).encode()) % 1009 / 2000


def ms_by_in_width(block: Block, in_widths: Sequence[int]) -> np.ndarray:
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
    """All networks of the space beside what was solved of its tables."""

    solved: ExactSolver
    every: tuple[Scored, ...]

    def budgets(self) -> list[float]:
        """Small ones to large ones, none of them the latency of a network."""
        return [float(limit) + 1e-5 for limit in np.quantile([one.ms for one in self.every], [0.02, 0.1, 0.4, 0.8, 1.0])]

    def within(self, budget: float) -> list[Scored]:
        """The networks within a budget, the most accurate first."""
        return sorted((one for one in self.every if one.ms <= budget), key=lambda one: -one.accuracy)

    def why(self, network: Network, budget: float, measured_ms: float | None = None, broken: Container[str] = ()) -> Explanation:
        return explain(self.solved, regression(), network, budget, measured_ms, broken)


def table(widths: WidthsOnOffer = WIDTHS, host_ms: float = 0.0) -> ChoiceTables:
    return tabulate_choices(SPACE, widths, 32, Predicted(ACCURACY, regression().gain, ms_by_in_width, host_ms))


@cache
def case(host_ms: float = 0.0) -> Case:
    every = []
    for superblocks in itertools.product(*(SPACE.choices(index, WIDTHS) for index in range(2))):
        network = SPACE.network(superblocks, 32)
        ms = max(sum(map(block_ms, blocks(network))), host_ms * len(network_ops(network)))
        every.append(Scored(network, ms, regression().accuracy_of(network)))
    return Case(ExactSolver(table(host_ms=host_ms)), tuple(every))


def scored(host_ms: float, network: Network) -> Scored:
    return {one.network: one for one in case(host_ms).every}[network]


def some_networks(count: int) -> list[Network]:
    return [one.network for one in random.Random(0).sample(case().every, count)]


def test_the_space_is_small_enough_to_try_all_of_it_and_the_host_decides_some() -> None:
    assert len(case().every) == 585
    slower = [one.ms > other.ms for one, other in zip(case(HOST_MS).every, case().every, strict=True)]
    assert 0.1 < np.mean(slower) < 0.9


# steps


def neighbours(network: Network) -> dict[tuple[int, str], SuperBlock]:
    """The next of the widths and depths on offer to either side, written down from the space.

    One super-block alone may vanish, whatever it is; from nothing the only step is to one block of the MasterNet's own.
    """
    found = {}
    for index, own in enumerate(network.superblocks):
        if own.depth == 0:
            found[index, "deeper"] = own.model_copy(update={"depth": 1})
            continue
        if own.depth == 1 and index == 0:
            found[index, "shallower"] = SPACE.superblocks[0].model_copy(update={"depth": 0})
        lines = (("width", WIDTHS[index, own.block_type]), ("depth", tuple(filter(None, SPACE.depths(index)))))
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


def changed(network: Network, index: int, superblock: str) -> Network:
    """The network with what a step writes down."""
    (choice,) = (each for each in SPACE.choices(index, WIDTHS) if str(each) == superblock)
    return SPACE.network((*network.superblocks[:index], choice, *network.superblocks[index + 1 :]), 32)


def test_a_step_that_takes_all_of_the_budget_is_within_it() -> None:
    network = SPACE.masternet(32)
    steps = case().why(network, math.floor(scored(0.0, network).ms)).steps
    wider = next(step for step in steps if step.direction == "wider" and step.over_budget_ms)
    exactly = case().solved.tables.predict(changed(network, wider.index, wider.superblock)).ms
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
    why = explain(ExactSolver(table(thinned)), regression(), SPACE.masternet(32), 9.0)
    (narrower,) = (step for step in why.steps if (step.index, step.direction) == (1, "narrower"))
    assert narrower.superblock == str(own.model_copy(update={"width": 16}))


def test_a_network_that_is_not_on_offer_has_no_steps() -> None:
    thinned = {key: tuple(w for w in kept if w != 32) for key, kept in WIDTHS.items()}
    masternet = SPACE.masternet(32)
    gone, measured = (explain(ExactSolver(table(thinned)), regression(), masternet, 9.0, ms) for ms in (None, 99.0))
    assert gone == measured  # there is nothing to compare it with
    assert gone.steps == ()
    assert len(gone.rivals) == RIVALS
    assert case().why(masternet, 9.0).steps


# what more latency buys


@HOSTS
def test_a_tenth_more_latency_buys_what_the_best_network_then_has_over_the_best_of_the_budget(host_ms: float) -> None:
    bought = []
    for budget in np.linspace(case(host_ms).budgets()[0], case(host_ms).budgets()[-1], 9).tolist():
        now, then = (case(host_ms).within(budget * share)[0].accuracy for share in (1.0, 1 + NEARBY))
        bought.append(then - now)
        for network in (SPACE.masternet(32), *some_networks(2)):
            assert case(host_ms).why(network, budget).more == pytest.approx(then - now, abs=1e-12)
    assert (NEARBY, min(bought) >= 0, max(bought) > 0.001) == (0.1, True, True)


@HOSTS
def test_beyond_the_slowest_of_the_frontier_there_is_nothing_to_buy_and_before_it_there_is(host_ms: float) -> None:
    best = case(host_ms).within(math.inf)[0]
    for network in some_networks(3):
        slowest = case(host_ms).why(network, 9.0).slowest_ms
        assert slowest == pytest.approx(best.ms)
        beyond, before = (case(host_ms).why(network, share * slowest) for share in (1.001, 0.999))
        assert (beyond.more, before.more > 0) == (0, True)
        assert case(host_ms).why(network, 2 * slowest).more == 0


def test_below_the_fastest_network_there_is_nothing_to_compare_with() -> None:
    network, fastest = SPACE.masternet(32), min(one.ms for one in case().every)
    hopeless = case().why(network, 0.8 * fastest)
    assert (hopeless.short_of_best, hopeless.more, hopeless.rivals) == (0, 0, ())
    assert hopeless.steps
    nearly = case().why(network, 0.95 * fastest)
    then = case().within(0.95 * fastest * (1 + NEARBY))[0].accuracy
    assert (nearly.short_of_best, nearly.rivals) == (0, ())
    assert nearly.more == pytest.approx(then - regression().accuracy_of(network), abs=1e-12)


# where the network was measured


@HOSTS
@pytest.mark.parametrize("share", [0.8, 1.0, 1.25])
def test_all_latencies_are_those_of_networks_as_much_slower_than_predicted_as_the_one_measured(
    share: float, host_ms: float
) -> None:
    for network, budget in itertools.product(some_networks(3), case(host_ms).budgets()[::2]):
        predicted = case(host_ms).solved.tables.predict(network).ms
        plain = case(host_ms).why(network, budget / share)
        scaled = case(host_ms).why(network, budget, share * predicted)
        assert scaled.budget_ms == budget
        assert scaled.slowest_ms == pytest.approx(share * plain.slowest_ms)
        assert (scaled.short_of_best, scaled.more) == pytest.approx((plain.short_of_best, plain.more), abs=1e-12)
        assert [rival.network for rival in scaled.rivals] == [rival.network for rival in plain.rivals]
        assert [rival.predicted_ms for rival in scaled.rivals] == pytest.approx([share * r.predicted_ms for r in plain.rivals])
        assert all(rival.predicted_ms <= budget for rival in scaled.rivals)
        for one, other in zip(scaled.steps, plain.steps, strict=True):
            assert (one.index, one.direction, one.superblock) == (other.index, other.direction, other.superblock)
            assert one.accuracy == other.accuracy
            assert one.ms == pytest.approx(share * other.ms)
            over = other.over_budget_ms
            assert one.over_budget_ms == (None if over is None else pytest.approx(share * over))


def test_a_network_that_was_measured_at_all_of_its_budget_is_one_of_those_within_it() -> None:
    for network in some_networks(20):
        own, budget = scored(0.0, network), 7.5
        best = case().within(own.ms * (1 + 1e-9))[0]
        why = case().why(network, budget, budget)
        assert why.short_of_best == pytest.approx(best.accuracy - own.accuracy, abs=1e-12)
        assert all(rival.predicted_ms <= budget * (1 + 1e-9) for rival in why.rivals)
        assert why.slowest_ms == pytest.approx(case().within(math.inf)[0].ms * budget / own.ms)


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


def test_rivals_are_at_most_three_of_the_best_twelve() -> None:
    assert (RIVALS, LOOKED_AT) == (3, 12)
    fastest = sorted(one.ms for one in case().every)
    for count in range(1, 6):
        rivals = case().why(case().within(fastest[0])[0].network, fastest[count - 1] + 1e-9).rivals
        assert len(rivals) == min(RIVALS, count - 1)


@HOSTS
def test_networks_that_broke_the_budget_are_no_rivals_and_the_next_ones_take_their_place(host_ms: float) -> None:
    for budget in case(host_ms).budgets()[1:]:
        chosen, *others = (str(one.network) for one in case(host_ms).within(budget)[:LOOKED_AT])
        for broken in ((), {others[0]}, {others[1], chosen}, set(others[:8]), set(others[:9]), set(others)):
            rivals = case(host_ms).why(Network.parse(chosen), budget, broken=broken).rivals
            assert [rival.network for rival in rivals] == [other for other in others if other not in broken][:RIVALS]


def test_of_equally_accurate_rivals_those_with_fewest_parameters_come_first() -> None:
    flat = ExactSolver(tabulate_choices(SPACE, WIDTHS, 32, Predicted(ACCURACY, lambda *_: 0.0, ms_by_in_width)))
    fastest = sorted(one.ms for one in case().every)
    orders = set()
    for count in range(4, LOOKED_AT):
        *_, chosen = case().within(fastest[count - 1] + 1e-9)
        others = [one.network for one in case().within(fastest[count - 1] + 1e-9)[:-1]]
        rivals = explain(flat, regression(), chosen.network, fastest[count - 1] + 1e-9).rivals
        sizes = sorted(network_cost(network).parameters for network in others)
        assert [rival.parameters for rival in rivals] == sizes[:RIVALS]
        orders.add(tuple(rival.network for rival in rivals))
    assert len(orders) > 1


def doubted(share: float) -> Regression:
    """The same with other standard errors."""
    covariance = share**2 * np.array(regression().covariance)
    return Regression(**{**dict(regression()), "covariance": tuple(map(tuple, covariance.tolist()))})


@settings(max_examples=8)
@given(st.sampled_from(range(12)), st.sampled_from(range(5)), st.sampled_from(range(RIVALS)))
def test_rivals_are_apart_exactly_beyond_1_96_standard_errors(place: int, budget: int, rank: int) -> None:
    chosen, limit_ms = some_networks(12)[place], case().budgets()[budget]
    other = Network.parse(case().why(chosen, limit_ms).rivals[rank].network)
    difference = regression().difference(chosen, other)
    limit = abs(difference.value) / (1.96 * difference.error)
    for share, apart in ((0.999 * limit, True), (1.001 * limit, False), (0.2 * limit, True), (5 * limit, False)):
        rival = explain(case().solved, doubted(share), chosen, limit_ms).rivals[rank]
        assert rival.network == str(other)
        assert rival.behind.value == pytest.approx(difference.value)
        assert rival.apart == apart


def test_near_100_percent_steps_and_rivals_are_differences_of_accuracies_that_can_be_reached_as_sure_as_before() -> None:
    high = Regression(**{**dict(regression()), "accuracy": 0.98})
    solved = ExactSolver(tabulate_choices(SPACE, WIDTHS, 32, Predicted(high.accuracy, high.gain, ms_by_in_width)))
    shares = []
    for network, budget in itertools.product(some_networks(4), case().budgets()[1::2]):
        why = explain(solved, high, network, budget)
        told = [(changed(network, step.index, step.superblock), network, step.accuracy) for step in why.steps]
        told += [(network, Network.parse(rival.network), rival.behind) for rival in why.rivals]
        for one, other, found in told:
            plain = regression().difference(one, other)
            assert found.value == pytest.approx(high.accuracy_of(one) - high.accuracy_of(other), abs=1e-9)
            assert found.value * plain.error == pytest.approx(plain.value * found.error, abs=1e-9)
            shares.append(found.error / plain.error)
    assert min(shares) < 0.2
    assert max(shares) == pytest.approx(1.0)


def test_some_rivals_are_apart_and_some_are_not() -> None:
    best, *_, worst = case().within(math.inf)
    apart = [[rival.apart for rival in case().why(one.network, 99.0).rivals] for one in (best, worst)]
    assert apart == [[False] * RIVALS, [True] * RIVALS]


# what else it says


def test_an_explanation_names_its_network_its_budget_and_what_lies_beyond_the_trials() -> None:
    narrow = fit(SPACE.masternet(32), ACCURACY, NOISY.results(t for t in PLAN if t.superblock.width <= 32), IMAGES)
    found = set()
    for network in some_networks(20):
        why = explain(case().solved, narrow, network, 7.5)
        assert (why.network, why.resolution, why.budget_ms) == (str(network), 32, 7.5)
        assert set(why.beyond_trials) >= {index for index, each in enumerate(network.superblocks) if each.width > 32}
        assert why.beyond_trials == narrow.beyond_trials(network)
        found.add(why.beyond_trials)
        assert Explanation.model_validate_json(why.model_dump_json()) == why
    assert len(found) > 1
    one, two, none = (why.model_copy(update={"beyond_trials": places}).extrapolation for places in ((2,), (0, 2), ()))
    assert one.startswith("super-block 3 has a size outside")
    assert two.startswith("super-blocks 1, 3 have sizes outside")
    assert not none


def test_a_step_to_a_block_that_could_not_be_measured_is_left_out() -> None:
    network = SPACE.masternet(32)
    _, first, *_ = blocks(network)

    def failing_ms(block: Block, in_widths: Sequence[int]) -> np.ndarray:
        failed = (block.size, block.stride) == (first.size, first.stride) and block.width > first.width
        return np.full(len(in_widths), math.inf) if failed else ms_by_in_width(block, in_widths)

    def directions(reading: MsByInWidth) -> set[str]:
        offers = tabulate_choices(SPACE, WIDTHS, 32, Predicted(ACCURACY, regression().gain, reading))
        return {step.direction for step in explain(ExactSolver(offers), regression(), network, 100.0).steps if step.index == 0}

    assert directions(ms_by_in_width) - directions(failing_ms) == {"wider"}
