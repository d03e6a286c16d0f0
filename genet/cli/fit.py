"""`genet fit`: fit the regression to the trials of each super-block."""

from __future__ import annotations

import argparse

from genet.cli.console import Answer, points, progress, table
from genet.config.recipe import RegressionModel
from genet.pipeline.context import open_run
from genet.pipeline.distill import finished_trials
from genet.pipeline.fit import fit_trials
from genet.search.regression import Regression
from genet.trials.results import additivity

LACKS: dict[RegressionModel, str] = {"auto": ", pooled", "paper": ", too few"}  # how the model deals with too few trials


def run(arguments: argparse.Namespace) -> Answer:
    """Print the pseudo-gradients with their errors, and how well they predict trials that they have not seen."""
    with open_run(arguments.run, progress()) as job:
        regression = fit_trials(job, arguments.model)
        _print_gradients(regression)
        _print_quality(regression)
        audit = additivity(finished_trials(job))
    if audit:
        print(
            f"{audit.paired_trials} paired trials: their effects differ by {100 * audit.interaction:.2f} points from the "
            f"sums of the two single effects, which are {100 * audit.effect:.2f} points (both root mean square)"
        )
    return {**regression.model_dump(mode="json"), "additivity": audit.model_dump(mode="json") if audit else None}


def _print_gradients(regression: Regression) -> None:
    rows = [
        [
            str(g.index + 1),
            str(g.block_type),
            *map(points, (g.at_own_size, g.per_block, g.per_doubling)),
            f"{g.trials}{LACKS[regression.model] if g.missing else ''}",
        ]
        for g in regression.gradients
    ]
    table(["super-block", "block type", "at own size", "one more block", "doubled width", "trials"], rows)
    print("in points of accuracy, ± one standard error")


def _print_quality(regression: Regression) -> None:
    rows = [
        [
            str(quality.index + 1),
            str(quality.trials),
            f"{100 * quality.left_out_error:.2f}",
            "n/a" if quality.kendall is None else f"{quality.kendall:.2f}",
            f"{quality.leverage:.2f}",
        ]
        for quality in regression.quality
    ]
    table(["super-block", "trials", "left-out error, points", "Kendall", "largest leverage"], rows)
    errors = ", ".join(f"{name} {100 * error:.2f}" for name, error in regression.left_out_errors.items())
    print(f"model {regression.model}; error on trials left out one at a time, in points: {errors}")
