"""Select: for each budget and resolution the best predicted network that was measured to be within the budget."""

from __future__ import annotations

from genet.choose.certificate import Choice, Selection, best_predicted, best_within
from genet.choose.regression import Regression
from genet.choose.selection import Candidate, frontier
from genet.errors import EvidenceError
from genet.files import digest
from genet.job import Job
from genet.latency.profile import CALM, profile_network
from genet.latency.staircase import Staircases
from genet.latency.table import LatencyTable, find_setting
from genet.spec.network import Network
from genet.spec.recipe import Budget, budget_ms
from genet.spec.space import Widths


def select(job: Job) -> Selection:
    """Choose by what is predicted, and measure the candidates whole, on the device."""
    table, regression = job.table, job.folder.read(job.folder.regression, Regression)
    staircases = job.folder.read(job.folder.staircase, Staircases)
    evidence = (regression.model_dump_json(), staircases.model_dump_json(), job.recipe.select.model_dump_json())
    inputs = digest("/".join((table.setting.digest, *evidence)))
    known = job.folder.read_current(job.folder.selection, Selection, inputs)
    if known:
        return known
    fronts = frontiers(job, table)
    budgets = _budgets_ms(job, table, job.recipe.select.budgets)
    choices = []
    with job.progress.track("selecting and measuring whole networks", len(budgets) * len(fronts)) as tracker:
        for budget, ms in budgets.items():
            for front in fronts.values():
                choices.append(_certified(job, budget, ms, front))
                tracker.advance()
    _warn_if_busy(job, table, choices)
    selection = _selection(job, table, inputs, choices)
    selection.save(job.folder.selection)
    return selection


def _warn_if_busy(job: Job, table: LatencyTable, choices: list[Choice]) -> None:
    rows = [table.network_row(Network.parse(choice.network)) for choice in choices]
    worst = max((row.spread for row in rows if row), default=0.0)
    if worst > CALM:
        job.progress.say(
            f"  other work disturbs this machine: repeats of one timing spread by {worst:.0%}, so take these latencies with "
            "care, or run again with --fresh when it is quiet"
        )


def answer(job: Job, budgets: tuple[Budget, ...]) -> Selection:
    """The best predicted network for other budgets from what is on disk: no device, nothing written."""
    table = table_on_disk(job)
    fronts = frontiers(job, table)
    choices = []
    for budget, ms in _budgets_ms(job, table, budgets).items():
        for front in fronts.values():
            scale = _scale(job, table, front[0].resolution)
            candidate = best_predicted(ms, front, scale)
            row = table.network_row(Network.parse(candidate.network))
            measured = None if row is None else row.steady_ms if isinstance(budget, str) else row.ms
            choices.append(_choice(table, budget, ms, candidate, scale, measured))
    return _selection(job, table, "", choices)


def table_on_disk(job: Job) -> LatencyTable:
    """The latency table that the staircases were found in, whatever device this machine has."""
    staircases = job.folder.read(job.folder.staircase, Staircases)
    return LatencyTable(job.folder.latency, find_setting(job.folder.latency, staircases.setting))


def frontiers(job: Job, table: LatencyTable) -> dict[int, tuple[Candidate, ...]]:
    """The exact frontier of every resolution, from what is on disk; block types without evidence are left out."""
    regression = job.folder.read(job.folder.regression, Regression)
    staircases = job.folder.read(job.folder.staircase, Staircases)
    found = {}
    for resolution in job.resolutions:
        widths = _with_evidence(job, regression, job.kept_widths(staircases, resolution))
        found[resolution] = frontier(job.recipe.space, widths, resolution, regression.accuracy, regression.gain, table.ms)
    return found


def _with_evidence(job: Job, regression: Regression, widths: Widths) -> Widths:
    """Nothing is offered of a block type all of whose trials failed; EvidenceError where nothing at all would be left."""
    learnt = {(gradient.index, gradient.block_type) for gradient in regression.gradients}
    for index in range(len(job.recipe.space.superblocks)):
        if not any(i == index for i, _ in learnt):
            raise EvidenceError(
                f"super-block {index + 1} must have a finished trial, and has none; `genet distill RUN` runs missing trials; "
                "where they failed, lower distill.learning_rate in the recipe and use --fresh"
            )
    return {key: kept if key in learnt else () for key, kept in widths.items()}


def _budgets_ms(job: Job, table: LatencyTable, budgets: tuple[Budget, ...]) -> dict[Budget, float]:
    """Budgets in milliseconds per batch."""
    batch = table.setting.batch
    masternet = table.masternet_ms(job.masternet) / batch
    return {budget: budget_ms(budget, masternet) * batch for budget in budgets}


def _scale(job: Job, table: LatencyTable, resolution: int) -> float:
    """Measured over predicted latency of the MasterNet: the first correction of every prediction."""
    masternet = job.recipe.space.masternet(resolution)
    return table.masternet_ms(masternet) / table.predict_ms(masternet)


def _certified(job: Job, budget: Budget, ms: float, front: tuple[Candidate, ...]) -> Choice:
    """Measure candidates until one is within the budget.

    A budget that is a multiple of the MasterNet's latency is held against latencies with the machine's drift since the
    MasterNet was measured divided out; a budget in milliseconds against the plain clock.
    """

    def measure(candidate: Candidate) -> float:
        row = profile_network(job.table, Network.parse(candidate.network), job.device, reference=job.masternet)
        return row.steady_ms if isinstance(budget, str) else row.ms

    scale = _scale(job, job.table, front[0].resolution)
    candidate, measured = best_within(ms, front, scale, measure, job.recipe.select.candidates)
    return _choice(job.table, budget, ms, candidate, scale, measured)


def _choice(table: LatencyTable, budget: Budget, ms: float, candidate: Candidate, scale: float, measured: float | None) -> Choice:
    batch = table.setting.batch
    return Choice(
        budget=budget,
        budget_ms_per_image=ms / batch,
        resolution=candidate.resolution,
        network=candidate.network,
        predicted_accuracy=candidate.predicted_accuracy,
        predicted_ms_per_image=candidate.predicted_ms * scale / batch,
        measured_ms_per_image=None if measured is None else measured / batch,
        within=None if measured is None else measured <= ms,
    )


def _selection(job: Job, table: LatencyTable, inputs: str, choices: list[Choice]) -> Selection:
    masternet = table.masternet_ms(job.masternet) / table.setting.batch
    return Selection(inputs=inputs, setting=table.setting, masternet_ms_per_image=masternet, choices=tuple(choices))
