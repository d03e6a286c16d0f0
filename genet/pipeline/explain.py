"""Explain: the reasons for the selected networks, and the trials that would make the choice more certain."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from genet.arch.network import Network
from genet.pipeline.distill import finished_trials, planned_trials
from genet.pipeline.search_state import SearchState
from genet.search.certificate import SelectedNetwork, Selection
from genet.search.explain import Explanation, Proposal, explain, propose
from genet.trials.plan import Trial, possible_trials


def explain_selection(state: SearchState, selection: Selection) -> tuple[Explanation, ...]:
    """Return the explanation of each answer of a selection."""

    def explained(choice: SelectedNetwork) -> Explanation:
        network, limit_ms = Network.parse(choice.network), state.limit_ms(choice.budget)
        measured = choice.measured_ms_per_image
        rows = (row for row in state.table.network_rows if row.reference == str(state.job.reference))
        broken = {row.network for row in rows if state.judge(row, choice.budget).within is False}
        solver = state.solver(choice.resolution)
        return explain(solver, state.regression, network, limit_ms, measured and measured * state.batch, broken)

    return tuple(map(explained, selection.answers))


def propose_trials(state: SearchState, explained: Sequence[Explanation], count: int) -> tuple[Proposal, ...]:
    """Return the trials that should best separate the selected networks from their rivals."""
    job, recipe = state.job, state.job.recipe
    rivals = [(Network.parse(why.network), Network.parse(r.network)) for why in explained for r in why.rivals if not r.apart]
    if not rivals:
        return ()
    known = {trial.id for trial in planned_trials(job)}
    possible = possible_trials(job.space, state.kept[recipe.search_resolution], recipe.search_resolution, recipe.seed)
    seconds_by_index: dict[int, list[float]] = {}
    for result in (each for each in finished_trials(job) if each.accuracy is not None):
        seconds_by_index.setdefault(result.index, []).append(result.seconds.total)
    usual = fmean(each for found in seconds_by_index.values() for each in found)

    def seconds(trial: Trial) -> float:
        return fmean(seconds_by_index.get(trial.index, [usual]))

    return propose(state.regression, rivals, [trial for trial in possible if trial.id not in known], seconds, count)
