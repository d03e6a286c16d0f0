"""The pre-flight: what a job is expected to take, before any hour is spent."""

from __future__ import annotations

from pathlib import Path

from genet.config.reader import read_recipe
from genet.latency.profile import SCAN
from genet.pipeline.context import open_run
from genet.pipeline.cost_estimate import CERTIFICATE_ROUNDS, SCALES_MEASURED
from genet.pipeline.profile import check_job
from genet.progress import Progress
from tests.fixtures.tiny import RECIPE, write_recipe

ONE_BUDGET = RECIPE.replace("[2.0x, 0.000001]", "[1.0x]")
DESIGNS = 5  # that are known, the MasterNet among them


def seconds(folder: Path, recipe: str) -> dict[str, float]:
    """Expected seconds per step."""
    with open_run(folder / "run", Progress(), read_recipe(write_recipe(folder, recipe))) as job:
        return check_job(job).seconds


def test_the_time_of_certificates_is_counted_beside_that_of_predictions_and_scans(tmp_path: Path) -> None:
    found = seconds(tmp_path, ONE_BUDGET)
    certificate = found["select"] / 2  # candidates measured at a time
    scan = SCAN.least / CERTIFICATE_ROUNDS * certificate  # and some more, for what both take to begin
    assert certificate > 0
    assert found["designs"] > DESIGNS * (SCALES_MEASURED * scan + 2 * certificate)  # each as it is scaled, and widened to edges


def test_what_is_not_measured_here_takes_no_time(tmp_path: Path) -> None:
    found = seconds(tmp_path, ONE_BUDGET.replace("device: cpu", "device: estimate:v100"))
    assert {step for step, spent in found.items() if spent == 0} == {"profile", "select", "designs"}
