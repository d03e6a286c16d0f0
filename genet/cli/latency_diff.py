"""`genet latency diff`: what changed between two evidence files, such as after an update of a driver or of torch."""

from __future__ import annotations

import argparse
import math

from genet.cli.console import Answer, table
from genet.cli.measuring import say_damaged
from genet.latency.evidence import Difference, differences
from genet.latency.noise import with_interval

MOST_ROWS = 40  # number of rows printed; --json has all


def run(arguments: argparse.Namespace) -> Answer:
    """Compare two evidence files, setting by setting."""
    found = differences(*arguments.files)
    for file in arguments.files:
        say_damaged(file)
    for one in found:
        _print_difference(one)
    return {"differences": [one.model_dump(mode="json") | {"median_change": _median_change(one)} for one in found]}


def _print_difference(found: Difference) -> None:
    print(f"{found.before}\n  against {found.after}")
    for name, before, after in found.facts:
        print(f"  {name}: {before} -> {after}")
    moved = [row for row in found.rows if abs(math.log(row.after_ms / row.before_ms)) > found.floor]
    print(
        f"  {len(found.rows)} rows in both, median change {_median_change(found):+.1%}: {len(moved)} changed by more than the "
        f"{found.floor:.1%} that noise explains; {found.only_before} rows only in the first, "
        f"{found.only_after} only in the second"
    )
    if moved:
        rows = [
            [row.name, with_interval(row.before_ms), with_interval(row.after_ms), f"{row.change:+.1%}"]
            for row in moved[:MOST_ROWS]
        ]
        table(["largest changes", "ms before", "ms after", "change"], rows)


def _median_change(found: Difference) -> float:
    changes = sorted(row.change for row in found.rows)
    return changes[len(changes) // 2] if changes else 0.0
