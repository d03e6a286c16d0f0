"""The stopwatch: repeats, the paper's trimmed mean, and that it times what was asked."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genet.errors import MeasurementError
from genet.latency.timing import stopwatch
from genet.latency.timing.stopwatch import (
    LAUNCH_MS,
    REPEAT_MS,
    REPEATS,
    SHORT_MS,
    Timing,
    head_start_ms,
    measure,
    measure_apart,
    summarise,
)
from genet.progress import Tracker, WorkItem

CPU = torch.device("cpu")


def test_thirty_repeats_without_the_highest_and_lowest_tenth_are_averaged() -> None:
    assert REPEATS == 30
    samples = [1000.0, 1000.0, 1000.0, *[2.0] * 13, *[4.0] * 11, 0.001, 0.001, 0.001]
    timing = summarise(samples)
    assert timing.ms == pytest.approx((13 * 2.0 + 11 * 4.0) / 24)
    assert timing.median_ms == pytest.approx(2.0)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30))
def test_the_summary_lies_among_the_repeats_whatever_their_order(samples: list[float]) -> None:
    timing = summarise(samples)
    assert timing == summarise(sorted(samples, reverse=True))
    assert min(samples) * (1 - 1e-9) <= min(timing.ms, timing.median_ms)
    assert max(timing.ms, timing.median_ms) <= max(samples) * (1 + 1e-9)


def test_equal_repeats_have_no_spread() -> None:
    assert summarise([2.0] * 30).spread == 0
    assert summarise([2.0]).spread == 0


def test_the_spread_is_the_interquartile_range_over_the_median() -> None:
    assert summarise([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]).spread == pytest.approx(4 / 4)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("place", [0, 15, 29])
def test_a_time_that_cannot_be_is_a_fault_of_the_measurement(wrong: float, place: int) -> None:
    samples = [1.0] * 30
    samples[place] = wrong
    with pytest.raises(MeasurementError, match="must be positive and finite"):
        summarise(samples)


def test_short_work_is_warmed_up_and_repeated_until_a_repeat_is_long_enough() -> None:
    calls = []
    measure([lambda: calls.append(1)], CPU, repeats=5)
    assert len(calls) > 500  # an append takes far less than a repeat


def test_long_work_is_called_more_often_than_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stopwatch.UNSETTLED_S, "cpu", 0.1)
    calls = []

    def work() -> None:
        calls.append(1)
        time.sleep(0.004)

    measure([work], CPU, repeats=5)
    assert len(calls) >= 5 + 5  # two before the clock, three that agree


def test_what_only_the_first_calls_cost_is_not_counted() -> None:
    waits = itertools.chain([0.03] * 3, itertools.repeat(0.003))
    (timing,) = measure([lambda: time.sleep(next(waits))], CPU, repeats=10)
    (settled,) = measure([lambda: time.sleep(0.003)], CPU, repeats=10)
    assert timing.ms == pytest.approx(settled.ms, rel=0.5)


def test_twice_the_sleep_is_twice_the_time() -> None:
    short, long = measure([lambda: time.sleep(0.02), lambda: time.sleep(0.04)], CPU, repeats=10)  # far above what waking up takes
    assert long.median_ms / short.median_ms == pytest.approx(2, rel=0.25)


def test_works_measured_in_turn_alternate() -> None:
    order: list[str] = []

    def work(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    measure([lambda: work("a", 0.003), lambda: work("b", 0.003), lambda: work("c", 0.003)], CPU, repeats=4)
    assert "".join(order[-12:]) == "abc" * 4


def test_a_work_that_cannot_run_says_so_itself() -> None:
    def work() -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        measure([work], CPU)


@given(st.floats(0.001, 100))
def test_a_gpu_is_never_waiting_for_the_host_in_the_middle_of_a_repeat(work_ms: float) -> None:
    calls = max(1, round(REPEAT_MS / work_ms))
    if work_ms > 1.1 * SHORT_MS:  # the host, which needs less to launch it, is ahead by itself
        assert head_start_ms(calls) == 0
    if work_ms < 0.9 * SHORT_MS:
        assert head_start_ms(calls) >= calls * LAUNCH_MS


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_asynchronous_work_is_timed_to_its_end() -> None:
    a = torch.randn(4096, 4096, device="cuda")
    small, large = measure([lambda: a[:256] @ a, lambda: a @ a], torch.device("cuda", 0))
    assert large.ms > 4 * small.ms


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_work_that_is_shorter_than_its_launch_takes_the_device_no_longer_than_its_share_of_one_launch() -> None:
    from genet.device import record_graph

    device = torch.device("cuda", 0)
    a = torch.randn(256, device=device)
    one, many = record_graph(lambda: a.add_(1), device), record_graph(lambda: [a.add_(1) for _ in range(20)], device)
    short, long = measure([one, many], device)
    assert short.ms < long.ms / 2  # the host's launch takes several times as long as such a kernel


def test_no_round_of_works_apart_begins_beyond_the_limit_but_the_first() -> None:
    rounds = Tracker(WorkItem("", None))
    (timing,) = measure_apart([lambda: time.sleep(0.001)], CPU, rounds, limit_s=0.0)
    assert rounds.done == 1
    assert isinstance(timing, Timing)
    assert timing.spread > 0, "that of its repeats"
    measure_apart([lambda: None], CPU, rounds)
    assert rounds.done > 2


def test_a_work_that_fails_while_it_is_timed_costs_no_other_its_time() -> None:
    failing, timed = measure_apart([list(range(50)).pop, lambda: time.sleep(0.001)], CPU, limit_s=0.0)
    assert isinstance(failing, IndexError)
    assert isinstance(timed, Timing)
