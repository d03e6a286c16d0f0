"""A device's latency staircase over the width of a layer or block, and the widths at its edges.

A GPU computes in waves: until a wave is full, more channels cost nothing but their memory traffic (tail-effect paper,
section 3.3, equation 3). Latency over width is therefore fitted as flat treads on one common slope. A width inside a
tread is dominated by the tread's last width, which is as fast and has more channels; this needs no profiler.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from genet.errors import EvidenceError
from genet.latency.noise import NOISE_FLOOR
from genet.latency.staircase.sweep import Sweep
from genet.storage import Record

NOISE_UNKNOWN = 0.01  # assumed if neither the sweep nor its differences tell
STEP_FLOOR = 0.025  # a smaller step up is no edge
EPS_FLOOR = 0.02  # two latencies closer than this are never told apart
UNCLEAR = 0.2  # latencies so far apart that count as equal: few steps are higher
ERRORS = 3.0  # standard errors that make a difference
ROUND = 8  # channels that FP16 kernels read at once (16 bytes)
SETTLED = 30  # alternations of slope and breaks; a handful suffices

_Array = NDArray[np.float64]


class Tread(Record):
    """A run of widths over which latency steps neither up nor down; `ms` is the fitted latency at its last width."""

    first: int
    last: int
    ms: float


class Staircase(Record):
    """A sweep read as a staircase.

    `edges` are the widths after which latency steps up, `candidates` the wave-aligned widths. `utilization` is inferred
    from latency, not profiled: in the wave model the blocks of a launch are proportional to its width, so a width fills
    the share c / (last width of its tread) of the waves it pays for. `throughput` is in MACs per second, None without MACs.
    """

    widths: tuple[int, ...]
    ms: tuple[float, ...]
    fitted_ms: tuple[float, ...]
    noise: float  # relative standard error of one latency
    eps: float  # two latencies within a factor of 1 + eps count as equal
    pattern: Literal["stairs", "slope", "flat"]
    edges: tuple[int, ...]
    treads: tuple[Tread, ...]
    candidates: tuple[int, ...]
    utilization: tuple[float, ...]
    throughput: tuple[float, ...] | None

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        columns = (self.ms, self.fitted_ms, self.utilization, self.throughput or self.ms)
        if any(len(column) != len(self.widths) for column in columns):
            raise ValueError("a staircase must have one value per width in every column")
        if not set(self.candidates) | set(self.edges) <= set(self.widths):
            raise ValueError("the edges and candidates of a staircase must be among its widths")
        return self

    @property
    def unclear(self) -> bool:
        """Return whether noise hides what steps there may be."""
        return self.eps > UNCLEAR


def analyse(sweep: Sweep, macs: Sequence[int] | None = None) -> Staircase:
    """Fit the staircase of a sweep and choose its wave-aligned widths (tail-effect paper, sections 3.3 and 4.2).

    `macs`, one number per width, gives the throughput. EvidenceError if it does not have one per width.
    """
    if macs is not None and len(macs) != len(sweep.widths):
        raise EvidenceError(f"macs must have one number for each of {len(sweep.widths)} widths (got {len(macs)}); give them all")
    widths, ms = np.array(sweep.widths, float), np.array(sweep.ms)
    errors = _errors(sweep)
    fit = _fit(widths, ms, 1 / (errors * ms) ** 2)
    noise = float(np.median(errors))
    eps = max(EPS_FLOOR, ERRORS * noise * math.sqrt(2 / float(np.median(np.diff(fit.bounds)))))
    steps, heights = _steps(widths, fit, errors)
    edges = tuple(sweep.widths[index - 1] for index in steps[heights > STEP_FLOOR])
    pattern = _pattern(fit.ms, edges, eps)
    bounds = np.concatenate(([0], steps, [len(ms)]))
    lasts = np.repeat(widths[bounds[1:] - 1], np.diff(bounds))
    return Staircase(
        widths=sweep.widths,
        ms=sweep.ms,
        fitted_ms=tuple(fit.ms.tolist()),
        noise=noise,
        eps=eps,
        pattern=pattern,
        edges=edges,
        treads=tuple(
            Tread(first=sweep.widths[start], last=sweep.widths[stop - 1], ms=float(fit.ms[stop - 1]))
            for start, stop in itertools.pairwise(bounds)
        ),
        candidates=_candidates(sweep.widths, fit.ms, pattern, eps),
        utilization=tuple((widths / lasts).tolist()),
        throughput=None if macs is None else tuple((np.array(macs, float) / (ms / 1000)).tolist()),
    )


def tail_effect_candidates(staircase: Staircase) -> tuple[int, ...]:
    """Return each tread's width of most utilization times throughput (tail-effect paper, equation 4), and the widest.

    Without MACs, throughput is taken as width over latency: the MACs of one layer are proportional to its width.
    """
    work = staircase.throughput or tuple(w / t for w, t in zip(staircase.widths, staircase.ms, strict=True))
    score = {w: u * t for w, u, t in zip(staircase.widths, staircase.utilization, work, strict=True)}
    peaks = {max((w for w in score if t.first <= w <= t.last), key=score.__getitem__) for t in staircase.treads}
    return tuple(sorted(peaks | {staircase.widths[-1]}))


class _TreadFit(NamedTuple):
    """Treads `bounds[k]:bounds[k + 1]` (indices) on one slope (ms per channel), and the latency that they give."""

    bounds: NDArray[np.intp]
    slope: float
    ms: _Array
    cost: float


def _errors(sweep: Sweep) -> _Array:
    """Return the relative standard error of each latency, as given or from the sweep's own roughness."""
    if sweep.sigma is not None:
        return np.maximum(sweep.sigma, NOISE_FLOOR)
    return np.full(len(sweep.ms), max(NOISE_FLOOR, _roughness(sweep)))


