"""One clock for CPU and CUDA: warm-up, 30 repeats, the mean without the highest and lowest tenth (GENet paper, section 3.2).

CUDA work is asynchronous, so GPU repeats are timed by events on the stream; a CPU repeat by `perf_counter`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from genet.errors import EvidenceError
from genet.files import Record

REPEATS = 30
TRIM = 0.1  # of the repeats, at each end
WARM_UP_S = 0.02
REPEAT_MS = 1.0  # a repeat runs the work as often as this takes, so that the timer's own grain is far below it


class Timing(Record):
    """Trimmed mean and median of a call, in milliseconds; `spread` is the interquartile range over the median."""

    ms: float
    median_ms: float
    spread: float
    repeats: int
    calls_per_repeat: int


def measure(work: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> Timing:
    """Time `work`, warmed up; EvidenceError where the clock returns no positive finite time."""
    repeat_ms = _cuda_repeat if device.type == "cuda" else _cpu_repeat
    calls = _warm_up(work, repeat_ms)
    samples = sorted(repeat_ms(work, calls) / calls for _ in range(repeats))
    if not 0 < samples[0] <= samples[-1] < float("inf"):
        raise EvidenceError(f"a timing must be positive and finite, got {samples[0]} to {samples[-1]} ms")
    return summarise(samples, calls)


def summarise(samples_ms: list[float], calls_per_repeat: int) -> Timing:
    """The paper's trimmed mean over the repeats, with the median and the spread kept beside it."""
    samples = sorted(samples_ms)
    cut = int(len(samples) * TRIM)
    median = statistics.median(samples)
    low, _, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else (median, median, median)
    return Timing(
        ms=statistics.fmean(samples[cut : len(samples) - cut]),
        median_ms=median,
        spread=(high - low) / median,
        repeats=len(samples),
        calls_per_repeat=calls_per_repeat,
    )


def _warm_up(work: Callable[[], object], repeat_ms: Callable[[Callable[[], object], int], float]) -> int:
    """Run until caches, clocks and autotuning settle; returns the calls that fill one repeat."""
    repeat_ms(work, 2)
    end = time.perf_counter() + WARM_UP_S
    fastest = repeat_ms(work, 1)
    while time.perf_counter() < end:
        fastest = min(fastest, repeat_ms(work, 1))
    return max(1, round(REPEAT_MS / max(fastest, 1e-3)))


def _cpu_repeat(work: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) * 1e3


def _cuda_repeat(work: Callable[[], object], calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))
