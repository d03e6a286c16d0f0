"""A run that is killed goes on where it was, and ends with the same selection."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genet.pipeline.run_folder import RunFolder
from genet.search.certificate import Selection
from genet.search.outcome import Outcomes
from genet.trials.results import read_results
from tests.fixtures.tiny import RECIPE, write_recipe


def command(recipe: Path, run: Path) -> list[str]:
    return [sys.executable, "-m", "genet", "run", str(recipe), "--run", str(run)]


def progress_made(run: Path) -> str:
    """Changes with every step forward: the run's files and the lengths of its journals."""
    seen = []
    for file in sorted(run.rglob("*.js*")) if run.exists() else []:
        with contextlib.suppress(FileNotFoundError):  # a temporary file may be gone by now
            seen.append((str(file), file.stat().st_size))
    return repr(seen)


def kill_after_progress(recipe: Path, run: Path, steps: int) -> int:
    """Start the command and kill it after that many visible steps; 0 where it ended before."""
    process = subprocess.Popen(command(recipe, run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen, last = 0, progress_made(run)
    while process.poll() is None and seen < steps:
        now = progress_made(run)
        seen, last = seen + (now != last), now
        time.sleep(0.02)  # looking takes the processor from the one looked at
    process.kill()
    return process.wait()


def ended_well(process: subprocess.CompletedProcess[bytes]) -> None:
    assert process.returncode == 0


def undisturbed(tmp_path: Path) -> tuple[Path, RunFolder]:
    """The tiny recipe, and its job on estimates, which are the same each time; a clock's later rows would tell more."""
    path = write_recipe(tmp_path, RECIPE.replace("device: cpu", "device: estimate:v100"))
    ended_well(subprocess.run(command(path, tmp_path / "whole"), check=False, stdout=subprocess.DEVNULL))
    return path, RunFolder(tmp_path / "whole")


def killed_often(recipe: Path, run: Path, steps: list[int]) -> RunFolder:
    """The same job with kills."""
    for count in steps:
        kill_after_progress(recipe, run, count)
    ended_well(subprocess.run(command(recipe, run), check=False, stdout=subprocess.DEVNULL))
    return RunFolder(run)


def assert_same_end(one: RunFolder, other: RunFolder) -> None:
    assert Selection.load(one.selection) == Selection.load(other.selection)
    accuracies = [{trial: r.accuracy for trial, r in read_results(run.trials).items()} for run in (one, other)]
    assert accuracies[0] == accuracies[1]
    assert len(one.trials.read().records) == len(accuracies[0]), "no trial was run twice"
    timeless = {"trainings": 0.0, "cost": {}}  # by the time that trials took
    ends = [Outcomes.load(run.results).model_copy(update=timeless) for run in (one, other)]
    assert ends[0] == ends[1], "the same networks with the same accuracies"
    assert not [path for path in one.path.rglob(".*") if path.name != ".lock"], "no temporary file is left"


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    process = subprocess.Popen(
        command(recipe, tmp_path / "run"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    while not (tmp_path / "run" / "latency.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.decode() == "interrupted; the same command resumes the work\n"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_random_kills_change_nothing(tmp_path: Path, seed: int) -> None:
    recipe, whole = undisturbed(tmp_path)
    draw = random.Random(seed)
    steps = [draw.randint(1, 6) for _ in range(12)]
    again = killed_often(recipe, tmp_path / "killed", steps)
    assert_same_end(again, whole)


@pytest.mark.slow
def test_the_digits_job_ends_well_as_the_readme_says(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "genet", "run", "digits", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert result.returncode == 0, result.stderr
    outcomes = Outcomes.load(tmp_path / "runs" / "digits" / "results.json")
    assert outcomes.outcomes
    for outcome in outcomes.outcomes:
        assert outcome.ms_per_image is not None
        assert outcome.ms_per_image <= outcome.budget_ms_per_image
        assert outcome.test_accuracy > 0.9
