"""The sweep: what a file may hold, and which widths are worth measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from genet.errors import SpecError, StorageError
from genet.latency.staircase.staircase import analyse
from genet.latency.staircase.sweep import Sweep, next_widths, read_sweep

GRID = tuple(range(32, 1025, 8))


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.csv"
    path.write_text(text)
    return path


def sampled(grid: tuple[int, ...], curve: dict[int, float], sigma: float) -> dict[int, float]:
    """What adaptive sampling measures; fails where it asks for a width twice."""
    measured: dict[int, float] = {}
    while asked := next_widths(grid, measured, sigma):
        assert len(set(asked)) == len(asked)
        assert set(asked) <= set(grid) - set(measured)
        measured |= {width: curve[width] for width in asked}
    return measured


@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(1e-6, 1e6)), min_size=2, max_size=9, unique_by=lambda row: row[0]))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float]]) -> None:
    rows = sorted(rows)
    path = written(tmp_path_factory.mktemp("s"), "width,latency_ms\n" + "".join(f"{w},{t!r}\n" for w, t in rows))
    assert read_sweep(path) == Sweep(widths=tuple(w for w, _ in rows), ms=tuple(t for _, t in rows))


def test_sigma_is_in_milliseconds_in_the_file_and_relative_in_the_sweep(tmp_path: Path) -> None:
    found = read_sweep(written(tmp_path, "\ufeffnote, sigma, latency_ms, width\nx, 0.02, 2.0, 8\n\ny, 0, 4.0, 16\n"))
    assert found == Sweep(widths=(8, 16), ms=(2.0, 4.0), sigma=(0.01, 0.0))


def test_all_faults_of_a_file_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        "width,latency_ms,sigma\n8,,0.1\n16,fast,0.1\n24,nan,0.1\n32,-1,0.1\n40,0,-1\n4.5,1,0.1\n48,1,0.1\n48,1e999,0.1\n44,1\n"
    )
    path = written(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        read_sweep(path)
    laws = {
        2: ["latency_ms: must be given"],
        3: ["latency_ms: must be a finite number (got fast)"],
        4: ["latency_ms: must be a finite number (got nan)"],
        5: ["latency_ms: must be a finite number above 0 ms (got -1)"],
        6: ["latency_ms: must be a finite number above 0 ms (got 0)", "sigma: must be a finite number, 0 or above (got -1)"],
        7: ["width: must be a positive whole number below 10^9 (got 4.5)"],
        9: ["latency_ms: must be a finite number above 0 ms (got 1e999)", "width: must appear once (got 48, on line 8 too)"],
        10: ["sigma: must be given", "width: must ascend (got 44 below 48)"],
    }
    expected = [f"{path}:{line}: {law}" for line, several in laws.items() for law in several]
    assert len(caught.value.faults) == len(expected)
    for fault, start in zip(caught.value.faults, expected, strict=True):
        assert fault.startswith(start)


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("", ":1: must not be empty"),
        ("width,ms\n8,1\n16,2\n", ":1: must have the columns width and latency_ms (got width,ms); name the column latency_ms"),
        ("width,latency_ms\n8,1\n", ":2: must have at least 2 rows below the header (got 1)"),
        ("width,latency_ms\n", ":1: must have at least 2 rows below the header (got 0)"),
    ],
)
def test_a_file_that_is_no_sweep_is_a_fault(tmp_path: Path, text: str, law: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        read_sweep(path)
    assert str(caught.value).startswith(f"{path}{law}")


def test_a_file_that_is_not_there_or_not_text_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        read_sweep(tmp_path / "none.csv")
    (tmp_path / "sweep.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="expected a CSV file in UTF-8"):
        read_sweep(tmp_path / "sweep.csv")


@pytest.mark.parametrize(
    ("widths", "ms", "law"),
    [
        ((8,), (1.0,), "at least 2"),
        ((8, 8), (1.0, 1.0), "ascend"),
        ((8, 16), (1.0,), "one latency"),
        ((8, 16), (1.0, 0.0), "above 0"),
    ],
)
def test_a_sweep_is_a_curve(widths: tuple[int, ...], ms: tuple[float, ...], law: str) -> None:
    with pytest.raises(ValidationError, match=law):
        Sweep(widths=widths, ms=ms)


@given(st.integers(24, 200), st.sampled_from([8, 16, 24]), st.integers(0, 10**6), st.floats(0, 0.05))
def test_sampling_ends_within_a_third_of_the_grid_whatever_it_meets(count: int, step: int, seed: int, sigma: float) -> None:
    grid = tuple(range(step, step * (count + 1), step))
    curve = dict(zip(grid, np.random.default_rng(seed).uniform(0.1, 10, count).tolist(), strict=True))
    assert len(sampled(grid, curve, sigma)) <= count // 3


@pytest.mark.parametrize("tile", [64, 128, 160, 256])
def test_the_edges_at_multiples_of_a_tile_are_all_located(tile: int) -> None:
    curve = {width: 1 + 0.6 * ((width - 1) // tile) + 0.002 * width for width in GRID}
    measured = sampled(GRID, curve, 0.0)
    assert set(range(tile, 1024, tile)) <= set(measured)
    widths = tuple(sorted(measured))
    found = analyse(Sweep(widths=widths, ms=tuple(measured[width] for width in widths), sigma=(0.0,) * len(widths)))
    assert found.edges == tuple(range(tile, 1024, tile))


def test_an_edge_at_a_round_width_costs_one_measurement_beside_it() -> None:
    """Between 136 and 256 the roundest width is 192; once it proves flat, only 200 is asked for."""
    curve = {width: 1.0 if width <= 192 else 2.0 for width in GRID}
    first = next_widths(GRID, {}, 0.0)
    measured = {width: curve[width] for width in first}
    assert next_widths(GRID, measured, 0.0) == (192,)
    assert next_widths(GRID, measured | {192: 1.0}, 0.0) == (200,)
    assert next_widths(GRID, measured | {192: 1.0, 200: 2.0}, 0.0) == ()


def test_a_slope_alone_is_looked_into_within_the_third_for_equal_steps_look_like_one() -> None:
    curve = {width: 1 + 0.005 * width for width in GRID}
    assert len(next_widths(GRID, {}, 0.01)) < len(sampled(GRID, curve, 0.01)) <= len(GRID) // 3


def test_wider_and_faster_ends() -> None:
    assert set(sampled(GRID, {width: 1000 / width for width in GRID}, 0.0)) == set(next_widths(GRID, {}, 0.0))
