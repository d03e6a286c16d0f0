"""A/A test: the same network timed against itself, to know the smallest difference that a machine can resolve."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING

from genet.latency.workload import Workload
from genet.storage import Record

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter

PAIRS = 12


class Repeatability(Record):
    """Relative differences that 95 of 100 pairs of equal networks stay below.

    `in_turn`: both timed a repeat of each in turn, as networks are compared; `apart`: each timed by itself, built anew, as
    the rows of a table are. `ms` is per batch.
    """

    ms: float
    in_turn: float
    apart: float
    pairs: int


def repeatability(part: Workload, meter: Meter) -> Repeatability:
    """Time a part against itself, `PAIRS` times in turn and as often apart."""
    together = []
    for _ in range(PAIRS):
        one, other = meter.prepare([part, part])()
        together.append(abs(math.log(one.ms / other.ms)))
    singles = [meter.prepare([part])()[0].ms for _ in range(PAIRS)]
    apart = [abs(math.log(one / other)) for one, other in itertools.combinations(singles, 2)]
    return Repeatability(ms=statistics.median(singles), in_turn=_bound(together), apart=_bound(apart), pairs=PAIRS)


def _bound(differences: list[float]) -> float:
    """Return the difference that most pairs stay below: 1.96 standard deviations of differences around zero."""
    return 1.96 * math.sqrt(statistics.fmean(difference**2 for difference in differences))
