"""Fits the regression to trials (GENet paper, section 4.2).

The paper solves g1 (d - d_i) + g2 (c - c_i) = A - A* by least squares for each super-block i and block type T: `paper`.
Short fine-tunes break that form. They cost every trial some accuracy, which without an intercept is taken for a slope; a
change of type alone is predicted to change nothing; and nine noisy trials decide two slopes by themselves. `auto` is one
ridge regression over all trials instead. What all trials of a super-block lose by fine-tuning is a term of its own, a block
type has its own effect, and slopes are shrunk, first towards those that the whole network shares and with them towards
plain width, depth and parameters, as strongly as trials left out one at a time say.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau
from sklearn.linear_model import LinearRegression, Ridge

from genet.choose.regression import Model, Quality, Regression
from genet.choose.terms import SHARED, Scale, Terms, fine_tuning_terms
from genet.errors import EvidenceError
from genet.spec.network import BlockType, Network
from genet.trials.results import TrialResult

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SCALES: tuple[Scale, ...] = ("log2", "linear")
LOGARITHMS: tuple[Scale, Scale] = ("log2", "log2")
PAYS = 0.95  # of the error with logarithms: another form must come below it
TRUSTED, TYPED = 10.0, 0.5  # how much freer than a super-block's slopes what all share is, and what a type in its place has
LEAST = 1e-4  # accuracy that shared terms bring at least: where trials tell nothing, more is still better


def fit(masternet: Network, accuracy: float, results: Iterable[TrialResult], images: int, model: Model = "auto") -> Regression:
    """Fit a regression to trials of the MasterNet, whose accuracy and theirs were taken on so many images.

    Failed trials are left out, and joint ones, which only audit; EvidenceError where no perturbation is left.
    """
    good = [result for result in results if result.accuracy is not None and not result.also]
    perturbed = [result for result in good if not result.control]
    if not perturbed:
        raise EvidenceError("the regression must have at least one finished trial, and has none; `genet distill RUN` runs them")
    lacking = {result.index for result in good} - {result.index for result in perturbed}
    good = [result for result in good if result.index not in lacking]  # a control alone says nothing about changes
    changes = np.array([(result.accuracy or 0.0) - accuracy for result in good])
    evidence = _Evidence(masternet, accuracy, tuple(good), changes, images)
    fits = {"auto": _auto(evidence), "paper": _paper(evidence)}
    errors = {name: error for name, found in fits.items() if (error := _error(found, evidence)) is not None}
    apart = np.array([not result.control for result in good])
    errors["no change"] = _rms(changes[apart])
    return _described(fits[model], evidence, errors)


@dataclass(frozen=True)
class _Evidence:
    """Finished trials of super-blocks that have perturbations among them, and what they changed."""

    masternet: Network
    accuracy: float
    results: tuple[TrialResult, ...]
    changes: np.ndarray  # (trials,)
    images: int


@dataclass(frozen=True)
class _Fit:
    """A regression without its description, what it predicts for every trial from the others, and each trial's leverage."""

    regression: Regression
    left_out: np.ndarray  # (trials,), not a number where there are no others
    leverage: np.ndarray


@dataclass(frozen=True)
class _Solution:
    """A ridge regression of given terms; `left_out` are predictions of each row from the others."""

    coefficients: dict[str, float]
    covariance: np.ndarray
    noise: float
    left_out: np.ndarray
    leverage: np.ndarray


def _auto(evidence: _Evidence) -> _Fit:
    """The form and the penalty that predict left-out trials best, then refitted with every trial weighted by its noise."""
    scales = itertools.product(SCALES, SCALES)
    rows = {(width, depth): _rows(evidence, Terms(evidence.masternet, width, depth)) for width, depth in scales}
    even = np.ones(len(evidence.changes))

    def error(form: tuple[Scale, Scale], penalty: float) -> float:
        return _rms(_solve(rows[form], evidence.changes, even, penalty).left_out - evidence.changes)

    best = {form: min(PENALTIES, key=lambda penalty: error(form, penalty)) for form in rows}
    form = min(rows, key=lambda form: error(form, best[form]) * (1 if form == LOGARITHMS else 1 / PAYS))
    penalty = best[form]
    weights = _weights(evidence, error(form, penalty))
    found = _solve(rows[form], evidence.changes, weights, penalty)
    return _Fit(_regression("auto", evidence, form, penalty, found), found.left_out, found.leverage)


