"""Report: the page about a run and its networks."""

from __future__ import annotations

from pathlib import Path

from genet.config.budget import Budget
from genet.export.manifest import EVIDENCE_FILE, Exports
from genet.latency.estimate.roofline import RunRoof
from genet.latency.staircase.space_sweeps import Staircases, grid_rows
from genet.pipeline.context import RunContext
from genet.pipeline.distill import finished_trials
from genet.pipeline.explain import explain_selection
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.search_state import SearchState
from genet.pipeline.shortfalls import list_shortfalls
from genet.pipeline.tournament import standings_of
from genet.pipeline.trainings import read_finished
from genet.report.page import ReportData, page
from genet.report.race_figures import ShortTraining
from genet.search.certificate import Selection
from genet.search.outcome import Outcomes, TrainedNetwork
from genet.search.race import Entrants, short_training
from genet.search.validation import Validation
from genet.storage import write_atomic

PLAIN = Budget(1.0, "x")  # certificates for it are in the MasterNet's time, as the others of a page are


def write_report(job: RunContext) -> Path:
    """Write one self-contained page about the whole run; missing results are left out."""
    with job.progress.awake("writing the report"):
        return _write_report(job)


def _write_report(job: RunContext) -> Path:
    files, state = job.folder, SearchState(job)
    selection, validation = files.if_there(files.selection, Selection), files.if_there(files.validation, Validation)
    regression = state.regression if files.regression.exists() else None
    fronts = state.frontiers if files.regression.exists() else {}
    outcomes = files.if_there(files.results, Outcomes)
    roof = files.read_current(files.roof, RunRoof, state.table.setting.digest)
    data = ReportData(
        recipe=job.recipe,
        setting=state.table.setting,
        measurements=len(state.table),
        grid_rows=grid_rows(job.space),
        staircases=files.read(files.staircase, Staircases),
        masternet=files.if_there(files.master, TrainedNetwork),
        trials=finished_trials(job),
        regression=regression,
        fronts=fronts,
        certificates=state.certificates((each for front in fronts.values() for each in front), PLAIN),
        selection=selection,
        roof=roof.roof if roof else None,
        explanations=explain_selection(state, selection) if selection else (),
        validation=validation if validation and regression and validation.inputs == regression.inputs else None,
        outcomes=outcomes,
        short=short_trainings(job),
        exports=_exports(files, outcomes),
        tournament=job.tournament,
        standings=standings_of(job),
        shortfalls=list_shortfalls(files),
    )
    write_atomic(files.report, page(data).encode())
    return files.report


def short_trainings(job: RunContext) -> dict[str, ShortTraining]:
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
    """Return what every network that wins a budget was exported to, by its name."""
    rows = [row for outcome in (outcomes.outcomes if outcomes else ()) for row in outcome.exported]
    evidence = {row.name: files.path / row.export / EVIDENCE_FILE for row in rows}
    return {name: Exports.load(file) for name, file in evidence.items() if file.exists()}
