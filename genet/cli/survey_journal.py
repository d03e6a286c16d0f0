"""The journal of surveys: rows that need not be measured again, and the roof of each setting."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genet.cli.measuring import say_damaged
from genet.errors import EvidenceError
from genet.latency.estimate.roofline import MatrixProduct, ProductKind, Roof, measure_roof
from genet.latency.evidence import records_of
from genet.latency.timing.meter import Meter
from genet.storage import Journal, Record
from genet.studies.survey.survey import Surveyed

DOUBTFUL = 0.1  # relative standard error of a utilization, above which a row is measured again


class JournalEntry(Record):
    """A network surveyed in a setting, or why it cannot be.

    `at` is the requested batch, or the largest; `structure` is the network that the name stood for.
    """

    setting: str
    at: str
    structure: str
    row: Surveyed | None
    failure: str | None = None


class RoofEntry(Record):
    """The roof of a setting, and the matrix product that every network is timed in turn with: the reference of all rows."""

    setting: str
    roof: Roof
    kind: ProductKind
    size: int


class SurveyJournal:
    """The rows surveyed in the meter's setting, at its batch or at the largest.

    Estimates are not kept: they cost nothing, and change with the model that makes them. EvidenceError if the file holds
    something else.
    """

    def __init__(self, path: Path, meter: Meter, at: str) -> None:
        self.path, self._meter, self._at = path, meter, at
        self._setting = meter.setting.digest
        self._journal = Journal(path, waiting=print)
        self._rows: dict[str, JournalEntry] = {}
        self._roof: RoofEntry | None = None
        if not meter.setting.estimate:
            self._take(records_of(self._journal, "the journal of a survey"))
            say_damaged(self.path)

    def _take(self, records: Iterable[dict[str, Any]]) -> None:
        """Read what this or another process has written; the first roof of a setting is the one that its rows refer to."""
        try:
            for record in records:
                if "roof" in record:
                    roof = RoofEntry.model_validate(record)
                    if self._roof is None and roof.setting == self._setting:
                        self._roof = roof
                    continue
                kept = JournalEntry.model_validate(record)
                if (kept.setting, kept.at) == (self._setting, self._at):
                    self._rows[kept.structure] = kept
        except ValidationError:
            failure = f"{self.path}: got another kind of file, expected the journal of a survey; name another"
            raise EvidenceError(failure) from None

    def roof(self) -> tuple[Roof, MatrixProduct]:
        """Return the device's peak performance, and the matrix product that reaches it; measured once for a setting."""
        if self._roof is None:
            roof, product = measure_roof(self._meter)
            measured = RoofEntry(setting=self._setting, roof=roof, kind=product.kind, size=product.size)
            self._append(measured)
            self._roof = self._roof or measured
        return self._roof.roof, MatrixProduct(self._roof.kind, self._roof.size, self._meter.setting.batch)

    def row(self, structure: str) -> JournalEntry | None:
        """Return what is known of a network; None if nothing is, or its error is so large that it is measured again."""
        kept = self._rows.get(structure)
        doubtful = kept is not None and kept.row is not None and (kept.row.utilization_error or 0.0) > DOUBTFUL
        return None if doubtful else kept

    def keep(self, structure: str, row: Surveyed | None, failure: str | None = None) -> None:
        """Record a network."""
        self._append(JournalEntry(setting=self._setting, at=self._at, structure=structure, row=row, failure=failure))

    def _append(self, record: Record) -> None:
        if not self._meter.setting.estimate:
            self._take(self._journal.append(record.model_dump(mode="json")))
