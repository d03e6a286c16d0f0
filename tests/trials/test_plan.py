"""The plan of the trials: how many, which, how far apart, and that the draw depends on its own arguments alone."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.arch.network import BlockType, Network, SuperBlock
from genet.arch.space import SearchSpace, WidthsOnOffer, superblock_of
from genet.config.reader import read_space
from genet.config.recipe import Distill
from genet.trials.plan import Trial, groups, plan_trials
from tests.fixtures.tiny import tiny_recipe

DIGITS = read_space("digits")
WIDTHS = DIGITS.widths_on_offer()
DESIGNED = Distill(epochs=1, learning_rate=0.1)
RANDOM = Distill(epochs=1, learning_rate=0.1, sampling="random")
Samplings = pytest.mark.parametrize("distill", [DESIGNED, RANDOM], ids=lambda distill: distill.sampling)
Place = tuple[float, float]
XX = BlockType("XX", 3)


def planned(samples: int = 3, seed: int = 0, distill: Distill = DESIGNED, widths: WidthsOnOffer = WIDTHS) -> tuple[Trial, ...]:
    return plan_trials(sampled(DIGITS, samples), widths, 32, seed, distill)


def sampled(space: SearchSpace, samples: int) -> SearchSpace:
    return space.model_copy(update={"perturb": space.perturb.model_copy(update={"trials_per_type": samples})})


def perturbed(trials: tuple[Trial, ...]) -> dict[tuple[int, BlockType], list[Trial]]:
    """The single perturbations by super-block and block type."""
    found: dict[tuple[int, BlockType], list[Trial]] = {}
    for trial in trials:
        if not trial.control and not trial.also:
            found.setdefault((trial.index, trial.superblock.block_type), []).append(trial)
    return found


def offered(index: int, block_type: BlockType) -> list[SuperBlock]:
    """All perturbations of one block type, written down by hand; the first super-block alone may vanish."""
    own, some = DIGITS.superblocks[index], [depth for depth in DIGITS.depths(index) if depth]
    made = [superblock_of(block_type, width, depth, own.stride) for width in WIDTHS[index, block_type] for depth in some]
    none = [own.model_copy(update={"depth": 0})] if index == 0 and block_type == own.block_type else []
    return none + [each for each in made if each != own]


def place(superblock: SuperBlock, among: list[SuperBlock]) -> Place:
    """Depth and log-width, each from 0 to 1 over what is offered with blocks."""
    depths, widths = [each.depth for each in among if each.depth], [math.log2(each.width) for each in among]
    deep = (superblock.depth - min(depths)) / (max(depths) - min(depths) or 1)
    return deep, (math.log2(superblock.width) - min(widths)) / (max(widths) - min(widths) or 1)


def nearest(trials: list[Trial], among: list[SuperBlock]) -> float:
    """The smallest distance between two of them."""
    places = [place(trial.superblock, among) for trial in trials]
    return min(math.dist(one, other) for one, other in itertools.combinations(places, 2))


# What is planned


@Samplings
def test_every_superblock_has_one_control_which_is_the_masternet_and_one_with_fresh_weights_where_its_type_may_change(
    distill: Distill,
) -> None:
    controls = [trial for trial in planned(distill=distill) if trial.control]
    assert [trial.index for trial in controls if trial.reference] == list(range(len(DIGITS.superblocks)))
    retyped = {index for index, kind in WIDTHS if kind.kind != DIGITS.superblocks[index].type}
    assert {trial.index for trial in controls if trial.fresh} == retyped
    assert len(controls) == len(DIGITS.superblocks) + len(retyped)
    for trial in controls:
        assert trial.superblock == DIGITS.superblocks[trial.index]
        assert Network.parse(trial.network).superblocks == DIGITS.superblocks
        assert trial.also == ()


def test_controls_of_different_superblocks_have_different_ids_and_seeds() -> None:
    controls = [trial for trial in planned() if trial.control]
    assert len({trial.id for trial in controls}) == len(controls)
    assert len({trial.seed for trial in controls}) == len(controls)


@Samplings
@pytest.mark.parametrize("samples", [1, 3, 1000])
def test_every_superblock_and_block_type_gets_its_samples_or_all_there_are(samples: int, distill: Distill) -> None:
    found = perturbed(planned(samples, distill=distill))
    assert set(found) == set(WIDTHS)
    for key, trials in found.items():
        assert len(trials) == min(samples, len(offered(*key)))


@Samplings
@given(seed=st.integers(min_value=0, max_value=10**6), samples=st.integers(min_value=1, max_value=8))
def test_no_trial_is_repeated_and_only_controls_are_the_masternet(distill: Distill, seed: int, samples: int) -> None:
    trials = planned(samples, seed, distill)
    assert len({trial.id for trial in trials}) == len(trials)
    masternet = DIGITS.masternet(32).superblocks
    assert all((Network.parse(trial.network).superblocks == masternet) == trial.control for trial in trials)


@Samplings
@given(seed=st.integers(min_value=0, max_value=10**6))
def test_a_trial_differs_from_the_masternet_in_its_own_superblock_only_and_within_what_is_offered(
    distill: Distill, seed: int
) -> None:
    for (index, block_type), trials in perturbed(planned(seed=seed, distill=distill)).items():
        for trial in trials:
            child = Network.parse(trial.network)
            differing = [i for i, (a, b) in enumerate(zip(child.superblocks, DIGITS.superblocks, strict=True)) if a != b]
            assert differing == [index]
            assert child.superblocks[index] == trial.superblock
            assert trial.superblock in offered(index, block_type)


@Samplings
def test_the_same_seed_plans_the_same_and_another_seed_something_else(distill: Distill) -> None:
    def networks(seed: int) -> set[str]:
        return {trial.network for trial in planned(seed=seed, distill=distill)}

    assert planned(seed=3, distill=distill) == planned(seed=3, distill=distill)
    assert networks(3) != networks(4)


@Samplings
def test_every_trial_has_a_seed_of_its_own_that_follows_the_searchs(distill: Distill) -> None:
    seeds = [{trial.seed for trial in planned(1000, seed, distill)} for seed in (0, 1)]
    assert len(seeds[0]) == len(planned(1000, 0, distill))
    assert not seeds[0] & seeds[1]


@Samplings
def test_the_draw_of_one_block_type_does_not_depend_on_the_others_widths(distill: Distill) -> None:
    key = list(WIDTHS)[4]
    narrow = {other: kept if other == key else kept[:1] for other, kept in WIDTHS.items()}
    assert perturbed(planned(distill=distill))[key] == perturbed(planned(distill=distill, widths=narrow))[key]


def test_where_fewer_perturbations_exist_all_are_tried(tmp_path: Path) -> None:
    space = sampled(tiny_recipe(tmp_path).space, 100)
    narrow = {key: kept[:1] for key, kept in space.widths_on_offer().items()}
    trials = plan_trials(space, narrow, 16, 0, DESIGNED)
    assert len([trial for trial in trials if not trial.control]) == sum(len(space.depths(index)) for index, _ in narrow)


def test_a_block_type_without_widths_has_no_trials() -> None:
    key = list(WIDTHS)[4]
    assert key not in perturbed(planned(widths={**WIDTHS, key: ()}))


def three_still(depths: tuple[int, int, int], perturb: tuple[int, int]) -> SearchSpace:
    """The first super-block of digits three times, so deep."""
    first = DIGITS.superblocks[0]
    ranges = DIGITS.perturb.model_copy(update={"depth": perturb, "trials_per_type": 100})
    stack = tuple(first.model_copy(update={"depth": depth}) for depth in depths)
    return DIGITS.model_copy(update={"superblocks": stack, "perturb": ranges})


def test_to_vanish_is_one_trial_of_a_super_block_whatever_its_block_types() -> None:
    space = three_still((1, 2, 3), (-2, 0))
    trials = plan_trials(space, space.widths_on_offer(), 32, 0, DESIGNED)
    none = [trial for trial in trials if not trial.superblock.depth]
    assert [(trial.index, trial.superblock.block_type) for trial in none] == [(0, XX), (1, XX)]


def test_a_super_block_that_cannot_have_a_block_has_no_trials_and_one_without_a_block_has_no_weights_to_be_fresh() -> None:
    never, may = (three_still((1, 0, 1), perturb) for perturb in ((0, 0), (0, 1)))
    found = [plan_trials(space, space.widths_on_offer(), 32, 0, DESIGNED) for space in (never, may)]
    assert [{trial.index for trial in trials} for trials in found] == [{0, 2}, {0, 1, 2}]
    controls = [(trial.index, trial.fresh) for trial in found[1] if trial.control]
    assert controls == [(0, False), (1, False), (2, False), (0, True), (2, True)]


# How far apart


@given(seed=st.integers(min_value=0, max_value=10**6), samples=st.integers(min_value=4, max_value=9))
def test_four_designed_samples_or_more_hold_the_corners_of_depth_and_width(seed: int, samples: int) -> None:
    for key, trials in perturbed(planned(samples, seed)).items():
        among = offered(*key)
        corners = {superblock for superblock in among if set(place(superblock, among)) <= {0.0, 1.0}}
        taken = {trial.superblock for trial in trials}
        assert len(corners) >= 2
        assert len(corners - taken) <= (samples == 4 and key == (0, XX))  # to vanish is a fifth corner
        assert {superblock for superblock in among if not superblock.depth} <= taken


@given(seed=st.integers(min_value=0, max_value=10**6))
def test_two_designed_samples_are_opposite_corners(seed: int) -> None:
    for key, trials in perturbed(planned(2, seed)).items():
        among = offered(*key)
        places = [place(superblock, among) for superblock in among]
        one, other = (place(trial.superblock, among) for trial in trials)
        if not all(trial.superblock.depth for trial in trials):
            continue  # one that vanished is the corner of depth, and of no width
        assert {*one, *other} == {0.0, 1.0}
        assert math.dist(one, other) == max(math.dist(one, each) for each in places)
        if len(WIDTHS[key]) > 1:
            assert other == (1 - one[0], 1 - one[1])


def test_of_two_designed_samples_one_has_vanished_for_some_seeds_and_both_have_blocks_for_others() -> None:
    pairs = [perturbed(planned(2, seed))[0, XX] for seed in range(12)]
    assert {all(trial.superblock.depth for trial in pair) for pair in pairs} == {True, False}


def test_designed_samples_lie_farther_apart_than_random_ones() -> None:
    spread: dict[str, list[float]] = {"designed": [], "random": []}
    for seed in range(20):
        for distill in (DESIGNED, RANDOM):
            for key, trials in perturbed(planned(5, seed, distill)).items():
                spread[distill.sampling].append(nearest(trials, offered(*key)))
    assert sum(spread["designed"]) > 1.5 * sum(spread["random"])


def test_beyond_the_corners_a_designed_sample_is_the_farthest_from_all_before_it() -> None:
    for seed in range(5):
        for key, trials in perturbed(planned(6, seed)).items():
            among = offered(*key)
            taken = [trial.superblock for trial in trials]
            corners = [each for each in among if set(place(each, among)) <= {0.0, 1.0}]
            for count in range(len(corners), len(taken)):
                before = taken[:count]

                def away(each: SuperBlock, before: list[SuperBlock] = before, among: list[SuperBlock] = among) -> float:
                    return min(math.dist(place(each, among), place(one, among)) for one in before)

                assert away(taken[count]) == pytest.approx(max(map(away, among)))


def test_random_samples_fall_on_every_perturbation_about_equally_often() -> None:
    draws, samples = 400, 3
    drawn = Counter(
        (trial.index, trial.superblock)
        for seed in range(draws)
        for trials in perturbed(planned(samples, seed, RANDOM)).values()
        for trial in trials
    )
    for key in WIDTHS:
        among = offered(*key)
        share = min(samples, len(among)) / len(among)
        error = math.sqrt(draws * share * (1 - share))
        counts = [drawn[key[0], superblock] for superblock in among]
        assert sum(counts) == round(draws * share * len(among))
        assert all(abs(count - draws * share) <= 5 * error for count in counts)


def test_random_samples_are_not_the_designed_ones() -> None:
    assert {trial.network for trial in planned(distill=RANDOM)} != {trial.network for trial in planned(distill=DESIGNED)}


# Joint trials


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_paired_trials_are_a_share_of_the_single_ones(share: float) -> None:
    trials = planned(distill=DESIGNED.model_copy(update={"paired_fraction": share}))
    single = sum(map(len, perturbed(trials).values()))
    assert len([trial for trial in trials if trial.also]) == round(share * single)


@Samplings
@given(seed=st.integers(min_value=0, max_value=10**6))
def test_a_paired_trial_is_two_planned_ones_of_different_superblocks_in_their_order(distill: Distill, seed: int) -> None:
    trials = planned(seed=seed, distill=distill.model_copy(update={"paired_fraction": 0.5}))
    single = {(trial.index, trial.superblock) for found in perturbed(trials).values() for trial in found}
    paired = [trial for trial in trials if trial.also]
    assert paired
    for trial in paired:
        (second,) = trial.also
        assert trial.index < second.index == trial.last
        assert {(trial.index, trial.superblock), (second.index, second.superblock)} <= single
        superblocks = list(DIGITS.superblocks)
        superblocks[trial.index], superblocks[second.index] = trial.superblock, second.superblock
        assert Network.parse(trial.network).superblocks == tuple(superblocks)
        assert not trial.control
    assert len({trial.id for trial in trials}) == len(trials)


def test_paired_trials_change_nothing_of_the_others() -> None:
    alone, accompanied = planned(), planned(distill=DESIGNED.model_copy(update={"paired_fraction": 0.5}))
    assert accompanied[: len(alone)] == alone


def test_a_single_trials_last_superblock_is_its_own() -> None:
    assert all(trial.last == trial.index for trial in planned())


# Groups


ALL = planned(5, distill=DESIGNED.model_copy(update={"paired_fraction": 0.3}))
some_trials = st.lists(st.sampled_from(ALL), unique=True)
workers = st.integers(min_value=1, max_value=40)


@given(trials=some_trials, workers=workers)
def test_every_trial_is_in_exactly_one_group_and_no_group_is_empty(trials: list[Trial], workers: int) -> None:
    found = groups(trials, workers)
    assert Counter(trial.id for group in found for trial in group) == Counter(trial.id for trial in trials)
    assert all(found)


@given(trials=some_trials, workers=workers)
def test_the_trials_of_a_group_share_a_superblock_and_the_dearest_come_first(trials: list[Trial], workers: int) -> None:
    indices = [{trial.index for trial in group} for group in groups(trials, workers)]
    assert all(len(each) == 1 for each in indices)
    order = [index for (index,) in indices]
    assert order == sorted(order)


@given(trials=some_trials)
def test_one_worker_gets_one_group_for_every_superblock(trials: list[Trial]) -> None:
    assert len(groups(trials, 1)) == len({trial.index for trial in trials})


@given(trials=some_trials, workers=st.integers(min_value=2, max_value=40))
def test_several_workers_all_get_a_group_where_there_are_trials_enough(trials: list[Trial], workers: int) -> None:
    assert len(groups(trials, workers)) >= min(workers, len(trials))


def test_two_workers_do_not_get_a_group_for_every_trial() -> None:
    assert 4 <= len(groups(ALL, 2)) <= 8 < len(ALL)


def test_groups_take_any_iterable() -> None:
    assert groups(iter(ALL), 2) == groups(ALL, 2)
