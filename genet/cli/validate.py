"""`genet validate`: compare predictions with networks that the regression never saw."""

from __future__ import annotations

import argparse

from genet.cli.console import Answer, progress, table
from genet.pipeline.context import open_run
from genet.pipeline.validate import validate_predictions


def run(arguments: argparse.Namespace) -> Answer:
    """Train networks that the regression never saw, and print how good the predictions are."""
    with open_run(arguments.run, progress()) as job:
        found = validate_predictions(job, arguments.n, arguments.epochs, arguments.trainings)
    ranks = [("the regression", found.accuracy), *found.free.items()]
    table(
        ["predicted by", "Kendall", "standard error", "Spearman"],
        [[name, *(f"{value:.2f}" for value in (a.kendall, a.error, a.spearman))] for name, a in ranks],
    )
    if found.perfect is not None:
        shares = ", ".join(f"{value:.2f}" for value in found.ceiling)
        print(f"Kendall of one training of each network against the mean of its others: {shares}; this is the noise of training")
        print(f"a perfect prediction could expect {found.perfect:.2f}")
    print(
        f"{len(found.verdicts)} networks, {found.epochs} epochs each: predictions are off by {100 * found.bias:+.1f} "
        f"points on average, and by {100 * found.left:.1f} points (root mean square) once that mean is subtracted. "
        "They predict what trials reach, which start from the MasterNet's weights, so trainings from scratch are "
        "compared with them by rank"
    )
    if found.advantage is not None:
        error = "n/a" if found.advantage_error is None else f"{100 * found.advantage_error:.2f}"
        print(
            f"the frontier's networks are {100 * found.advantage:+.2f} ± {error} points better than random ones of the "
            "same latency"
        )
    if found.latency is not None and found.latency_error is not None:
        print(f"latency: off by {found.latency_error:.1%} on average, Kendall {found.latency.kendall:.2f}")
    return found.model_dump(mode="json")
