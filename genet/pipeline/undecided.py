"""Budgets left undecided as timings spread too much: the next command repeats the inconclusive timings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from statistics import stdev

from genet.config.budget import Budget
from genet.errors import StorageError
from genet.latency.noise import TOO_NOISY
from genet.latency.table import NetworkRow
from genet.names import counted
from genet.pipeline.context import RunContext
from genet.pipeline.search_state import FUTILE, SearchState
from genet.search.certificate import Selection
from genet.search.race import Entrants


def undecided_before(job: RunContext) -> tuple[Budget, ...]:
    """Return the recipe's budgets that the last command could not decide, by what it left."""
    found: set[Budget] = set()
    with suppress(StorageError):  # none, or of an earlier version
        found |= {*Selection.load(job.folder.selection).undecided}
    with suppress(StorageError):
        found |= {*Entrants.load(job.folder.entrants).undecided}
    return () if job.recipe.measure.latency_file else tuple(each for each in job.recipe.select.budgets if each in found)


def forget_doubtful(job: RunContext) -> bool:
    """Forget the timings that left budgets undecided, and the MasterNet's; return whether there were any.

    They are measured again when they are needed; until then the file keeps them.
    """
    undecided = undecided_before(job)
    if not undecided or job.table.network_row(job.reference) is None:
        return False
    state = SearchState(job, job.table)
    rows = [row for row in job.table.network_rows if row.reference == str(job.reference)]
    doubtful = [row.network for row in rows if _disturbed(row) or _decides_nothing(state, row, undecided)]
    if doubtful:
        job.progress.say(
            f"  {', '.join(map(str, undecided))} could not be certified before: repeating "
            f"{counted(len(doubtful), 'inconclusive timing')}"
        )
        job.table.forget((*doubtful, str(job.reference)))
    return bool(doubtful)


def _disturbed(row: NetworkRow) -> bool:
    """Return whether other work disturbed a network's repeats or rounds."""
    return row.spread > TOO_NOISY or (len(row.ratios) > 1 and stdev(row.ratios) > TOO_NOISY * row.ratio)


def _decides_nothing(state: SearchState, row: NetworkRow, budgets: Sequence[Budget]) -> bool:
    """Return whether so many rounds leave one of the budgets undecided that more would not help."""
    return len(row.ms) >= FUTILE and any(state.judge(row, budget).within is None for budget in budgets)
