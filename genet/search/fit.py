"""Fitting of the regression to trials (GENet paper, section 4.2).

The paper solves g1 (d - d_i) + g2 (c - c_i) = A - A* by least squares for each super-block i and block type T: `paper`. Short
fine-tunes break that form. They cost every trial some accuracy, which without an intercept is taken for a slope; a change of type
alone is predicted to change nothing; and nine noisy trials decide two slopes by themselves. `auto` is one ridge regression over
all trials instead. The loss by fine-tuning in all trials of a super-block is a term of its own, and the loss of trials without
inherited weights is another. A block type has its own effect, and slopes are shrunk towards one that the whole network shares, of
plain size, as strongly as trials left out one at a time say; size alone is used unless more terms predict them clearly better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from genet.arch.network import BlockType, Network
from genet.config.recipe import RegressionModel
from genet.errors import EvidenceError
from genet.search.features import SIZE, Features, Scale, fine_tuning_features, prior_scale
from genet.search.regression import Quality, Regression
from genet.statistics import kendall
from genet.trials.results import TrialResult

Form = tuple[Scale, Scale]  # of widths, of depths

LOGARITHMS: Form = ("log2", "log2")
OTHERS: tuple[Form, ...] = (("log2", "linear"), ("linear", "log2"), ("linear", "linear"))
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ALONE = 1e4  # the penalty under which only size remains
PAYS = 0.9  # of the error of a plainer form: a richer one must come below it
SURE = 1.0  # the penalty that counts as knowledge at most, for standard errors
LEAST = 1e-4  # accuracy that a doubled size brings at least: if trials tell nothing, more is still better


def fit(
    masternet: Network,
    accuracy: float,
    results: Iterable[TrialResult],
    images: int,
    model: RegressionModel = "auto",
    inputs: str = "",
) -> Regression:
    """Fit a regression to trials of the MasterNet, whose accuracies and the MasterNet's were measured on so many images.

    Failed trials are left out, and joint ones, which only audit; EvidenceError if no perturbation is left.
    """
    good = [result for result in results if result.accuracy is not None and not result.also]
    perturbed = [result for result in good if not result.control]
    if not perturbed:
        raise EvidenceError("the regression needs at least one finished trial, got none; `genet distill RUN` runs them")
    lacking = {result.index for result in good} - {result.index for result in perturbed}
    good = [result for result in good if result.index not in lacking]  # a control alone says nothing about changes
    changes = np.array([(result.accuracy or 0.0) - accuracy for result in good])
    evidence = _Evidence(masternet, accuracy, tuple(good), changes, images)
    fits = {"auto": _auto(evidence), "paper": _paper(evidence)}
    left_out = {name: found.solution.left_out for name, found in fits.items()}
    left_out["size alone"] = solve(_rows(evidence, LOGARITHMS), changes, np.ones(len(changes)), ALONE).left_out
    left_out["no change"] = np.zeros(len(changes))
    return _described(fits[model], evidence, _errors(left_out, evidence), inputs)


@dataclass(frozen=True)
class _Evidence:
    """Finished trials of super-blocks with perturbations, and their changes."""

    masternet: Network
    accuracy: float
    results: tuple[TrialResult, ...]
    changes: np.ndarray  # (trials,)
    images: int


@dataclass(frozen=True)
class _Solution:
    """Coefficients of terms; for every trial its prediction from the others (nan if there is none), and its leverage."""

    coefficients: dict[str, float]
    covariance: np.ndarray
    noise: float
    left_out: np.ndarray
    leverage: np.ndarray


@dataclass(frozen=True)
class _FormFit:
    """A solution with its form."""

    model: RegressionModel
    form: Form
    penalty: float
    solution: _Solution


def _errors(left_out: dict[str, np.ndarray], evidence: _Evidence) -> dict[str, float]:
    """Return the root mean square errors over the perturbations that all models can predict from the others."""
    perturbed = np.array([not result.control for result in evidence.results])
    able = {name: values for name, values in left_out.items() if np.isfinite(values[perturbed]).any()}
    shared = perturbed & np.all([np.isfinite(values) for values in able.values()], axis=0)
    return {name: _rms((values - evidence.changes)[shared]) for name, values in able.items()}


def _auto(evidence: _Evidence) -> _FormFit:
    """Fit from the plainest form to the richest, each kept only if it pays; then every trial is weighted by its noise."""
    rows = {form: _rows(evidence, form) for form in (LOGARITHMS, *OTHERS)}
    even = np.ones(len(evidence.changes))

    def error(form: Form, penalty: float) -> float:
        return _rms(solve(rows[form], evidence.changes, even, penalty).left_out - evidence.changes)

    def best(forms: Sequence[Form]) -> tuple[Form, float]:
        return min(((form, penalty) for form in forms for penalty in PENALTIES), key=lambda choice: error(*choice))

    kept = (LOGARITHMS, ALONE)
    for richer in (best([LOGARITHMS]), best(OTHERS)):
        if error(*richer) < PAYS * error(*kept):
            kept = richer
    weights = _weights(evidence, error(*kept))
    return _FormFit("auto", *kept, solve(rows[kept[0]], evidence.changes, weights, kept[1]))


def _rows(evidence: _Evidence, form: Form) -> list[dict[str, float]]:
    """Return the terms of every trial; slopes per type only if a super-block has several."""
    terms = Features(evidence.masternet, *form)
    types: dict[int, set[BlockType]] = {}
    controlled = {result.index for result in evidence.results if result.fresh}  # elsewhere a type's effect holds it too
    for result in evidence.results:
        types.setdefault(result.index, set()).add(result.superblock.block_type)
    rows = []
    for result in evidence.results:
        place, kind = str(result.index + 1), str(result.superblock.block_type)
        row = terms(result.index, result.superblock)
        if len(types[result.index]) == 1:
            row = {name: value for name, value in row.items() if not name.startswith(f"{place} {kind} ")}
        own = evidence.masternet.superblocks[result.index]
        fresh = result.index in controlled and (result.fresh or result.superblock.type != own.type)
        rows.append(row | fine_tuning_features(result.index, fresh))
    return rows


def solve(rows: Sequence[dict[str, float]], changes: np.ndarray, weights: np.ndarray, penalty: float) -> _Solution:
    """Return the ridge regression, in which size brings at least `LEAST`: if it would bring less it is held there.

    Terms that no trial changed stay in; the covariance holds their uncertainty.
    """
    names = sorted({name for row in rows for name in row})
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    trusted = np.array([prior_scale(name) for name in names])
    free = np.ones(len(names), bool)
    coefficients = _ridge(matrix * trusted, changes, weights, penalty) * trusted
    size = names.index(SIZE)
    if coefficients[size] < LEAST:
        free[size] = False
        coefficients[free] = (
            _ridge((matrix * trusted)[:, free], changes - LEAST * matrix[:, size], weights, penalty) * trusted[free]
        )
        coefficients[size] = LEAST
    scaled = (matrix * trusted)[:, free]
    information = scaled.T @ (weights[:, None] * scaled)
    inverse = np.linalg.inv(information + penalty * np.eye(len(information)))
    leverage = np.einsum("ij,jk,ik,i->i", scaled, inverse, scaled, weights)
    missed = (changes - matrix @ coefficients) / (1 - leverage)  # from each trial's prediction by the others
    variance = float(weights @ missed**2) / len(changes)  # residuals would be too small: the same trials chose the form
    doubt = np.linalg.inv(information + min(penalty, SURE) * np.eye(len(information)))  # shrinkage is a choice, not knowledge
    covariance = np.zeros((len(names), len(names)))
    covariance[np.ix_(free, free)] = variance * doubt * np.outer(trusted[free], trusted[free])
    named = dict(zip(names, coefficients.tolist(), strict=True))
    return _Solution(named, covariance, math.sqrt(variance), changes - missed, leverage)


def _ridge(matrix: np.ndarray, changes: np.ndarray, weights: np.ndarray, penalty: float) -> np.ndarray:
    from sklearn.linear_model import Ridge  # takes half a second to import

    return np.asarray(Ridge(penalty, fit_intercept=False, solver="svd").fit(matrix, changes, weights).coef_)


def _weights(evidence: _Evidence, error: float) -> np.ndarray:
    """Return weights inverse to each trial's variance: that of counting right answers among so many images, and the rest."""
    right = np.array([result.accuracy or 0.0 for result in evidence.results]) * evidence.images
    shares = (right + 1) / (evidence.images + 2)  # no error among so many images does not mean an error rate of zero
    counting = shares * (1 - shares) / evidence.images
    variance = counting + max(error**2 - float(counting.mean()), 0.1 * error**2, 1e-12)
    return np.asarray(variance.mean() / variance)


