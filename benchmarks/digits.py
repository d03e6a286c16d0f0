"""The README's table: the whole job on digits, from a fresh folder.

    python benchmarks/digits.py            (about five minutes on two CPU cores)

Writes benchmarks/results/digits/: results.json, environment.json, staircases.svg and table.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from genet.latency.noise import with_interval
from genet.latency.staircase.space_sweeps import Staircases
from genet.report.search_figures import draw_staircases, staircase_info
from genet.search.certificate import Selection
from genet.search.outcome import Outcomes
from genet.storage import write_atomic

RESULTS = Path(__file__).parent / "results" / "digits"


def main() -> None:
    """Run, then write down what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "digits"
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "genet", "run", "digits", "--run", str(run)], check=True)
        seconds = time.monotonic() - start
        outcomes = Outcomes.load(run / "results.json")
        for name in ("results.json", "environment.json"):
            write_atomic(RESULTS / name, (run / name).read_bytes())
        stairs, selection = Staircases.load(run / "staircase.json"), Selection.load(run / "selection.json")
        write_atomic(RESULTS / "staircases.svg", draw_staircases(staircase_info(stairs, outcomes.masternet.resolution)).encode())
        text = table(outcomes, run / "environment.json", seconds) + evidence(stairs, selection)
        write_atomic(RESULTS / "table.md", text.encode())


def evidence(stairs: Staircases, selection: Selection) -> str:
    """What the networks rest on: staircases, predictions, certificates."""
    found = [place.staircase for place in stairs.staircases if place.staircase]
    patterns = Counter(stair.pattern for stair in found)
    edges = sum(len(stair.edges) for stair in found)
    certified = sum(choice.within is True for choice in selection.choices)
    error = "n/a" if selection.prediction_error is None else f"{selection.prediction_error:.1%}"
    return (
        f"\n{edges} edges in {len(found)} sweeps ({', '.join(f'{count} {name}' for name, count in patterns.items())}). "
        f"Predictions off by {error} on networks left out of the correction. "
        f"{certified} of {len(selection.choices)} selections certified.\n"
    )


def table(outcomes: Outcomes, environment: Path, seconds: float) -> str:
    """The results as Markdown."""
    device = json.loads(environment.read_text())
    threads = f"{device['processors']} thread{'s' if device['processors'] > 1 else ''}"
    lines = [
        f"{device['name']}, {threads}, torch {device['torch']}; the whole job took {seconds:.0f} s.",
        "",
        "| budget | network | test accuracy, %, ± standard error | budget, ms/image | measured, ms/image | parameters | MACs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in outcomes.outcomes:
        accuracy = f"{100 * row.test_accuracy:.1f} ± {100 * row.test_error:.1f}"
        measured = with_interval(row.ms_per_image, row.interval_ms_per_image)
        lines.append(
            f"| {row.budget} | {cell(row.network)} | {accuracy} | {row.budget_ms_per_image:.4f} | {measured} "
            f"| {row.parameters:,} | {row.macs:,} |"
        )
    masternet, accuracy = outcomes.masternet.network, f"{100 * outcomes.masternet.test_accuracy:.1f}"
    lines.append(f"| MasterNet | {cell(masternet)} | {accuracy} | | {outcomes.masternet_ms_per_image:.4f} | | |")
    return "\n".join(lines) + "\n"


def cell(notation: str) -> str:
    """A notation inside a Markdown table, where a bar would end the cell."""
    return "`" + notation.replace("|", "\\|") + "`"


if __name__ == "__main__":
    main()
