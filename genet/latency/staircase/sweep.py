"""One sweep: latency over the width of one layer or block; its reader for files, and the choice of widths to measure.

A device works in tiles of 32, 64 or 128 channels, so its latency steps up right after a round width (tail-effect paper,
section 3.3). A sweep that looks at round widths first, and right behind them, finds the steps with few measurements.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from genet.errors import SpecError
from genet.latency.noise import NOISE_FLOOR
from genet.storage import Record, read_bytes

COLUMNS = ("width", "latency_ms")
SIGMA = "sigma"
TOLERANCE = 0.03  # rises below this share of the latency are ignored
SIGMAS = 3.5  # and so are those within noise: 2.5 standard errors of a difference
SHORT = 40  # a grid of fewer widths is measured whole
FEWEST = 8  # measurements that any sweep may take, however short its grid
PATIENCE = 8  # one call spends an eighth of the remaining measurements
COARSE = 12  # about one in so many widths is measured first

_Array = NDArray[np.float64]


class Sweep(Record):
    """Latency at several widths of one layer or block, on one device.

    `ms` is per batch. `sigma` is the standard error of each latency relative to it, None if unknown.
    """

    widths: tuple[int, ...]
    ms: tuple[float, ...]
    sigma: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        if len(self.widths) < 2:
            raise ValueError(f"a sweep needs at least 2 widths, got {len(self.widths)}; measure more of them")
        if len(self.ms) != len(self.widths) or len(self.sigma or self.ms) != len(self.widths):
            raise ValueError("a sweep must have one latency per width, and one sigma per width or none at all")
        if self.widths[0] < 1 or any(b <= a for a, b in zip(self.widths, self.widths[1:], strict=False)):
            raise ValueError(f"the widths of a sweep must be positive and ascend (got {self.widths})")
        if min(self.ms) <= 0 or min(self.sigma or (0.0,)) < 0:
            raise ValueError("the latencies of a sweep must be above 0 ms, and its sigmas not negative")
        return self


def read_sweep(path: Path | str) -> Sweep:
    """Read a sweep from a CSV file with the header `width,latency_ms` or `width,latency_ms,sigma`.

    `sigma` is the standard error of `latency_ms`, in milliseconds too. Other columns are ignored. SpecError with
    every fault of the file, one `file:line:` each; StorageError if the file cannot be read.
    """
    path = Path(path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError([f"{path}: got bytes that are not UTF-8, expected a CSV file in UTF-8; export it as CSV"]) from None
    faults: list[str] = []
    rows = list(_rows(path, text, faults))
    faults += _order_faults(path, rows)
    if faults:
        raise SpecError(sorted(faults, key=_line_of))
    widths, ms, sigma = zip(*[(width, latency, error) for _, width, latency, error in rows], strict=True)
    relative = None if None in sigma else tuple(error / latency for error, latency in zip(sigma, ms, strict=True))
    return Sweep(widths=widths, ms=ms, sigma=relative)


_Row = tuple[int, int | None, float | None, float | None]  # line, width, latency, sigma; None where at fault or not given


def _rows(path: Path, text: str, faults: list[str]) -> Iterator[_Row]:
    """Yield the rows that are not blank; their faults go to `faults`."""
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    header = [name.strip() for name in next((row for row in reader if any(map(str.strip, row))), [])]
    if not header:
        faults.append(f"{path}:1: must not be empty; the first line is {','.join(COLUMNS)}[,{SIGMA}]")
        return
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        rule = f"must have the columns {' and '.join(COLUMNS)}"
        faults.append(f"{path}:{reader.line_num}: {rule} (got {','.join(header)}); name the column {' and '.join(missing)}")
        return
    count = 0
    for cells in reader:
        if not any(map(str.strip, cells)):
            continue
        count += 1
        line, row = reader.line_num, dict(zip(header, map(str.strip, cells), strict=False))
        where = f"{path}:{line}: "
        width = _number(where, row, "width", faults)
        latency = _number(where, row, "latency_ms", faults)
        sigma = _number(where, row, SIGMA, faults) if SIGMA in header else None
        yield line, None if width is None else int(width), latency, sigma
    if count < 2:
        faults.append(f"{path}:{reader.line_num}: must have at least 2 rows below the header (got {count}); measure more widths")


_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _number(where: str, row: Mapping[str, str], column: str, faults: list[str]) -> float | None:
    """Return one cell; None and a fault if it breaks its column's rule."""
    cell = row.get(column, "")
    got = f"(got {cell[:40]})"
    if not cell:
        faults.append(f"{where}{column}: must be given; fill the cell or drop the row")
    elif column == "width":
        if re.fullmatch(r"\+?\d{1,9}", cell, re.ASCII) and int(cell) > 0:
            return int(cell)
        faults.append(f"{where}width: must be a positive whole number below 10^9 {got}; give the number of channels")
    elif not _PLAIN.fullmatch(cell):
        faults.append(f"{where}{column}: must be a finite number {got}; measure this width again or drop the row")
    else:
        value = float(cell)
        if math.isfinite(value) and (value > 0 or (value == 0 and column == SIGMA)):
            return value
        rule = "must be a finite number, 0 or above" if column == SIGMA else "must be a finite number above 0 ms"
        faults.append(f"{where}{column}: {rule} {got}; measure this width again or drop the row")
    return None


