"""Output of the commands: tables, progress, milliseconds."""

from __future__ import annotations

import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Column, Table

from genet.latency.table import Setting
from genet.progress import LinePrinter, LiveBar, Progress
from genet.search.regression import Estimate
from genet.storage import write_atomic


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print a plain table, as wide as the terminal; lines stay unbroken if programs read it."""
    terminal = sys.stdout.isatty()
    table = Table(*(Column(name, overflow="fold") for name in head), box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for row in rows:  # a notation is one line for programs, and one entry per line for people
        table.add_row(*(text.replace(" | ", "\n") if terminal else text for text in row))
    Console(width=None if terminal else 1000, markup=False, emoji=False).print(table)


def progress() -> Progress:
    """Return a live bar on a terminal, plain lines elsewhere."""
    console = Console()
    return LiveBar(console) if console.is_terminal else LinePrinter(console)


def save_picture(file: Path, picture: str) -> None:
    """Write an SVG and print its path."""
    write_atomic(file, picture.encode())
    print(f"picture: {file}")


def labelled(setting: Setting) -> str:
    """Return a setting in words, marked as an estimate if it is one."""
    return f"{setting}{': estimates, not measurements' if setting.estimate else ''}"


def milliseconds(ms: float | None, interval: float | None = None) -> str:
    """Return milliseconds with four digits, and half the width of their interval; n/a if nothing was measured."""
    if ms is None:
        return "n/a"
    return f"{ms:.4f}" if not interval else f"{ms:.4f} ± {interval:.4f}"


def found_ms(setting: Setting) -> str:
    """Return the heading of a column of latencies: estimates are never called measured."""
    return "estimated ms" if setting.estimate else "measured ms"


def points(estimate: Estimate) -> str:
    """Return a change of accuracy in points, with its standard error."""
    return f"{100 * estimate.value:+.2f} ± {100 * estimate.error:.2f}"
