"""Which trials to run next: held against the posterior covariance with each possible trial, and all that are possible."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genet.arch.network import Network
from genet.arch.space import WidthsOnOffer
from genet.config.reader import read_space
from genet.config.recipe import Distill
from genet.search.explain import Proposal, propose
from genet.search.fit import fit
from genet.search.regression import Regression
from genet.trials.plan import Trial, plan_trials, possible_trials
from tests.search.test_fit import ACCURACY, IMAGES, NOISY

DIGITS = read_space("digits")
SPACE = DIGITS.model_copy(update={"superblocks": DIGITS.superblocks[:2]})
WIDTHS = SPACE.widths_on_offer()
PLAN = plan_trials(SPACE, WIDTHS, 32, 0, Distill(epochs=1, learning_rate=0.1, paired_fraction=0.5))
POSSIBLE = possible_trials(SPACE, WIDTHS, 32, 0)
NEW = tuple(trial for trial in POSSIBLE if trial.id not in {planned.id for planned in PLAN})
RIDGE = 1e-9  # of variances of about 1e-4

Pair = tuple[Network, Network]


@cache
def regression() -> Regression:
    return fit(SPACE.masternet(32), ACCURACY, NOISY.results(PLAN), IMAGES)


def rivals(seed: int, count: int = 3) -> list[Pair]:
    """Pairs of different networks of the space."""
    draw = random.Random(seed)
    offered = [list(SPACE.choices(index, WIDTHS)) for index in range(2)]
    pairs = []
    while len(pairs) < count:
        one, other = (SPACE.network(tuple(map(draw.choice, offered)), 32) for _ in range(2))
        if one != other:
            pairs.append((one, other))
    return pairs


def even(trial: Trial) -> float:
    return 10.0


def uneven(trial: Trial) -> float:
    """The first super-block is dear, and every trial has a cost of its own."""
    return (40.0 if trial.index == 0 else 9.0) + int(trial.id[:2], 16) / 100


def doubt(covariance: np.ndarray, pairs: Sequence[Pair]) -> float:
    """The variance of the rivals' differences, summed."""
    differences = [regression().vector(one) - regression().vector(other) for one, other in pairs]
    return float(sum(each @ covariance @ each for each in differences))


def after(covariance: np.ndarray, trial: Trial) -> np.ndarray:
    """The covariance with one reading more, as a new fit would have it."""
    reading = regression().trial_vector(trial.index, trial.superblock)
    return np.linalg.inv(np.linalg.inv(covariance) + np.outer(reading, reading) / regression().noise ** 2)


def prior() -> np.ndarray:
    covariance = np.array(regression().covariance)
    return covariance + RIDGE * np.eye(len(covariance))


def proposed(pairs: Sequence[Pair], count: int, seconds: Callable[[Trial], float] = even) -> tuple[Proposal, ...]:
    return propose(regression(), pairs, NEW, seconds, count)


# the proposals


@pytest.mark.parametrize("seconds", [even, uneven])
@pytest.mark.parametrize("seed", range(2))
def test_every_proposal_takes_away_most_doubt_per_second_of_all_that_are_left(
    seed: int, seconds: Callable[[Trial], float]
) -> None:
    pairs, covariance, left = rivals(seed), prior(), list(NEW)
    found = proposed(pairs, 3, seconds)
    assert len(found) == 3
    for proposal in found:
        before = doubt(covariance, pairs)
        taken = {trial.id: before - doubt(after(covariance, trial), pairs) for trial in left}
        worth = {trial.id: taken[trial.id] / seconds(trial) for trial in left}
        assert worth[proposal.trial.id] >= (1 - 1e-4) * max(worth.values())
        assert proposal.share == pytest.approx(taken[proposal.trial.id] / before, rel=1e-3)
        assert proposal.seconds == seconds(proposal.trial)
        covariance = after(covariance, proposal.trial)
        left.remove(proposal.trial)


def test_the_costs_change_what_is_proposed() -> None:
    assert any(proposed(rivals(seed), 3, even) != proposed(rivals(seed), 3, uneven) for seed in range(2))
    one, other = ({p.trial.id for p in proposed(rivals(0), 5, seconds)} for seconds in (even, uneven))
    assert one != other


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 8))
def test_proposals_are_as_many_as_asked_all_different_and_take_a_share_each(seed: int, pairs: int, count: int) -> None:
    found = proposed(rivals(seed, pairs), count, uneven)
    assert len({proposal.trial.id for proposal in found}) == len(found) == count
    assert {proposal.trial for proposal in found} <= set(NEW)
    assert all(0 < proposal.share <= 1 for proposal in found)


def test_fewer_proposals_are_the_first_of_more() -> None:
    many = proposed(rivals(0), 6, uneven)
    assert [proposed(rivals(0), count, uneven) for count in range(6)] == [many[:count] for count in range(6)]


def test_what_the_shares_leave_is_the_doubt_that_is_left() -> None:
    pairs, covariance = rivals(3), prior()
    found = proposed(pairs, 6)
    for proposal in found:
        covariance = after(covariance, proposal.trial)
    assert math.prod(1 - proposal.share for proposal in found) == pytest.approx(
        doubt(covariance, pairs) / doubt(prior(), pairs), rel=1e-3
    )


