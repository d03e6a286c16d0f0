"""Train selected networks by hand, and report: the page about a run and its networks."""

from __future__ import annotations

from pathlib import Path

from genet.arch.external import ModelSpec, read_notation
from genet.arch.network import Network
from genet.config.reader import to_yaml
from genet.errors import RunError
from genet.export.manifest import EVIDENCE_FILE, Exports
from genet.latency.estimate.roofline import RunRoof
from genet.latency.staircase.space_sweeps import Staircases, grid_rows
from genet.models.weights import write_labels
from genet.pipeline.context import RunContext
from genet.pipeline.distill import finished_trials
from genet.pipeline.explain import explain_selection
from genet.pipeline.master import parent_of, train_unless_done, training_spec
from genet.pipeline.run_folder import RunFolder, network_name
from genet.pipeline.search_state import SearchState
from genet.pipeline.shortfalls import list_shortfalls
from genet.pipeline.tournament import standings_of
from genet.pipeline.trainings import read_finished
from genet.report.page import ReportData, page
from genet.report.race_figures import ShortTraining
from genet.search.certificate import Selection
from genet.search.outcome import Outcomes, Trained
from genet.search.race import Entrants, short_training
from genet.search.validation import Validation
from genet.storage import write_atomic
from genet.training.distributed import SINGLE_PROCESS, ProcessGroup


def train_selected(job: RunContext, name: str | None = None, world: ProcessGroup = SINGLE_PROCESS) -> dict[str, Trained]:
    """Train the selected networks, or the one of this name or notation, so that the race finds them trained.

    Returns them by name. RunError if none has this name, or none was selected.
    """
    selection = job.folder.read(job.folder.selection, Selection)
    networks: dict[str, ModelSpec] = {  # two budgets may share one
        choice.network: Network.parse(choice.network, name=job.recipe.space.name) for choice in selection.answers
    }
    if job.folder.entrants.exists():
        entrants = job.folder.read(job.folder.entrants, Entrants).racing
        others = {each.network: read_notation(each.network, each.design or job.recipe.space.name) for each in entrants}
        networks = others | networks if name else networks
    chosen = [network for network in networks.values() if name in (None, network_name(network), str(network))]
    if not chosen:
        names = ", ".join(map(network_name, networks.values())) or "none, for no budget can be met"
        raise RunError(f"training {name or 'the selected networks'} failed: got no such network, expected one of {names}")
    return {network_name(network): _trained(job, network, world) for network in chosen}


def _trained(job: RunContext, network: ModelSpec, world: ProcessGroup) -> Trained:
    folder = job.folder.network(network)
    if world.first:
        write_atomic(folder / "network.yaml", to_yaml(network).encode())
        write_labels(folder, job.splits.labels)
    parent = parent_of(job)
    spec = training_spec(job, network, job.recipe.train, parent=parent)
    return train_unless_done(job, spec, folder / "model.json", f"training {network_name(network)}", parent, world)


def write_report(job: RunContext) -> Path:
    """Write one self-contained page about the whole run; missing results are left out."""
    files, state = job.folder, SearchState(job)
    selection, validation = files.if_there(files.selection, Selection), files.if_there(files.validation, Validation)
    regression = state.regression if files.regression.exists() else None
    outcomes = files.if_there(files.results, Outcomes)
    roof = files.read_current(files.roof, RunRoof, state.table.setting.digest)
    data = ReportData(
        recipe=job.recipe,
        setting=state.table.setting,
        measurements=len(state.table),
        grid_rows=grid_rows(job.space),
        staircases=files.read(files.staircase, Staircases),
        masternet=files.if_there(files.master, Trained),
        trials=finished_trials(job),
        regression=regression,
        fronts=state.frontiers if files.regression.exists() else {},
        selection=selection,
        roof=roof.roof if roof else None,
        explanations=explain_selection(state, selection) if selection else (),
        validation=validation if validation and regression and validation.inputs == regression.inputs else None,
        outcomes=outcomes,
        short=_short_trainings(job),
        exports=_exports(files, outcomes),
        tournament=job.tournament,
        standings=standings_of(job),
        shortfalls=list_shortfalls(files),
    )
    write_atomic(files.report, page(data).encode())
    return files.report


def _short_trainings(job: RunContext) -> dict[str, ShortTraining]:
    """Return the short trainings of all who race, and of the joint trials, by notation; of several of a network the last."""
    found = job.folder.if_there(job.folder.entrants, Entrants)
    if found is None:
        return {}
    names = {each.network: each.name for each in found.racing}
    networks = names.keys() | {each.network for each in found.joint}
    designs, epochs = {each.network for each in found.racing if each.design}, short_training(job.recipe.train).epochs
    return {
        line.network: ShortTraining(names.get(line.network, line.name), line.held_out, line.network not in designs)
        for line in read_finished(job.folder.race).values()
        if line.network in networks and (line.epochs, line.repeat) == (epochs, 0) and line.held_out is not None
    }


def _exports(files: RunFolder, outcomes: Outcomes | None) -> dict[str, Exports]:
    """Return what every network that is handed out was exported to, by its name."""
    rows = [row for outcome in (outcomes.outcomes if outcomes else ()) for row in outcome.exported]
    evidence = {row.name: files.path / row.export / EVIDENCE_FILE for row in rows}
    return {name: Exports.load(file) for name, file in evidence.items() if file.exists()}
