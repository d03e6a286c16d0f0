"""Which form of the regression predicts a trial that it has not seen: the paper's, or one with an intercept?

    genet run digits && python benchmarks/regression_form.py runs/digits

Every trial is left out once and predicted from the others of its super-block and block type; the table gives the root
mean square error in points of accuracy. "no change" predicts the MasterNet's accuracy for every trial.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.linear_model import LinearRegression, Ridge

from genet.choose.outcome import Trained
from genet.choose.regression import PENALTIES
from genet.runfolder import RunFolder
from genet.trials.results import read_results

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def main(run: RunFolder) -> None:
    """Print the table for one run."""
    accuracy = run.read(run.master, Trained).nas_accuracy
    masternet = run.recipe().space.superblocks
    groups: dict[tuple[int, str], list[tuple[float, float, float, float]]] = {}
    for result in read_results(run.trials).values():
        if result.accuracy is not None and not (result.also or result.control):
            own, new = masternet[result.index], result.superblock
            row = (new.depth - own.depth, new.width - own.width, np.log2(new.width / own.width), result.accuracy - accuracy)
            groups.setdefault((result.index, str(new.block_type)), []).append(row)
    arrays = [np.array(rows) for rows in groups.values() if len(rows) > 1]
    forms: dict[str, tuple[list[int], Predict]] = {
        "no change": ([0, 1], lambda x, y, new: 0.0),
        "paper: two slopes, no intercept": ([0, 1], linear(LinearRegression(fit_intercept=False))),
        "two slopes and an intercept": ([0, 2], linear(LinearRegression())),
        "an intercept alone": ([0, 2], lambda x, y, new: float(y.mean())),
    }
    for penalty in PENALTIES:
        forms[f"intercept, slopes shrunk by {penalty:g}"] = ([0, 2], linear(Ridge(penalty)))
    print(f"{sum(map(len, arrays))} trials in {len(arrays)} groups\n\n| form | error, points |\n|---|---|")
    for name, (columns, predict) in forms.items():
        print(f"| {name} | {100 * left_out_error(arrays, columns, predict):.2f} |")


def linear(model: LinearRegression | Ridge) -> Predict:
    """Fit the model and predict one row."""
    return lambda x, y, new: float(model.fit(x, y).predict(new)[0])


def left_out_error(arrays: list[np.ndarray], columns: list[int], predict: Predict) -> float:
    """Root mean square error over all trials, each left out once."""
    errors = []
    for rows in arrays:
        for left_out in range(len(rows)):
            others = np.delete(rows, left_out, axis=0)
            guess = predict(others[:, columns], others[:, 3], rows[[left_out]][:, columns])
            errors.append(rows[left_out, 3] - guess)
    return float(np.sqrt(np.mean(np.square(errors))))


if __name__ == "__main__":
    main(RunFolder(Path(sys.argv[1])))