def _rows(evidence: _Evidence, terms: Terms) -> list[dict[str, float]]:
    """The terms of every trial; slopes per type only where a super-block has several."""
    types: dict[int, set[BlockType]] = {}
    for result in evidence.results:
        types.setdefault(result.index, set()).add(result.superblock.block_type)
    rows = []
    for result in evidence.results:
        place, kind = str(result.index + 1), str(result.superblock.block_type)
        row = terms(result.index, result.superblock)
        if len(types[result.index]) == 1:
            row = {name: value for name, value in row.items() if not name.startswith(f"{place} {kind} ")}
        rows.append(row | fine_tuning_terms(result.index))
    return rows


def _trust(name: str) -> float:
    """How large a coefficient may be before it counts as large; the columns of the ridge are scaled by it."""
    if name in SHARED or name == "fine-tuning":
        return TRUSTED
    typed_slope = name.endswith((" width", " depth")) and len(name.split()) > 2
    return TYPED if typed_slope else 1.0


def _solve(rows: Sequence[dict[str, float]], changes: np.ndarray, weights: np.ndarray, penalty: float) -> _Solution:
    """The ridge regression, in which shared terms bring at least `LEAST`: one that would bring less is held there."""
    names = sorted({name for row in rows for name, value in row.items() if value})
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    held = np.zeros(len(names), bool)
    while True:
        free = [place for place in range(len(names)) if not held[place]]
        offset = LEAST * matrix[:, held].sum(1)
        scaled = matrix[:, free] * [_trust(names[place]) for place in free]
        ridge = Ridge(penalty, fit_intercept=False).fit(scaled, changes - offset, weights)
        coefficients = np.full(len(names), LEAST)
        coefficients[free] = ridge.coef_ * [_trust(names[place]) for place in free]
        below = np.array([name in SHARED for name in names]) & (coefficients < LEAST)
        if not below.any():
            break
        held |= below
    inverse = np.linalg.inv(scaled.T @ (weights[:, None] * scaled) + penalty * np.eye(len(free)))
    leverage = np.einsum("ij,jk,ik,i->i", scaled, inverse, scaled, weights)
    missed = (changes - matrix @ coefficients) / (1 - leverage)  # by each trial's prediction from the others
    variance = float(weights @ missed**2) / len(changes)  # the form was chosen by the same trials, so residuals would flatter
    trust = np.array([_trust(names[place]) for place in free])
    covariance = np.zeros((len(names), len(names)))
    covariance[np.ix_(free, free)] = variance * inverse * np.outer(trust, trust)
    named = dict(zip(names, coefficients.tolist(), strict=True))
    return _Solution(named, covariance, math.sqrt(variance), changes - missed, leverage)


def _weights(evidence: _Evidence, error: float) -> np.ndarray:
    """One over each trial's variance: of counting right answers among so many images, and of what is left beside."""
    right = np.array([result.accuracy or 0.0 for result in evidence.results]) * evidence.images
    shares = (right + 1) / (evidence.images + 2)  # all right of so many is no proof of never wrong
    counting = shares * (1 - shares) / evidence.images
    variance = counting + max(error**2 - float(counting.mean()), 0.1 * error**2, 1e-12)
    return np.asarray(variance.mean() / variance)


