"""From predictions to a network that was measured to be within the budget."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.config.budget import Budget
from genet.config.recipe import Measure
from genet.device import DeviceCard
from genet.errors import EvidenceError
from genet.latency.table import Setting
from genet.search.certificate import (
    Certificate,
    SelectedNetwork,
    Selection,
    best_certified,
    certificate_of,
    could_be_within,
    expected_interval,
)
from genet.search.solver import Candidate
from genet.statistics import half_interval, intervals_per_deviation

RATIOS = (0.98, 0.99, 1.0, 1.01, 1.02)


def front(size: int) -> list[Candidate]:
    """Candidates of 1, 2, 3... ms whose predicted accuracy rises with their latency."""
    return [
        Candidate(network=f"net{n}", resolution=32, predicted_ms=float(n), predicted_accuracy=0.5 + n / 1000, parameters=n)
        for n in range(1, size + 1)
    ]


def solving(candidates: list[Candidate], ratios: list[float] | None = None) -> Callable[[], list[Candidate]]:
    """The frontier, corrected by the mean of what measured networks took over what was predicted of them first."""

    def solve() -> list[Candidate]:
        scale = statistics.fmean(ratios) if ratios else 1.0
        return [Candidate(**vars(candidate) | {"predicted_ms": scale * candidate.predicted_ms}) for candidate in candidates]

    return solve


def exactly(budget: float, slower: float = 1.0, measured: list[str] | None = None) -> Callable[[Candidate], Certificate]:
    """A device without noise that takes `slower` times what is predicted."""

    def certify(candidate: Candidate) -> Certificate:
        if measured is not None:
            measured.append(candidate.network)
        return certificate_of((candidate.predicted_ms * slower,) * 3, 1.0, budget)

    return certify


def test_a_network_whose_interval_is_clear_of_the_budget_is_within_or_over_it_and_else_unclear() -> None:
    half = half_interval(RATIOS)
    assert [certificate_of(RATIOS, 10.0, 10.0 * limit).within for limit in (1.1, 1.0, 0.9)] == [True, None, False]
    assert certificate_of(RATIOS, 10.0, 10.0 * (1 + half) + 1e-9).within is True
    assert certificate_of(RATIOS, 10.0, 10.0 * (1 + half) - 1e-6).within is None
    assert certificate_of(RATIOS, 10.0, 10.0 * (1 - half) - 1e-6).within is False


def test_a_certificate_tells_milliseconds_at_the_references_speed() -> None:
    found = certificate_of(RATIOS, 10.0, 99.0)
    assert found.ms == pytest.approx(10.0)
    assert found.interval_ms == pytest.approx(10 * half_interval(RATIOS))


def test_the_uncertainty_of_the_reference_widens_the_interval() -> None:
    plain, wide = certificate_of(RATIOS, 10.0, 10.5), certificate_of(RATIOS, 10.0, 10.5, reference_error=0.03)
    assert wide.interval_ms == pytest.approx(math.hypot(plain.interval_ms, 0.3))
    budget = 10.0 + (plain.interval_ms + wide.interval_ms) / 2
    assert certificate_of(RATIOS, 10.0, budget).within is True
    assert certificate_of(RATIOS, 10.0, budget, reference_error=0.03).within is None


def test_a_few_disturbed_rounds_do_not_put_a_network_above_a_budget_that_most_rounds_keep() -> None:
    disturbed = (0.99,) * 11 + (3.0,) * 9
    assert statistics.fmean(disturbed) - half_interval(disturbed) > 1.0
    assert certificate_of(disturbed, 10.0, 10.0).within is None
    assert certificate_of(disturbed, 10.0, 9.8).within is False


def test_a_budget_below_all_of_many_rounds_is_too_small_however_they_spread() -> None:
    wild = (1.0,) * 19 + (40.0,)
    assert statistics.fmean(wild) < half_interval(wild)
    assert [certificate_of(wild, 1.0, budget).within for budget in (0.99, 1.0)] == [False, None]
    assert certificate_of(wild, 1.0, 0.9, reference_error=0.2).within is None
    assert certificate_of(wild[-3:], 1.0, 0.99).within is None, "three say little"


def test_a_hopeless_budget_is_too_small_however_few_rounds_spread_and_noise_is_not_blamed() -> None:
    wild = (0.9, 1.2, 7.0)
    assert [certificate_of(wild, 1.0, budget).within for budget in (0.001, 0.44, 0.46)] == [False, False, None]
    assert [certificate_of(wild, 1.0, budget, reference_error=1.5).within for budget in (0.17, 0.19)] == [False, None]


def test_equal_rounds_say_all() -> None:
    assert certificate_of((1.0, 1.0), 2.0, 2.0).within is True
    assert certificate_of((1.0, 1.0), 2.0, 1.999).within is False


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=20), st.floats(0.5, 10), st.floats(0.1, 30), st.floats(0, 0.1))
def test_a_larger_budget_never_turns_a_verdict_to_the_worse(
    ratios: list[float], reference: float, budget: float, error: float
) -> None:
    rank = {True: 2, None: 1, False: 0}
    tight, loose = (certificate_of(ratios, reference, each, error) for each in (budget, budget * 1.1))
    assert rank[tight.within] <= rank[loose.within]
    assert tight.ms == loose.ms


def test_the_best_candidate_that_is_certified_is_named_with_its_prediction() -> None:
    found = best_certified(5.0, solving(front(10)), exactly(5.0), count=3)
    assert (found.candidate.network, found.candidate.predicted_ms, found.certificate.ms) == ("net5", 5.0, 5.0)
    assert found.certificate.within is True


def test_when_predictions_are_too_low_slower_candidates_are_left_aside() -> None:
    measured: list[str] = []
    found = best_certified(10.0, solving(front(40)), exactly(10.0, 2.0, measured), count=2)
    assert (found.candidate.network, found.certificate.ms) == ("net5", 10.0)
    assert len(measured) <= 4, "one wrong guess, then the corrected one"


def test_when_predictions_are_too_high_better_candidates_are_tried() -> None:
    measured: list[str] = []
    found = best_certified(10.0, solving(front(40)), exactly(10.0, 0.5, measured), count=4)
    assert found.candidate.network == "net20"
    assert len(measured) <= 4


def test_predictions_are_asked_anew_after_every_measurement() -> None:
    learnt: list[float] = []
    measured: list[str] = []

    def certify(candidate: Candidate) -> Certificate:
        measured.append(candidate.network)
        learnt.append(3.0)
        return certificate_of((3.0 * int(candidate.network.removeprefix("net")),) * 3, 1.0, 12.0)

    found = best_certified(12.0, solving(front(40), learnt), certify, count=3)
    assert found.candidate.network == "net4"
    assert measured[0] == "net12"
    assert found.candidate.predicted_ms == 12.0  # what was predicted just before it was measured


def test_no_candidate_is_measured_twice() -> None:
    measured: list[str] = []
    for budget in (0.5, 3.0, 10.0, 100.0):
        for slower in (0.5, 1.0, 1.7):
            measured.clear()
            best_certified(budget, solving(front(12)), exactly(budget, slower, measured), count=5)
            assert len(set(measured)) == len(measured)


def test_a_budget_that_none_can_meet_gives_the_fastest_and_says_so() -> None:
    measured: list[str] = []
    found = best_certified(0.5, solving(front(40)), exactly(0.5, measured=measured), count=3)
    assert (found.candidate.network, found.certificate.ms) == ("net1", 1.0)
    assert found.certificate.within is False
    assert measured == ["net1", "net2", "net3"]


def test_before_a_budget_counts_as_out_of_reach_the_fastest_network_is_measured() -> None:
    measured: list[str] = []

    def certify(candidate: Candidate) -> Certificate:
        measured.append(candidate.network)
        ms = 1.0 if candidate.network == "net1" else 10.05  # whatever is predicted
        return certificate_of((ms, ms), 1.0, 10.0)

    found = best_certified(10.0, solving(front(40)), certify, count=2)
    assert (measured[-1], len(measured)) == ("net1", 8)
    assert (found.candidate.network, found.certificate.within) == ("net1", True)


CARD = dict.fromkeys(DeviceCard.model_fields) | {"kind": "cpu", "name": "a", "python": "3", "platform": "p"}
SETTING = Setting.of(DeviceCard.model_validate(CARD), Measure())


def selected(*choices: tuple[float | str, int, float, float | None, bool | None]) -> Selection:
    """Choices by budget, resolution, ms per image, half of the interval (None: predicted alone) and verdict; MasterNet: 2 ms."""
    made = [
        SelectedNetwork(
            budget=Budget.parse(budget),
            budget_ms_per_image=Budget.parse(budget).ms(128.0, 64) / 64,
            resolution=resolution,
            network=f"net{resolution}",
            predicted_accuracy=0.5,
            predicted_ms_per_image=ms,
            measured_ms_per_image=None if interval is None else ms,
            interval_ms_per_image=interval,
            within=within,
        )
        for budget, resolution, ms, interval, within in choices
    ]
    return Selection(inputs="", setting=SETTING, masternet_ms_per_image=2.0, prediction_error=None, choices=tuple(made))


def test_a_smallest_budget_that_noise_has_widened_is_told_as_about_the_mean() -> None:
    (missed,) = selected(("0.5x", 32, 3.0, 60.0, False)).unmet
    assert missed.endswith("the smallest that can be met is about 1.5x (192 ms per batch of 64, 3 ms/image)")


def test_budgets_that_none_meets_are_named_with_the_smallest_that_is_met_in_their_own_unit() -> None:
    found = selected(
        ("0.5x", 32, 1.2, 0.001, False),
        ("0.5x", 24, 1.1, 0.00001, False),
        (0.001, 32, 0.0123456, 0.0, False),
        (0.001, 24, 0.02, 0.0, False),
        ("0.9x", 32, 1.9, 0.001, False),
        ("0.9x", 24, 1.7, 0.001, True),
        ("0.4x", 32, 1.0, None, False),
        ("2x", 32, 1.0, None, None),
    )
    half, tiny, predicted = found.unmet
    assert half == (
        "budget 0.5x (64 ms per batch of 64, 1 ms/image) cannot be met by any network on offer: the fastest is "
        "measured at 1.1 ms/image; the smallest that can be met is 0.5501x (70.41 ms per batch of 64, 1.1 ms/image)"
    )
    assert tiny.startswith("budget 0.001ms/image (0.064 ms per batch of 64, 0.0005x) cannot be met by any")
    assert tiny.endswith("the smallest that can be met is 0.01235ms/image (0.7904 ms per batch of 64, 0.006175x)")
    assert "the fastest is predicted at 1 ms/image; the smallest that can be met is 0.5x (" in predicted


def test_a_budget_that_timings_spread_too_much_to_decide_is_told_from_one_that_is_too_small() -> None:
    found = selected(
        ("0.5x", 32, 1.2, 3.4, False),
        ("0.5x", 24, 1.1, 0.01, False),
        (0.01, 32, 1.0, 0.1, False),
        ("0.6x", 32, 1.201, 0.004, False),
        ("0.9x", 32, 2.0, 9.0, False),
        ("0.9x", 24, 1.7, 0.001, True),
    )
    straddling = (1.2, 1.201, 2.0)
    choices = [each.model_copy(update={"undecided": each.measured_ms_per_image in straddling}) for each in found.choices]
    found = found.model_copy(update={"choices": tuple(choices)})
    assert [str(budget) for budget in found.undecided] == ["0.5x", "0.6x"]
    half, tiny, close = found.unmet
    again = "stop other programs and give the same command again to measure anew"
    assert half == (
        "budget 0.5x (64 ms per batch of 64, 1 ms/image) could not be certified: the nearest network was measured at "
        f"1.2 ms/image on average, at most 4.6, which leaves open whether it is within; {again}"
    )
    assert "cannot be met by any network on offer" in tiny
    assert "(0.3%), which leaves open" in close
    assert close.endswith(f"{again}, or take 0.6025x (77.12 ms per batch of 64, 1.205 ms/image)")


def test_the_fastest_is_tried_even_when_it_is_predicted_to_break_the_budget() -> None:
    found = best_certified(0.9, solving(front(10)), exactly(0.9, 0.5), count=3)
    assert (found.candidate.network, found.certificate.within) == ("net1", True)


def test_a_network_whose_interval_straddles_the_budget_is_not_within_it() -> None:
    def certify(candidate: Candidate) -> Certificate:
        shares = (0.98, 1.0, 1.02)
        return certificate_of([share * candidate.predicted_ms for share in shares], 1.0, 20.0)

    half = half_interval((0.98, 1.0, 1.02))
    found = best_certified(20.0, solving(front(40)), certify, count=3)
    assert found.certificate.within is True
    assert found.candidate.network == f"net{math.floor(20 / (1 + half))}"


def test_where_all_are_unclear_the_fastest_is_named_and_is_not_within() -> None:
    def certify(candidate: Candidate) -> Certificate:
        return certificate_of((0.01 * candidate.predicted_ms, 1.99 * candidate.predicted_ms), 1.0, 5.0)

    found = best_certified(5.0, solving(front(10)), certify, count=2)
    assert (found.candidate.network, found.certificate.within) == ("net1", None)


def test_one_that_may_be_within_is_named_before_a_faster_one_that_is_not() -> None:
    def certify(candidate: Candidate) -> Certificate:
        rounds = (0.01, 19.9) if candidate.network == "net3" else (candidate.predicted_ms,) * 3
        return certificate_of(rounds, 1.0, 0.5)

    found = best_certified(0.5, solving(front(10)), certify, count=4)
    assert (found.candidate.network, found.certificate.within) == ("net3", None)


def test_one_wildly_slow_reading_does_not_rule_out_all_but_the_fastest() -> None:
    slow = {"net20": 100.0, "net19": 100.0}

    def certify(candidate: Candidate) -> Certificate:
        return certificate_of((slow.get(candidate.network, candidate.predicted_ms),) * 3, 1.0, 20.0)

    found = best_certified(20.0, solving(front(20)), certify, count=2)
    assert found.certificate.within is True
    assert found.candidate.predicted_ms >= 3


@given(st.floats(0.3, 3.0), st.floats(0.5, 45), st.integers(1, 5), st.integers(0, 10_000))
def test_no_network_is_named_as_within_that_was_measured_above(bias: float, budget: float, count: int, seed: int) -> None:
    draw = random.Random(seed)
    measured: dict[str, Certificate] = {}

    def certify(candidate: Candidate) -> Certificate:
        ms = candidate.predicted_ms * bias * draw.uniform(0.9, 1.1)
        measured[candidate.network] = certificate_of((ms,) * 3, 1.0, budget)
        return measured[candidate.network]

    found = best_certified(budget, solving(front(40)), certify, count)
    assert measured[found.candidate.network] == found.certificate
    if not found.certificate.within:
        assert found.certificate.ms == min(each.ms for each in measured.values())
        assert "net1" in measured
    else:
        fitting = [int(name.removeprefix("net")) for name, each in measured.items() if each.within]
        assert found.candidate.network == f"net{max(fitting)}"


def test_an_empty_frontier_is_said() -> None:
    with pytest.raises(EvidenceError, match="got an empty frontier"):
        best_certified(1.0, solving([]), exactly(1.0), 1)


MOST_ROUNDS = 20  # as in the select step
SIZE = 200


@dataclass
class Device:
    """A noisy device: every candidate's true latency lies off its prediction, and the whole machine's speed wanders."""

    draw: random.Random
    true_ratio: dict[str, float] = field(default_factory=dict)  # over the MasterNet's
    speed: float = 1.0
    measured: int = 0

    def build(self, candidates: list[Candidate]) -> None:
        bias, bend, phase = self.draw.uniform(0.6, 1.8), self.draw.uniform(0, 0.1), self.draw.uniform(0, 6)
        for candidate in candidates:
            smooth = bias * (1 + bend * math.sin(math.log(candidate.predicted_ms) * 2 + phase))
            self.true_ratio[candidate.network] = candidate.predicted_ms * smooth * math.exp(self.draw.gauss(0, 0.05))

    def rounds(self, network: str, budget: float) -> list[float]:
        """Ratios to the MasterNet, timed in turn, until the certificate is clear."""
        self.measured += 1
        noise, ratios = self.draw.uniform(0.01, 0.02), []
        while len(ratios) < 3 or (certificate_of(ratios, 1.0, budget).within is None and len(ratios) < MOST_ROUNDS):
            self.speed *= math.exp(self.draw.gauss(0, 0.01))
            own = self.true_ratio[network] * self.speed * math.exp(self.draw.gauss(0, noise))
            ratios.append(own / (self.speed * math.exp(self.draw.gauss(0, noise))))
        return ratios


@dataclass
class Outcome:
    """One selection on a simulated device, told by one who knows the truth."""

    certified: bool
    possible: bool
    true_over_budget: float
    behind: float  # places between the best that truly fits and the one named, over all places
    measured: int


def selection(seed: int) -> Outcome:
    draw = random.Random(seed)
    candidates = [
        Candidate(
            network=f"net{n}",
            resolution=32,
            predicted_ms=10 ** (n / SIZE - 1),
            predicted_accuracy=math.log(2 + n) / 10,
            parameters=n,
        )
        for n in range(SIZE)
    ]
    device = Device(draw)
    device.build(candidates)
    ratios = [device.true_ratio[c.network] / c.predicted_ms for c in draw.sample(candidates, 8)]  # networks of the profile step
    budget = draw.uniform(0.15, 1.2)
    first = {candidate.network: candidate.predicted_ms for candidate in candidates}

    def certify(candidate: Candidate) -> Certificate:
        rounds = device.rounds(candidate.network, budget)
        ratios.append(statistics.fmean(rounds) / first[candidate.network])
        return certificate_of(rounds, 1.0, budget)

    found = best_certified(budget, solving(candidates, ratios), certify, count=3)
    fitting = [n for n in range(SIZE) if device.true_ratio[f"net{n}"] <= budget]
    named = int(found.candidate.network.removeprefix("net"))
    return Outcome(
        certified=found.certificate.within is True,
        possible=bool(fitting),
        true_over_budget=device.true_ratio[found.candidate.network] / budget,
        behind=(max(fitting) - named) / SIZE if fitting else 0.0,
        measured=device.measured,
    )


@pytest.mark.parametrize("seed", range(8))
def test_of_a_hundred_selections_on_a_noisy_device_no_certified_one_is_broken(seed: int) -> None:
    outcomes = [selection(1000 * seed + number) for number in range(100)]
    certified = [outcome for outcome in outcomes if outcome.certified]
    assert max(outcome.true_over_budget for outcome in certified) <= 1
    possible = [outcome for outcome in outcomes if outcome.possible]
    assert len(certified) >= 0.95 * len(possible)
    behind = sorted(outcome.behind for outcome in certified)
    assert statistics.fmean(behind) < 0.05
    assert behind[int(0.95 * len(behind))] < 0.1
    assert statistics.fmean(outcome.measured for outcome in outcomes) < 10


def test_rounds_that_spread_too_widely_for_the_room_left_would_not_be_within_with_more_of_them() -> None:
    near = (0.79, 0.78, 0.80, 0.77, 0.81, 0.79)
    assert certificate_of(near, 10.0, 8.0).within is None
    assert not could_be_within(near, 0.80, most=20)
    assert could_be_within(near, 0.82, most=20)
    assert certificate_of(near * 4, 10.0, 8.2).within


def test_more_rounds_do_not_make_the_reference_any_surer() -> None:
    calm = (0.97, 0.971, 0.969, 0.97, 0.97, 0.97)
    assert could_be_within(calm, 1.0, most=20)
    assert not could_be_within(calm, 1.0, most=20, reference_error=0.04)


def test_what_more_rounds_of_a_network_will_leave_is_told_by_the_rounds_of_others() -> None:
    noise = (0.99, 1.0, 1.01)
    others = [[share * ms for share in noise] for ms in (0.3, 1.0, 2.0)]
    assert expected_interval(others, most=20) == pytest.approx(0.01 * intervals_per_deviation(20))
    assert expected_interval([*others, [1.0, 1.0, 2.0]], most=20) == expected_interval(others, most=20)
    assert expected_interval([], most=20) == expected_interval([[1.0, 1.0]], most=20) == 0
    assert expected_interval([[1.0, 2.0, 3.0]], most=20) == 0.1
