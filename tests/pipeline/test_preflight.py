"""The pre-flight: what a job is expected to take, before any hour is spent."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import pytest
import torch

from genet.config.reader import read_recipe
from genet.latency.profile import SCAN, seconds_per_row
from genet.latency.staircase.space_sweeps import ExpectedRows
from genet.latency.workload import Workload, read_blocks
from genet.pipeline.context import open_run
from genet.pipeline.pace import Pace, measure_pace, pace_of
from genet.pipeline.preflight import CERTIFICATE_ROUNDS, SCALES_MEASURED, Preflight, outlook, preflight
from genet.pipeline.profile import check_job
from genet.pipeline.run_folder import RunFolder
from genet.progress import Progress, Tracker, WorkItem
from genet.search.outcome import MASTER, RACE, TRIALS, Outcomes
from genet.training.image_sets import Batch, FirstImages
from genet.training.splits import load_data
from tests.fixtures.simulated import SETTING, Simulated
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
    assert {step for step, spent in found.items() if spent == 0} == {"profile", "calibration", "select", "designs"}


def test_what_it_takes_to_begin_an_epoch_is_not_counted_with_each_of_its_steps(tmp_path: Path) -> None:
    begin_s, (images, batch, epochs) = 0.2, (1_150, 10, 3)

    class Late(FirstImages):
        """Images whose first batch comes late, as from processes that decode them."""

        def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
            time.sleep(begin_s)
            yield from super().batches(batch, resolution, shuffle_seed, skip)

        def on(self, device: torch.device) -> FirstImages:
            return Late(self.images.on(device), self.size)

    recipe = read_recipe(write_recipe(tmp_path, ONE_BUDGET))
    splits = load_data(recipe.data, recipe.space.input, recipe.seed)
    late = dataclasses.replace(splits, train=Late(splits.train, splits.train.size))
    pace = measure_pace(recipe, late, torch.device("cpu"), batch)
    assert pace.epoch_s > 0.75 * begin_s
    schedule = recipe.train.model_copy(update={"batch": batch, "epochs": epochs})
    assert pace.training_s(schedule, images) < images // batch * begin_s, "less than if each step took so long, in one epoch"


def test_steps_are_never_free_though_noise_made_the_longer_epochs_the_shorter_ones() -> None:
    pace = pace_of([1.0, 1.2], [1.1, 0.9], 4, 32)
    assert (pace.epoch_s, pace.step_s) == (0.0, pytest.approx(0.3))
    calm = pace_of([1.5, 1.2], [2.2, 2.0], 4, 32)
    assert (calm.start_s, calm.epoch_s, calm.step_s) == (pytest.approx(0.3), pytest.approx(0.45), pytest.approx(0.1875))


def test_steps_that_one_thread_takes_far_faster_come_with_the_way_to_train_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    busy = Pace(0.0, 0.0, 4.8, 32, one_thread_step_s=0.111)
    assert busy.advice.startswith("training steps take 4,800 ms with 2 threads and 111 ms with 1")
    assert busy.advice.endswith("set OMP_NUM_THREADS=1 before the command, and give --threads 2 to measure latencies as now")
    assert Pace(0.0, 0.0, 0.2, 32, one_thread_step_s=0.111).advice == Pace(0.0, 0.0, 4.8, 32).advice == ""


def test_what_it_times_itself_is_counted(tmp_path: Path) -> None:
    class Counted(Progress):
        """Progress that keeps its trackers."""

        def __init__(self) -> None:
            self.kept: list[Tracker] = []

        @contextmanager
        def tracks(self, counts: Sequence[WorkItem]) -> Iterator[list[Tracker]]:
            with super().tracks(counts) as trackers:
                self.kept += trackers
                yield trackers

    recipe, progress = read_recipe(write_recipe(tmp_path, ONE_BUDGET.replace("device: cpu", "device: estimate:v100"))), Counted()
    with open_run(tmp_path / "run", progress, recipe) as job:
        preflight(job)
    (timed,) = (each for each in progress.kept if "a little of each kind of work" in each.count.title)
    assert (timed.done, timed.total) == (4, 4)


def test_rows_take_as_long_as_they_take_here_and_twice_that_on_a_machine_that_changes_its_speed() -> None:
    (block,) = read_blocks("XX k3 c8 @8")

    def slow(part: Workload) -> float:
        time.sleep(0.01)
        return 3.0 if "more" in part.name else 1.0

    (steady,) = seconds_per_row(Simulated(slow), [[block, block]])
    (changing,) = seconds_per_row(Simulated(slow, speed=lambda number: 1.0 + number), [[block, block]])
    assert steady >= 0.02, "a block alone, and three in a row"
    assert changing > 1.3 * steady


def test_the_cost_is_told_by_the_parts_that_a_finished_run_tells(finished: RunFolder) -> None:
    with open_run(finished.path, Progress(), finished.recipe()) as job:
        seen = check_job(job)
    spent = Outcomes.load(finished.results)
    assert [*seen.cost] == [*spent.cost] == [MASTER, TRIALS, RACE]
    assert (seen.cost[MASTER], spent.cost[MASTER]) == (1.5, 1.5)
    assert spent.cost[RACE] <= seen.cost[RACE]
    assert spent.trainings == sum(spent.cost.values())


@pytest.mark.parametrize(("rounds", "busy"), [((0.8, 0.85, 0.9), False), ((0.8, 2.11, 1.14), True)])
def test_it_tells_of_which_rounds_the_masternets_latency_is_the_mean(rounds: tuple[float, ...], busy: bool) -> None:
    seen = Preflight(
        images=1,
        augment="none",
        networks=1,
        trials=1,
        rows=ExpectedRows(sweep=1, rest=1, networks=1),
        masternet_ms_per_image=fmean(rounds),
        masternet_rounds=rounds,
        budgets=(),
        seconds={},
        cost={},
        found=True,
        contenders=0,
    )
    told = " ".join(" ".join(outlook(seen, SETTING)).split())
    mean, high = (f"{value:.4f}" for value in (fmean(rounds), max(rounds)))
    assert f"MasterNet's latency {mean} ms/image, the mean of 3 measured rounds from 0.8000 to {high}" in told
    assert ("disturbed by other work" in told) is busy


def test_no_line_of_it_ends_between_a_number_and_its_unit(finished: RunFolder) -> None:
    with open_run(finished.path, Progress()) as job:
        seen, setting = preflight(job), job.table.setting
    for minutes in range(40):
        lines = outlook(seen.model_copy(update={"seconds": {"profile": 61.0 * minutes, "race": 3e4 + 67.0 * minutes}}), setting)
        assert max(map(len, lines)) <= 80
        assert not [line for line in lines if line.split()[0] in ("s", "min", "h")]
