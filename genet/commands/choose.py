"""Commands that choose: the regression on the trials, and the selection under a budget."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from genet import pipeline
from genet.choose.certificate import Choice, Selection
from genet.choose.explain import APART, NEARBY, Explanation
from genet.choose.more import Proposal
from genet.choose.outcome import percent
from genet.choose.regression import Estimate, Regression
from genet.commands.printing import found_ms, milliseconds, progress, table
from genet.errors import SpecError
from genet.job import Job, open_job, read_job
from genet.latency.table import LatencyTable
from genet.spec.recipe import Budget, Model, Select
from genet.trials.audit import additivity

Answer = dict[str, Any]
LACKS: dict[Model, str] = {"auto": ", pooled", "paper": ", too few"}  # how trials that are not enough are helped


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
            f"{g.trials}{LACKS[regression.model] if g.missing else ''}",
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
        evidence = pipeline.table_of_evidence(job, arguments.latency) if arguments.latency else pipeline.table_on_disk(job)
        return _selected(job, pipeline.answer(job, budgets or job.recipe.select.budgets, evidence), evidence, arguments.next)
    with open_job(arguments.run, progress()) as job:
        return _selected(job, pipeline.select(job), job.table, arguments.next)


def _selected(job: Job, selection: Selection, evidence: LatencyTable, more: int | None) -> Answer:
    """Print a selection, why it came about, and the trials that would make it surer."""
    _print_model(pipeline.current_regression(job))
    _print_selection(selection)
    explained = pipeline.explanations(job, selection, evidence)
    for choice, why in zip(selection.answers, explained, strict=True):
        _print_explanation(choice, why, selection.setting.batch)
    answer = {
        "estimate": selection.setting.estimate,
        **selection.model_dump(mode="json"),
        "explanations": [why.model_dump(mode="json") for why in explained],
        "shortfalls": selection.unmet,
        "met": bool(selection.answers),
    }
    if more:
        proposed = pipeline.proposals(job, explained, more)
        _print_proposals(proposed)
        answer["next"] = [proposal.model_dump(mode="json") for proposal in proposed]
    return answer


def _print_model(regression: Regression) -> None:
    """By what accuracies are predicted, and whether another model would predict them better."""
    mine, errors = regression.left_out_error, regression.left_out_errors
    other = min((name for name in ("auto", "paper") if name in errors), key=errors.__getitem__, default=regression.model)
    better = f"; {other} by {100 * errors[other]:.2f}, see `genet fit RUN --model {other}`" if other != regression.model else ""
    off = "n/a" if mine is None else f"{100 * mine:.2f}"
    print(f"accuracies predicted by model {regression.model}, off by {off} points on trials left out one at a time{better}")


def _print_explanation(choice: Choice, why: Explanation, batch: int) -> None:
    print(f"why, for budget {choice.budget} at {choice.resolution} pixels: {choice.network}")
    if why.short_of_best > 0 and why.measured_over_predicted < 1:
        print(
            f"  it takes {1 - why.measured_over_predicted:.1%} less than predicted; were that so of all, the best within the "
            f"budget would be {100 * why.short_of_best:.2f} points better"
        )
    elif why.short_of_best > 0:
        print(f"  the best of all that are predicted to be within the budget is {100 * why.short_of_best:.2f} points better")
    if why.budget_ms >= why.slowest_ms:
        print(
            f"  the budget is more than any network needs: the slowest worth having takes {why.slowest_ms / batch:.4f} ms/image"
        )
    else:
        print(f"  {NEARBY:.0%} more latency would buy {100 * why.more:+.2f} points of predicted accuracy")
    rows = [
        [
            str(step.index + 1),
            step.direction,
            step.superblock,
            f"{step.ms / batch:+.4f}",
            points(step.accuracy),
            "" if step.over_budget_ms is None else f"over the budget by {step.over_budget_ms / batch:.4f} ms",
        ]
        for step in why.steps
    ]
    table(["super-block", "one step", "to", "ms/image", "points", ""], rows)
    for rival in why.rivals:
        told = "told apart" if rival.apart else "cannot be told apart by these trials"
        told += f" (by {APART} standard errors)"
        side = "behind" if rival.behind.value >= 0 else "ahead"
        print(
            f"  next best: {rival.network}: {abs(100 * rival.behind.value):.2f} ± {100 * rival.behind.error:.2f} points {side}, "
            f"{rival.parameters:,} parameters; {told}"
        )
    if why.beyond_trials:
        places = ", ".join(str(index + 1) for index in why.beyond_trials)
        print(f"  super-blocks {places} are of sizes outside what the trials tried: there the prediction extrapolates")


def _print_proposals(proposals: Sequence[Proposal]) -> None:
    if not proposals:
        print("no further trials are named: no answer has a rival in doubt, or none that is left to try would tell more")
        return
    print(
        "trials that would best tell the selected networks from the next best, per minute; `genet distill RUN --more N` runs them"
    )
    rows = [
        [
            str(proposal.trial.index + 1),
            str(proposal.trial.superblock),
            f"{proposal.seconds:.1f}",
            f"{proposal.share:.0%}",
        ]
        for proposal in proposals
    ]
    table(["super-block", "as", "seconds", "of the doubt it should take away"], rows)


def validate(arguments: argparse.Namespace) -> Answer:
    """`genet validate`: what the predictions are worth, on networks trained from scratch."""
    with open_job(arguments.run, progress()) as job:
        found = pipeline.validate_predictions(job, arguments.n, arguments.epochs, arguments.trainings)
    ranks = [("the regression", found.accuracy), *found.free.items()]
    table(
        ["predicted by", "Kendall", "standard error", "Spearman"],
        [[name, *(f"{value:.2f}" for value in (a.kendall, a.error, a.spearman))] for name, a in ranks],
    )
    if found.perfect is not None:
        shares = ", ".join(f"{value:.2f}" for value in found.ceiling)
        print(f"one training of each agrees with the mean of the others, Kendall: {shares}; that is the noise of training")
        print(f"a prediction without fault could expect {found.perfect:.2f}")
    print(
        f"{len(found.verdicts)} networks, {found.epochs} epochs each: predictions are {100 * found.bias:+.1f} points off on "
        f"average, and {100 * found.left:.1f} points once that is taken out (root mean square). Predicted is what trials reach, "
        "with the MasterNet's weights to start from: training from scratch is held against it by rank"
    )
    if found.advantage is not None:
        error = "n/a" if found.advantage_error is None else f"{100 * found.advantage_error:.2f}"
        print(f"the frontier's networks reach {100 * found.advantage:+.2f} ± {error} points over random ones as fast")
    if found.latency is not None and found.latency_error is not None:
        print(f"latency: off by {found.latency_error:.1%} on average, Kendall {found.latency.kendall:.2f}")
    return found.model_dump(mode="json")


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
        print(f"{selection.setting}: predictions of random networks are off by {selection.prediction_error:.1%} on average")
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
