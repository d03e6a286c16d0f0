"""The regression (GENet paper, section 4.2) as the other steps use it: its predictions and their errors.

`genet.search.fit` makes it from trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from genet.arch.network import BlockType, Network, SuperBlock
from genet.config.recipe import RegressionModel
from genet.search.features import FRESH, Features, Scale, attainable, fine_tuning_features
from genet.storage import Derived, Record

SLIGHT = 1e-5  # change of an accuracy; what smaller ones shrink by is found of one as large, for rounding


class Estimate(Record):
    """A value and its standard error."""

    value: float
    error: float


class PseudoGradient(Record):
    """The effects that the trials of one super-block and block type show. Changes are of accuracy (0 to 1)."""

    index: int
    block_type: BlockType
    at_own_size: Estimate  # of the type, at the MasterNet's depth and width, against the MasterNet
    per_block: Estimate  # the next block of depth
    per_doubling: Estimate  # of the width
    trials: int  # finished perturbations
    unknowns: int  # two slopes, and the effect of the type if it is not the MasterNet's own
    depths: tuple[int, int]  # the least and the most tried, the MasterNet's own included if it is of the type
    widths: tuple[int, int]

    @property
    def missing(self) -> int:
        """Number of further trials needed for an effect and slopes of its own; until then others lend them."""
        return max(0, self.unknowns - self.trials)


class Quality(Record):
    """The quality of predictions for the trials of one super-block, each left out once."""

    index: int
    trials: int  # with its control
    left_out_error: float  # root mean square
    kendall: float | None  # between predicted and found; None for fewer than three
    leverage: float  # largest share that a trial has in its own prediction


class Regression(Derived):
    """A predictor of the accuracy of any network of the space from the MasterNet's."""

    model: RegressionModel
    masternet: str  # its notation
    accuracy: float  # the MasterNet's, on the NAS validation images
    width: Scale
    depth: Scale
    penalty: float  # of the ridge; 0 without shrinkage
    coefficients: dict[str, float]  # of the terms, in points of 1
    covariance: tuple[tuple[float, ...], ...]  # of the coefficients, in their order
    noise: float  # standard deviation of a trial around its prediction
    gradients: tuple[PseudoGradient, ...]
    quality: tuple[Quality, ...]
    left_out_errors: dict[str, float]  # of this and other models: root mean square, on trials left out one at a time

    @property
    def left_out_error(self) -> float | None:
        """Root mean square error on trials left out one at a time."""
        return self.left_out_errors.get(self.model)

    @property
    def lacking(self) -> str:
        """The super-blocks and types that have too few finished trials, and how many they have, in words; empty if none."""
        lacking = [gradient for gradient in self.gradients if gradient.missing]
        trials = ", ".join(f"{each.index + 1} as {each.block_type} ({each.trials} of {each.unknowns})" for each in lacking)
        several = len({each.index for each in lacking}) > 1
        return f"super-block{'s' if several else ''} {trials}" if lacking else ""

    def gain(self, index: int, superblock: SuperBlock) -> float | None:
        """Return the predicted change of accuracy from putting `superblock` at `index`; None for a block type without trials."""
        if superblock == self._own[index]:
            return 0.0
        if (index, superblock.block_type) not in self._tried:
            return None
        return sum(self.coefficients.get(name, 0.0) * value for name, value in self._terms(index, superblock).items())

    def accuracy_of(self, network: Network) -> float:
        """Return the predicted accuracy, block types without trials included."""
        return float(attainable(np.array(self._sum(network)), self.accuracy))

    def difference(self, one: Network, other: Network) -> Estimate:
        """Return the predicted accuracy of a network over another's; near 100 % its error shrinks as the difference does."""
        summed, start = self._estimate(self.vector(one) - self.vector(other)), self._sum(other)
        change = summed.value if abs(summed.value) > SLIGHT else SLIGHT
        before, after = attainable(np.array([start, start + change]), self.accuracy).tolist()
        share = (after - before) / change
        return Estimate(value=share * summed.value, error=share * summed.error)

    def _sum(self, network: Network) -> float:
        return self.accuracy + self._estimate(self.vector(network)).value

    def vector(self, network: Network) -> np.ndarray:
        """Return the sum of a network's terms, which the coefficients multiply; (coefficients,)."""
        return sum(
            (self._vector(self._terms(*each)) for each in enumerate(network.superblocks)), np.zeros(len(self.coefficients))
        )

    def trial_vector(self, index: int, superblock: SuperBlock) -> np.ndarray:
        """Return the same for the accuracy of a trial, which fine-tuning has changed too."""
        fresh = superblock.type != self._own[index].type and f"{index + 1} {FRESH}" in self.coefficients
        return self._vector(self._terms(index, superblock) | fine_tuning_features(index, fresh))

    def beyond_trials(self, network: Network) -> tuple[int, ...]:
        """Return the super-blocks (from 0) of depths or widths outside those tried of their block type."""
        found = {(g.index, g.block_type): g for g in self.gradients}
        beyond = []
        for index, superblock in enumerate(network.superblocks):
            tried = found.get((index, superblock.block_type))
            inside = tried and _inside(superblock.depth, tried.depths) and _inside(superblock.width, tried.widths)
            if superblock != self._own[index] and not inside:
                beyond.append(index)
        return tuple(beyond)

    def gradient(self, index: int, block_type: BlockType, tried: tuple[SuperBlock, ...]) -> PseudoGradient:
        """Return the pseudo-gradient of a block type in its place; `tried` are the perturbations that finished."""
        own = self._own[index]
        known = (*tried, own) if own.block_type == block_type else tried
        depths, widths = [each.depth for each in known], [each.width for each in known]

        def sized(depth: int, width: int) -> np.ndarray:
            kind = {"type": block_type.kind, "kernel": block_type.kernel, "ratio": block_type.ratio}
            made = own.model_copy(update={**kind, "depth": depth, "width": width})  # not to be built
            return self._vector(self._terms(index, made))

        here = sized(own.depth, own.width)
        return PseudoGradient(
            index=index,
            block_type=block_type,
            at_own_size=self._estimate(here),
            per_block=self._estimate(sized(own.depth + 1, own.width) - here),
            per_doubling=self._estimate(sized(own.depth, 2 * own.width) - here),
            trials=len(tried),
            unknowns=2 if self.model == "paper" or block_type == own.block_type else 3,
            depths=(min(depths), max(depths)),
            widths=(min(widths), max(widths)),
        )

    def _vector(self, terms: Mapping[str, float]) -> np.ndarray:
        return np.array([terms.get(name, 0.0) for name in self.coefficients])

    def _estimate(self, x: np.ndarray) -> Estimate:
        coefficients, covariance = self._fitted
        return Estimate(value=float(x @ coefficients), error=math.sqrt(max(0.0, float(x @ covariance @ x))))

    @cached_property
    def _fitted(self) -> tuple[np.ndarray, np.ndarray]:
        size = len(self.coefficients)
        return np.array(list(self.coefficients.values())), np.array(self.covariance).reshape(size, size)

    @cached_property
    def _terms(self) -> Features:
        return Features(Network.parse(self.masternet), self.width, self.depth)

    @cached_property
    def _own(self) -> tuple[SuperBlock, ...]:
        return Network.parse(self.masternet).superblocks

    @cached_property
    def _tried(self) -> frozenset[tuple[int, BlockType]]:
        return frozenset((gradient.index, gradient.block_type) for gradient in self.gradients)


def _inside(value: int, interval: tuple[int, int]) -> bool:
    return interval[0] <= value <= interval[1]
