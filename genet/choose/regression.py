"""The regression step (GENet paper, section 4.2): pseudo-gradients of the accuracy per super-block and block type.

The paper solves g1 (d - d_i) + g2 (c - c_i) = A - A* by least squares for each super-block i and block type T. Short
fine-tunes break that form: they cost every trial some accuracy, and without an intercept this cost is taken for a slope,
while a change of type alone is predicted to change nothing. So each (i, T) has an intercept a_T here, counted against
the intercept of the MasterNet's own type, in which the cost of fine-tuning cancels; widths count by their logarithm, and
slopes are shrunk by ridge regression, as strongly as leaving out one trial at a time says over all groups together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from genet.errors import EvidenceError
from genet.files import Record
from genet.spec.network import BlockType, SuperBlock
from genet.trials.results import TrialResult

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)  # per (block of depth)^2 and (doubling of width)^2


class PseudoGradient(Record):
    """Change of accuracy in one super-block and block type, and what it was learnt from."""

    index: int
    block_type: BlockType
    intercept: float  # at the MasterNet's depth and width, against the MasterNet
    per_block: float  # of depth
    per_doubling: float  # of width
    trials: int
    residual: float  # root mean square of what the fit leaves

    def change(self, superblock: SuperBlock, own: SuperBlock) -> float:
        """Predicted change for a super-block of this block type, the cost of fine-tuning included."""
        deeper, doublings = _moves(superblock, own)
        return self.intercept + self.per_block * deeper + self.per_doubling * doublings


class Regression(Record):
    """Predicts the accuracy of any network of the space from the MasterNet's."""

    masternet: tuple[SuperBlock, ...]
    accuracy: float  # the MasterNet's, on the NAS validation images
    penalty: float
    left_out_error: float | None  # root mean square error on trials left out one at a time; None where no group has two
    gradients: tuple[PseudoGradient, ...]
    fine_tuning: dict[int, float]  # super-block -> what fine-tuning changed in the MasterNet itself, by its control trial

    def gain(self, index: int, superblock: SuperBlock) -> float | None:
        """Predicted change of accuracy from putting `superblock` at `index`; None for a block type without trials."""
        own = self.masternet[index]
        if superblock == own:
            return 0.0
        found = self._gradient(index, superblock.block_type)
        if found is None:
            return None
        reference = self._gradient(index, own.block_type)
        return found.change(superblock, own) - (reference.intercept if reference else self.fine_tuning.get(index, 0.0))

    def _gradient(self, index: int, block_type: BlockType) -> PseudoGradient | None:
        return next((g for g in self.gradients if g.index == index and g.block_type == block_type), None)


class _Group(NamedTuple):
    """The trials of one super-block and block type as arrays: moves (n, 2) and changes of accuracy (n,)."""

    moves: np.ndarray
    changes: np.ndarray


def fit(masternet: tuple[SuperBlock, ...], accuracy: float, results: Iterable[TrialResult]) -> Regression:
    """Fit all pseudo-gradients. Failed trials are left out, and joint ones, which only audit; EvidenceError where none is left.

    A control trial is one more of the MasterNet's own type, at its own depth and width.
    """
    collected: dict[tuple[int, BlockType], list[TrialResult]] = {}
    results = list(results)
    for result in results:
        if result.accuracy is not None and not result.also:
            collected.setdefault((result.index, result.superblock.block_type), []).append(result)
    for key in [key for key, found in collected.items() if all(each.control for each in found)]:
        del collected[key]  # a control alone says nothing about changes of its type
    if not collected:
        raise EvidenceError("the regression must have at least one finished trial, and has none; `genet distill RUN` runs them")
    groups = {
        key: _group(collected[key], masternet[key[0]], accuracy)
        for key in sorted(collected, key=lambda key: (key[0], str(key[1])))
    }
    errors = {penalty: _left_out_error(groups.values(), penalty) for penalty in PENALTIES}
    penalty = min(PENALTIES, key=lambda penalty: errors[penalty] or 0.0)
    return Regression(
        masternet=masternet,
        accuracy=accuracy,
        penalty=penalty,
        left_out_error=errors[penalty],
        gradients=tuple(_fit_group(*key, group, penalty) for key, group in groups.items()),
        fine_tuning={r.index: r.accuracy - accuracy for r in results if r.control and r.accuracy is not None},
    )


def _moves(superblock: SuperBlock, own: SuperBlock) -> tuple[float, float]:
    """Blocks of depth added, and doublings of the width."""
    return float(superblock.depth - own.depth), float(np.log2(superblock.width / own.width))


def _group(results: list[TrialResult], own: SuperBlock, accuracy: float) -> _Group:
    moves = np.array([_moves(result.superblock, own) for result in results])
    return _Group(moves, np.array([(result.accuracy or 0.0) - accuracy for result in results]))


def _left_out_error(groups: Iterable[_Group], penalty: float) -> float | None:
    """Root mean square error over all groups of at least two trials, each trial predicted from the others."""
    errors = [
        group.changes - cross_val_predict(Ridge(penalty), group.moves, group.changes, cv=LeaveOneOut())
        for group in groups
        if len(group.changes) > 1
    ]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2))) if errors else None


def _fit_group(index: int, block_type: BlockType, group: _Group, penalty: float) -> PseudoGradient:
    model = Ridge(penalty).fit(group.moves, group.changes)
    left = group.changes - model.predict(group.moves)
    return PseudoGradient(
        index=index,
        block_type=block_type,
        intercept=float(model.intercept_),
        per_block=float(model.coef_[0]),
        per_doubling=float(model.coef_[1]),
        trials=len(group.changes),
        residual=float(np.sqrt(np.mean(left**2))),
    )