def _paper(evidence: _Evidence) -> _Fit:
    """Two slopes for every super-block and block type, by least squares, linear and without an intercept."""
    terms = Terms(evidence.masternet, "linear", "linear")
    groups: dict[str, list[int]] = {}
    for row, result in enumerate(evidence.results):
        if not result.control:
            groups.setdefault(f"{result.index + 1} {result.superblock.block_type}", []).append(row)
    size = len(evidence.results)
    coefficients: dict[str, float] = {}
    covariance = np.zeros((2 * len(groups), 2 * len(groups)))
    left_out, leverage = np.full(size, np.nan), np.zeros(size)
    squares, freedom = 0.0, 0
    for number, (group, members) in enumerate(groups.items()):
        names = [f"{group} depth", f"{group} width"]
        found = [terms(result.index, result.superblock) for result in map(evidence.results.__getitem__, members)]
        moves, changes = np.array([[row[name] for name in names] for row in found]), evidence.changes[members]
        slopes, spread, leverage[members] = _least_squares(moves, changes)
        coefficients |= dict(zip(names, slopes.tolist(), strict=True))
        squares += float(((changes - moves @ slopes) ** 2).sum())
        freedom += len(members) - 2
        covariance[2 * number : 2 * number + 2, 2 * number : 2 * number + 2] = spread
        for place, row_number in enumerate(members if len(members) > 1 else ()):
            others = np.arange(len(members)) != place
            left_out[row_number] = moves[place] @ _least_squares(moves[others], changes[others])[0]
    solution = _Solution(coefficients, covariance, math.sqrt(squares / max(1, freedom)), left_out, leverage)
    return _Fit(_regression("paper", evidence, ("linear", "linear"), 0.0, solution), left_out, leverage)


def _least_squares(moves: np.ndarray, changes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slopes, the smallest of all that fit where there are many; their covariance; every row's leverage."""
    slopes = LinearRegression(fit_intercept=False).fit(moves, changes).coef_
    inverse = np.linalg.pinv(moves.T @ moves)
    residuals = changes - moves @ slopes
    variance = float(residuals @ residuals) / max(1, len(changes) - np.linalg.matrix_rank(moves))
    return slopes, variance * inverse, np.einsum("ij,jk,ik->i", moves, inverse, moves)


def _regression(model: Model, evidence: _Evidence, form: tuple[Scale, Scale], penalty: float, found: _Solution) -> Regression:
    controls = {
        result.index: float(change) for result, change in zip(evidence.results, evidence.changes, strict=True) if result.control
    }
    return Regression(
        model=model,
        masternet=str(evidence.masternet),
        accuracy=evidence.accuracy,
        width=form[0],
        depth=form[1],
        penalty=penalty,
        coefficients=found.coefficients,
        covariance=tuple(map(tuple, found.covariance.tolist())),
        noise=found.noise,
        fine_tuning=controls,
        gradients=(),
        quality=(),
        left_out_errors={},
    )


def _described(fitted: _Fit, evidence: _Evidence, errors: dict[str, float]) -> Regression:
    """The regression with its pseudo-gradients and how good they are."""
    regression = fitted.regression
    tried: dict[tuple[int, BlockType], list[TrialResult]] = {}
    for result in evidence.results:
        tried.setdefault((result.index, result.superblock.block_type), []).append(result)
    gradients = tuple(
        regression.gradient(index, kind, tuple(r.superblock for r in found if not r.control))
        for (index, kind), found in sorted(tried.items(), key=lambda item: (item[0][0], str(item[0][1])))
        if any(not result.control for result in found)
    )
    quality = tuple(_quality(index, fitted, evidence) for index in sorted({index for index, _ in tried}))
    described = {"gradients": gradients, "quality": tuple(filter(None, quality)), "left_out_errors": errors}
    return regression.model_copy(update=described)


def _quality(index: int, fitted: _Fit, evidence: _Evidence) -> Quality | None:
    mine = np.array([r.index == index for r in evidence.results]) & np.isfinite(fitted.left_out)
    if not mine.any():
        return None
    predicted, found = fitted.left_out[mine], evidence.changes[mine]
    tau = float(kendalltau(predicted, found).statistic) if len(found) > 2 else math.nan
    return Quality(
        index=index,
        trials=len(found),
        left_out_error=_rms(predicted - found),
        kendall=None if math.isnan(tau) else tau,
        leverage=float(fitted.leverage[mine].max()),
    )


def _error(fitted: _Fit, evidence: _Evidence) -> float | None:
    """Over the perturbations alone, so that models with and without controls can be compared."""
    apart = np.array([not result.control for result in evidence.results]) & np.isfinite(fitted.left_out)
    return _rms((fitted.left_out - evidence.changes)[apart]) if apart.any() else None


def _rms(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2)))
