"""The staircase: where a sweep's edges are, and which widths stand at them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from genet.errors import EvidenceError
from genet.latency.staircase.staircase import Staircase, analyse, tail_effect_candidates
from genet.latency.staircase.sweep import Sweep

WIDTHS = tuple(range(8, 520, 8))
DATA = Path(__file__).parents[4] / "shared/data/v100_tensorrt_fp16_conv.csv.gz"


def sweep(ms: list[float] | np.ndarray, noise: float = 0.0, widths: tuple[int, ...] = WIDTHS) -> Sweep:
    draw = np.random.default_rng(0).standard_normal(len(widths))
    return Sweep(widths=widths, ms=tuple((np.array(ms) * (1 + noise * draw)).tolist()))


def stairs(tread: int = 64, slope: float = 0.0) -> np.ndarray:
    """Equation 3 of the tail-effect paper: latency counts full waves of `tread` channels."""
    return np.array([1 + math.ceil(width / tread) + slope * width for width in WIDTHS])


def test_the_edges_of_a_perfect_staircase_are_its_treads_ends() -> None:
    found = analyse(sweep(stairs()))
    assert found.pattern == "stairs"
    assert found.edges == tuple(range(64, 512, 64))
    assert found.candidates == (*found.edges, 512)
    assert [(tread.first, tread.last) for tread in found.treads[:2]] == [(8, 64), (72, 128)]
    assert [tread.ms for tread in found.treads[:2]] == pytest.approx([2, 3])


@given(st.lists(st.tuples(st.integers(3, 12), st.floats(0.05, 0.6)), min_size=2, max_size=8))
def test_any_flat_staircase_without_noise_is_found_exactly(parts: list[tuple[int, float]]) -> None:
    lengths = [length for length, _ in parts]
    levels = np.cumprod([1 + step for _, step in parts])
    widths = tuple(range(16, 16 + 8 * sum(lengths), 8))
    found = analyse(Sweep(widths=widths, ms=tuple(np.repeat(levels, lengths).tolist()), sigma=(0.001,) * len(widths)))
    ends = tuple(widths[stop - 1] for stop in itertools.accumulate(lengths))
    assert found.edges == ends[:-1]
    assert found.candidates == ends == tail_effect_candidates(found)


def test_memory_traffic_on_top_of_the_treads_moves_no_edge() -> None:
    assert analyse(sweep(stairs(slope=0.01), noise=0.01)).edges == tuple(range(64, 512, 64))


def test_one_slope_under_all_treads_is_fitted_closer_than_the_noise() -> None:
    noisy = sweep(1 + 0.02 * np.array(WIDTHS), noise=0.01)
    found = analyse(Sweep(widths=WIDTHS, ms=noisy.ms, sigma=(0.01,) * len(WIDTHS)))
    assert len(found.treads) == 1
    assert found.fitted_ms == pytest.approx(1 + 0.02 * np.array(WIDTHS), rel=0.01)


def test_the_paper_s_utilization_grows_along_a_tread_and_throughput_is_macs_over_time() -> None:
    found = analyse(sweep(stairs()), macs=[1000 * width for width in WIDTHS])
    assert found.utilization[:8] == pytest.approx([width / 64 for width in WIDTHS[:8]])
    assert found.throughput is not None
    assert found.throughput[7] == pytest.approx(64_000 / 0.002)
    assert analyse(sweep(stairs())).throughput is None


def test_macs_that_are_not_one_per_width_are_a_fault() -> None:
    with pytest.raises(EvidenceError, match=r"one number for each of 64 widths \(got 1\)"):
        analyse(sweep(stairs()), macs=[1])


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_depthwise_rises_without_edges_and_offers_multiples_of_8(noise: float) -> None:
    widths = tuple(range(36, 1000, 4))
    found = analyse(sweep(1 + 0.01 * np.array(widths), noise, widths))
    assert found.pattern == "slope"
    assert found.edges == ()
    assert set(range(40, 1000, 8)) <= set(found.candidates) <= {*range(40, 1000, 8), widths[-1]}


def test_a_slope_without_multiples_of_8_offers_every_width() -> None:
    widths = tuple(range(30, 500, 40))
    assert analyse(
        sweep([float(width) for width in widths if width % 8], 0, tuple(w for w in widths if w % 8))
    ).candidates == tuple(width for width in widths if width % 8)


def test_where_width_is_free_only_the_widest_is_worth_having() -> None:
    found = analyse(sweep(np.full(len(WIDTHS), 3.0), noise=0.005))
    assert (found.pattern, found.edges, found.candidates) == ("flat", (), (512,))


def test_a_long_rise_before_a_tread_keeps_many_candidates() -> None:
    found = analyse(sweep(np.array([width / 100 if width <= 256 else 6.0 for width in WIDTHS]) + 1))
    assert len(found.candidates) > 15
    assert max(b / a for a, b in itertools.pairwise(found.candidates) if b <= 256 and a >= 64) < 1.2


def test_a_step_down_is_a_break_but_no_edge_and_its_widths_are_dropped() -> None:
    found = analyse(sweep(np.repeat([1.0, 2.0, 1.5, 3.0], 16)))
    assert found.edges == (128, 384)
    assert [tread.last for tread in found.treads] == [128, 256, 384, 512]
    assert found.candidates == (128, 384, 512)


def test_an_edge_of_an_uneven_sweep_is_the_measured_width_before_the_step() -> None:
    found = analyse(Sweep(widths=(32, 64, 72, 128, 192, 200, 256), ms=(1.0, 1.0, 1.5, 1.5, 1.5, 2.0, 2.0)))
    assert found.edges == (64, 192)


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30))
def test_every_dropped_width_has_a_wider_one_that_costs_no_more_than_eps(latencies: list[float]) -> None:
    found = analyse(sweep(latencies, 0, WIDTHS[: len(latencies)]))
    fitted = dict(zip(found.widths, found.fitted_ms, strict=True))
    assert found.candidates[-1] == found.widths[-1]
    for width in set(found.widths) - set(found.candidates):
        assert any(fitted[wider] <= fitted[width] * (1 + found.eps) for wider in found.candidates if wider > width)


def test_given_sigmas_set_the_noise_and_noisier_sweeps_a_larger_eps() -> None:
    quiet, loud = (
        analyse(Sweep(widths=WIDTHS, ms=tuple(stairs().tolist()), sigma=(sigma,) * len(WIDTHS))) for sigma in (0.001, 0.03)
    )
    assert (quiet.noise, quiet.eps) == (0.002, 0.02)
    assert loud.noise == pytest.approx(0.03)
    assert loud.eps > 0.03


def test_noise_is_read_from_the_roughness_of_an_even_sweep() -> None:
    assert analyse(sweep(stairs(128), noise=0.01)).noise == pytest.approx(0.01, rel=0.5)


def test_a_staircase_offers_only_widths_that_it_has(tmp_path: Path) -> None:
    found = analyse(sweep(stairs()))
    found.save(tmp_path / "staircase.json")
    assert Staircase.load(tmp_path / "staircase.json") == found
    with pytest.raises(ValidationError, match="must be among its widths"):
        Staircase(**{**found.model_dump(), "candidates": (9,)})


@pytest.mark.skipif(not DATA.exists(), reason="the table of V100 latencies is not beside the repository")
def test_on_a_real_v100_the_last_stage_has_treads() -> None:
    """Batch 64, 512 channels in, 8 pixels, 3x3: doubling 128 channels to 256 is nearly free, doubling 256 is not."""
    import csv
    import gzip

    curve = {}
    with gzip.open(DATA, "rt") as file:
        for row in csv.DictReader(file):
            place = [row[name] for name in ("batch", "in_channels", "in_size", "kernel", "stride", "add_fused")]
            if row["conv"] != "Depthwise" and place == ["64", "512", "8", "3", "1", "0"]:
                curve[int(row["out_channels"])] = float(row["latency_ms"])
    widths = tuple(sorted(curve))
    found = analyse(Sweep(widths=widths, ms=tuple(curve[width] for width in widths)))
    assert 128 not in found.candidates
    assert {256, 512} <= set(found.candidates)
