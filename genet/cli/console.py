"""Output of the commands: tables, progress, milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

from genet.export.manifest import ExportLatencies
from genet.latency.noise import TOO_NOISY
from genet.latency.table import Setting
from genet.progress import COLUMNS, on_screen
from genet.search.regression import Estimate
from genet.storage import write_atomic

Answer = dict[str, Any]  # a command's result, for programs
GAP = 2  # blanks between two columns of a table
FIRST = 36  # width of the first column, beyond which its text is folded
NOTHING = ("", "n/a")
progress = on_screen  # for long work


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table of 80 columns at most, without the columns in which no row has a value.

    Columns that find no room are printed below, each time beside the first, which names the rows.
    """
    columns_shown = [place for place in range(len(head)) if place == 0 or any(row[place] not in NOTHING for row in rows)]
    width = {place: max(_width(row[place]) for row in (head, *rows)) for place in columns_shown}
    width_left = COLUMNS - min(width[0], FIRST)
    parts: list[list[int]] = [[]]
    for place in columns_shown[1:]:
        if parts[-1] and sum(width[each] + GAP for each in (*parts[-1], place)) > width_left:
            parts.append([])
        parts[-1].append(place)
    for part in parts:
        columns = (Column(head[place], overflow="fold") for place in (0, *part))
        found = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for row in rows:
            found.add_row(*(row[place] for place in (0, *part)))
        Console(width=COLUMNS, markup=False, emoji=False, highlight=False).print(found)


def _width(text: str) -> int:
    return max(map(len, text.splitlines()), default=0)


def save_picture(file: Path, picture: str) -> None:
    """Write an SVG and print its path."""
    write_atomic(file, picture.encode())
    print(f"picture: {file}")


def setting_in_words(setting: Setting) -> str:
    """Return a setting in words, marked as an estimate if it is one."""
    return f"{setting}{': estimates, not measurements' if setting.estimate else ''}"


def noise(spread: float) -> str:
    """Return the spread of a timing's repeats, or that it is too large to tell anything."""
    return f"too noisy to tell ({spread:.0%})" if spread > TOO_NOISY else f"{spread:.1%}"


def say_untimed(serving: ExportLatencies) -> None:
    """Print why formats of an export have no latency."""
    for one in serving.served:
        if one.failure:
            print(f"  {one.format} is not timed: {one.failure}")


def latency_heading(setting: Setting) -> str:
    """Return the heading of a column of latencies: estimates are never called measured."""
    return "estimated ms" if setting.estimate else "measured ms"


def points(estimate: Estimate) -> str:
    """Return a change of accuracy in points, with its standard error."""
    return f"{100 * estimate.value:+.2f} ± {100 * estimate.error:.2f}"
