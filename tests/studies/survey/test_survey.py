"""What a survey makes of the rounds in which it times a network in turn with the matrix product."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch

from genet.arch.network import Network
from genet.config.recipe import Measure
from genet.device import read_card
from genet.latency.estimate.roofline import MatrixProduct
from genet.latency.table import Setting
from genet.latency.timing.meter import Meter
from genet.latency.timing.ratio import MOST_ROUNDS, ROUNDS
from genet.latency.timing.stopwatch import Timing
from genet.latency.workload import Workload, network_workload
from genet.studies.survey.survey import Surveyed, SurveyEntry, survey, survey_in_turn

NETWORK = network_workload(Network.parse("@16x1 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | Conv k1 c32 | 10"))


class Disturbed:
    """A device on which the network takes `times` ms, round by round, and the product 1 ms."""

    def __init__(self, times: Sequence[float]) -> None:
        self.setting = Setting.of(read_card(torch.device("cpu")), Measure(batch=8))
        self.rounds = 0
        self._times = itertools.cycle(times)

    def prepare(self, parts: Sequence[Workload]) -> Callable[..., tuple[Timing, ...]]:
        def race(repeats: int = 30) -> tuple[Timing, ...]:
            self.rounds += 1
            return tuple(Timing(ms=ms, median_ms=ms, spread=0.0) for ms in (next(self._times), 1.0))

        return race

    def at(self, batch: int) -> Meter:
        raise NotImplementedError


def surveyed(device: Disturbed) -> Surveyed:
    return survey(NETWORK, device, MatrixProduct("linear layer", 512, 8), 10.0)


def test_a_calm_device_is_asked_for_as_many_rounds_as_it_takes_and_no_more() -> None:
    calm = Disturbed([2.0, 2.01])
    assert surveyed(calm).images_per_sec == pytest.approx(8 / 2e-3, rel=0.01)
    assert calm.rounds == ROUNDS


@pytest.mark.parametrize("times", [[2, 20, 2, 2, 2, 2], [20, 2, 2, 2, 2, 20, 2]])
def test_what_else_ran_on_the_machine_for_a_while_does_not_move_the_figures(times: list[float]) -> None:
    busy = Disturbed(times)
    row = surveyed(busy)
    assert row.images_per_sec == pytest.approx(8 / 2e-3)
    assert row.utilization_error is not None
    assert row.utilization_error > 0.05, "and the error tells that something was"
    assert busy.rounds == MOST_ROUNDS


def test_a_utilization_is_known_to_a_few_percent_before_the_rounds_end() -> None:
    row = surveyed(Disturbed([2.0, 2.3, 1.9, 2.1, 2.0]))
    assert row.utilization_error is not None
    assert row.utilization_error <= 0.03


class Slowing:
    """A device that becomes slower with every timing; each network takes `ms` at first."""

    timings = 0

    def __init__(self, ms: float) -> None:
        self.setting = Setting.of(read_card(torch.device("cpu")), Measure(batch=8))
        self.ms = ms

    def prepare(self, parts: Sequence[Workload]) -> Callable[..., tuple[Timing, ...]]:
        def race(repeats: int = 30) -> tuple[Timing, ...]:
            Slowing.timings += 1
            slow = 1 + 0.01 * Slowing.timings
            return tuple(Timing(ms=ms * slow, median_ms=ms * slow, spread=0.0) for ms in (self.ms, 1.0))

        return race

    def at(self, batch: int) -> Meter:
        raise NotImplementedError


def test_networks_that_are_compared_are_timed_in_turn_so_that_a_device_that_slows_down_favours_none() -> None:
    product = MatrixProduct("linear layer", 512, 8)
    one, other = survey_in_turn([SurveyEntry(NETWORK, Slowing(ms), product) for ms in (3.0, 1.0)], 10.0)
    assert other.images_per_sec / one.images_per_sec == pytest.approx(3, rel=0.015), "timed apart, by over 0.03 less"
