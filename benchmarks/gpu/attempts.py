"""What was tried: a line of JSON for every attempt at a part, whatever became of it."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["done", "failed", "cut off", "not begun"]
FILE = "attempts.jsonl"


@dataclass(frozen=True)
class Attempt:
    """An attempt at a part: how it ended after how many seconds, and why if it is not done."""

    part: str
    status: Status
    seconds: float
    reason: str
    commit: str
    began: str  # ISO 8601, UTC


def read_attempts(folder: Path) -> list[Attempt]:
    """Return the attempts that a folder's file holds; a line that is torn or of another kind is passed over."""
    file, found = folder / FILE, []
    for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
        try:
            found.append(Attempt(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def add_attempt(folder: Path, attempt: Attempt) -> None:
    """Append an attempt to a folder's file; it is on the disk when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    torn = file.exists() and not file.read_bytes().endswith(b"\n")
    with file.open("a") as lines:
        lines.write("\n" * torn + json.dumps(dataclasses.asdict(attempt)) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def last_of_each(attempts: list[Attempt]) -> dict[str, Attempt]:
    """Return what is known of every part: that it is done, if it ever was, and else its last attempt."""
    found: dict[str, Attempt] = {}
    for attempt in attempts:
        if attempt.part not in found or found[attempt.part].status != "done":
            found[attempt.part] = attempt
    return found
