"""The clock: repeats, the paper's trimmed mean, and that it times what was asked."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genet.errors import EvidenceError
from genet.latency.clock import REPEATS, measure, summarise

CPU = torch.device("cpu")


def test_thirty_repeats_without_the_highest_and_lowest_tenth_are_averaged() -> None:
    samples = [1000.0, 1000.0, 1000.0, *[2.0] * 12, *[4.0] * 12, 0.001, 0.001, 0.001]
    timing = summarise(samples, 1)
    assert timing.repeats == REPEATS == 30
    assert timing.ms == pytest.approx(3.0)
    assert timing.median_ms == pytest.approx(3.0)


@given(st.lists(st.floats(0.01, 100), min_size=30, max_size=30))
def test_the_summary_does_not_depend_on_the_order_of_the_repeats(samples: list[float]) -> None:
    assert summarise(samples, 1) == summarise(sorted(samples), 1)


def test_equal_repeats_have_no_spread() -> None:
    assert summarise([2.0] * 30, 1).spread == 0


def test_work_is_warmed_up_and_repeated_until_a_repeat_is_long_enough() -> None:
    calls = []
    timing = measure([lambda: calls.append(1)], CPU, repeats=5)[0]
    assert timing.repeats == 5
    assert timing.calls_per_repeat > 100  # an append takes far less than a repeat
    assert len(calls) > 5 * timing.calls_per_repeat


def test_twice_the_sleep_is_twice_the_time() -> None:
    short = measure([lambda: time.sleep(0.004)], CPU, repeats=10)[0].median_ms
    long = measure([lambda: time.sleep(0.008)], CPU, repeats=10)[0].median_ms
    assert long / short == pytest.approx(2, rel=0.25)


def test_works_measured_in_turn_alternate() -> None:
    order: list[str] = []
    a, b = measure([lambda: order.append("a"), lambda: order.append("b")], CPU, repeats=3)
    runs = [(letter, len(list(run))) for letter, run in itertools.groupby(order)]
    assert runs[-6:] == [("a", a.calls_per_repeat), ("b", b.calls_per_repeat)] * 3
    first, second = measure([lambda: time.sleep(0.002), lambda: time.sleep(0.006)], CPU, repeats=5)
    assert second.ms > 2 * first.ms


@pytest.mark.parametrize("samples", [[0.0, 1.0], [-1.0, 1.0], [1.0, float("inf")], [1.0, float("nan")]])
def test_a_time_that_cannot_be_is_a_fault(samples: list[float]) -> None:
    with pytest.raises(EvidenceError, match="must be positive and finite"):
        summarise(samples, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_asynchronous_work_is_timed_to_its_end() -> None:
    a = torch.randn(4096, 4096, device="cuda")
    small = measure([lambda: a[:256] @ a], torch.device("cuda", 0))[0].ms
    large = measure([lambda: a @ a], torch.device("cuda", 0))[0].ms
    assert large > 4 * small
