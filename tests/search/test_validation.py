"""Whether predictions hold: which networks are trained to find out, and what is made of their accuracies."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import zlib
from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genet.arch.cost import network_cost
from genet.arch.network import Block, Network, blocks
from genet.config.reader import read_space
from genet.search.choice_tables import ChoiceTables, MsByInWidth, Predicted, tabulate_choices
from genet.search.solver import Candidate, frontier
from genet.search.validation import (
    AS_FAST,
    Validation,
    ValidationNetwork,
    ValidationResult,
    agreement,
    ceiling,
    free_proxies,
    perfect_prediction,
    validate,
    validation_networks,
)
from tests.search.test_fit import ACCURACY, World

SPACE = read_space("digits")
WIDTHS = SPACE.widths_on_offer()
WORLD = World()
COUNTS = pytest.mark.parametrize("count", [4, 9, 20])


def block_ms(block: Block) -> float:
    return 0.1 + block.width / 50 + zlib.crc32(str(block).encode()) % 1009 / 2000


def ms_by_in_width(block: Block, in_widths: Sequence[int]) -> np.ndarray:
    return np.array([block_ms(dataclasses.replace(block, in_width=int(width))) for width in in_widths])


def without_last_depthwise(block: Block, in_widths: Sequence[int]) -> np.ndarray:
    """First blocks of the last super-block that could not be measured."""
    return (
        np.full(len(in_widths), np.inf)
        if (block.kind, block.stride, block.size) == ("DW", 2, 4)
        else ms_by_in_width(block, in_widths)
    )


def tabulated(ms: MsByInWidth = ms_by_in_width) -> ChoiceTables:
    return tabulate_choices(SPACE, WIDTHS, 32, Predicted(ACCURACY, WORLD.gain, ms))


@cache
def on_offer() -> ChoiceTables:
    return tabulated()


@cache
def front() -> tuple[Candidate, ...]:
    return frontier(on_offer())


@cache
def found(count: int = 20, seed: int = 0) -> tuple[ValidationNetwork, ...]:
    return validation_networks(on_offer(), front(), set(), count, seed)


def by_role(chosen: Sequence[ValidationNetwork]) -> dict[str, list[ValidationNetwork]]:
    return {role: [one for one in chosen if one.role == role] for role in ("frontier", "random, as fast", "random")}


def other_random_ones(seed: int = 99) -> tuple[np.ndarray, np.ndarray]:
    """Latencies and accuracies of as many random networks as a draw has, but of another draw."""
    draw = np.random.default_rng(seed)
    picks = np.column_stack([draw.integers(len(offer.choices), size=20_000) for offer in on_offer().superblocks])
    totals = on_offer().totals(picks)
    return totals.ms, totals.accuracy


# which networks


@COUNTS
def test_a_quarter_is_of_the_frontier_as_many_are_as_fast_and_the_rest_is_random(count: int) -> None:
    chosen = by_role(found(count))
    quarter = count // 4
    assert {role: len(of) for role, of in chosen.items()} == {
        "frontier": quarter,
        "random, as fast": quarter,
        "random": count - 2 * quarter,
    }


@COUNTS
def test_all_subjects_are_different_networks_of_the_space_with_what_is_predicted_of_them(count: int) -> None:
    chosen = found(count)
    assert len({subject.network for subject in chosen}) == count
    for subject in chosen:
        network = Network.parse(subject.network)
        assert all(each in SPACE.choices(index, WIDTHS) for index, each in enumerate(network.superblocks))
        gains = [WORLD.gain(*each) for each in enumerate(network.superblocks)]
        assert subject.predicted_accuracy == pytest.approx(ACCURACY + sum(gains))
        assert subject.predicted_ms == pytest.approx(sum(map(block_ms, blocks(network))))


def test_no_subject_is_known() -> None:
    known = {subject.network for subject in found()} | {candidate.network for candidate in front()[::2]}
    chosen = validation_networks(on_offer(), front(), known, 20, 0)
    assert len(chosen) == 20
    assert not {subject.network for subject in chosen} & known


def test_no_network_of_a_small_space_is_chosen_twice() -> None:
    """Of 585, each drawn dozens of times."""
    chosen = [subject.network for subject in validation_networks(small(), frontier(small()), set(), 40, 0)]
    assert len(chosen) > 30
    assert len(set(chosen)) == len(chosen)


@cache
def small() -> ChoiceTables:
    """Of 585 networks."""
    space = SPACE.model_copy(update={"superblocks": SPACE.superblocks[:2]})
    return tabulate_choices(space, space.widths_on_offer(), 32, Predicted(ACCURACY, WORLD.gain, ms_by_in_width))


@cache
def small_networks() -> dict[str, float]:
    """All of them, with their latencies."""
    picks = list(itertools.product(*(range(len(offer.choices)) for offer in small().superblocks)))
    return dict(zip((str(small().network(choices)) for choices in picks), small().totals(np.array(picks)).ms, strict=True))


def test_a_network_drawn_often_stands_for_itself_alone() -> None:
    """All but a few are known, each of them drawn dozens of times: the few are found nevertheless."""
    known = set(random.Random(0).sample(sorted(small_networks()), 300))
    chosen = validation_networks(small(), (), known, 20, 0)
    assert [subject.role for subject in chosen] == ["random"] * 20
    assert not {subject.network for subject in chosen} & known


def test_where_all_of_the_frontier_is_known_the_others_are_random() -> None:
    chosen = validation_networks(on_offer(), front(), {candidate.network for candidate in front()}, 8, 0)
    assert [subject.role for subject in chosen] == ["random"] * 8


def test_subjects_of_the_frontier_are_spread_evenly_over_it() -> None:
    places = {candidate.network: place for place, candidate in enumerate(front())}
    taken = [places[subject.network] for subject in by_role(found())["frontier"]]
    slices = [place * len(taken) // len(front()) for place in taken]
    assert slices == list(range(5))
    assert 0 < taken[0] < taken[-1] < len(front()) - 1
    every = validation_networks(on_offer(), front()[:3], set(), 20, 0)
    assert [one.network for one in by_role(every)["frontier"]] == [one.network for one in front()[:3]]


def test_every_subject_of_the_frontier_has_a_partner_that_is_as_fast() -> None:
    """Hardly any of so many other random networks is nearer."""
    chosen = by_role(found())
    own = {subject.network: subject.predicted_ms for subject in chosen["frontier"]}
    assert [subject.partner for subject in chosen["random, as fast"]] == list(own)
    assert {subject.partner for role in ("frontier", "random") for subject in chosen[role]} == {None}
    others, _ = other_random_ones()
    for subject in chosen["random, as fast"]:
        target = own[subject.partner or ""]
        assert abs(subject.predicted_ms - target) <= np.sort(np.abs(others - target))[15]


@pytest.mark.parametrize("count", [8, 40, 80])
def test_a_network_of_the_frontier_has_a_partner_exactly_where_another_is_as_fast_to_3_percent(count: int) -> None:
    """All networks of the small space are drawn; those of the frontier are no partners, nor is one twice."""
    chosen = by_role(validation_networks(small(), frontier(small()), set(), count, 0))
    assert len(chosen["frontier"]) == min(count // 4, len(frontier(small())))
    partners = {subject.partner: subject for subject in chosen["random, as fast"]}
    assert AS_FAST == 0.03
    left = set(small_networks()) - {subject.network for subject in chosen["frontier"]}
    for subject in chosen["frontier"]:
        as_fast = {name: abs(small_networks()[name] / subject.predicted_ms - 1) for name in left}
        assert (subject.network in partners) == (min(as_fast.values()) <= AS_FAST)
        if subject.network in partners:
            partner = partners[subject.network].network
            assert as_fast[partner] == min(as_fast.values())
            left.remove(partner)


@pytest.mark.parametrize(("slower", "partners"), [(0.98, 1), (1.02, 1), (1.04, 0), (10.0, 0)])
def test_a_network_of_the_frontier_that_nothing_is_as_fast_as_stays_without_a_partner(slower: float, partners: int) -> None:
    slowest = slower * max(small_networks().values())
    alone = frontier(small())[-1].model_copy(update={"predicted_ms": slowest})
    chosen = by_role(validation_networks(small(), [alone], set(), 6, 0))
    assert [subject.network for subject in chosen["frontier"]] == [alone.network]
    assert [subject.partner for subject in chosen["random, as fast"]] == [alone.network] * partners
    assert len(chosen["random"]) == 4  # nothing takes the partner's place


def test_random_subjects_are_spread_evenly_over_what_is_predicted() -> None:
    _, others = other_random_ones()
    low, high = float(others.min()), float(others.max())
    accuracies = [subject.predicted_accuracy for subject in by_role(found())["random"]]
    share = (high - low) / len(accuracies)
    middles = [low + share * (place + 0.5) for place in range(len(accuracies))]
    assert accuracies == pytest.approx(middles, abs=0.25 * share)


def test_the_same_seed_chooses_the_same_subjects_and_another_seed_others() -> None:
    assert validation_networks(on_offer(), front(), set(), 20, 0) == found()
    here, there = by_role(found()), by_role(found(seed=1))
    assert here["frontier"] == there["frontier"]
    assert not {one.network for one in here["random"]} & {one.network for one in there["random"]}


def test_what_could_not_be_measured_is_no_subject() -> None:
    tables = tabulated(without_last_depthwise)
    assert np.isinf(tables.superblocks[3].ms).any()
    chosen = validation_networks(tables, frontier(tables), set(), 20, 0)
    assert len(chosen) == 20
    assert not any(Network.parse(subject.network).superblocks[3].type == "DW" for subject in chosen)
    assert any(Network.parse(subject.network).superblocks[3].type == "DW" for subject in found())


# what is made of their accuracies


def networks(count: int, seed: int = 0) -> list[Network]:
    """Different networks of the space."""
    draw = random.Random(seed)
    offered = [list(SPACE.choices(index, WIDTHS)) for index in range(4)]
    made: dict[Network, None] = {}
    while len(made) < count:
        made[SPACE.network(tuple(map(draw.choice, offered)), 32)] = None
    return list(made)


def verdicts(
    predicted: Sequence[float], accuracies: Sequence[tuple[float, ...]], ms: Sequence[tuple[float, float | None]] = ()
) -> list[ValidationResult]:
    """Of random networks: what was predicted and found, accuracies and, where given, latencies."""
    latencies = ms or [(1.0, None)] * len(predicted)
    return [
        ValidationResult(
            subject=ValidationNetwork(network=str(network), role="random", predicted_accuracy=said, predicted_ms=said_ms),
            accuracies=reached,
            measured_ms=measured,
        )
        for network, said, reached, (said_ms, measured) in zip(
            networks(len(predicted)), predicted, accuracies, latencies, strict=True
        )
    ]


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Agreeing less disagreeing pairs over all; without ties."""
    pairs = list(itertools.combinations(zip(one, other, strict=True), 2))
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairs)
    return fmean(math.copysign(1, (a[0] - b[0]) * (a[1] - b[1])) for a, b in pairs)