def _roughness(sweep: Sweep) -> float:
    """Return the relative noise from the lower quartile of the second differences, which steps hardly change.

    A sweep of uneven spacing crowds around its steps, and a short one has too few differences: both tell nothing.
    """
    ms, gaps = np.array(sweep.ms), np.diff(sweep.widths)
    if len(ms) < 12 or gaps.min() != gaps.max():
        return NOISE_UNKNOWN
    bends = np.abs(ms[:-2] - 2 * ms[1:-1] + ms[2:]) / ms[1:-1] / math.sqrt(6)
    return float(np.quantile(bends, 0.25)) / 0.3186  # the lower quartile of |z| for a standard normal z


def _fit(widths: _Array, ms: _Array, weights: _Array) -> _TreadFit:
    """Return the least-cost treads on one common slope: breaks for a slope and slope for the breaks, in turn until they settle.

    The alternation can settle early, so it starts from no slope, from the median one and from half of it.
    """
    median = max(0.0, float(np.median(np.diff(ms) / np.diff(widths))))
    fits = [_settle(widths, ms, weights, start) for start in dict.fromkeys((0.0, median / 2, median))]
    return min(fits, key=lambda fit: fit.cost)


def _settle(widths: _Array, ms: _Array, weights: _Array, slope: float) -> _TreadFit:
    fit = _treads(widths, ms, weights, slope)
    for _ in range(SETTLED):
        slope = _slope(widths, ms, weights, fit.bounds)
        better = _treads(widths, ms, weights, slope)
        if better.cost >= fit.cost - 1e-9:
            break
        fit = better
    return fit


def _slope(widths: _Array, ms: _Array, weights: _Array, bounds: NDArray[np.intp]) -> float:
    """Return the common slope within given treads by weighted least squares; wider is never cheaper within a tread."""
    x, y = (column - _means(column, weights, bounds) for column in (widths, ms))
    spread = float(weights @ (x * x))
    return max(0.0, float(weights @ (x * y)) / spread) if spread > 0 else 0.0


