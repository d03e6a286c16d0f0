"""Select: for each budget and resolution the best predicted network that is certified to be within the budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

from genet.arch.network import Network
from genet.config.budget import Budget
from genet.errors import MeasurementError
from genet.latency.estimate.roofline import RunRoof, measure_roof
from genet.latency.noise import noise_warning
from genet.latency.staircase.space_sweeps import Staircases
from genet.pipeline.context import RunContext
from genet.pipeline.profile import measure_networks
from genet.pipeline.search_state import SearchState
from genet.pipeline.undecided import forget_doubtful, undecided_before
from genet.progress import Tracker
from genet.search.certificate import Certificate, SelectedNetwork, Selection, best_certified
from genet.search.regression import Regression
from genet.search.solver import Candidate
from genet.storage import digest


def select_networks(job: RunContext) -> Selection:
    """Choose by predictions, and certify on the device; on evidence from elsewhere, choose by predictions alone."""
    state = SearchState(job, job.table)
    if state.regression != job.folder.read(job.folder.regression, Regression):
        job.progress.say("  the trials have changed since the last fit: fitting again")
        state.regression.save(job.folder.regression)
    staircases = job.folder.read(job.folder.staircase, Staircases)
    evidence = (state.regression.model_dump_json(), staircases.model_dump_json(), job.recipe.select.model_dump_json())
    inputs = digest("/".join((state.table.setting.digest, *evidence)))
    selection = job.folder.read_current(job.folder.selection, Selection, inputs)
    if selection is None or undecided_before(job):
        if job.recipe.measure.latency_file:
            selection = select_from_evidence(state, job.recipe.select.budgets)
        else:
            if forget_doubtful(job):
                measure_networks(job, state.kept)
                state = SearchState(job, job.table)
            selection = _certified_selection(state)
            timed = {each.network for each in selection.choices if each.within or each.undecided}
            if warning := noise_warning(state.table.widest_spread(timed)):  # a hopeless budget is no fault of noise
                job.progress.say(f"  {warning}")
        selection = selection.model_copy(update={"inputs": inputs})
        selection.save(job.folder.selection)
    if not job.recipe.measure.latency_file:
        _measure_roof(job, state.table.setting.digest)
    return selection


def _measure_roof(job: RunContext, setting: str) -> None:
    """Measure the device's peak performance for the report, which does without if it cannot be measured."""
    if job.folder.read_current(job.folder.roof, RunRoof, setting) is None:
        try:
            with job.progress.awake("measuring the peak rates of the device"):
                RunRoof(inputs=setting, roof=measure_roof(job.meter)[0]).save(job.folder.roof)
        except MeasurementError as fault:
            job.progress.say(f"  utilization is not reported: {fault}")


def _certified_selection(state: SearchState) -> Selection:
    budgets, error = state.job.recipe.select.budgets, state.predictor.correction.left_out_error
    choices = []
    with state.job.progress.track("selecting (networks measured whole)", len(budgets) * len(state.kept)) as tracker:
        for budget in budgets:
            for resolution in state.kept:
                choices.append(_certified_choice(state, budget, resolution, tracker))
                tracker.advance()
    return _selection(state, choices, error)


def _certified_choice(state: SearchState, budget: Budget, resolution: int, tracker: Tracker) -> SelectedNetwork:
    """Certify candidates until one is within the budget; each measured network refines the predictions of the rest."""
    tries = itertools.count(1)

    def certify(candidate: Candidate) -> Certificate:
        tracker.now(f"for {budget} at {resolution} pixels, network {next(tries)}")
        row = state.measure(Network.parse(candidate.network), budget)
        state.learn(row)
        return state.judge(row, budget)

    solve, count = partial(state.frontier, resolution), state.job.recipe.select.measure_top_k
    candidate, found = best_certified(state.limit_ms(budget), solve, certify, count)
    choice = _choice(state, budget, candidate, found.model_copy(update={"within": bool(found.within)}))
    return choice.model_copy(update={"undecided": found.within is None})


def select_from_evidence(state: SearchState, budgets: tuple[Budget, ...]) -> Selection:
    """Return the best predicted network for other budgets, or on another device's evidence: nothing measured, nothing written."""
    fronts = state.frontiers.values()
    choices = [_answered(state, budget, front) for budget in budgets for front in fronts]
    return _selection(state, choices, state.predictor.correction.left_out_error)


def _answered(state: SearchState, budget: Budget, front: Sequence[Candidate]) -> SelectedNetwork:
    """Return the best network that is predicted to be within the budget, or measured not to break it; else the fastest."""
    limit_ms = state.limit_ms(budget)
    found = state.certificates(front, budget)

    def fits(candidate: Candidate) -> bool:
        known = found.get(candidate.network)
        if known and known.within is None:
            return known.ms <= limit_ms
        return bool(known.within) if known else candidate.predicted_ms <= limit_ms

    fitting = [candidate for candidate in front if fits(candidate)]
    if fitting:
        best = max(fitting, key=lambda candidate: candidate.predicted_accuracy)
        return _choice(state, budget, best, found.get(best.network))
    fastest = min(front, key=lambda candidate: candidate.predicted_ms)
    return _choice(state, budget, fastest, found.get(fastest.network)).model_copy(update={"within": False})


def _choice(state: SearchState, budget: Budget, candidate: Candidate, found: Certificate | None) -> SelectedNetwork:
    return SelectedNetwork(
        budget=budget,
        budget_ms_per_image=state.limit_ms(budget) / state.batch,
        resolution=candidate.resolution,
        network=candidate.network,
        predicted_accuracy=candidate.predicted_accuracy,
        predicted_ms_per_image=candidate.predicted_ms / state.batch,
        measured_ms_per_image=found.ms / state.batch if found else None,
        interval_ms_per_image=found.interval_ms / state.batch if found else None,
        within=found.within if found else None,
    )


def _selection(state: SearchState, choices: list[SelectedNetwork], error: float | None) -> Selection:
    return Selection(
        inputs="",
        setting=state.table.setting,
        masternet_ms_per_image=state.reference_ms / state.batch,
        prediction_error=error,
        choices=tuple(choices),
    )
