"""Explain: the reasons for the selected networks, and the trials that would make the choice more certain."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from genet.arch.network import Network
from genet.latency.staircase.plan import Staircases
from genet.latency.table import LatencyTable
from genet.pipeline.context import RunContext, predictor
from genet.pipeline.distill import finished_trials, planned_trials
from genet.pipeline.learn import current_regression
from genet.pipeline.select import judge, kept_widths, offers
from genet.search.certificate import Choice, Selection
from genet.search.explain import Explanation, explain
from genet.search.next_trials import Proposal, propose
from genet.search.solver import ExactSolver
from genet.trials.plan import Trial, possible_trials


def explain_selection(job: RunContext, selection: Selection, table: LatencyTable) -> tuple[Explanation, ...]:
    """Return the explanation of each answer of a selection, by the predictions from a latency table."""
    regression, kept = current_regression(job), kept_widths(job, table)
    prediction, batch = predictor(job, table, kept), table.setting.batch
    solved = {resolution: ExactSolver(offers(job, prediction, regression, resolution, kept[resolution])) for resolution in kept}

    def explained(choice: Choice) -> Explanation:
        network, budget_ms = Network.parse(choice.network), choice.budget_ms_per_image * batch
        measured = choice.measured_ms_per_image
        rows = (row for row in table.network_rows if row.reference == str(job.masternet))
        broken = {row.network for row in rows if judge(job, table, row, choice.budget, budget_ms).within is False}
        return explain(solved[choice.resolution], regression, network, budget_ms, measured and measured * batch, broken)

    return tuple(map(explained, selection.answers))


def propose_trials(job: RunContext, explained: Sequence[Explanation], count: int) -> tuple[Proposal, ...]:
    """Return the trials that should take away most doubt between the selected networks and their rivals."""
    regression, recipe = current_regression(job), job.recipe
    rivals = [(Network.parse(why.network), Network.parse(r.network)) for why in explained for r in why.rivals if not r.apart]
    if not rivals:
        return ()
    staircases = job.folder.read(job.folder.staircase, Staircases)
    kept = job.kept_widths(staircases, recipe.search_resolution)
    known = {trial.id for trial in planned_trials(job)}
    possible = possible_trials(recipe.space, kept, recipe.search_resolution, recipe.seed)
    taken: dict[int, list[float]] = {}
    for result in (each for each in finished_trials(job) if each.accuracy is not None):
        taken.setdefault(result.index, []).append(result.seconds.total)
    usual = fmean(each for found in taken.values() for each in found)

    def seconds(trial: Trial) -> float:
        return fmean(taken.get(trial.index, [usual]))

    return propose(regression, rivals, [trial for trial in possible if trial.id not in known], seconds, count)
