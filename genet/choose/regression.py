"""The regression step (GENet paper, section 4.2): pseudo-gradients of the accuracy per super-block and block type.

For each super-block i and block type T the least squares solution of g1 (d - d_i) + g2 (c - c_i) = A - A*.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.linear_model import LinearRegression

from genet.errors import EvidenceError
from genet.files import Record
from genet.spec.network import BlockType, Network, SuperBlock
from genet.trials.plan import TrialResult


class PseudoGradient(Record):
    """Change of accuracy per block of depth and per channel of width, with what it was learnt from."""

    index: int
    block_type: BlockType
    per_block: float
    per_channel: float
    trials: int
    residual: float  # root mean square of what the fit leaves, in accuracy


class Regression(Record):
    """Predicts the accuracy of any network of the space from the MasterNet's."""

    masternet: tuple[SuperBlock, ...]
    accuracy: float  # the MasterNet's, on the NAS validation images
    gradients: tuple[PseudoGradient, ...]

    def gain(self, index: int, superblock: SuperBlock) -> float:
        """Predicted change of accuracy from putting `superblock` at `index`; EvidenceError for a block type without trials."""
        own = self.masternet[index]
        if superblock == own:
            return 0.0
        for gradient in self.gradients:
            if gradient.index == index and gradient.block_type == superblock.block_type:
                deeper, wider = superblock.depth - own.depth, superblock.width - own.width
                return gradient.per_block * deeper + gradient.per_channel * wider
        raise EvidenceError(
            f"super-block {index + 1} must have trials of {superblock.block_type}, and has none; `genet distill RUN` runs them"
        )

    def predict(self, network: Network) -> float:
        """Predicted NAS validation accuracy of a network: the MasterNet's plus the gains of its super-blocks."""
        return self.accuracy + sum(map(self.gain, range(len(self.masternet)), network.superblocks))


def fit(masternet: tuple[SuperBlock, ...], accuracy: float, results: Iterable[TrialResult]) -> Regression:
    """Fit all pseudo-gradients. Failed trials are left out; EvidenceError where none succeeded."""
    groups: dict[tuple[int, BlockType], list[TrialResult]] = {}
    for result in results:
        if result.accuracy is not None:
            groups.setdefault((result.index, result.superblock.block_type), []).append(result)
    if not groups:
        raise EvidenceError("the regression must have at least one finished trial, and has none; `genet distill RUN` runs them")
    gradients = [
        _fit_group(index, block_type, masternet[index], accuracy, groups[index, block_type])
        for index, block_type in sorted(groups, key=lambda key: (key[0], str(key[1])))
    ]
    return Regression(masternet=masternet, accuracy=accuracy, gradients=tuple(gradients))


def _fit_group(index: int, block_type: BlockType, own: SuperBlock, accuracy: float, results: list[TrialResult]) -> PseudoGradient:
    moves = np.array([[r.superblock.depth - own.depth, r.superblock.width - own.width] for r in results], float)
    changes = np.array([(r.accuracy or 0.0) - accuracy for r in results])
    model = LinearRegression(fit_intercept=False).fit(moves, changes)
    left = changes - model.predict(moves)
    return PseudoGradient(
        index=index,
        block_type=block_type,
        per_block=float(model.coef_[0]),
        per_channel=float(model.coef_[1]),
        trials=len(results),
        residual=float(np.sqrt(np.mean(left**2))),
    )