def luck(count: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [draw.uniform(0.3, 0.9) for _ in range(count)]


def test_predictions_that_are_off_by_the_same_everywhere_are_perfect_but_for_their_bias() -> None:
    offset = -0.125
    reached = [0.25 + place / 64 for place in range(9)]
    random.Random(0).shuffle(reached)
    result = validate(verdicts([value + offset for value in reached], [(value,) for value in reached]), 7)
    assert (result.accuracy.kendall, result.accuracy.spearman, result.accuracy.error) == pytest.approx((1, 1, 0))
    assert (result.bias, result.left) == pytest.approx((offset, 0.0), abs=1e-12)
    assert (result.epochs, result.inputs) == (7, "")
    assert result.ceiling == ()


def test_predictions_that_are_wrong_throughout_disagree_throughout() -> None:
    reached = luck(9, 0)
    result = agreement(-np.array(reached), np.array(reached))
    assert (result.kendall, result.spearman, result.error) == pytest.approx((-1, -1, 0))


def test_bias_and_what_is_left_are_the_mean_and_the_spread_of_the_differences() -> None:
    predicted, one, other = (luck(10, seed) for seed in (1, 2, 3))
    result = validate(verdicts(predicted, list(zip(one, other, strict=True))), 1)
    differences = [said - (a + b) / 2 for said, a, b in zip(predicted, one, other, strict=True)]
    assert result.bias == pytest.approx(fmean(differences))
    assert result.left == pytest.approx(math.sqrt(fmean((each - fmean(differences)) ** 2 for each in differences)))
    assert result.accuracy.kendall == pytest.approx(kendall(predicted, [(a + b) / 2 for a, b in zip(one, other, strict=True)]))


@settings(max_examples=5)
@given(st.integers(0, 10**6), st.integers(3, 12))
def test_agreement_is_that_of_all_pairs_and_of_ranks(seed: int, count: int) -> None:
    one, other = luck(count, seed), luck(count, seed + 1)
    result = agreement(np.array(one), np.array(other))
    assert result.kendall == pytest.approx(kendall(one, other))
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    assert result.spearman == pytest.approx(float(np.corrcoef(*ranks)[0, 1]))


def test_the_error_of_an_agreement_is_how_far_samples_of_as_many_unrelated_networks_differ() -> None:
    size = 30
    spread = stdev(kendall(luck(size, 2 * seed), luck(size, 2 * seed + 1)) for seed in range(60))
    errors = [agreement(np.array(luck(size, -seed)), np.array(luck(size, 1000 + seed))).error for seed in range(1, 5)]
    assert fmean(errors) == pytest.approx(spread, rel=0.3)


# what the frontier is better by


def paired(gains: Sequence[float]) -> list[ValidationResult]:
    """Networks of the frontier, each with a random one as fast that is worse by so much, and one without."""
    made, accuracy = networks(2 * len(gains) + 1), 0.6
    found = [
        ValidationResult(
            subject=ValidationNetwork(network=str(made[-1]), role="random", predicted_accuracy=0.1, predicted_ms=1.0),
            accuracies=(0.1, 0.2),
            measured_ms=None,
        )
    ]
    for place, (gain, one, other) in enumerate(zip(gains, made[:-1:2], made[1::2], strict=True)):
        best, worse = accuracy + place / 100, accuracy + place / 100 - gain
        for network, role, partner, reached in ((one, "frontier", None, best), (other, "random, as fast", str(one), worse)):
            subject = ValidationNetwork(
                network=str(network), role=role, partner=partner, predicted_accuracy=reached, predicted_ms=1.0
            )
            found.append(ValidationResult(subject=subject, accuracies=(reached - 0.01, reached + 0.01), measured_ms=None))
    return found


def test_one_pair_has_an_advantage_without_an_error_and_no_pair_has_none() -> None:
    one = validate(paired([0.04]), 1)
    assert (one.advantage, one.advantage_error) == (pytest.approx(0.04), None)
    none = validate([verdict for verdict in paired([0.04, 0.1, 0.2]) if verdict.subject.role != "frontier"], 1)
    assert (none.advantage, none.advantage_error) == (None, None)


# what is compared with


def test_the_ceiling_is_how_each_training_ranks_as_the_mean_of_the_others_does() -> None:
    trainings = [luck(10, seed) for seed in (0, 1, 4)]
    result = validate(verdicts(luck(10, 9), list(zip(*trainings, strict=True))), 1)
    expected = []
    for k in range(3):
        others = [trainings[j] for j in range(3) if j != k]
        expected.append(kendall(trainings[k], [fmean(each) for each in zip(*others, strict=True)]))
    assert result.ceiling == pytest.approx(tuple(expected))
    assert len(set(expected)) == 3


def test_two_trainings_have_the_same_ceiling_and_one_has_none() -> None:
    one, other = luck(8, 0), luck(8, 1)
    assert ceiling(np.array([one, other]).T) == pytest.approx((kendall(one, other),) * 2)
    assert ceiling(np.array([one]).T) == ()


def test_a_prediction_without_fault_is_expected_to_agree_as_the_truth_itself_does_with_its_noisy_trainings() -> None:
    draw, expected, reached = np.random.default_rng(0), [], []
    for _ in range(25):
        true = draw.normal(0, 1, 25)
        trainings = true[:, None] + draw.normal(0, 1.2, (25, 3))
        expected.append(perfect_prediction(trainings))
        reached.append(kendall(true, trainings.mean(1)))
    assert fmean(expected) == pytest.approx(fmean(reached), abs=0.05)


def test_without_noise_a_prediction_without_fault_agrees_fully_and_of_one_training_each_nothing_is_known() -> None:
    true = np.array(luck(8, 0))
    assert perfect_prediction(np.array([true, true]).T) == pytest.approx(1)
    assert perfect_prediction(true[:, None]) is None


def test_what_costs_nothing_is_widths_depths_parameters_and_macs() -> None:
    made = networks(6)
    first, *rest = made[0].superblocks
    made[0] = SPACE.network((first.model_copy(update={"depth": 0}), *rest), 32)  # what has vanished has no width
    found = {name: values.tolist() for name, values in free_proxies(made).items()}
    costs = [network_cost(network) for network in made]
    assert found == {
        "log-widths": pytest.approx([math.log2(math.prod(s.width for s in network.superblocks if s.depth)) for network in made]),
        "depths": [sum(s.depth for s in network.superblocks) for network in made],
        "log-parameters": pytest.approx([math.log(cost.parameters, 2) for cost in costs]),
        "log-MACs": pytest.approx([math.log(cost.macs, 2) for cost in costs]),
    }


def test_what_costs_nothing_is_ranked_with_what_was_found() -> None:
    made = networks(8)
    reached = [network_cost(network).macs / 1e9 for network in made]
    result = validate(verdicts(luck(8, 0), [(value,) for value in reached]), 1)
    assert set(result.free) == {"log-widths", "depths", "log-parameters", "log-MACs"}
    assert result.free["log-MACs"].kendall == pytest.approx(1)
    assert result.free["log-parameters"].kendall == pytest.approx(
        kendall([network_cost(network).parameters for network in made], reached)
    )


# latency


def test_latencies_are_ranked_and_their_errors_are_relative_to_what_was_measured() -> None:
    said, took = [1.0, 2.0, 3.0, 4.0, 9.0], [1.25, 1.6, 2.4, 5.0, None]
    result = validate(verdicts(luck(5, 0), [(value,) for value in luck(5, 1)], list(zip(said, took, strict=True))), 1)
    assert result.latency is not None
    assert result.latency.kendall == pytest.approx(1)
    assert result.latency_error == pytest.approx(fmean([0.2, 0.25, 0.25, 0.2]))


def test_two_measured_networks_make_an_error_and_no_ranking_and_none_make_neither() -> None:
    for took, error in (([2.0, 4.0, None], 0.5), ([None, None, None], None)):
        ms = list(zip([1.0, 2.0, 3.0], took, strict=True))
        result = validate(verdicts(luck(3, 0), [(value,) for value in luck(3, 1)], ms), 1)
        assert (result.latency, result.latency_error) == (None, error)


# where nothing can be told apart


@pytest.mark.parametrize("constant", ["predicted", "found", "both"])
def test_predictions_or_accuracies_that_are_all_the_same_agree_by_0_and_can_be_written_down(constant: str) -> None:
    predicted = [0.5] * 4 if constant != "found" else luck(4, 0)
    reached = [0.75] * 4 if constant != "predicted" else luck(4, 1)
    ms = [(1.0, 2.0)] * 4
    result = validate(verdicts(predicted, [(value, value) for value in reached], ms), 1)
    assert (result.accuracy.kendall, result.accuracy.spearman, result.accuracy.error) == (0, 0, 0)
    assert result.latency is not None
    assert (result.latency.kendall, result.latency_error) == (0, 0.5)
    assert result.ceiling == ((1, 1) if constant == "predicted" else (0, 0))
    assert Validation.model_validate_json(result.model_dump_json()) == result


@settings(max_examples=5)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.1, 0.3])), min_size=3, max_size=5))
def test_no_agreement_is_not_a_number_however_much_is_tied(pairs: list[tuple[float, float]]) -> None:
    """The record itself refuses what is not a number."""
    result = agreement(*np.array(pairs).T)
    assert all(-1 <= value <= 1 for value in (result.kendall, result.spearman))
    if len({one for one, _ in pairs}) == 1 or len({other for _, other in pairs}) == 1:
        assert (result.kendall, result.spearman) == (0, 0)


def test_the_advantage_is_the_mean_difference_of_the_pairs_and_all_comes_back_from_json_as_it_was() -> None:
    gains = [0.05, -0.01, 0.03, 0.02]
    made = [verdict.model_copy(update={"measured_ms": 1.0 + k / 8}) for k, verdict in enumerate(paired(gains))]
    result = validate(made, 3, "digest")
    assert (result.epochs, result.inputs) == (3, "digest")
    assert result.advantage == pytest.approx(fmean(gains))
    assert result.advantage_error == pytest.approx(stdev(gains) / math.sqrt(len(gains)))
    assert None not in (result.latency, result.latency_error)
    assert len(result.ceiling) == 2
    assert Validation.model_validate_json(result.model_dump_json()) == result
