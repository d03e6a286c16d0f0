"""A check that effects add up, as the regression assumes, by paired trials, of two perturbations at once."""

from __future__ import annotations

import math
from collections.abc import Iterable

from genet.storage import Record
from genet.trials.plan import Change
from genet.trials.results import TrialResult


class Additivity(Record):
    """Root mean squares over all paired trials whose parts were tried too, of changes of accuracy against the controls."""

    paired_trials: int
    interaction: float  # of the difference between the change of a pair and the sum of its parts
    effect: float  # of the sums


def additivity(results: Iterable[TrialResult]) -> Additivity | None:
    """Compare paired trials with their parts; None if none can be compared."""
    found = [(result, result.accuracy) for result in results if result.accuracy is not None]
    controls = {result.index: accuracy for result, accuracy in found if result.reference}
    single = {
        Change(index=result.index, superblock=result.superblock): accuracy - controls[result.index]
        for result, accuracy in found
        if not (result.also or result.control) and result.index in controls
    }
    pairs = []
    for result, accuracy in found:
        parts = [Change(index=result.index, superblock=result.superblock), *result.also]
        if result.also and result.index in controls and all(part in single for part in parts):
            pairs.append((accuracy - controls[result.index], sum(single[part] for part in parts)))
    if not pairs:
        return None
    return Additivity(
        paired_trials=len(pairs),
        interaction=math.sqrt(sum((change - total) ** 2 for change, total in pairs) / len(pairs)),
        effect=math.sqrt(sum(total**2 for _, total in pairs) / len(pairs)),
    )
