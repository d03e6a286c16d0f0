"""What a run was asked for and could not have, from its files."""

from __future__ import annotations

from genet.export.manifest import EVIDENCE_FILE, Exports
from genet.pipeline.run_folder import RunFolder
from genet.search.certificate import Selection
from genet.search.outcome import Outcomes


def list_shortfalls(files: RunFolder) -> tuple[str, ...]:
    """Return the requests that the run could not fulfil, a line each: budgets without a network, formats that failed."""
    outcomes = files.if_there(files.results, Outcomes)
    exported = [each for outcome in (outcomes.outcomes if outcomes else ()) for each in outcome.exported]
    evidence = dict.fromkeys(files.path / each.export / EVIDENCE_FILE for each in exported)
    failed = [f"{file.parent.parent.name}: {line}" for file in evidence if file.exists() for line in Exports.load(file).failures]
    return (*_unmet(files, outcomes), *failed)


def unmet_budgets(files: RunFolder) -> tuple[str, ...]:
    """Return the budgets of the run that have no network, a line each: by the race if there was one, else by the selection."""
    return _unmet(files, files.if_there(files.results, Outcomes))


def _unmet(files: RunFolder, raced: Outcomes | None) -> tuple[str, ...]:
    if raced:
        return raced.shortfalls
    selection = files.if_there(files.selection, Selection)
    return selection.unmet if selection else ()
