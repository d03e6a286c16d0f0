"""The trials of a run from outside: where they stand, which are run again, and that no kill changes what they find."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from genet.cli.main import main
from genet.config.reader import read_recipe
from genet.errors import RunError
from genet.pipeline.context import open_run, read_run
from genet.pipeline.distill import finished_trials, planned_trials, run_planned_trials
from genet.pipeline.fit import fit_trials
from genet.pipeline.master import train_master
from genet.pipeline.profile import profile_device
from genet.pipeline.run_folder import RunFolder
from genet.progress import Progress
from genet.trials.plan import Change, Trial
from genet.trials.results import FailureKind, Seconds, TrialResult, failed, progress_by_superblock, read_results
from genet.trials.runners.runner import InProcess
from tests.fixtures.heard import Heard
from tests.fixtures.tiny import RECIPE, SPACE, write_recipe

LONGER = RECIPE.replace("{epochs: 1, batch: 128,", "{epochs: 4, patience: 1, batch: 128, paired_fraction: 0.2,").replace(
    "device: cpu",
    "device: estimate:v100",  # which takes no time
)
MORE = SPACE.replace("trials_per_type: 2", "trials_per_type: 4")
WAIT_S = 20.0
KILLS = 50


@pytest.fixture(autouse=True, scope="module")
def nothing_remains() -> Iterator[None]:
    """Sums in one order, so that equal means equal; and the signal handler that the command line sets is taken back."""
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that has all the trials need, and none of them."""
    folder = tmp_path_factory.mktemp("tiny")
    with open_run(folder / "run", Progress(), read_recipe(write_recipe(folder, LONGER, MORE))) as job:
        profile_device(job)
        train_master(job)
    return RunFolder(folder / "run")


