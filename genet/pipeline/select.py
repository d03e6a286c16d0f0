"""Select: for each budget and resolution the best predicted network that is certified to be within the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from genet.arch.external import ModelSpec
from genet.arch.network import Network
from genet.arch.space import Widths
from genet.config.recipe import Budget, budget_ms
from genet.errors import EvidenceError, MeasurementError
from genet.latency.estimate.roofline import RunRoof, read_roof
from genet.latency.evidence import read_evidence
from genet.latency.predict import Predictor
from genet.latency.profile import measure_network
from genet.latency.staircase.plan import Staircases, find_staircases
from genet.latency.table import LatencyTable, NetworkRow, find_setting
from genet.latency.timing.meter import CALM
from genet.pipeline.context import RunContext, predictor
from genet.pipeline.learn import current_regression
from genet.search.certificate import (
    Certificate,
    Choice,
    Selection,
    best_certified,
    certificate,
    could_be_clear,
)
from genet.search.regression import Regression
from genet.search.solver import Candidate, filter_by_utilization, frontier, random_search
from genet.search.tables import ChoiceTables, tabulate_choices
from genet.statistics import half_interval
from genet.storage import digest

INTERIM_LOOKS = (3, 6, 12, 20)  # rounds after which a network is judged
FUTILE = 6  # rounds after which one that is too close to its budget may be given up


def select_networks(job: RunContext) -> Selection:
    """Choose by predictions, and certify on the device; on evidence from elsewhere, choose by predictions alone."""
    table, regression = job.table, current_regression(job)
    if regression != job.folder.read(job.folder.regression, Regression):
        job.progress.say("  the trials have changed since they were fitted: fitted anew")
        regression.save(job.folder.regression)
    staircases = job.folder.read(job.folder.staircase, Staircases)
    evidence = (regression.model_dump_json(), staircases.model_dump_json(), job.recipe.select.model_dump_json())
    inputs = digest("/".join((table.setting.digest, *evidence)))
    selection = job.folder.read_current(job.folder.selection, Selection, inputs)
    if selection is None:
        if job.recipe.measure.latency_file:
            selection = select_from_evidence(job, job.recipe.select.budgets, table).model_copy(update={"inputs": inputs})
        else:
            selection = _certified_selection(job, table, regression, inputs)
            _warn_if_busy(job, table, selection.choices)
        selection.save(job.folder.selection)
    if not job.recipe.measure.latency_file:
        _measure_roof(job, table.setting.digest)
    return selection


def _measure_roof(job: RunContext, setting: str) -> None:
    """Measure the device's peak performance for the report, which does without if it cannot be measured."""
    if job.folder.read_current(job.folder.roof, RunRoof, setting) is None:
        try:
            RunRoof(inputs=setting, roof=read_roof(job.meter)[0]).save(job.folder.roof)
        except MeasurementError as fault:
            job.progress.say(f"  utilization is not told: {fault}")


def _certified_selection(job: RunContext, table: LatencyTable, regression: Regression, inputs: str) -> Selection:
    kept = kept_widths(job, table)
    prediction = predictor(job, table, kept)
    budgets, error = _budgets_ms(job, table, job.recipe.select.budgets), prediction.correction.left_out_error
    choices = []
    with job.progress.track("selecting, each network measured whole", len(budgets) * len(kept)) as tracker:
        for budget, ms in budgets.items():
            for resolution, widths in kept.items():
                solve = partial(_front, job, prediction, regression, resolution, widths)
                choices.append(_certified_choice(job, prediction, budget, ms, solve))
                tracker.advance()
    return _selection(job, table, inputs, choices, error)


def _warn_if_busy(job: RunContext, table: LatencyTable, choices: tuple[Choice, ...]) -> None:
    rows = [table.network_row(Network.parse(choice.network)) for choice in choices]
    worst = max((row.spread for row in rows if row), default=0.0)
    if worst > CALM:
        job.progress.say(
            f"  other work disturbs this machine: repeats of one timing spread by {worst:.0%}, so take these latencies with "
            "care, or run again with --new-run when it is quiet"
        )


