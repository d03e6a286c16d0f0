"""Tables that others made, as CSV files: one record per row, every fault at once with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from genet.errors import SpecError
from genet.storage import Record, read_bytes

Row = TypeVar("Row", bound=Record)


def read_table(
    path: Path, row_type: type[Row], key: Sequence[str], spellings: Mapping[str, str] | None = None
) -> tuple[Row, ...]:
    """Return the rows of a CSV file whose header names the fields of a record; other columns and empty cells are ignored.

    Rows that are alike in `key` must be alike in all; `spellings` maps other names of columns to fields. SpecError with every
    fault, one `file:line:` each; StorageError if the file cannot be read.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError([f"{path}: got bytes that are not UTF-8, expected a CSV file in UTF-8; export it as CSV"]) from None
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    header = [(spellings or {}).get(name.strip(), name.strip()) for name in next(reader, [])]
    wanted = [name for name, field in row_type.model_fields.items() if field.is_required()]
    missing = [name for name in wanted if name not in header]
    if missing:
        rule = f"must have the columns {', '.join(wanted)}"
        raise SpecError([f"{path}:1: {rule} (got {','.join(header) or 'nothing'}); name the column {' and '.join(missing)}"])
    rows: dict[tuple[object, ...], Row] = {}
    faults: list[str] = []
    for cells in reader:
        if not any(map(str.strip, cells)):
            continue
        where = f"{path}:{reader.line_num}"
        if len(cells) != len(header):
            rule = f"got {len(cells)} cells, expected one for each of the {len(header)} columns"
            faults.append(f"{where}: {rule}; numbers are written without commas")
            continue
        given = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}
        try:
            row = row_type.model_validate({name: cell for name, cell in given.items() if name in row_type.model_fields})
        except ValidationError as fault:
            faults += [
                f"{where}: {error['loc'][0]}: {_rule(error['msg'])} (got {given.get(str(error['loc'][0]), 'nothing')[:40]})"
                for error in fault.errors()
            ]
            continue
        own = tuple(getattr(row, name) for name in key)
        if rows.get(own, row) != row:
            key_values = " ".join(str(value) for value in own if value is not None)
            faults.append(
                f"{where}: {', '.join(key)}: must appear once (got {key_values} with other figures above); keep one row"
            )
        rows[own] = row
    if not rows and not faults:
        faults.append(f"{path}:1: must have a row below the header (got none)")
    if faults:
        raise SpecError(faults)
    return tuple(rows.values())


def as_csv(rows: Sequence[Record]) -> str:
    """Return the rows as CSV, a column per field; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(type(rows[0]).model_fields)
    writer.writerows(["" if value is None else value for value in row.model_dump().values()] for row in rows)
    return text.getvalue()


def _rule(message: str) -> str:
    return message.replace("Input should be", "must be").replace("Field required", "must be given")