def _paper(evidence: _Evidence) -> _FormFit:
    """Return two slopes for every super-block and block type, by least squares, linear and without an intercept."""
    form: Form = ("linear", "linear")
    terms = Features(evidence.masternet, *form)
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
        slopes, inverse = _least_squares(moves, changes), np.linalg.pinv(moves.T @ moves)
        leverage[members] = np.einsum("ij,jk,ik->i", moves, inverse, moves)
        squares += float(((changes - moves @ slopes) ** 2).sum())
        freedom += len(members) - int(np.linalg.matrix_rank(moves))
        coefficients |= dict(zip(names, slopes.tolist(), strict=True))
        covariance[2 * number : 2 * number + 2, 2 * number : 2 * number + 2] = inverse
        for place, row_number in enumerate(members if len(members) > 1 else ()):
            others = np.arange(len(members)) != place
            left_out[row_number] = moves[place] @ _least_squares(moves[others], changes[others])
    variance = squares / freedom if freedom else float(np.mean(evidence.changes**2))  # of one group alone it may be 0 by chance
    solution = _Solution(coefficients, variance * covariance, math.sqrt(variance), left_out, leverage)
    return _FormFit("paper", form, 0.0, solution)


def _least_squares(moves: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Return the slopes; the smallest solution if there are many."""
    from sklearn.linear_model import LinearRegression

    return np.asarray(LinearRegression(fit_intercept=False).fit(moves, changes).coef_)


def _described(fitted: _FormFit, evidence: _Evidence, errors: dict[str, float], inputs: str) -> Regression:
    """Return the regression with its pseudo-gradients and their quality."""
    tried: dict[tuple[int, BlockType], list[TrialResult]] = {}
    for result in evidence.results:
        tried.setdefault((result.index, result.superblock.block_type), []).append(result)
    quality = (_quality(index, fitted.solution, evidence) for index in sorted({index for index, _ in tried}))
    regression = Regression(
        inputs=inputs,
        model=fitted.model,
        masternet=str(evidence.masternet),
        accuracy=evidence.accuracy,
        width=fitted.form[0],
        depth=fitted.form[1],
        penalty=fitted.penalty,
        coefficients=fitted.solution.coefficients,
        covariance=tuple(map(tuple, fitted.solution.covariance.tolist())),
        noise=fitted.solution.noise,
        gradients=(),
        quality=tuple(filter(None, quality)),
        left_out_errors=errors,
    )
    gradients = tuple(
        regression.gradient(index, kind, tuple(r.superblock for r in found if not r.control))
        for (index, kind), found in sorted(tried.items(), key=lambda item: (item[0][0], str(item[0][1])))
        if any(not result.control for result in found)
    )
    return regression.model_copy(update={"gradients": gradients})


def _quality(index: int, solution: _Solution, evidence: _Evidence) -> Quality | None:
    mine = np.array([r.index == index for r in evidence.results]) & np.isfinite(solution.left_out)
    if not mine.any():
        return None
    predicted, found = solution.left_out[mine], evidence.changes[mine]
    return Quality(
        index=index,
        trials=len(found),
        left_out_error=_rms(predicted - found),
        kendall=kendall(predicted.tolist(), found.tolist()) if len(found) > 2 else None,
        leverage=float(solution.leverage[mine].max()),
    )


def _rms(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2)))
