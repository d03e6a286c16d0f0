"""Workloads timed in turn with a reference, round by round, until their ratio is known well enough.

The same network against itself, the A/A test, tells the smallest difference that a machine can resolve.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genet.latency.table import Rounds
from genet.latency.workload import Workload
from genet.storage import Record

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter

ROUND_REPEATS = 10
ROUNDS = 3  # at least, for a whole network: 30 repeats in all
MOST_ROUNDS = 12
SLOW_TO_BUILD = ("compile", "tensorrt")  # the others are built anew for every round, since the placement of memory matters too
PAIRS = 12  # of an A/A test


@dataclass(frozen=True)
class StopRule:
    """A rule that says when rounds are enough: if they are `known` well, from `least` on; after `most` in any case."""

    known: Callable[[Rounds], bool] = lambda rounds: True
    least: int = ROUNDS
    most: float = math.inf

    def __call__(self, rounds: Rounds) -> bool:
        """Return whether no further round is needed."""
        return len(rounds.ms) >= self.most or (len(rounds.ms) >= self.least and self.known(rounds))

    def at(self, meter: Meter) -> StopRule:
        """Return the rule for a meter: one round of an estimate tells all."""
        return StopRule(most=1) if meter.setting.estimate else self


def measure_ratio(workloads: Sequence[Workload], meter: Meter, stop: StopRule, earlier: Rounds | None = None) -> Rounds:
    """Time a workload in turn with a reference, if there is one, until the rule says stop.

    Earlier rounds count, but no more of them than it takes: the answer does not depend on later measurements.
    MeasurementError if they cannot be timed.
    """
    return next(filter(stop, measure_rounds(workloads, meter, earlier)))


def measure_rounds(workloads: Sequence[Workload], meter: Meter, earlier: Rounds | None = None) -> Iterator[Rounds]:
    """Yield the first round, then the first two, and so on: of the earlier ones, then of new ones, as many as requested.

    Workloads are built anew for each round unless that is slow.
    """
    if earlier:
        yield from map(earlier.first, range(1, len(earlier.ms) + 1))
    ms, reference_ms = (earlier.ms, earlier.reference_ms) if earlier else ((), ())
    timer = None
    while True:
        if timer is None or meter.setting.runtime not in SLOW_TO_BUILD:
            timer = None  # two sets of weights and images at a time would not fit if one barely does
            timer = meter.prepare(workloads)
        timings = timer(ROUND_REPEATS)
        ms, reference_ms = (*ms, timings[0].ms), (*reference_ms, timings[-1].ms)
        yield Rounds(ms=ms, reference_ms=reference_ms, spread=max(timing.spread for timing in timings))


class Repeatability(Record):
    """Relative differences that 95 of 100 pairs of equal networks stay below.

    `in_turn`: both timed a repeat of each in turn, as networks are compared; `apart`: each timed by itself, built anew, as
    the rows of a table are. `ms` is per batch.
    """

    ms: float
    in_turn: float
    apart: float
    pairs: int


def repeatability(workload: Workload, meter: Meter) -> Repeatability:
    """Time a workload against itself, `PAIRS` times in turn and as often apart."""
    together = []
    for _ in range(PAIRS):
        one, other = meter.prepare([workload, workload])()
        together.append(abs(math.log(one.ms / other.ms)))
    singles = [meter.prepare([workload])()[0].ms for _ in range(PAIRS)]
    apart = [abs(math.log(one / other)) for one, other in itertools.combinations(singles, 2)]
    return Repeatability(ms=statistics.median(singles), in_turn=_bound(together), apart=_bound(apart), pairs=PAIRS)


def _bound(differences: list[float]) -> float:
    """Return the difference that most pairs stay below: 1.96 standard deviations of differences around zero."""
    return 1.96 * math.sqrt(statistics.fmean(difference**2 for difference in differences))
