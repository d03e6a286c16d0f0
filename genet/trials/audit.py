"""Do effects add up? The regression assumes so; joint trials, of two perturbations at once, can tell."""

from __future__ import annotations

import math
from collections.abc import Iterable

from genet.storage import Record
from genet.trials.plan import Change
from genet.trials.results import TrialResult


class Additivity(Record):
    """Over all joint trials whose parts were tried too; changes of accuracy against the controls, root mean square."""

    joint_trials: int
    interaction: float  # of what a joint change differs by from the sum of its parts
    effect: float  # of the sums


def additivity(results: Iterable[TrialResult]) -> Additivity | None:
    """Hold joint trials against their parts; None where none can be."""
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
        joint_trials=len(pairs),
        interaction=math.sqrt(sum((joint - total) ** 2 for joint, total in pairs) / len(pairs)),
        effect=math.sqrt(sum(total**2 for _, total in pairs) / len(pairs)),
    )