def select_from_evidence(job: RunContext, budgets: tuple[Budget, ...], table: LatencyTable | None = None) -> Selection:
    """Return the best predicted network for other budgets, or on another device's evidence: nothing measured, nothing written."""
    table = table or run_table(job)
    kept = kept_widths(job, table)
    prediction = predictor(job, table, kept)
    regression = current_regression(job)
    fronts = [_front(job, prediction, regression, resolution, widths) for resolution, widths in kept.items()]
    choices = [
        _answered(job, table, front, budget, ms) for budget, ms in _budgets_ms(job, table, budgets).items() for front in fronts
    ]
    return _selection(job, table, "", choices, prediction.correction.left_out_error)


def _answered(job: RunContext, table: LatencyTable, front: Sequence[Candidate], budget: Budget, ms: float) -> Choice:
    """Return the best network that is predicted to be within the budget, or measured not to break it; else the fastest."""
    found = {
        candidate.network: judge(job, table, row, budget, ms)
        for candidate in front
        if (row := table.network_row(Network.parse(candidate.network))) and row.reference == str(job.masternet)
    }

    def fits(candidate: Candidate) -> bool:
        known = found.get(candidate.network)
        if known and known.within is None:
            return known.ms <= ms
        return bool(known.within) if known else candidate.predicted_ms <= ms

    fitting = [candidate for candidate in front if fits(candidate)]
    if fitting:
        best = max(fitting, key=lambda candidate: candidate.predicted_accuracy)
        return _choice(table, budget, ms, best, found.get(best.network))
    fastest = min(front, key=lambda candidate: candidate.predicted_ms)
    return _choice(table, budget, ms, fastest, found.get(fastest.network)).model_copy(update={"within": False})


def run_table(job: RunContext) -> LatencyTable:
    """Return the latency table that the staircases were found in, regardless of this machine's device."""
    staircases = job.folder.read(job.folder.staircase, Staircases)
    return LatencyTable(job.folder.latency, find_setting(job.folder.latency, staircases.setting))


def evidence_table(job: RunContext, path: Path) -> LatencyTable:
    """Return the latency table of another device; damaged lines of the file are reported."""
    table = read_evidence(path)
    if table.damaged:
        job.progress.say(f"  {path}: damaged lines {', '.join(map(str, table.damaged))} are left out")
    job.progress.say(f"  latencies of {table.setting}")
    return table


def frontiers(job: RunContext, table: LatencyTable) -> dict[int, tuple[Candidate, ...]]:
    """Return the exact frontier of every resolution, from what is on disk; block types without evidence are left out."""
    kept = kept_widths(job, table)
    prediction = predictor(job, table, kept)
    regression = current_regression(job)
    return {resolution: _front(job, prediction, regression, resolution, widths) for resolution, widths in kept.items()}


def _front(
    job: RunContext, prediction: Predictor, regression: Regression, resolution: int, kept: Widths
) -> tuple[Candidate, ...]:
    """Return the candidates under the present correction: the exact frontier, or the best of random structures."""
    offered, how = offers(job, prediction, regression, resolution, kept), job.recipe.select
    found = frontier(offered) if how.method == "exact" else random_search(offered, how.random_samples, job.recipe.seed)
    return filter_by_utilization(found) if how.filter else found


def offers(job: RunContext, prediction: Predictor, regression: Regression, resolution: int, kept: Widths) -> ChoiceTables:
    """Return the offers to the selection at a resolution, under the present correction."""
    return tabulate_choices(
        job.recipe.space,
        kept,
        resolution,
        regression.accuracy,
        regression.gain,
        prediction.reading_ms,
        prediction.correction.host_ms,
    )


