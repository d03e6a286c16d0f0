"""Both commands with the smallest settings on this processor: every part runs, and the summary reads what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpu.archive import archive_name, unpack
from gpu.attempts import last_of_each, read_attempts
from gpu.plan import COMMANDS
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def images(folder: Path) -> Path:
    """An archive like CIFAR-10's, of noise."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 4)):
        for label in range(10):
            place = folder / "images" / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{index}.png")
    supplies = folder / "supplies"
    supplies.mkdir()
    command = ["tar", "-cJf", str(supplies / "cifar10.tar.xz"), "-C", str(folder / "images"), "train", "test"]
    subprocess.run(command, check=True)
    return supplies


@pytest.mark.slow
@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_part_runs_with_the_smallest_settings_and_the_summary_reads_it(command: str, tmp_path: Path) -> None:
    supplies, out = images(tmp_path), tmp_path / "out"
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(out)}
    script = [str(BENCHMARKS / "gpu.sh"), command, str(supplies), "--small"]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    unpack(out / archive_name(command), tmp_path / "there")
    folder = tmp_path / "there" / "dry-run" / command
    known = last_of_each(read_attempts(folder))
    assert {name: (each.status, each.reason) for name, each in known.items()} == {
        part.name: ("done", "") for part in COMMANDS[command].parts
    }, done.stdout + done.stderr
    assert done.returncode == 0
    assert [file.name for file in out.iterdir()] == [archive_name(command)]
    summary = [sys.executable, str(BENCHMARKS / "gpu_summary.py"), str(out / archive_name(command))]
    subprocess.run([*summary, "--results", str(tmp_path / "results")], check=True)
    page = (tmp_path / "results" / "dry-run" / "README.md").read_text()
    assert "no figure here means anything" in page
    for part in COMMANDS[command].parts:
        assert f"| {command} | {part.name} | done |" in page