def _order_faults(path: Path, rows: Sequence[_Row]) -> Iterator[str]:
    """Yield faults for widths that appear twice, or below a wider one."""
    seen: dict[int, int] = {}
    widest = 0
    for line, width, _, _ in rows:
        if width is None:
            continue
        if width in seen:
            yield f"{path}:{line}: width: must appear once (got {width}, on line {seen[width]} too); keep one, or their median"
        elif width < widest:
            yield f"{path}:{line}: width: must ascend (got {width} below {widest}); sort the rows by width"
        seen.setdefault(width, line)
        widest = max(widest, width)


def _line_of(fault: str) -> int:
    found = re.search(r":(\d+): ", fault)
    return int(found[1]) if found else 0


def next_widths(grid: Sequence[int], measured: Mapping[int, float], sigma: float) -> tuple[int, ...]:
    """Return the widths of `grid` to measure next; empty when every edge is located or a third of the grid is spent.

    `grid` ascends; `measured` maps widths to ms, `sigma` is their relative standard error. All earlier decisions follow from
    `measured`, so a sweep that was stopped continues. A short grid may spend 8. Each call asks for a few of the
    largest rises, so that the first edges found guide the search for the others.
    """
    if not grid:
        return ()
    known = [(index, measured[width]) for index, width in enumerate(grid) if width in measured]
    left = max(FEWEST, len(grid) // 3) - len(known)
    first = [width for width in _first_look(grid) if width not in measured]
    if first or left <= 0:
        return tuple(first[: max(left, 0)])
    if len(known) < 2:
        return ()
    rising = _rising(grid, known, max(sigma, NOISE_FLOOR))
    stride = _stride(grid, [grid[a] for _, a, b in rising if b == a + 1])
    wide = sorted((interval for interval in rising if interval[2] > interval[1] + 1), reverse=True)
    if not wide:  # equal steps may have looked like a slope: the remaining measurements go into the widest rises
        pairs = itertools.pairwise(known)
        wide = sorted(
            ((b - a, a, b) for (a, low), (b, high) in pairs if b > a + 1 and high > (1 + TOLERANCE) * low), reverse=True
        )
    return tuple(sorted(grid[_split(grid, a, b, stride)] for _, a, b in wide[: math.ceil(left / PATIENCE)]))


def _first_look(grid: Sequence[int]) -> list[int]:
    """Return both ends, the roundest widths, and the width right behind each of them, which shows an edge at a round width."""
    allowed = max(1, len(grid) // COARSE)
    step = 1
    while sum(width % step == 0 for width in grid[1:-1]) > allowed:
        step *= 2
    ends = {0, len(grid) - 1}
    rounds = {index for index, width in enumerate(grid[:-1]) if width % step == 0}
    return [grid[index] for index in sorted(ends | rounds | {index + 1 for index in rounds})]


def _rising(grid: Sequence[int], known: Sequence[tuple[int, float]], sigma: float) -> list[tuple[float, int, int]]:
    """Return the intervals between measured widths that hold a step: (relative rise beyond the common slope, index, index)."""
    ms = np.array([latency for _, latency in known])
    lengths = np.diff([grid[index] for index, _ in known])
    rises = np.diff(ms) / ms[:-1]
    slope = _common_slope(rises, lengths / ms[:-1], math.sqrt(2) * sigma)
    beyond = rises - slope * lengths / ms[:-1]
    indices = [index for index, _ in known]
    return [
        (float(rise), a, b)
        for rise, (a, b) in zip(beyond, itertools.pairwise(indices), strict=True)
        if rise > max(TOLERANCE, SIGMAS * sigma)
    ]


def _common_slope(rises: _Array, lengths: _Array, error: float) -> float:
    """Return the ms per channel within a tread: that of the flattest interval, and of all that are equal to it within noise.

    `rises` and `lengths` are relative to the latency, which makes `error` the same for all. An interval with a step in it
    is steeper than that; short ones are noisy and say little, hence the two standard errors.
    """
    slopes, errors = rises / lengths, error / lengths
    flat = slopes - 2 * errors <= np.min(slopes + 2 * errors)
    return max(0.0, float(rises[flat] @ lengths[flat] / (lengths[flat] @ lengths[flat])))


def _stride(grid: Sequence[int], edges: Sequence[int]) -> int:
    """Return the largest multiple of the grid's step that divides two thirds of the edges found; 1 while there are too few.

    If blocks are filters, the edges are multiples of the number of processors, which need not be round (figure 5).
    """
    step = math.gcd(*grid)
    for stride in range(max(edges, default=0) // step * step, step, -step):
        if sum(edge % stride == 0 for edge in edges) >= max(2, 2 / 3 * len(edges)):
            return stride
    return 1


def _split(grid: Sequence[int], a: int, b: int, stride: int) -> int:
    """Return the width to measure inside the rising interval (a, b): behind `a` if that is a likelier edge than all between."""
    likeliest = max(range(a + 1, b), key=lambda index: (_likely(grid[index], stride), -abs(2 * index - a - b)))
    return a + 1 if _likely(grid[a], stride) > _likely(grid[likeliest], stride) else likeliest


def _likely(width: int, stride: int) -> tuple[bool, int]:
    """Return how likely an edge is: first on the stride of those found, then by the largest power of two that divides it."""
    return width % stride == 0, width & -width
