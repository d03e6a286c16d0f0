"""Features of a super-block for the regression: terms by name, each with a value that is 0 for the MasterNet's own.

`size` is a safe prior: more width and more depth seldom hurt. The other terms say how a super-block departs from
that (`2 width`), a block type (`DW k3 r6`), or a type in its place (`2 DW k3 r6 width`), and only trials can tell.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from genet.arch.network import Network, SuperBlock

Scale = Literal["linear", "log2"]
HALF_A_BLOCK = 0.5
LEAST_ERROR = 0.009  # of the MasterNet: if none of few images is wrong, that is chance; its prediction then moves by 0.2 points
SIZE, FINE_TUNING, FRESH = "size", "fine-tuning", "fresh weights"


def attainable(accuracy: np.ndarray, masternet: float) -> np.ndarray:
    """Return accuracies that sums of effects stand for: below 1, and in the order of the sums.

    Effects add up until half of the MasterNet's error is gone. From there on each takes the same share of the rest, down to a
    tenth of that error: plain sums would soon be beyond 100 %.
    """
    whole = max(1 - masternet, LEAST_ERROR)
    over, rest = np.maximum(accuracy - (1 - whole / 2), 0.0), 0.4 * whole
    return np.where(over > 0, 1 - whole / 10 - rest * np.exp(-over / rest), accuracy)


class Features:
    """Description of the change from the MasterNet's super-block to another.

    Widths and depths count by their logarithms or linearly; a linear width is in widths of the MasterNet's own, so that
    twice as wide is 1 either way. Size is half the logarithm of a super-block's parameters: width counts once, depth half.
    A super-block that vanished has no logarithm: there it counts as half a block deep.
    """

    def __init__(self, masternet: Network, width: Scale, depth: Scale) -> None:
        self._own, self._width, self._depth = masternet.superblocks, width, depth

    def __call__(self, index: int, superblock: SuperBlock) -> dict[str, float]:
        """Return the terms of `superblock` at `index` (from 0)."""
        own, kind = self._own[index], superblock.block_type
        deep, own_deep = (max(each.depth, HALF_A_BLOCK) for each in (superblock, own))
        wider, deeper = math.log2(superblock.width / own.width), math.log2(deep / own_deep)  # in doublings
        moves = {
            "width": wider if self._width == "log2" else superblock.width / own.width - 1,
            "depth": deeper if self._depth == "log2" else float(superblock.depth - own.depth),
        }
        terms = {SIZE: wider + deeper / 2, "depth": moves["depth"]}
        for name, value in moves.items():
            terms[f"{index + 1} {name}"] = terms[f"{index + 1} {kind} {name}"] = value
        return terms if kind == own.block_type else {**terms, str(kind): 1.0, f"{index + 1} {kind}": 1.0}


def fine_tuning_features(index: int, fresh: bool) -> dict[str, float]:
    """Return the terms of fine-tuning in a super-block's trials, controls included; one more if weights are `fresh`."""
    terms = {FINE_TUNING: 1.0, f"{index + 1} {FINE_TUNING}": 1.0}
    return terms | ({FRESH: 1.0, f"{index + 1} {FRESH}": 1.0} if fresh else {})


def prior_scale(name: str) -> float:
    """Return the usual size of a coefficient: that of size and fine-tuning is free, a type's slope in its place is not."""
    if name == SIZE or name.endswith((FINE_TUNING, FRESH)):
        return 300.0
    typed_slope = name.endswith((" width", " depth")) and len(name.split()) > 2
    return 0.5 if typed_slope else 1.0
