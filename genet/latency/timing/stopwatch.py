"""One stopwatch for CPU and CUDA: warm-up, 30 repeats, the mean without the highest and lowest tenth (GENet paper, section 3.2).

The contract: calls that are compared are timed in turn, one repeat of each after the other, so that a machine that slows
down slows all of them alike; a repeat lasts long enough for the timer; the first repeats, while caches, clocks and
autotuning settle, are not counted. CUDA work is asynchronous, so a GPU's repeats are timed by events on the stream.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from genet.errors import MeasurementError
from genet.progress import UNSEEN, Tracker
from genet.storage import Record

REPEATS = 30
TRIM = 0.1  # share of the repeats cut at each end
WARM_UP_S = {"cpu": 0.02, "cuda": 0.005}  # at least
UNSETTLED_S = {"cpu": 0.1, "cuda": 0.5}  # of warming up at most: a machine that does not settle shows in the spread
SETTLED = 0.05  # three repeats in a row that differ by less have settled
ROUNDS_APART = 5
PAUSE_S = 0.05  # longer than idle threads spin
REPEAT_MS = 0.5  # a repeat runs the work as often as this takes: a thousand times the grain of a GPU event
SHORT_MS = 0.02  # a GPU may finish a shorter work before the host launches the next ...
LAUNCH_MS = 0.01  # ... which takes the host no longer than this
CYCLES_PER_MS = 2_000_000  # rough frequency of a GPU's clock


class Timing(Record):
    """Trimmed mean and median of a call, in milliseconds; `spread` is the interquartile range over the median."""

    ms: float
    median_ms: float
    spread: float


TimedCall = Callable[[], object]


def measure(
    works: Sequence[TimedCall], device: torch.device, repeats: int = REPEATS, tracker: Tracker = UNSEEN
) -> tuple[Timing, ...]:
    """Time calls, warmed up, a repeat of each in turn; every round is counted."""
    repeat_ms = _cuda_repeat if device.type == "cuda" else _cpu_repeat
    calls = [_warm_up(work, repeat_ms, WARM_UP_S[device.type], UNSETTLED_S[device.type]) for work in works]
    rounds = []
    for _ in range(repeats):
        rounds.append([repeat_ms(work, n) / n for work, n in zip(works, calls, strict=True)])
        tracker.advance()
    return tuple(summarise(list(samples)) for samples in zip(*rounds, strict=True))


def measure_apart(
    works: Sequence[TimedCall], device: torch.device, tracker: Tracker = UNSEEN, limit_s: float = math.inf
) -> tuple[Timing | Exception, ...]:
    """Time calls of different runtimes: each warmed up and repeated by itself, in several rounds.

    The threads of one runtime spin for a while after its call, and would slow the next call if it came at once. Each call of
    each round is counted. No round begins after `limit_s` seconds, but the first: a time of one round has the spread of its
    repeats. A call that fails has its exception instead, and no further round.
    """
    timings: list[list[Timing]] = [[] for _ in works]
    faults: dict[int, Exception] = {}
    began = time.monotonic()
    for number in range(ROUNDS_APART):
        if number and time.monotonic() - began >= limit_s:
            break
        for place, work in enumerate(works):
            if place not in faults:
                time.sleep(PAUSE_S)
                try:
                    timings[place] += measure([work], device, REPEATS // ROUNDS_APART)
                except Exception as fault:  # any error of a runtime's own
                    faults[place] = fault.with_traceback(None)  # which may hold a device's memory
            tracker.advance()
    return tuple(
        faults.get(place) or (rounds[0] if len(rounds) == 1 else summarise([timing.ms for timing in rounds]))
        for place, rounds in enumerate(timings)
    )


def summarise(samples_ms: list[float]) -> Timing:
    """Return the paper's trimmed mean over the repeats, with the median and the spread kept beside it."""
    samples = sorted(samples_ms)
    if not all(0 < sample < math.inf for sample in samples):
        raise MeasurementError(f"a timing must be positive and finite, got {samples[0]} to {samples[-1]} ms")
    cut = int(len(samples) * TRIM)
    median = statistics.median(samples)
    low, _, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else (median, median, median)
    return Timing(ms=statistics.fmean(samples[cut : len(samples) - cut]), median_ms=median, spread=(high - low) / median)


def _warm_up(work: TimedCall, repeat_ms: Callable[[TimedCall, int], float], least_s: float, most_s: float) -> int:
    """Run until three repeats in a row agree, or for so long; returns the calls that fill one repeat."""
    repeat_ms(work, 2)
    start = time.perf_counter()
    seen = [repeat_ms(work, 1)]
    while (elapsed := time.perf_counter() - start) < most_s:
        last = seen[-3:]
        if elapsed >= least_s and len(last) == 3 and max(last) <= min(last) * (1 + SETTLED):
            break
        seen.append(repeat_ms(work, 1))
    return max(1, round(REPEAT_MS / max(min(seen), 1e-3)))


def _cpu_repeat(work: TimedCall, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) * 1e3


def _cuda_repeat(work: TimedCall, calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    delay_gpu(head_start_ms(calls))
    work()  # not timed: the host is then ahead of the device
    start.record()
    for _ in range(calls):
        work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def head_start_ms(calls: int) -> float:
    """Return the time that a GPU waits before a repeat of so many calls, so that all are launched by then.

    Longer works need no such wait. Whole networks that the host launches kernel by kernel are longer, and are timed including
    that cost.
    """
    return calls * LAUNCH_MS if calls > REPEAT_MS / SHORT_MS else 0.0


def delay_gpu(ms: float) -> None:
    """Queue a kernel on the current GPU that does nothing for about `ms`."""
    if ms > 0:
        torch.cuda._sleep(round(ms * CYCLES_PER_MS))