def _treads(widths: _Array, ms: _Array, weights: _Array, slope: float) -> _TreadFit:
    """Return the treads of least cost for one slope; exact by dynamic programming over the place of the last break.

    Cost is the squared error in units of the noise, plus a price per break: a false break lowers the error by the
    largest of n chances of a squared normal, about 2 log n, so a price of 3 log n keeps false ones rare.
    """
    level = ms - slope * (widths - widths[-1])
    level = level - np.average(level, weights=weights)  # small numbers keep the sums of squares exact
    zero, one, two = (np.concatenate(([0.0], np.cumsum(weights * level**power))) for power in (0, 1, 2))
    count, price = len(ms), 3 * math.log(len(ms))
    best, last = np.zeros(count + 1), np.zeros(count + 1, int)
    for stop in range(1, count + 1):
        error = (two[stop] - two[:stop]) - (one[stop] - one[:stop]) ** 2 / (zero[stop] - zero[:stop])
        cost = best[:stop] + np.maximum(error, 0) + price
        last[stop] = int(np.argmin(cost))
        best[stop] = cost[last[stop]]
    bounds = [count]
    while bounds[-1]:
        bounds.append(int(last[bounds[-1]]))
    ends = np.array(bounds[::-1])
    fitted = _means(ms - slope * widths, weights, ends) + slope * widths
    return _TreadFit(ends, slope, fitted, float(best[count]))


def _means(values: _Array, weights: _Array, bounds: NDArray[np.intp]) -> _Array:
    """Return the weighted mean of each tread, at each of its widths."""
    means = np.add.reduceat(weights * values, bounds[:-1]) / np.add.reduceat(weights, bounds[:-1])
    return np.repeat(means, np.diff(bounds))


def _steps(widths: _Array, fit: _TreadFit, errors: _Array) -> tuple[NDArray[np.intp], _Array]:
    """Return the breaks (index of the width behind each) that exceed the floor and the noise of both sides, and their heights.

    A height is relative to the latency before the step, and is what the fit rises by beyond the common slope.
    """
    variance = 1 / np.add.reduceat(1 / errors**2, fit.bounds[:-1])
    breaks = fit.bounds[1:-1]
    before, gaps = fit.ms[breaks - 1], widths[breaks] - widths[breaks - 1]
    heights = (fit.ms[breaks] - before - fit.slope * gaps) / before
    real = np.abs(heights) > np.maximum(EPS_FLOOR, ERRORS * np.sqrt(variance[:-1] + variance[1:]))
    return breaks[real], heights[real]


def _pattern(fitted: _Array, edges: Sequence[int], eps: float) -> Literal["stairs", "slope", "flat"]:
    """Return flat if no wider width is surely slower, a slope if latency rises without an edge (depthwise), else stairs."""
    rise = float(np.max(fitted / np.minimum.accumulate(fitted))) - 1
    if rise <= eps:
        return "flat"
    return "stairs" if edges else "slope"


def _candidates(widths: Sequence[int], fitted: _Array, pattern: str, eps: float) -> tuple[int, ...]:
    """Return the wave-aligned widths, from the widest down: those that no wider one taken before matches within 1 + eps.

    "Within eps" is not transitive: compared with all wider widths, a long gentle rise would lose everything but its end.
    On a slope every multiple of 8 is worth having, unless a wider width is as fast.
    """
    if pattern == "slope":
        round_ones = [width % ROUND == 0 for width in widths]
        offered = [is_round or not any(round_ones) for is_round in round_ones]
        eps = 0.0
    else:
        offered = [True] * len(widths)
    chosen = [widths[-1]]
    fastest = float(fitted[-1])
    for width, ms, on_offer in list(zip(widths, fitted, offered, strict=True))[-2::-1]:
        if on_offer and fastest > ms * (1 + eps):
            chosen.append(width)
            fastest = min(fastest, float(ms))
    return tuple(reversed(chosen))
