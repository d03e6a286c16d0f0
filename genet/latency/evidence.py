"""Latency evidence in a file: read without its device, and compared with another file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from genet.config.recipe import Measure
from genet.errors import EvidenceError
from genet.latency.table import LatencyTable, Setting, settings
from genet.storage import Journal, Record


def read_evidence(path: Path, wanted: Measure | None = None) -> LatencyTable:
    """Return the table in an evidence file: the `wanted` one of its settings, or its only one.

    EvidenceError if the file has no latencies, or none or several that fit.
    """
    found = _settings(path)
    fitting = [setting for setting in found if wanted is None or _fits(setting, wanted)]
    if len(fitting) != 1:
        known = "; ".join(map(str, fitting or found))
        raise EvidenceError(
            f"{path}: got {len(fitting)} settings that match the request, expected one (known: {known}); set measure's "
            "runtime, dtype, memory_format, batch and threads to it, or pass a file with one setting"
        )
    return LatencyTable(Journal(path), fitting[0])


def _settings(path: Path) -> tuple[Setting, ...]:
    if not path.is_file():
        raise EvidenceError(f"{path} does not exist, expected an evidence file such as RUN/latency.jsonl")
    found = tuple(settings(Journal(path)).values())
    if not found:
        raise EvidenceError(f"{path}: got no latencies, expected those of a setting; `genet profile RUN` writes them")
    return found


def _fits(setting: Setting, wanted: Measure) -> bool:
    same_runtime = wanted.runtime in ("auto", setting.runtime)
    same_threads = setting.device.kind != "cpu" or wanted.threads in (None, setting.device.processors)
    return same_runtime and same_threads and _conditions(setting)[1:] == (wanted.dtype, wanted.memory_format, wanted.batch)


def _conditions(setting: Setting) -> tuple[object, ...]:
    return setting.runtime, setting.dtype, setting.memory_format, setting.batch


def open_rows(journal: Journal, setting: Setting) -> LatencyTable:
    """Return the rows of a setting in a journal that a user named; EvidenceError if the file is something else."""
    records_of(journal, "a journal of latencies")
    return LatencyTable(journal, setting)


def records_of(journal: Journal, what: str) -> tuple[dict[str, Any], ...]:
    """Return the content of a journal that a user named; EvidenceError if the file is something else."""
    content = journal.read()
    if content.damaged and not content.records:
        raise EvidenceError(f"{journal.path}: got another kind of file, expected {what} or a new file; name another")
    return content.records


def differences_in_words(before: Setting, after: Setting) -> tuple[str, str]:
    """Return in words what each of two settings has that the other has not; both in full if words do not tell."""
    parts = [str(setting).split(", ") for setting in (before, after)]
    only = [[part for part in own if part not in other] for own, other in (parts, parts[::-1])]
    return ", ".join(only[0]) or str(before), ", ".join(only[1]) or str(after)


class RowChange(Record):
    """One row of two evidence files: its name, and milliseconds per batch before and after."""

    name: str
    before_ms: float
    after_ms: float

    @property
    def change(self) -> float:
        """Relative change."""
        return self.after_ms / self.before_ms - 1


class Difference(Record):
    """The changes between two settings: the facts of the key that differ, and every row that both have, largest change first.

    `floor` is the relative change that the scatter of both sentinels makes by itself.
    """

    before: Setting
    after: Setting
    facts: tuple[tuple[str, str, str], ...]
    rows: tuple[RowChange, ...]
    only_before: int
    only_after: int
    floor: float


def differences(before: Path, after: Path) -> tuple[Difference, ...]:
    """Compare two evidence files, setting by setting. EvidenceError if no two settings have the same conditions.

    Settings are paired by runtime, number format, memory format and batch; device and software are what may differ.
    """
    pairs = [(a, b) for a in _settings(before) for b in _settings(after) if _conditions(a) == _conditions(b)]
    if not pairs:
        raise EvidenceError(
            f"{before} and {after}: got no runtime, dtype, memory format and batch that both share, expected at least one "
            f"({'; '.join(map(str, _settings(before)))} against {'; '.join(map(str, _settings(after)))})"
        )
    return tuple(difference(LatencyTable(Journal(before), a), LatencyTable(Journal(after), b)) for a, b in pairs)


def difference(before: LatencyTable, after: LatencyTable) -> Difference:
    """Compare two tables row by row."""
    old, new = _latencies(before), _latencies(after)
    was, now = before.setting.device.model_dump(), after.setting.device.model_dump()
    rows = [RowChange(name=name, before_ms=old[name], after_ms=new[name]) for name in old if name in new]
    return Difference(
        before=before.setting,
        after=after.setting,
        facts=tuple((name, str(was[name]), str(now[name])) for name in was if was[name] != now[name]),
        rows=tuple(sorted(rows, key=lambda row: -abs(math.log(row.after_ms / row.before_ms)))),
        only_before=len(old.keys() - new.keys()),
        only_after=len(new.keys() - old.keys()),
        floor=3 * math.hypot(before.noise, after.noise),
    )


def _latencies(table: LatencyTable) -> dict[str, float]:
    """Return uncorrected latencies: drift is not divided out, as a comparison of two files looks for it."""
    found = {str(row.block): row.ms for row in table.block_rows if row.ms is not None}
    return found | {row.network: row.mean_ms for row in table.network_rows}
