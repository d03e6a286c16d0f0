"""The staircase: which widths stand at its edges."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from genet.errors import EvidenceError
from genet.latency.staircase import Staircase, edges, noise, wave_aligned

WIDTHS = tuple(range(8, 264, 8))


def stairs(width: int, tread: int = 64) -> float:
    """The tail effect's own shape: latency counts full waves of `tread` channels."""
    return float(math.ceil(width / tread))


def test_the_edges_of_a_perfect_staircase_are_its_treads_ends() -> None:
    ms = tuple(map(stairs, WIDTHS))
    assert wave_aligned(WIDTHS, ms, eps=0.02) == (64, 128, 192, 256)
    assert edges(WIDTHS, ms, eps=0.02) == (64, 128, 192)


def test_noise_below_eps_moves_no_edge() -> None:
    draw = random.Random(0)
    ms = tuple(stairs(width) * draw.uniform(0.99, 1.01) for width in WIDTHS)
    assert wave_aligned(WIDTHS, ms, eps=0.03) == (64, 128, 192, 256)


def test_where_latency_grows_with_every_channel_every_width_stays() -> None:
    assert wave_aligned(WIDTHS, tuple(map(float, WIDTHS)), eps=0.02) == WIDTHS


def test_a_width_slower_than_a_wider_one_is_dropped() -> None:
    assert wave_aligned((8, 16, 24), (4.0, 1.0, 2.0), eps=0.02) == (16, 24)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20), st.floats(0, 0.2))
def test_every_dropped_width_has_a_wider_one_that_costs_no_more_than_eps(latencies: list[float], eps: float) -> None:
    widths = tuple(range(8, 8 + 8 * len(latencies), 8))
    cost = dict(zip(widths, latencies, strict=True))
    kept = wave_aligned(widths, tuple(latencies), eps)
    assert max(widths) in kept
    for width in widths:
        cheap_and_wider = [other for other in widths if other > width and cost[other] <= cost[width] * (1 + eps)]
        assert (width in kept) == (not cheap_and_wider)


def test_the_candidates_are_the_papers_peaks_of_utilization_times_throughput() -> None:
    """Within a step U x T rises up to the edge (tail-effect paper, figure 6), so its local peaks are the edges."""
    ms = [stairs(width) for width in WIDTHS]
    score = [(width / (64 * t)) * (width / t) for width, t in zip(WIDTHS, ms, strict=True)]
    peaks = [
        width
        for i, width in enumerate(WIDTHS)
        if (i + 1 == len(WIDTHS) or score[i] > score[i + 1]) and (i == 0 or score[i] > score[i - 1])
    ]
    assert wave_aligned(WIDTHS, tuple(ms), eps=0.02) == tuple(peaks)


def test_noisier_repeats_widen_eps() -> None:
    assert noise([0.5, 0.5, 0.5]) > noise([0.2, 0.2, 0.2]) > noise([0.0])


def test_noise_of_nothing_is_a_fault() -> None:
    with pytest.raises(EvidenceError, match="at least one measured spread"):
        noise([])


def test_a_staircase_keeps_only_widths_that_it_has() -> None:
    with pytest.raises(ValidationError, match="keep only widths it has"):
        Staircase(superblock=0, resolution=32, block_type="XX k3", widths=(8,), ms=(1.0,), eps=0.1, edges=(), kept=(16,))
