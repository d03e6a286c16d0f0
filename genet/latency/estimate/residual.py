"""The errors of the analytic model on one device, learned from a few hundred timed layers or blocks.

The model gives the shape, an ensemble of trees the correction: log(measured / estimated) over logarithmic features.
Far from anything measured the correction is that of the nearest rows, never an extrapolated slope.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genet.errors import EvidenceError
from genet.latency.ops import Op

FEWEST = 5
TREES = 300


@dataclass(frozen=True, slots=True)
class TimedKernels:
    """One layer or block that was timed: its kernels, the batch, and milliseconds per batch measured and estimated."""

    ops: tuple[Op, ...]
    batch: int
    measured_ms: float
    estimated_ms: float


class LearnedCorrection:
    """A correction learnt from timed rows. EvidenceError for too few rows, or times that are not above 0."""

    def __init__(self, rows: Sequence[TimedKernels]) -> None:
        if len(rows) < FEWEST:
            raise EvidenceError(f"a residual needs at least {FEWEST} timed rows, got {len(rows)}; time some more layers")
        wrong = [row for row in rows if not (0 < row.measured_ms < math.inf and 0 < row.estimated_ms < math.inf)]
        if wrong:
            raise EvidenceError(f"a residual needs milliseconds above 0, got {wrong[0].measured_ms}; time that layer again")
        from sklearn.ensemble import ExtraTreesRegressor  # a second to import, and only calibration needs it

        logs = np.log([row.measured_ms / row.estimated_ms for row in rows])
        places = np.array([features(row.ops, row.batch) for row in rows])
        self._trees = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=0).fit(places, logs)

    def factors(self, asked: Sequence[tuple[tuple[Op, ...], int]]) -> tuple[float, ...]:
        """Return the expected ratio of measured over estimated time, for each pair of kernels and batch."""
        if not asked:
            return ()
        logs = self._trees.predict(np.array([features(ops, batch) for ops, batch in asked]))
        return tuple(float(factor) for factor in np.exp(logs))


def features(ops: tuple[Op, ...], batch: int) -> tuple[float, ...]:
    """Return octaves of the largest product's M, N and K, its kernel (twice, for kernels choose the algorithm) and how many
    values it reads per position and channel (its stride), of values moved in all, and whether it is grouped or depthwise.
    """
    main = max(ops, key=lambda op: op.macs)
    area = main.kernel[0] * main.kernel[1]
    moved = sum(op.bytes(batch, 1) for op in ops)
    per_position = main.read / max(1, main.rows * main.in_width)
    sizes = (batch * main.rows, main.width, main.in_width // main.groups * area, area, per_position, moved)
    return (*(math.log2(max(size, 2**-8)) for size in sizes), float(main.groups > 1), float(main.depthwise))
