"""From the predicted frontier to a network whose measured latency is within the budget.

A sum of blocks is a prediction. Before a network is named, the best candidates are measured whole; while all of them
break the budget the prediction is scaled by what was seen, and slower candidates are left aside.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from genet.choose.selection import Candidate
from genet.errors import EvidenceError
from genet.files import Derived, Record
from genet.latency.table import Setting
from genet.spec.recipe import Budget


class Choice(Record):
    """The answer to one budget at one resolution. Latencies are milliseconds per image.

    `within` says whether the network's measured latency is within the budget. Where it is False no network is, and
    the one named is the fastest that was measured; where it is None nothing was measured. The predicted latency is the
    sum of the network's blocks, corrected by what the MasterNet showed: its measured latency over its own sum.
    """

    budget: Budget
    budget_ms_per_image: float
    resolution: int
    network: str
    predicted_accuracy: float
    predicted_ms_per_image: float
    measured_ms_per_image: float | None
    within: bool | None


class Selection(Derived):
    """All choices of a run, in the order of budgets and resolutions, and the setting they were measured in."""

    setting: Setting
    masternet_ms_per_image: float
    choices: tuple[Choice, ...]


def best_within(
    budget_ms: float, front: Sequence[Candidate], scale: float, measure: Callable[[Candidate], float], count: int
) -> tuple[Candidate, float]:
    """The best candidate measured within the budget, and its latency; all in ms per batch.

    `scale` is the first guess of measured over predicted latency; `count` candidates are measured at a time, the best
    predicted first. Where those that should fit do not, the fastest are measured, upwards, until `count` break the
    budget. If all do, the fastest one measured is returned: its latency is above the budget.
    """
    if not front:
        raise EvidenceError("a selection must have candidates, and the frontier is empty")
    seen: dict[str, tuple[Candidate, float]] = {}

    def fits(candidate: Candidate) -> bool:
        if candidate.network not in seen:
            seen[candidate.network] = (candidate, measure(candidate))
        return seen[candidate.network][1] <= budget_ms

    waiting = sorted(front, key=lambda candidate: -candidate.predicted_accuracy)
    while promising := [candidate for candidate in waiting if candidate.predicted_ms * scale <= budget_ms][:count]:
        if [candidate for candidate in promising if fits(candidate)]:
            return _best(seen, budget_ms)
        slower = statistics.median(seen[candidate.network][1] / candidate.predicted_ms for candidate in promising)
        scale = max(scale, slower)
        waiting = [candidate for candidate in waiting if candidate not in promising]
    broken = 0
    for candidate in sorted(front, key=lambda candidate: candidate.predicted_ms):
        broken += not fits(candidate)
        if broken == count:
            break
    return _best(seen, budget_ms)


def _best(seen: Mapping[str, tuple[Candidate, float]], budget_ms: float) -> tuple[Candidate, float]:
    """The best predicted of those within the budget, or the fastest where none is."""
    fitting = [pair for pair in seen.values() if pair[1] <= budget_ms]
    if fitting:
        return max(fitting, key=lambda pair: pair[0].predicted_accuracy)
    return min(seen.values(), key=lambda pair: pair[1])


def best_predicted(budget_ms: float, front: Sequence[Candidate], scale: float) -> Candidate:
    """The best candidate whose scaled prediction is within the budget; the fastest where none is."""
    within = [candidate for candidate in front if candidate.predicted_ms * scale <= budget_ms]
    if within:
        return max(within, key=lambda candidate: candidate.predicted_accuracy)
    return min(front, key=lambda candidate: candidate.predicted_ms)
