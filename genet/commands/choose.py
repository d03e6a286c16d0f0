"""Commands that choose: the regression on the trials, and the selection under a budget."""

from __future__ import annotations

import argparse
from typing import Any

from pydantic import ValidationError

from genet import pipeline
from genet.choose.certificate import Selection
from genet.choose.outcome import percent
from genet.choose.regression import Estimate, Regression
from genet.commands.printing import found_ms, milliseconds, progress, table
from genet.errors import SpecError
from genet.job import open_job, read_job
from genet.spec.recipe import Budget, Select
from genet.trials.audit import additivity

Answer = dict[str, Any]


def fit(arguments: argparse.Namespace) -> Answer:
    """`genet fit`: the pseudo-gradients with their errors, and how well they predict trials that they have not seen."""
    with open_job(arguments.run, progress()) as job:
        regression = pipeline.fit_trials(job, arguments.model)
        _print_gradients(regression)
        _print_quality(regression)
        audit = additivity(pipeline.finished_trials(job))
    if audit:
        print(
            f"{audit.joint_trials} joint trials differ by {100 * audit.interaction:.2f} points from the sum of their parts, "
            f"which is {100 * audit.effect:.2f} (root mean square)"
        )
    return {**regression.model_dump(mode="json"), "additivity": audit.model_dump(mode="json") if audit else None}


def _print_gradients(regression: Regression) -> None:
    rows = [
        [
            str(g.index + 1),
            str(g.block_type),
            *map(points, (g.at_own_size, g.per_block, g.per_doubling)),
            f"{g.trials}{', pooled' if g.missing else ''}",
        ]
        for g in regression.gradients
    ]
    table(["super-block", "block type", "points at own size", "the next block", "doubled width", "trials"], rows)


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
    table(["super-block", "trials", "error on left-out trials, points", "Kendall", "largest leverage"], rows)
    errors = ", ".join(f"{name} {100 * error:.2f}" for name, error in regression.left_out_errors.items())
    print(f"model {regression.model}; error on trials left out one at a time, points: {errors}")


def points(estimate: Estimate) -> str:
    """A change of accuracy in points, with its standard error."""
    return f"{100 * estimate.value:+.2f} ± {100 * estimate.error:.2f}"


def select(arguments: argparse.Namespace) -> Answer:
    """`genet select`: certified on the device, or answered from evidence for other budgets or another device."""
    budgets = _budgets(arguments.budget)
    if budgets or arguments.latency:
        job = read_job(arguments.run, progress())
        table_elsewhere = pipeline.table_of_evidence(job, arguments.latency) if arguments.latency else None
        selection = pipeline.answer(job, budgets or job.recipe.select.budgets, table_elsewhere)
    else:
        with open_job(arguments.run, progress()) as job:
            selection = pipeline.select(job)
    _print_selection(selection)
    print_unmet(selection)
    return {"estimate": selection.setting.estimate, **selection.model_dump(mode="json")}


def _budgets(given: list[str] | None) -> tuple[Budget, ...]:
    """Budgets of the command line, each a number or a multiple."""
    if not given:
        return ()
    try:
        return Select(budgets=tuple(map(_number, given))).budgets
    except ValidationError as fault:
        raise SpecError(f"--budget {error['msg']} (got {error['input']!r})" for error in fault.errors()) from None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _print_selection(selection: Selection) -> None:
    if selection.prediction_error is not None:
        print(f"{selection.setting}: predictions are off by {selection.prediction_error:.1%} on average")
    rows = [
        [
            str(choice.budget),
            str(choice.resolution),
            choice.network,
            percent(choice.predicted_accuracy),
            milliseconds(choice.budget_ms_per_image),
            milliseconds(choice.predicted_ms_per_image),
            milliseconds(choice.measured_ms_per_image, choice.interval_ms_per_image),
            "n/a" if choice.within is None else "yes" if choice.within else "no",
        ]
        for choice in selection.choices
    ]
    found = found_ms(selection.setting)
    table(["budget", "pixels", "network", "predicted accuracy", "budget ms", "predicted ms", found, "within"], rows)


def print_unmet(selection: Selection) -> None:
    """Say plainly which budgets no network meets, and the smallest that one does."""
    for budget in dict.fromkeys(choice.budget for choice in selection.choices):
        choices = [choice for choice in selection.choices if choice.budget == budget]
        measured = [choice.measured_ms_per_image for choice in choices if choice.measured_ms_per_image is not None]
        if measured and not any(choice.within for choice in choices):
            uppers = [c.measured_ms_per_image + (c.interval_ms_per_image or 0) for c in choices if c.measured_ms_per_image]
            smallest = min(uppers)
            how = "estimated" if selection.setting.estimate else "measured"
            print(
                f"budget {budget} ({choices[0].budget_ms_per_image:.4g} ms/image) is met for certain by no network on offer: "
                f"the fastest one {how} takes {min(measured):.4g} ms/image; a budget from {smallest:.4g} on can be met"
            )