def kept_widths(job: RunContext, table: LatencyTable) -> dict[int, Widths]:
    """Return the widths on offer by the table's own staircases; which may differ from the run's in another file."""
    staircases = job.folder.read(job.folder.staircase, Staircases)
    if staircases.setting != table.setting.digest or table.path != job.folder.latency.path:
        staircases = find_staircases(job.recipe.space, table)
    return {resolution: job.kept_widths(staircases, resolution) for resolution in job.resolutions}


def _budgets_ms(job: RunContext, table: LatencyTable, budgets: tuple[Budget, ...]) -> dict[Budget, float]:
    """Return budgets in milliseconds per batch."""
    batch = table.setting.batch
    masternet = table.masternet_ms(job.masternet) / batch
    return {budget: budget_ms(budget, masternet) * batch for budget in budgets}


def _certified_choice(
    job: RunContext, prediction: Predictor, budget: Budget, ms: float, solve: Callable[[], tuple[Candidate, ...]]
) -> Choice:
    """Certify candidates until one is within the budget; each measured network refines the predictions of the rest."""
    table = prediction.table

    def certify(candidate: Candidate) -> Certificate:
        row = measured(job, table, Network.parse(candidate.network), budget, ms)
        prediction.learn(row)
        return judge(job, table, row, budget, ms)

    candidate, found = best_certified(ms, solve, certify, job.recipe.select.measure_top_k)
    return _choice(table, budget, ms, candidate, found.model_copy(update={"within": bool(found.within)}))


def measured(
    job: RunContext, table: LatencyTable, network: ModelSpec, budget: Budget, ms: float, patient: bool = True
) -> NetworkRow:
    """Measure a network in turn with the MasterNet until its interval is clear of a budget in ms per batch; 20 rounds at most.

    If not `patient`, stop as soon as 20 rounds are unlikely to certify it. MeasurementError if it cannot be timed.
    """
    most = INTERIM_LOOKS[-1]

    def enough(row: NetworkRow) -> bool:
        rounds = len(row.ms)
        if rounds not in INTERIM_LOOKS:  # checking often would make chance look like certainty
            return False
        found = judge(job, table, row, budget, ms)
        given_up = not patient and rounds >= FUTILE and not could_be_clear(found, ms, rounds, most)
        return rounds == most or found.within is not None or given_up

    return measure_network(table, job.meter, network, job.masternet, enough)


def judge(job: RunContext, table: LatencyTable, row: NetworkRow, budget: Budget, ms: float) -> Certificate:
    """Judge a network by a budget: a multiple of the MasterNet's latency by ratios to it, which no drift can affect.

    A budget in milliseconds must hold at the speed at which the MasterNet was measured and at that of the network's own
    rounds, whichever is slower, and bears the uncertainty of the MasterNet's latency too.
    """
    reference = table.network_row(job.masternet)
    if reference is None or row.reference != str(job.masternet):
        raise EvidenceError(f"{row.network}: got a latency on its own, expected one measured in turn with the MasterNet")
    if isinstance(budget, str):
        return certificate(row.ratios, reference.mean_ms, ms)
    slower = max(reference.mean_ms, fmean(row.reference_ms))
    return certificate(row.ratios, slower, ms, half_interval(reference.ms) / reference.mean_ms)


def _choice(table: LatencyTable, budget: Budget, ms: float, candidate: Candidate, found: Certificate | None) -> Choice:
    batch = table.setting.batch
    return Choice(
        budget=budget,
        budget_ms_per_image=ms / batch,
        resolution=candidate.resolution,
        network=candidate.network,
        predicted_accuracy=candidate.predicted_accuracy,
        predicted_ms_per_image=candidate.predicted_ms / batch,
        measured_ms_per_image=found.ms / batch if found else None,
        interval_ms_per_image=found.interval_ms / batch if found else None,
        within=found.within if found else None,
    )


def _selection(job: RunContext, table: LatencyTable, inputs: str, choices: list[Choice], error: float | None) -> Selection:
    return Selection(
        inputs=inputs,
        setting=table.setting,
        masternet_ms_per_image=table.masternet_ms(job.masternet) / table.setting.batch,
        prediction_error=error,
        choices=tuple(choices),
    )
