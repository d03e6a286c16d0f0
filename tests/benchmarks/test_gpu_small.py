"""Both commands with the smallest settings, on this processor and on a pretend GPU: every part runs, and the summary reads it.

What cannot be pretended fails as it would where it is missing, and is recorded.
"""

from __future__ import annotations

import json
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

from genet.device import DeviceCard

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PRETENCE = Path(__file__).parents[1] / "fixtures" / "pretence"


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


def hidden_faults(folder: Path) -> list[str]:
    """What the project records as a failed row, trial or capture, and goes on: here each would be a mistake of ours."""
    words = ("could not be recorded as a CUDA graph", "launched one by one", "lacks deterministic kernels", "Traceback")
    logs = [file for file in folder.rglob("log.txt") if file.parent.name != "compile"]
    found = [f"{file.parent.name}: {word}" for file in logs for word in words if word in file.read_text()]
    for file in folder.rglob("*.jsonl"):
        lines = file.read_text() if file.parent.name != "compile" else ""
        found += [f"{file.relative_to(folder)}: {line[:300]}" for line in lines.splitlines() if _fault_of(json.loads(line))]
    probe = folder / "probe" / "probe.json"
    answers = json.loads(probe.read_text()) if probe.exists() else {}
    steps = [*answers.get("steps", ()), *answers.get("group_steps", ()), *answers.get("missing", ())]
    return found + [str(step) for step in steps if step.get("fault") or step.get("reason")]


def _fault_of(record: object) -> bool:
    """Whether a journal's line, or a record within it, tells of a failure."""
    if isinstance(record, dict):
        return bool(record.get("failure")) or any(map(_fault_of, record.values()))
    return isinstance(record, list) and any(map(_fault_of, record))


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_part_runs_with_the_smallest_settings_and_the_summary_reads_it(command: str, device: str, tmp_path: Path) -> None:
    supplies, out = images(tmp_path), tmp_path / "out"
    pretending = {"PRETEND_GPU": "1", "PYTHONPATH": str(PRETENCE)} if device == "cuda" else {}
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(out)} | pretending
    given = [str(supplies)] if device == "cuda" else []  # it does without
    script = [str(BENCHMARKS / "gpu.sh"), command, *given, "--small", "--device", device]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    unpack(out / archive_name(command), tmp_path / "there")
    folder = tmp_path / "there" / "dry-run" / command
    known = last_of_each(read_attempts(folder))
    expected = {part.name: ("done", "") for part in COMMANDS[command].parts}
    if device == "cuda" and command == "evidence":
        expected["compile"] = ("failed", "NotImplementedError: torch.compile cannot be pretended")
    assert {name: (each.status, each.reason) for name, each in known.items()} == expected, done.stdout + done.stderr
    assert done.returncode == (0 if set(expected.values()) == {("done", "")} else 75)
    assert [file.name for file in out.iterdir()] == [archive_name(command)]
    assert DeviceCard.load(folder / "environment.json").kind == device
    assert hidden_faults(folder) == []
    summary = [sys.executable, str(BENCHMARKS / "gpu_summary.py"), str(out / archive_name(command))]
    subprocess.run([*summary, "--results", str(tmp_path / "results")], check=True)
    page = (tmp_path / "results" / "dry-run" / "README.md").read_text()
    assert "no figure here means anything" in page
    for name, (status, _) in expected.items():
        assert f"| {command} | {name} | {status} |" in page
