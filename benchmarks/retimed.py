"""Networks that were certified within a budget, timed again by another process later: how many keep it.

    python benchmarks/retimed.py --study all      minutes, on the machine that benchmarks/budgets.py ran on, with as many threads

Every certified network of the study's races, whichever way found it, is timed again in turn with the MasterNet, in 20 rounds. Its
share of the MasterNet's latency is held against the tightest budget that it was certified for. Writes
benchmarks/results/budgets/STUDY/retimed.md, and the rounds beside it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import fmean

from budgets import RESULTS, STUDIED
from trials import STUDIES

from genet.arch.external import read_notation
from genet.config.budget import Budget
from genet.device import keep_memory, open_device, read_card
from genet.latency.profile import measure_network
from genet.latency.table import LatencyTable
from genet.latency.timing.meter import open_meter
from genet.latency.timing.ratio import StopRule
from genet.search.race import Entrants
from genet.statistics import half_interval
from genet.storage import Journal, Record, write_atomic

ROUNDS = 20  # the most that a certificate takes


class Retimed(Record):
    """Shares of the MasterNet's latency: the budget, as certified, and as timed again, with half of its 99.9 % interval."""

    name: str
    budget: float
    certified: float
    again: float
    interval: float


def certified(study: Path) -> dict[str, tuple[str, Budget, float]]:
    """Name, tightest budget and certified share of the MasterNet's latency, by notation, of all that raced."""
    found: dict[str, tuple[str, Budget, float]] = {}
    for file in sorted(study.glob("*-entrants.json")):
        entrants = Entrants.load(file)
        for each in entrants.racing:
            if each.ms_per_image is not None:
                tightest = min(each.within, key=lambda budget: budget.amount)
                found.setdefault(each.network, (each.name, tightest, each.ms_per_image / entrants.masternet_ms_per_image))
    return found


def table(rows: list[Retimed]) -> str:
    """How many networks keep their budgets, and how far their latency has moved."""
    over = [row for row in rows if row.again > row.budget]
    clearly = [row for row in over if row.again - row.interval > row.budget]
    moved = [row.again / row.certified - 1 for row in rows]
    lines = [
        "# Certified networks, timed again",
        "",
        f"{len(rows)} networks, {ROUNDS} rounds each in turn with the MasterNet, by another process after the races.",
        f"Above the budget by more than the 99.9 % interval of the new timing: {len(clearly)}; less: {len(over) - len(clearly)}.",
        f"Latency as timed again over that certified: {100 * fmean(moved):+.1f} % on average, "
        f"{100 * math.sqrt(fmean([each**2 for each in moved])):.1f} % root mean square.",
        "",
        "| network | budget | certified | timed again |",
        "|---|---|---|---|",
        *(f"| {r.name} | {r.budget:g}x | {r.certified:.3f}x | {r.again:.3f}x ± {r.interval:.3f} |" for r in rows),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Time all again, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=STUDIED, default="all")
    study = RESULTS / parser.parse_args().study
    keep_memory()
    recipe, device = STUDIES["fidelity"].recipe(), open_device("cpu")
    meter = open_meter(recipe.measure, read_card(device), device)
    classes = STUDIED[study.name].classes
    space = recipe.space.model_copy(update={"input": recipe.space.input.model_copy(update={"classes": classes})})
    reference, journal = space.masternet(recipe.search_resolution), Journal(study / "retimed.jsonl")
    rounds = LatencyTable(journal, meter.setting)
    rows = []
    for notation, (name, budget, share) in certified(study).items():
        row = measure_network(rounds, meter, read_notation(notation, name), reference, StopRule(least=ROUNDS, most=ROUNDS))
        rows.append(
            Retimed(name=name, budget=budget.amount, certified=share, again=row.ratio, interval=half_interval(row.ratios))
        )
        print(rows[-1], flush=True)
    text = table(rows)
    print(text)
    write_atomic(study / "retimed.md", text.encode())


if __name__ == "__main__":
    main()
