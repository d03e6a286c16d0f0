"""Latency over batch, resolution or width: what may be asked for, and what is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from genet.config.recipe import Measure
from genet.device import read_card
from genet.errors import EvidenceError, MeasurementError, SpecError
from genet.latency.table import Setting
from genet.latency.timing.curves import measure_curves, read_range, read_sweep_option
from genet.latency.timing.meter import Meter, open_meter
from genet.latency.timing.stopwatch import Timing
from genet.latency.workload import Workload, read_workload, with_width
from genet.progress import Tracker, WorkItem

CPU = torch.device("cpu")
CARD = read_card(CPU)
BLOCK, OTHER = "XX k3 c64 @14", "BL k3 c256 r0.25 @14"


@pytest.mark.parametrize(
    ("text", "variable", "values"),
    [
        ("batch=1..128", "batch", (1, 2, 4, 8, 16, 32, 64, 128)),
        ("batch=1..100", "batch", (1, 2, 4, 8, 16, 32, 64)),
        ("batch=3..13", "batch", (3, 6, 12)),
        ("batch=4..4", "batch", (4,)),
        ("batch=8..32:8", "batch", (8, 16, 24, 32)),
        ("batch=1,64", "batch", (1, 64)),
        ("width=32..64:8", "width", (32, 40, 48, 56, 64)),
        ("width=32..64", "width", (32, 40, 48, 56, 64)),
        ("width=16..30:10", "width", (16, 26)),
        ("size=28,7,14,7", "size", (7, 14, 28)),
    ],
)
def test_a_sweep_is_a_range_or_a_list_in_ascending_order(text: str, variable: str, values: tuple[int, ...]) -> None:
    assert read_sweep_option(text) == (variable, values)


@pytest.mark.parametrize("text", ["depth=1..4", "1..128", "", "=1..4", "Batch=1..4"])
def test_only_batch_size_and_width_can_be_swept(text: str) -> None:
    with pytest.raises(SpecError, match=r"--sweep must be over batch, size, width, as in batch=1\.\.128"):
        read_sweep_option(text)


@pytest.mark.parametrize(
    "text", ["batch=", "batch=fast", "width=8..", "width=8-16", "size=7,,14", "size=-7", "size=7.5", "batch=1..8:x"]
)
def test_what_is_no_range_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(SpecError, match=r"must look like 32\.\.512:8 or 32,64,96"):
        read_sweep_option(text)


@pytest.mark.parametrize("text", ["batch=0..8", "batch=8..4", "width=64..32", "size=0,7", "width=0..16", "batch=0", "size=0..0"])
def test_empty_ranges_and_zeros_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="must be a range of whole numbers from 1 on that is not empty"):
        read_sweep_option(text)


def test_a_step_of_nought_is_refused_or_taken_as_one() -> None:
    try:
        values = read_range("8..12:0", "--widths")
    except SpecError:
        return
    assert values == (8, 9, 10, 11, 12)


def estimate_at(batch: int | None) -> Meter:
    return open_meter(Measure(device="estimate:v100", dtype="fp16", batch=batch or 16), CARD, CPU)


def test_curves_over_the_batch_are_what_the_meter_says_at_each_batch() -> None:
    ticks = Tracker(WorkItem("values", None))
    found = measure_curves([BLOCK, OTHER], "batch", (1, 8, 64), estimate_at, None, ticks)
    assert ticks.done == 3
    assert (found.variable, found.batch, found.estimate, found.device) == ("batch", None, True, "estimate:v100")
    assert [curve.name for curve in found.curves] == [BLOCK, OTHER]
    for curve in found.curves:
        assert curve.values == (1, 8, 64)
        expected = [estimate_at(batch).prepare([read_workload(curve.name)])()[0].ms for batch in (1, 8, 64)]
        assert curve.ms == tuple(expected)
        assert sorted(expected) == expected
        assert len(set(curve.parameters)) == 1


def test_curves_over_width_grow_in_parameters_too() -> None:
    found = measure_curves([BLOCK], "width", (32, 64, 128), estimate_at, 7)
    (curve,) = found.curves
    assert found.batch == 16
    parts = [read_workload(with_width(BLOCK, width), 7) for width in (32, 64, 128)]
    assert curve.parameters == tuple(2 * 9 * width**2 for width in (32, 64, 128))  # of its two convolutions
    assert curve.ms == tuple(estimate_at(None).prepare([part])()[0].ms for part in parts)


def test_curves_over_size_take_the_place_of_the_things_own() -> None:
    found = measure_curves([BLOCK], "size", (7, 56), estimate_at, None)
    (curve,) = found.curves
    assert curve.ms == tuple(estimate_at(None).prepare([read_workload(BLOCK, size)])()[0].ms for size in (7, 56))
    assert curve.parameters[0] == curve.parameters[1]


class Small:
    """A device of little memory: it holds things below `most` channels in all, and takes a microsecond for each."""

    def __init__(self, most: int) -> None:
        self.setting = Setting.of(CARD, Measure(batch=2))
        self.most = most
        self.asked: list[int] = []

    def prepare(self, parts: Sequence[Workload]) -> Callable[..., tuple[Timing, ...]]:
        self.asked.append(len(parts))
        channels = [part.image[0] for part in parts]
        if sum(channels) > self.most:
            raise MeasurementError("must fit into memory, and does not")
        timings = tuple(Timing(ms=width / 1000, median_ms=width / 1000, spread=0.0) for width in channels)
        return lambda repeats=30: timings


def test_what_does_not_fit_beside_others_is_timed_alone_and_what_never_fits_is_none() -> None:
    meter = Small(200)
    found = measure_curves([BLOCK, "Conv k3 c64 @14"], "width", (64, 128, 256), lambda _: meter, None)
    assert [curve.ms for curve in found.curves] == [(0.064, 0.128, None)] * 2
    assert sorted(meter.asked) == [1, 1, 1, 1, 2, 2, 2]
    assert (found.batch, found.estimate) == (2, False)


def test_where_nothing_fits_at_all_it_is_said() -> None:
    with pytest.raises(EvidenceError, match="got no width that fits into memory, expected at least one"):
        measure_curves([BLOCK], "width", (64, 128), lambda _: Small(1), None)


def test_a_sweep_over_widths_is_of_blocks_alone() -> None:
    with pytest.raises(SpecError, match="a sweep over widths needs a block"):
        measure_curves(["timm:resnet10t"], "width", (64,), estimate_at, None)


def test_curves_are_measured_on_this_machine() -> None:
    def here(batch: int | None) -> Meter:
        return open_meter(Measure(device="cpu", batch=batch or 2), CARD, CPU)

    found = measure_curves(["XX k3 c16 @8", "Conv k3 c16 @8"], "batch", (1, 64), here, None)
    for curve in found.curves:
        small, large = curve.ms
        assert small is not None
        assert large is not None
        assert 0 < small < large
