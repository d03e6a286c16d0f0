"""The results of a run as tables, for notebooks: one row per network, trial or measured block."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genet.config.budget import Budget
from genet.config.options import checked_budgets
from genet.errors import RunError, SpecError
from genet.latency.staircase.space_sweeps import Staircases
from genet.latency.table import LatencyTable, find_setting
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.shortfalls import list_shortfalls
from genet.search.outcome import Outcomes
from genet.trials.results import read_results


class ExportFolders(dict[str, Path]):
    """The folders of a run's exports by budget; any form of a budget finds its folder.

    RunError, which names the budgets, for any other.
    """

    def __init__(self, folder: Path, found: Outcomes) -> None:
        super().__init__({str(row.budget): folder / row.export for row in found.outcomes})
        self._folder, self._found = folder, found

    def __missing__(self, asked: object) -> Path:
        """Return the folder of a budget that is written in another form, such as 0.50x or 5ms/image."""
        try:
            (wanted,) = checked_budgets([asked], str)
        except SpecError:
            raise self._error(asked, "a budget is 5ms, 0.2ms/image or 0.5x") from None
        equal = (row for row in self._found.outcomes if math.isclose(self._ms(row.budget), self._ms(wanted)))
        if row := next(equal, None):
            return self[str(row.budget)]
        if wanted in {*self._found.untrained, *(each.budget for each in self._found.unmet)}:
            raise self._error(asked, "see run.shortfalls for the reason")
        raise self._error(asked, f"genet.design(folder={str(self._folder)!r}, budget={str(asked)!r}) designs for it too")

    def _error(self, asked: object, remedy: str) -> RunError:
        known = f"one of {', '.join(self)}" if self else "one that is met (none is)"
        return RunError(f"{self._folder}: got budget {asked}, expected {known}; {remedy}")

    def _ms(self, budget: Budget) -> float:
        batch = self._found.setting.batch
        return budget.ms(self._found.masternet_ms_per_image * batch, batch)


class Run:
    """A run folder, to be read while its job is under way too.

    Tables are pandas DataFrames if pandas is installed, else lists of dictionaries; they are read anew each time.
    """

    def __init__(self, folder: str | Path) -> None:
        """RunError if the folder is no run folder."""
        self.folder = Path(folder)
        self._files = RunFolder(self.folder)
        self.recipe = self._files.recipe()

    @property
    def outcomes(self) -> Any:
        """A row for every budget that is met: the winner, its latency and accuracy, and the folder of its exports."""
        rows = self._results.outcomes
        return _table(
            {**row.model_dump(mode="json", exclude={"known", "best_searched"}), "folder": str(self.folder / row.export)}
            for row in rows
        )

    @property
    def exports(self) -> ExportFolders:
        """The folder of the exports for every budget that is met, such as `5ms`; `genet.load` reads it."""
        return ExportFolders(self.folder, self._results)

    @property
    def networks(self) -> Any:
        """A row for every network that was fully trained in the race. Latencies are milliseconds per image."""
        return _table(row.model_dump(mode="json") for row in self._results.raced)

    @property
    def trials(self) -> Any:
        """A row for every trial, failed ones too. The accuracy is on held-out images after the last epoch."""
        results = read_results(self._files.trials).values()
        return _table(
            {
                "index": result.index,
                "superblock": str(result.superblock),
                "changed_too": [str(change.superblock) for change in result.also],
                "accuracy": result.accuracy,
                "curve": list(result.curve),
                "failure": result.failure and result.failure.kind,
                "seconds": result.seconds.training,
                "network": result.network,
            }
            for result in results
        )

    @property
    def latency(self) -> Any:
        """A row for every block and network that was timed, in the run's own setting. Latencies are milliseconds per batch."""
        setting = self._files.read(self._files.staircase, Staircases).setting
        table = LatencyTable(self._files.latency, find_setting(self._files.latency, setting))
        blocks = (
            {"kind": "block", "what": str(row.block), "ms": row.ms, "rounds": 1, "spread": row.spread, "kernels": row.ops}
            for row in table.block_rows
        )
        networks = (
            {
                "kind": "network",
                "what": row.network,
                "ms": row.mean_ms,
                "rounds": len(row.ms),
                "spread": row.spread,
                "kernels": row.ops,
            }
            for row in table.network_rows
        )
        return _table((*blocks, *networks))

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """A line for everything asked for that could not be had: budgets that no network meets, formats that failed."""
        return list_shortfalls(self._files)

    @property
    def _results(self) -> Outcomes:
        return self._files.read(self._files.results, Outcomes)

    def __repr__(self) -> str:
        return f"genet.Run({str(self.folder)!r})"


def _table(rows: Iterable[dict[str, Any]]) -> Any:
    """Return rows as a DataFrame if pandas is installed, else as a list."""
    found = list(rows)
    try:
        import pandas  # type: ignore[import-untyped]
    except ImportError:
        return found
    return pandas.DataFrame(found)