@pytest.fixture(scope="module")
def undisturbed(prepared: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run with all its trials."""
    run = copied(prepared, tmp_path_factory.mktemp("undisturbed"))
    finish(run)
    return run


@pytest.fixture
def run(prepared: RunFolder, tmp_path: Path) -> RunFolder:
    return copied(prepared, tmp_path)


@pytest.fixture
def finished(undisturbed: RunFolder, tmp_path: Path) -> RunFolder:
    return copied(undisturbed, tmp_path)


def copied(run: RunFolder, into: Path) -> RunFolder:
    shutil.copytree(run.path, into / "run")
    return RunFolder(into / "run")


def distilling(run: RunFolder) -> subprocess.Popen[bytes]:
    """`genet distill RUN`, under way."""
    return subprocess.Popen(
        [sys.executable, "-m", "genet", "distill", str(run.path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(run: RunFolder) -> None:
    """Run the trials to their end, and fit them."""
    assert main(["distill", str(run.path)]) == 0
    with open_run(run.path, Progress()) as job:
        fit_trials(job)


def lines(run: RunFolder) -> int:
    return run.trials.path.read_bytes().count(b"\n") if run.trials.path.exists() else 0


def wait_for_a_result(run: RunFolder, process: subprocess.Popen[bytes]) -> None:
    """Until the journal is longer, or the process has ended."""
    before = lines(run)
    while process.poll() is None and lines(run) == before:
        time.sleep(0.005)


def planned(run: RunFolder) -> tuple[Trial, ...]:
    return planned_trials(read_run(run.path, Progress()))


def accuracies(run: RunFolder) -> dict[str, float | None]:
    return {id: result.accuracy for id, result in read_results(run.trials).items()}


def assert_same_end(run: RunFolder, undisturbed: RunFolder) -> None:
    assert set(accuracies(run)) == {trial.id for trial in planned(run)}
    assert accuracies(run) == accuracies(undisturbed)
    assert [result.curve for result in read_results(run.trials).values() if result.accuracy is None] == []
    assert run.regression.read_bytes() == undisturbed.regression.read_bytes()
    ids = [TrialResult.model_validate(record).id for record in run.trials.read().records]
    assert len(ids) == len(set(ids)), "no trial was run twice"
    assert not [path for path in run.path.rglob(".*") if path.name != ".lock"], "no temporary file is left"


# Where the trials stand


def status(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["distill", str(run.path), "--status", "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_before_the_trials_the_status_tells_how_many_there_will_be(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(run.path)
    told = status(run, capsys)
    trials = planned(run)
    assert told["pace"] is None
    assert [row["index"] for row in told["superblocks"]] == [0, 1]
    for row in told["superblocks"]:
        assert row["planned"] == sum(trial.index == row["index"] for trial in trials)
        assert (row["done"], row["failed"], row["control"], row["best"], row["seconds_per_trial"]) == (0, 0, None, None, None)
    assert stamps(run.path) == before


def test_after_the_trials_the_status_tells_what_they_found(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    told = status(finished, capsys)
    assert told["pace"] is None
    found = list(read_results(finished.trials).values())
    for row in told["superblocks"]:
        single = [result for result in found if result.index == row["index"] and not result.also]
        best = max(result.accuracy for result in single if result.accuracy is not None)
        assert row["done"] == row["planned"] > 0
        assert row["failed"] == 0
        assert [row["control"]] == [result.accuracy for result in single if result.reference]
        assert row["best"] == best
        assert row["best_superblock"] in {str(result.superblock) for result in single if result.accuracy == best}
        assert row["seconds_per_trial"] > 0


def test_the_status_can_be_asked_while_another_process_works(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with open_run(run.path, Progress()):
        assert len(status(run, capsys)["superblocks"]) == 2


def test_standings_count_trials_failures_and_the_best_single_perturbation(prepared: RunFolder) -> None:
    def found(trial: Trial, accuracy: float) -> TrialResult:
        return TrialResult(**dict(trial), accuracy=accuracy, seconds=Seconds(training=accuracy * 10))

    first = [trial for trial in planned(prepared) if trial.index == 0 and not trial.also]
    (control,) = (trial for trial in first if trial.reference)
    one, other, third, *_ = (trial for trial in first if not trial.control)
    also = Change(index=1, superblock=next(t.superblock for t in planned(prepared) if t.index == 1 and not t.control))
    pair = one.model_copy(update={"also": (also,), "network": "of both"})
    results = [found(control, 0.5), found(one, 0.6), failed(other, "time limit", "x"), found(third, 0.4), found(pair, 0.9)]
    here, there = progress_by_superblock([*planned(prepared), pair], results)
    assert here.planned == sum(trial.index == 0 for trial in planned(prepared)) + 1
    assert (here.done, here.failed, here.control, here.best) == (5, 1, 0.5, 0.6)
    assert here.best_superblock == str(one.superblock)
    assert here.seconds_per_trial == pytest.approx((5 + 6 + 4 + 9) / 4)
    assert (there.index, there.done, there.failed, there.control, there.best) == (1, 0, 0, None, None)


# Which trials are run again


def rewrite(run: RunFolder, change: Callable[[TrialResult], TrialResult]) -> None:
    """Write the trials' journal again with every result changed."""
    changed = [change(result) for result in read_results(run.trials).values()]
    run.trials.path.unlink()
    for result in changed:
        run.trials.append(result.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("retry", "again"),
    [
        (False, {"worker killed", "data", "bug"}),
        (True, {"worker killed", "data", "bug", "out of memory", "time limit"}),
    ],
)
def test_failures_of_the_machine_are_tried_again_others_on_demand_and_a_lost_loss_never(
    finished: RunFolder, retry: bool, again: set[FailureKind]
) -> None:
    kinds: list[FailureKind] = ["worker killed", "data", "bug", "out of memory", "time limit", "non-finite loss"]
    failing = [trial for trial in planned(finished) if trial.index == 1][: len(kinds)]
    ids = {trial.id: kind for trial, kind in zip(failing, kinds, strict=True)}
    spoilt = {trial.id: failed(trial, ids[trial.id], "x") for trial in failing}
    before = accuracies(finished)
    rewrite(finished, lambda result: spoilt.get(result.id, result))
    with open_run(finished.path, Progress()) as job:
        results = {result.id: result for result in run_planned_trials(job, lambda _: InProcess(), retry)}
    assert {id: r.accuracy for id, r in results.items()} == {
        id: None if id in ids and ids[id] not in again else accuracy for id, accuracy in before.items()
    }
    assert {result.failure.kind for result in results.values() if result.failure} == set(kinds) - again
    assert lines(finished) == len(before) + len(again), "what is not run again is written once"


def test_finished_trials_are_left_alone(finished: RunFolder) -> None:
    before = finished.trials.path.read_bytes()
    finished.master.with_suffix(".safetensors").unlink()  # it would be needed for a trial
    with open_run(finished.path, Progress()) as job:
        assert len(run_planned_trials(job, lambda _: InProcess())) == len(planned(finished))
    assert finished.trials.path.read_bytes() == before


def test_trials_without_a_masternet_name_the_command_that_trains_it(run: RunFolder) -> None:
    run.master.with_suffix(".safetensors").unlink()
    with open_run(run.path, Progress()) as job, pytest.raises(RunError, match=r"need the MasterNet.*`genet master RUN`"):
        run_planned_trials(job, lambda _: InProcess())


def test_results_of_trials_that_are_not_planned_are_left_out(finished: RunFolder) -> None:
    known = next(iter(read_results(finished.trials).values()))
    finished.trials.append(known.model_copy(update={"network": "of other staircases"}).model_dump(mode="json"))
    results = finished_trials(read_run(finished.path, Progress()))
    assert [result.id for result in results] == [trial.id for trial in planned(finished)]


@pytest.mark.parametrize("command", [["run", "digits"], ["distill", "RUN"]])
@pytest.mark.parametrize(
    ("options", "law"),
    [
        (["--runner", "in-process", "--workers", "2"], "--workers must go with --runner processes"),
        (["--address", "127.0.0.1:6379"], "--address must go with --runner ray"),
        (["--runner", "ray", "--address", "127.0.0.1:1"], "expected a running Ray cluster"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_done(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], options: list[str], law: str
) -> None:
    name, what = command
    target = [str(run.path)] if what == "RUN" else [what, "--run", str(tmp_path / "new")]
    assert main([name, *target, *options]) == 2
    assert law in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert lines(run) == 0


def test_a_damaged_line_is_told_until_its_trial_has_run_again(finished: RunFolder) -> None:
    whole = finished.trials.path.read_bytes().splitlines(keepends=True)
    finished.trials.path.write_bytes(b"".join([whole[0].replace(b"accuracy", b"aCcuracy"), *whole[1:]]))
    said = Heard()
    for _ in range(2):
        with open_run(finished.path, said) as job:
            run_planned_trials(job, lambda _: InProcess())
    assert sum("damaged lines 1 are left out" in text for text in said.lines) == 1


# Signals


@dataclass
class Ended:
    """A run that was told to end when its first results were there."""

    run: RunFolder
    code: int
    said: str
    results: int


@pytest.fixture(scope="module")
def terminated(prepared: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    run = copied(prepared, tmp_path_factory.mktemp("terminated"))
    with distilling(run) as process:
        wait_for_a_result(run, process)
        process.terminate()
        try:
            _, said = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    return Ended(run, process.returncode, said.decode(), lines(run))


@pytest.mark.slow
def test_a_run_told_to_end_says_so_in_one_line_and_keeps_its_results(terminated: Ended) -> None:
    assert terminated.code == 128 + signal.SIGTERM
    assert terminated.said == "terminated; the same command resumes the work\n"
    assert 0 < terminated.results < len(planned(terminated.run))


@pytest.mark.slow
def test_when_a_run_was_told_to_end_no_process_is_said_to_be_at_work(
    terminated: Ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(copied(terminated.run, tmp_path), capsys)["pace"] is None


def test_of_a_killed_process_that_was_at_work_the_status_says_that_none_is(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with distilling(run) as process:
        while process.poll() is None and not run.trials_pace.exists():
            time.sleep(0.001)
        while process.poll() is None and status(run, capsys)["pace"] is None:
            pass
        at_work = process.poll() is None
        process.kill()
    assert at_work, "the status told so while it was"
    assert run.trials_pace.exists()
    assert status(run, capsys)["pace"] is None


@pytest.mark.slow
def test_the_same_command_ends_as_an_undisturbed_run(terminated: Ended, undisturbed: RunFolder, tmp_path: Path) -> None:
    run = copied(terminated.run, tmp_path)
    finish(run)
    assert_same_end(run, undisturbed)


@pytest.mark.slow
def test_a_run_killed_twice_while_it_writes_results_ends_as_an_undisturbed_one(run: RunFolder, undisturbed: RunFolder) -> None:
    for _ in range(2):
        with distilling(run) as process:
            wait_for_a_result(run, process)
            process.kill()
    assert 0 < lines(run) < len(planned(run))
    finish(run)
    assert_same_end(run, undisturbed)


def killed_at_random(run: RunFolder, draw: random.Random, longest_s: float, most: int) -> int:
    """Start and kill until one ends by itself, or often enough; returns how many were killed."""
    for kills in range(most):
        with distilling(run) as process:
            if draw.random() < 0.3:
                wait_for_a_result(run, process)
                time.sleep(draw.uniform(0, 0.02))
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(0, longest_s))
            process.kill()
        assert process.returncode in (0, -signal.SIGKILL)
        if process.returncode == 0:
            return kills
    return most


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_random_kills_change_nothing(prepared: RunFolder, undisturbed: RunFolder, tmp_path: Path) -> None:
    begun = time.monotonic()
    finish(copied(prepared, tmp_path / "timed"))
    longest_s = time.monotonic() - begun
    draw, kills, copies = random.Random(0), 0, 0
    while kills < KILLS:
        copies += 1
        run = copied(prepared, tmp_path / str(copies))
        kills += killed_at_random(run, draw, longest_s, KILLS - kills)
        finish(run)
        assert_same_end(run, undisturbed)
