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
from numpy.typing import NDArray
from scipy.stats import kendalltau

from genet.cli.console import progress
from genet.config.reader import read_recipe
from genet.config.recipe import Recipe
from genet.latency.profile import measure_network
from genet.latency.staircase.space_sweeps import Staircases, correction_networks, random_networks
from genet.latency.timing.ratio import repeatability
from genet.latency.workload import network_workload
from genet.pipeline.context import RunContext, open_run, predictor
from genet.pipeline.profile import profile_device
from genet.pipeline.run_folder import RunFolder
from genet.storage import Record, write_atomic

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


class Errors(Record):
    """Relative errors over networks that took no part in the correction, and what they are held against.

    `in_turn` and `apart` are what two timings of one network differ by on this machine.
    """

    name: str
    setting: str
    networks_in_space: int
    rows: int
    corrected_by: int
    scale: float
    kernel_ms: float
    host_ms: float
    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]
    left_out_error: float | None
    in_turn: float
    apart: float
    sentinel_scatter: float

    @property
    def errors(self) -> NDArray[np.float64]:
        """The relative error of every network."""
        return np.array(self.predicted_ms) / np.array(self.measured_ms) - 1

    @property
    def kendall(self) -> float:
        """How far predictions and measurements agree in their order."""
        return float(kendalltau(self.predicted_ms, self.measured_ms)[0])


def study(recipe: Recipe, folder: Path, count: int) -> str:
    """Fill the table of a recipe in a run folder, then hold its predictions against networks measured whole."""
    RunFolder(folder).adopt(recipe)
    with open_run(folder, progress()) as job:
        profile_device(job)
        return written(errors_of(job, count), f"python benchmarks/prediction.py --recipe {recipe.name}")


def errors_of(job: RunContext, count: int) -> Errors:
    """Return the errors over `count` networks that took no part in the correction; the table keeps what was measured."""
    staircases = Staircases.load(job.folder.staircase)
    kept = {resolution: job.kept_widths(staircases, resolution) for resolution in job.resolutions}
    prediction = predictor(job, job.table, kept)
    seen = {
        str(network)
        for network in correction_networks(job.recipe.space, kept, job.recipe.measure.calibration_networks, job.recipe.seed)
    }
    fresh = [n for n in random_networks(job.recipe.space, kept, 2 * count, job.recipe.seed + 1) if str(n) not in seen][:count]
    predicted = [prediction.ms(network) for network in fresh]
    measured = []
    with job.progress.track("networks that the correction has not seen", len(fresh)) as tracker:
        for network in fresh:
            row = measure_network(job.table, job.meter, network, job.masternet)
            measured.append(row.ratio * job.table.masternet_ms(job.masternet))
            tracker.advance()
    floor = repeatability(network_workload(job.masternet), job.meter)
    correction = prediction.correction
    return Errors(
        name=job.recipe.name,
        setting=str(job.table.setting),
        networks_in_space=job.recipe.space.size(job.recipe.space.widths_on_offer()),
        rows=len(job.table),
        corrected_by=correction.networks,
        scale=correction.scale,
        kernel_ms=correction.kernel_ms,
        host_ms=correction.host_ms,
        predicted_ms=tuple(predicted),
        measured_ms=tuple(measured),
        left_out_error=correction.left_out_error,
        in_turn=floor.in_turn,
        apart=floor.apart,
        sentinel_scatter=job.table.noise,
    )


def written(found: Errors, command: str) -> str:
    """Return the study as Markdown."""
    errors = found.errors
    left_out = "n/a" if found.left_out_error is None else f"{found.left_out_error:.1%}"
    return "\n".join(
        [
            f"# Predicted against measured: {found.name}",
            "",
            f"{found.setting}; space of {found.networks_in_space:,} networks, {found.rows} block rows, correction fitted "
            f"on {found.corrected_by} networks ({found.scale:.3f} x sum + {found.kernel_ms:.4g} ms per kernel; host "
            f"{found.host_ms:.4g} ms per kernel). Made by `{command}`.",
            "",
            "| figure | value | target |",
            "|---|---|---|",
            f"| networks not seen by the correction | {len(errors)} | {NETWORKS} |",
            f"| mean error | {np.abs(errors).mean():.1%} | 3% |",
            f"| median error | {np.median(np.abs(errors)):.1%} | |",
            f"| within 5 % | {np.mean(np.abs(errors) <= 0.05):.0%} | 95% |",
            f"| bias | {errors.mean():+.1%} | 1% |",
            f"| Kendall | {found.kendall:.3f} | 0.95 |",
            f"| the run's own figure, left out one at a time | {left_out} | |",
            f"| A/A floor, in turn | {found.in_turn:.1%} | |",
            f"| A/A floor, apart | {found.apart:.1%} | |",
            f"| sentinel, from reading to reading | {found.sentinel_scatter:.1%} | |",
            "",
        ]
    )


if __name__ == "__main__":
    main()
