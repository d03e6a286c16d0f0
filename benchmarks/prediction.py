"""How far predicted latencies are off: random networks of a space, measured whole and never shown to the correction.

    python benchmarks/prediction.py                   (digits on this machine, about 3 minutes on two CPU cores)
    python benchmarks/prediction.py --recipe cifar10

Writes benchmarks/results/prediction/NAME.md. The A/A floor beside the errors is what two timings of the same network
differ by on the same machine: no prediction can be better.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from genet import pipeline
from genet.commands.printing import progress
from genet.files import write_atomic
from genet.job import Job, open_job, predictor
from genet.latency.part import whole
from genet.latency.plan import Staircases, correction_networks, random_networks
from genet.latency.predict import Predictor, relative_errors
from genet.latency.profile import measure_network
from genet.latency.repeat import repeatability
from genet.runfolder import RunFolder
from genet.spec.reader import read_recipe
from genet.spec.recipe import Recipe

NETWORKS = 50
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, predict, compare, write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--networks", type=int, default=NETWORKS)
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe)
    with tempfile.TemporaryDirectory() as folder:
        text = study(recipe, Path(folder) / "run", arguments.networks)
    print(text)
    write_atomic(RESULTS / "prediction" / f"{recipe.name}.md", text.encode())


def study(recipe: Recipe, folder: Path, count: int) -> str:
    """Fill the table of a recipe in a run folder, then hold its predictions against networks measured whole."""
    RunFolder(folder).adopt(recipe)
    with open_job(folder, progress()) as job:
        pipeline.profile(job)
        return report(job, count)


def report(job: Job, count: int) -> str:
    """The errors over `count` networks that took no part in the correction, as Markdown."""
    staircases = Staircases.load(job.folder.staircase)
    kept = {resolution: job.kept_widths(staircases, resolution) for resolution in job.resolutions}
    prediction = predictor(job, job.table, kept)
    seen = {str(network) for network in correction_networks(job.recipe.space, kept, job.recipe.measure.networks, job.recipe.seed)}
    fresh = [n for n in random_networks(job.recipe.space, kept, 2 * count, job.recipe.seed + 1) if str(n) not in seen][:count]
    predicted = [prediction.ms(network) for network in fresh]
    measured = []
    with job.progress.track("networks that the correction has not seen", len(fresh)) as tracker:
        for network in fresh:
            row = measure_network(job.table, job.meter, network, job.masternet)
            measured.append(row.ratio * job.table.masternet_ms(job.masternet))
            tracker.advance()
    return written(job, prediction, np.array(relative_errors(predicted, measured)), predicted, measured)


def written(job: Job, prediction: Predictor, errors: np.ndarray, predicted: list[float], measured: list[float]) -> str:
    """The study as Markdown."""
    floor = repeatability(whole(job.masternet), job.meter)
    offered = job.recipe.space.widths_on_offer()
    table, correction = job.table, prediction.correction
    expected = prediction.correction.left_out_error or float("nan")
    return "\n".join(
        [
            f"# Predicted against measured: {job.recipe.name}",
            "",
            f"{table.setting}; space of {job.recipe.space.size(offered):,} networks, {len(table)} block rows, correction fitted "
            f"on {correction.networks} networks ({correction.scale:.3f} x sum + {correction.kernel_ms:.4g} ms per kernel; host "
            f"{correction.host_ms:.4g} ms per kernel). Made by `python benchmarks/prediction.py --recipe {job.recipe.name}`.",
            "",
            "| figure | value | target |",
            "|---|---|---|",
            f"| networks not seen by the correction | {len(errors)} | 50 |",
            f"| mean error | {np.abs(errors).mean():.1%} | 3% |",
            f"| median error | {np.median(np.abs(errors)):.1%} | |",
            f"| within 5 % | {np.mean(np.abs(errors) <= 0.05):.0%} | 95% |",
            f"| bias | {errors.mean():+.1%} | 1% |",
            f"| Kendall | {kendalltau(predicted, measured)[0]:.3f} | 0.95 |",
            f"| the run's own figure, left out one at a time | {expected:.1%} | |",
            f"| A/A floor, in turn | {floor.in_turn:.1%} | |",
            f"| A/A floor, apart | {floor.apart:.1%} | |",
            f"| sentinel, from reading to reading | {table.noise:.1%} | |",
            "",
        ]
    )


if __name__ == "__main__":
    main()
