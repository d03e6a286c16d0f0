"""Networks that a round may train: near the budget, and close to those that did best."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.search.candidates import MOVES, fits, near_budget, neighbours, pool_of
from genet.search.choice_tables import ChoiceTables, Predicted, tabulate_choices
from genet.search.rounds import NEAR
from tests.search.test_choice_tables import ACCURACY, SIZE, SPACE


@pytest.fixture(scope="module")
def tables() -> ChoiceTables:
    """A space whose blocks take a microsecond for every channel they write, whatever they read."""
    return tabulate_choices(
        SPACE,
        SPACE.widths_on_offer(),
        SIZE,
        Predicted(ACCURACY, lambda index, superblock: 0.0, lambda block, widths: np.full(len(widths), block.width / 1000)),
    )


def ms(tables: ChoiceTables, networks: list[Network]) -> np.ndarray:
    return np.array([tables.predict(network).ms for network in networks])


def test_random_networks_are_within_the_budget_and_not_far_below(tables: ChoiceTables) -> None:
    found = near_budget(tables, 0.25, np.random.default_rng(0))
    assert len({str(each) for each in found}) == len(found) > 20
    assert (ms(tables, found) <= 0.25).all()
    assert (ms(tables, found) >= NEAR * 0.25).all()


def test_a_budget_that_few_even_draws_meet_has_many_random_networks_and_all_its_super_blocks_vary() -> None:
    steep = Predicted(ACCURACY, lambda index, superblock: 0.0, lambda block, widths: np.full(len(widths), block.width**2 / 1e4))
    tables = tabulate_choices(SPACE, SPACE.widths_on_offer(), SIZE, steep)
    even = tables.random_picks(4000, np.random.default_rng(0))
    even_ms = tables.totals(even).ms
    limit_ms = float(np.quantile(even_ms, 0.01))
    found = near_budget(tables, limit_ms, np.random.default_rng(0))
    assert len(found) > 2 * len(np.unique(even[even_ms <= limit_ms], axis=0))
    assert all(len({str(each) for each in place}) > 2 for place in zip(*(network.superblocks for network in found), strict=True))


def test_a_choice_that_could_not_be_measured_is_not_drawn(tables: ChoiceTables) -> None:
    first, *others = tables.superblocks
    failed = dataclasses.replace(first, ms=np.where(np.arange(len(first.choices)) % 2, first.ms, np.inf))
    found = near_budget(dataclasses.replace(tables, superblocks=(failed, *others)), 0.25, np.random.default_rng(0))
    assert {first.place[network.superblocks[0]] % 2 for network in found} == {1}


def test_neighbours_differ_in_few_super_blocks_and_never_in_none(tables: ChoiceTables) -> None:
    own = SPACE.masternet(SIZE)
    found = neighbours(tables, own, tables.predict(own).ms, np.random.default_rng(0))
    moved = [sum(one != other for one, other in zip(each.superblocks, own.superblocks, strict=True)) for each in found]
    assert {*moved} == {*range(1, MOVES + 1)}
    assert (ms(tables, found) <= tables.predict(own).ms).all()


def test_a_network_that_is_not_on_offer_has_no_neighbours_and_a_budget_that_none_meets_no_networks(tables: ChoiceTables) -> None:
    own = SPACE.masternet(SIZE)
    wider = own.superblocks[0].model_copy(update={"width": 800})
    foreign = own.model_copy(update={"superblocks": (wider, *own.superblocks[1:])})
    rng = np.random.default_rng(0)
    assert neighbours(tables, foreign, 1e9, rng) == near_budget(tables, 1e-9, rng) == []


def test_places_are_compared_of_networks_with_the_same_strides_alone() -> None:
    assert fits(SPACE.masternet(SIZE), SPACE)
    assert not fits(
        Network.parse("@16x3 | Conv k3 c16 s1 | XX k3 c16 s1 d2 | BL k3 c32 s2 d1 r0.5 | DW k3 c24 s1 d2 r3 | 10"), SPACE
    )
    assert not fits(Network.parse("@16x3 | Conv k3 c16 s1 | XX k3 c16 s1 d2 | 10"), SPACE)


def test_the_surrogate_sees_type_width_depth_and_the_parameters_of_every_super_block(tables: ChoiceTables) -> None:
    own = SPACE.masternet(SIZE)
    vanished = own.superblocks[0].model_copy(update={"depth": 0})
    other = own.model_copy(update={"superblocks": (vanished, *own.superblocks[1:])})
    pool = pool_of([own, other])
    costs = [network_cost(each) for each in (own, other)]
    assert np.sign(pool.size[0]).tolist() == [1.0, 1.0]
    assert costs[0].macs > costs[1].macs
    assert pool.local.shape == (2, 2)  # depth and parameters of the first: the others read the same width as before
