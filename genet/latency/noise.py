"""Noise of timings: how far repeats may spread before they tell nothing, how steady they are at best, and errors by them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable

from genet.latency.table import BlockRow

TOO_NOISY = 0.25  # a timing that spreads wider was disturbed by other work: it is taken again, and tells nothing if it stays so
NOISE_FLOOR = 0.002  # a GPU's clock is not steadier than this, however well the repeats agree


def with_interval(ms: float | None, half: float | None = None) -> str:
    """Return milliseconds with half of their interval, n/a if they were not measured.

    Of a wide interval it is only the upper end, as the lower one tells nothing.
    """
    if ms is None:
        return "n/a"
    if not half:
        return f"{ms:.4f}"
    return f"at most {ms + half:.4f}" if half > TOO_NOISY * ms else f"{ms:.4f} ± {half:.4f}"


def noise_warning(spread: float) -> str:
    """Return a warning of latencies that spread so far, as a share; empty if they tell enough."""
    if spread <= TOO_NOISY:
        return ""
    return (
        f"other work disturbs this machine: timings of one network spread by {spread:.0%}, so take these latencies with care, or "
        "run again with --new-run when it is quiet"
    )


def sentinel_noise(rows: Iterable[BlockRow]) -> float:
    """Return the sentinel's noise from the drifts of these rows alone, so that rows measured later do not change it.

    A drift is the mean of two readings, and neighbours share one: their difference has 0.71 of one reading's deviation.
    """
    drifts = list(dict.fromkeys(row.drift for row in rows))
    changes = [abs(math.log(after / before)) for before, after in itertools.pairwise(drifts)]
    return 1.48 * statistics.median(changes) / 0.71 if len(changes) > 1 else 0.0


def timing_error(spread: float) -> float:
    """Return the relative standard error of the trimmed mean of 30 repeats with an interquartile range of `spread` medians."""
    return 0.74 * spread / math.sqrt(30)
