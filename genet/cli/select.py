"""`genet select`: the best predicted network for each budget, and why."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from genet.cli.console import Answer, latency_heading, points, progress, table
from genet.config.options import checked_budgets
from genet.latency.noise import with_interval
from genet.pipeline.context import open_run, read_run
from genet.pipeline.explain import explain_selection, propose_trials
from genet.pipeline.search_state import SearchState, evidence_table
from genet.pipeline.select import select_from_evidence, select_networks
from genet.search.certificate import SelectedNetwork, Selection
from genet.search.explain import APART, NEARBY, Explanation, Proposal
from genet.search.outcome import percent
from genet.search.regression import Regression


def run(arguments: argparse.Namespace) -> Answer:
    """Select on the device, or from evidence for other budgets or another device, and print why."""
    budgets = checked_budgets(arguments.budget or ())
    if budgets or arguments.latency:
        job = read_run(arguments.run, progress())
        state = SearchState(job, evidence_table(job, arguments.latency) if arguments.latency else None)
        return _selected(state, select_from_evidence(state, budgets or job.recipe.select.budgets), arguments.suggest)
    with open_run(arguments.run, progress()) as job:
        selection = select_networks(job)
        return _selected(SearchState(job, job.table), selection, arguments.suggest)


def _selected(state: SearchState, selection: Selection, more: int | None) -> Answer:
    """Print a selection, the reasons for it, and the trials that would make it more certain."""
    _print_model(state.regression)
    _print_selection(selection)
    explained = explain_selection(state, selection)
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
        proposed = propose_trials(state, explained, more)
        _print_proposals(proposed)
        answer["next"] = [proposal.model_dump(mode="json") for proposal in proposed]
    return answer


def _print_model(regression: Regression) -> None:
    """Print the model that predicts accuracies, and whether another model would predict them better."""
    mine, errors = regression.left_out_error, regression.left_out_errors
    other = min((name for name in ("auto", "paper") if name in errors), key=errors.__getitem__, default=regression.model)
    better = ""
    if other != regression.model:
        better = f"; model {other} is off by {100 * errors[other]:.2f}, see `genet fit RUN --model {other}`"
    off = "n/a" if mine is None else f"{100 * mine:.2f}"
    print(
        f"accuracies are predicted by model {regression.model}, which is off by {off} points on trials left out one at "
        f"a time{better}"
    )


def _print_explanation(choice: SelectedNetwork, why: Explanation, batch: int) -> None:
    print(f"\nwhy, for budget {choice.budget} at {choice.resolution} pixels:")
    if why.short_of_best > 0 and why.measured_over_predicted < 1:
        print(
            f"  it takes {1 - why.measured_over_predicted:.1%} less than predicted; if all networks did, the best within the "
            f"budget would be {100 * why.short_of_best:.2f} points better"
        )
    elif why.short_of_best > 0:
        print(f"  the best network predicted to be within the budget is {100 * why.short_of_best:.2f} points better")
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
            "" if step.over_budget_ms is None else f"{step.over_budget_ms / batch:.4f}",
        ]
        for step in why.steps
    ]
    table(["super-block", "one step", "to", "ms/image", "points", "over budget, ms"], rows)
    for rival in why.rivals:
        certainty = "told apart" if rival.apart else "cannot be told apart by these trials"
        certainty += f" (by {APART} standard errors)"
        print(f"  next best: {rival.network}: {rival.points}, {rival.parameters:,} parameters; {certainty}")
    if why.extrapolation:
        print(f"  {why.extrapolation}")


def _print_proposals(proposals: Sequence[Proposal]) -> None:
    if not proposals:
        print(
            "no more trials are suggested: each choice is clear from its next best, or no trial that is left would make "
            "it clearer"
        )
        return
    print(
        "trials that best separate the selected networks from the next best, per minute; `genet distill RUN --extra N` runs them"
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
    table(["super-block", "as", "seconds", "expected cut in variance"], rows)


def _print_selection(selection: Selection) -> None:
    if selection.prediction_error is not None:
        print(f"{selection.setting}: predictions of random networks are off by {selection.prediction_error:.1%} on average")
    rows = [
        [
            str(choice.budget),
            str(choice.resolution),
            percent(choice.predicted_accuracy),
            with_interval(choice.budget_ms_per_image),
            with_interval(choice.predicted_ms_per_image),
            with_interval(choice.measured_ms_per_image, choice.interval_ms_per_image),
            "unclear" if choice.undecided else "n/a" if choice.within is None else "yes" if choice.within else "no",
        ]
        for choice in selection.choices
    ]
    found = latency_heading(selection.setting)
    table(["budget", "pixels", "accuracy", "budget ms", "predicted ms", found, "within"], rows)
    print("milliseconds are per image; accuracies are predicted")
    for choice in selection.choices:
        print(f"{choice.budget} at {choice.resolution} pixels: {choice.network}")
