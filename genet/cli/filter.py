"""`genet filter`: test on a table of a whole space if utilization can replace accuracy in a search."""

from __future__ import annotations

import argparse
import math
from statistics import fmean, stdev

from genet.cli.console import Answer, progress, save_picture, table
from genet.errors import SpecError
from genet.progress import duration
from genet.statistics import half_interval
from genet.studies.figures import draw_filtering
from genet.studies.filter.bench import read_bench, read_nats
from genet.studies.filter.study import Conditions, Filtering, MethodSummary, study

EARLY = 0.9  # of the budget: the output names searches that ended before this share
DOUBT = 0.05  # probability of a verdict by chance
HEAD = ["method", "trained", "timed", "cost", "of the true frontier", "hypervolume"]


def run(arguments: argparse.Namespace) -> Answer:
    """Search a table of a whole space with and without filtering by utilization, and print how they compare."""
    faults = []
    if (arguments.table is None) == (arguments.nats is None):
        got = "neither" if arguments.table is None else "both"
        faults.append(f"genet filter: got {got} of a CSV table of a space and --nats FILE, expected one of them")
    for name in ("budget", "target"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < math.inf:
            faults.append(f"--{name}: got {value:g}, expected a number above 0")
    if not 0 <= arguments.weight < math.inf:
        faults.append(f"--weight: got {arguments.weight:g}, expected 0 or above")
    if faults:
        raise SpecError(faults)
    bench = read_nats(arguments.nats, progress()) if arguments.nats else read_bench(arguments.table)
    conditions = Conditions(arguments.budget, arguments.seeds, arguments.target, arguments.weight)
    with progress().track("seeds (all methods on each)", arguments.seeds) as tracker:
        found = study(bench, conditions, tracker)
    _print(found, arguments.seeds)
    if arguments.plot:
        save_picture(arguments.plot, draw_filtering(bench.rows, found))
    return found.model_dump(mode="json")


def _print(found: Filtering, seeds: int) -> None:
    print(f"{found.networks} networks, {len(found.true_frontier)} on the true frontier of throughput and accuracy")
    for name, count in found.left.items():
        agreement = found.spearman[name]
        correlation = f"Spearman {'n/a' if agreement is None else format(agreement, '.2f')} with accuracy"
        print(f"  {name}: {correlation}; {count} networks on its frontier with throughput, {count / found.networks:.1%} of all")
    target = f"(throughput / {found.target_images_per_sec:.6g} images/s) to the power {found.weight:g}"
    print(f"budget {duration(found.budget_sec)}; {seeds} seeds; reward of the searches that learn: accuracy times {target}")
    table(HEAD, [_row(method) for method in sorted(found.methods, key=lambda method: -method.hypervolume)])
    print("means over the seeds ± standard deviation; hypervolume is relative to that of the true frontier")
    for method in found.methods:
        if method.seconds < EARLY * found.budget_sec and method.trained < found.networks:
            left = duration(found.budget_sec - method.seconds)
            print(f"  {method.method} ended with {left} left: it had no new network to propose")
    print(verdict(found))


def _row(method: MethodSummary) -> list[str]:
    return [
        method.method,
        f"{method.trained:.0f}",
        f"{method.timed:.0f}",
        duration(method.seconds),
        f"{method.share:.0%} ± {method.share_deviation:.0%}",
        f"{method.hypervolume:.4f} ± {method.hypervolume_deviation:.4f}",
    ]


def verdict(found: Filtering) -> str:
    """Compare filtering by utilization with the best search that trains the networks it samples, seed by seed."""
    by_method = {
        name: [run.hypervolume for run in found.runs if run.method == name] for name in {run.method for run in found.runs}
    }
    ours = by_method["filter by utilization"]
    rivals = {method.method: method.hypervolume for method in found.methods if not method.method.startswith("filter")}
    best = max(rivals, key=lambda name: rivals[name])
    ahead = [one - other for one, other in zip(ours, by_method[best], strict=True)]
    if len(ahead) < 2:
        return f"filtering by utilization against {best}: hypervolumes differ by {ahead[0]:+.4f}; one seed tells nothing"
    mean, error = fmean(ahead), stdev(ahead) / math.sqrt(len(ahead))
    difference = f"hypervolumes differ by {mean:+.4f}, standard error {error:.4f}"
    if abs(mean) <= half_interval(ahead, 1 - DOUBT / len(rivals)):  # the best of several rivals is picked
        return f"filtering by utilization and {best} cannot be told apart: {difference}"
    return f"filtering by utilization is {'better' if mean > 0 else 'worse'} than {best}: {difference}"