@pytest.mark.parametrize("cheap_first", [True, False])
def test_of_trials_that_would_tell_the_same_the_cheaper_is_proposed(cheap_first: bool) -> None:
    (best,) = proposed(rivals(0), 1)
    dear, cheap = best.trial, best.trial.model_copy(update={"seed": best.trial.seed + 1})
    possible = [cheap, dear] if cheap_first else [dear, cheap]
    (found,) = propose(regression(), rivals(0), possible, lambda trial: 5.0 if trial.seed == cheap.seed else 6.0, 1)
    assert (found.trial.seed, found.seconds) == (cheap.seed, 5.0)


def test_a_trial_that_tells_little_is_proposed_where_it_costs_next_to_nothing() -> None:
    first, *_, last = proposed(rivals(0), len(NEW))
    for cost, expected in ((10.0, first.trial), (1e-9, last.trial)):
        found = proposed(rivals(0), 1, lambda trial, cost=cost: cost if trial == last.trial else 10.0)
        assert [proposal.trial for proposal in found] == [expected]


def test_more_noise_leaves_more_doubt() -> None:
    louder = Regression(**{**dict(regression()), "noise": 3 * regression().noise})
    quiet, loud = (propose(each, rivals(0), NEW, even, 1)[0].share for each in (regression(), louder))
    assert loud < 0.9 * quiet


# nothing to propose


def test_where_there_are_no_rivals_nothing_is_proposed() -> None:
    assert proposed([], 3) == propose(regression(), [], (), even, 3) == ()


def test_where_nothing_is_in_doubt_nothing_is_proposed() -> None:
    nothing = np.zeros((len(regression().coefficients),) * 2)
    sure = Regression(**{**dict(regression()), "covariance": tuple(map(tuple, nothing.tolist()))})
    assert propose(sure, rivals(0), NEW, even, 3) == ()
    masternet = SPACE.masternet(32)
    assert proposed([(masternet, masternet)], 3) == ()
    assert len(proposed([(masternet, masternet), *rivals(0)], 3)) == 3


def test_trials_of_what_the_rivals_have_in_common_are_not_proposed() -> None:
    """With coefficients that do not hang together, each reading tells of its own alone."""
    size = len(regression().coefficients)
    names = list(regression().coefficients)
    variances = [1e-4 if name.startswith("2 XX k3 ") else 0.0 for name in names]
    assert 0 < sum(map(bool, variances)) < size
    apart = Regression(**{**dict(regression()), "covariance": tuple(map(tuple, np.diag(variances).tolist()))})
    own = SPACE.superblocks
    wider = SPACE.network((own[0], own[1].model_copy(update={"width": 48})), 32)
    found = propose(apart, [(wider, SPACE.masternet(32))], NEW, even, len(NEW))
    assert found
    assert {(proposal.trial.index, proposal.trial.superblock.type) for proposal in found} == {(1, "XX")}


@pytest.mark.parametrize("there", [0, 1, 3])
def test_where_fewer_trials_are_possible_than_asked_for_all_of_them_are_proposed(there: int) -> None:
    found = propose(regression(), rivals(0), iter(NEW[:there]), even, 5)
    assert {proposal.trial for proposal in found} == set(NEW[:there])
    assert len(found) == there


# what is possible


def fewer(draw: random.Random) -> WidthsOnOffer:
    """Some of the widths of every block type, at least one."""
    return {key: tuple(sorted(draw.sample(kept, draw.randint(1, len(kept))))) for key, kept in DIGITS.widths_on_offer().items()}


@settings(max_examples=10)
@given(st.randoms(use_true_random=False), st.integers(0, 9), st.sampled_from(DIGITS.input.resolutions))
def test_all_planned_trials_of_one_perturbation_are_possible(draw: random.Random, seed: int, resolution: int) -> None:
    widths = fewer(draw)
    possible = {trial.id: trial for trial in possible_trials(DIGITS, widths, resolution, seed)}
    planned = plan_trials(DIGITS, widths, resolution, seed, Distill(epochs=1, learning_rate=0.1, paired_fraction=0.1))
    single = [trial for trial in planned if not trial.control and not trial.also]
    assert 0 < len(single) < len(planned)
    assert [possible[trial.id] for trial in single] == single


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_every_choice_but_the_own_is_one_possible_trial_and_none_is_a_control(draw: random.Random) -> None:
    widths = fewer(draw)
    possible = possible_trials(DIGITS, widths, 32, 0)
    choices = [(index, each) for index in range(4) for each in DIGITS.choices(index, widths) if each != DIGITS.superblocks[index]]
    assert sorted((trial.index, str(trial.superblock)) for trial in possible) == sorted((i, str(each)) for i, each in choices)
    assert len({trial.id for trial in possible}) == len({trial.network for trial in possible}) == len(possible)
    assert not any(trial.control or trial.also for trial in possible)
    masternet = DIGITS.masternet(32)
    for trial in possible[::9]:
        changed = [*masternet.superblocks]
        changed[trial.index] = trial.superblock
        assert Network.parse(trial.network).superblocks == tuple(changed) != masternet.superblocks


def test_of_the_whole_space_as_many_trials_are_possible_as_choices_but_the_own() -> None:
    choices = [len(list(SPACE.choices(index, WIDTHS))) for index in range(2)]
    assert [sum(trial.index == index for trial in POSSIBLE) for index in range(2)] == [count - 1 for count in choices]
    assert len(list(itertools.chain(NEW, (t for t in PLAN if not t.control and not t.also)))) == len(POSSIBLE)
