"""Latency over batch, resolution or width, for one thing or for several side by side (GENet paper, figures 2 and 3)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from genet.errors import EvidenceError, MeasurementError, SpecError
from genet.latency.workload import Workload, read_workload, with_width
from genet.progress import UNSEEN, Tracker
from genet.storage import Record

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter
    from genet.latency.timing.stopwatch import Timing

VARIABLES = ("batch", "size", "width")


class Curve(Record):
    """Latency of one thing over a variable, in milliseconds per batch; None if it did not fit into memory.

    `spread` is the interquartile range of the repeats over their median; there is none in files of an earlier version.
    `parameters` counts the weights of its convolutions and linear layers at each value, so that things can be compared at equal
    capacity too.
    """

    name: str
    values: tuple[int, ...]
    ms: tuple[float | None, ...]
    spread: tuple[float | None, ...] = ()
    parameters: tuple[int, ...]


class Curves(Record):
    """Curves over the same values, and the device they were taken on."""

    variable: str
    device: str
    estimate: bool
    batch: int | None  # None if the batch varies
    curves: tuple[Curve, ...]


def read_sweep_option(text: str) -> tuple[str, tuple[int, ...]]:
    """Return `batch=1..128` (doubling), `width=32..512:8`, `size=7,14,28`; SpecError for other or empty text."""
    variable, _, values = text.partition("=")
    if variable not in VARIABLES:
        raise SpecError([f"--sweep must be over {', '.join(VARIABLES)}, as in batch=1..128 (got {text!r})"])
    return variable, read_range(values, f"--sweep {variable}", doubling=variable == "batch")


def read_range(text: str, option: str, doubling: bool = False, step: int = 8) -> tuple[int, ...]:
    """Return `a..b` or `a..b:step` or `a,b,c`, ascending and positive; SpecError if it is empty or of another form."""
    found = re.fullmatch(r"(\d+)\.\.(\d+)(?::(\d+))?", text)
    if found:
        low, high = int(found[1]), int(found[2])
        if doubling and not found[3] and low > 0:
            values = [low << power for power in range(high.bit_length() + 1) if low << power <= high]
        else:
            values = list(range(low, high + 1, int(found[3] or step))) if found[3] != "0" else []
    elif re.fullmatch(r"\d+(,\d+)*", text):
        values = sorted(set(map(int, text.split(","))))
    else:
        raise SpecError([f"{option} must look like 32..512:8 or 32,64,96 (got {text!r})"])
    if not values or min(values) < 1:
        raise SpecError([f"{option} must be a range of whole numbers from 1 on that is not empty (got {text!r}); try 32..512:8"])
    return tuple(values)


def measure_curves(
    names: Sequence[str],
    variable: str,
    values: Sequence[int],
    meter_at: Callable[[int | None], Meter],
    size: int | None,
    tracker: Tracker = UNSEEN,
) -> Curves:
    """Time everything at every value, values in random order, and at each value all things in turn.

    `meter_at` gives the meter for a batch, or for the usual one. EvidenceError if nothing fits at any value.
    """
    found: dict[tuple[str, int], Timing | None] = {}
    parameters: dict[tuple[str, int], int] = {}
    for value in random.Random(0).sample(list(values), len(values)):
        parts = {name: _part(name, variable, value, size) for name in names}
        meter = meter_at(value if variable == "batch" else None)
        for name, timing in zip(parts, _times(list(parts.values()), meter), strict=True):
            found[name, value] = timing
            parameters[name, value] = sum(op.weights for op in parts[name].ops() if op.macs)
        tracker.advance()
    if not any(found.values()):
        raise EvidenceError(
            f"{', '.join(names)}: got no {variable} that fits into memory, expected at least one; take smaller ones"
        )
    setting = meter_at(None).setting
    return Curves(
        variable=variable,
        device=setting.device.name,
        estimate=setting.estimate,
        batch=None if variable == "batch" else setting.batch,
        curves=tuple(
            Curve(
                name=name,
                values=tuple(values),
                ms=tuple(timing and timing.ms for timing in timings),
                spread=tuple(timing and timing.spread for timing in timings),
                parameters=tuple(parameters[name, value] for value in values),
            )
            for name, timings in ((name, [found[name, value] for value in values]) for name in names)
        ),
    )


def _part(name: str, variable: str, value: int, size: int | None) -> Workload:
    if variable == "width":
        return read_workload(with_width(name, value), size)
    return read_workload(name, value if variable == "size" else size)


def _times(workloads: Sequence[Workload], meter: Meter) -> Iterable[Timing | None]:
    """Time all in turn; if they do not fit together, each by itself, with None for workloads that do not fit at all."""
    try:
        return meter.prepare(workloads)()
    except MeasurementError:
        return [_alone(workload, meter) for workload in workloads]


def _alone(workload: Workload, meter: Meter) -> Timing | None:
    try:
        return meter.prepare([workload])()[0]
    except MeasurementError:
        return None
