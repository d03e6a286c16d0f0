"""The page of a device: what was measured there, at which commit, beside the papers' figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from gpu.archive import pack
from gpu.attempts import Attempt, add_attempt

from genet.device import read_card
from genet.storage import Journal

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_summary.py"
KEY = {"batch": 64, "dtype": "fp16", "memory_format": "channels_last"}


def summary(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False)


def timed(network: str, runtime: str, ms_per_image: float) -> dict[str, object]:
    facts = {"resolution": 224, "macs": 2_000_000_000, "parameters": 21_000_000, "kernels": 70, "key": KEY, "setting": "s"}
    return {"network": network, "runtime": runtime, "ms": 64 * ms_per_image, "ms_per_image": ms_per_image, **facts}


def results(folder: Path) -> Path:
    """What a command leaves on a card, as far as it came."""
    evidence = folder / "some-gpu" / "evidence"
    add_attempt(evidence, Attempt("networks", "done", 44.6, "", "abc123", "2026-01-02T03:04:05+00:00"))
    add_attempt(evidence, Attempt("survey", "cut off", 60.0, "it took longer | than that", "abc123", "2026-01-02T03:05:05+00:00"))
    card = read_card(torch.device("cpu")).model_copy(update={"name": "Some GPU", "driver": "1.2.3", "memory_bytes": 80 * 2**30})
    card.save(evidence / "environment.json")
    journal = Journal(evidence / "networks" / "networks.jsonl")
    for record in (timed("genet-normal", "cudagraph", 0.02), timed("timm:resnet152", "cudagraph", 0.1)):
        journal.append(record)
    journal.append({**timed("timm:resnet34", "eager", 1.0), "network": "timm:resnet34"})
    stairs = {"figure": 11, "layer": "Conv k3 c512>512 @28", "batch": 64, "pattern": "stairs", "edges": [128, 256]}
    (evidence / "filters").mkdir()
    (evidence / "filters" / "stairs.json").write_text(json.dumps({"stairs": [{**stairs, "widths": [8, 512], "ms": [0.1, 0.9]}]}))
    (evidence / "networks" / "huge.json").write_bytes(b"0" * (2 * 2**20 + 1))
    return folder


def test_the_page_tells_figures_beside_the_papers_with_card_commit_and_what_is_not_done(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar.gz"
    pack(results(tmp_path / "results"), archive)
    done = summary(archive, "--results", tmp_path / "there")
    assert done.returncode == 0, done.stderr
    device = tmp_path / "there" / "some-gpu"
    page = (device / "README.md").read_text()
    assert page.startswith("# Some GPU\n")
    assert "memory 80 GiB" in page
    assert "driver 1.2.3, CUDA n/a" in page
    assert "| evidence | networks | done | 45 | abc123 | 2026-01-02T03:04:05+00:00 |  |" in page
    assert "| evidence | survey | cut off | 60 | abc123 | 2026-01-02T03:05:05+00:00 | it took longer \\| than that |" in page
    assert "| `genet-normal` | 224 | 2.00 | 21.00 | 70 | 0.0200 | n/a | 0.20 |" in page
    assert "| timm:resnet152 over genet-normal | 5.00 | n/a | 4.7 |" in page
    assert "| timm:efficientnet_b3 over genet-large | n/a | n/a | 3.3 |" in page
    assert "| 11 | Conv k3 c512>512 @28 | 64 | stairs | 2 (8 to 512) | 0.1000 -> 0.9000 | 128, 256 |" in page
    assert "## Utilization" not in page  # nothing was found of it
    assert (device / "evidence" / "networks" / "networks.jsonl").exists()
    assert not (device / "evidence" / "networks" / "huge.json").exists()


def test_the_page_tells_of_every_step_how_it_was_taken_and_what_kept_it_from_being_recorded(tmp_path: Path) -> None:
    step = {"name": "ResNet-18", "network": "n", "batch": 512, "deterministic": True, "autotuned": False}
    group = {"superblock": 2, "trials": 14, "mode": "features", "batch": 512, "way": "recorded", "ms": 30.0, "first_ms": 900.0}
    found = {
        "number_format": "bfloat16",
        "convolutions": 54,
        "missing": [],
        "steps": [
            {**step, "way": "eager", "ms": 7.25, "first_ms": 812.3, "fault": None},
            {**step, "way": "recorded", "ms": 7.5, "first_ms": 99.0, "fault": "operation not permitted when stream is capturing"},
            {**step, "deterministic": False, "way": "recorded", "ms": None, "first_ms": None, "fault": "no engine"},
        ],
        "group_steps": [{**group, "fault": None}],
        "augmented": [{"augment": "crop 4, flip", "batch": 512, "resolution": 32, "images": 50000, "images_per_s": 1234567.8}],
        "rows": [],
    }
    evidence = results(tmp_path / "results") / "some-gpu" / "evidence"
    (evidence / "probe").mkdir()
    (evidence / "probe" / "probe.json").write_text(json.dumps(found))
    pack(tmp_path / "results", tmp_path / "archive.tar.gz")
    assert summary(tmp_path / "archive.tar.gz", "--results", tmp_path / "there").returncode == 0
    page = (tmp_path / "there" / "some-gpu" / "README.md").read_text()
    assert "| ResNet-18 | 512 | yes | no | eager | 7.25 | 812 |  |" in page
    assert "| ResNet-18 | 512 | yes | no | recorded | 7.50 | 99 | operation not permitted when stream is capturing |" in page
    assert "| ResNet-18 | 512 | no | no | recorded | n/a | n/a | no engine |" in page
    assert "| 14 trials (features), super-block 2 | 512 | recorded | 30.00 | 900 |  |" in page
    assert "| crop 4, flip | 32 | 512 | 1,234,568 |" in page


def test_a_later_archive_replaces_the_files_of_its_command_and_leaves_those_of_the_other(tmp_path: Path) -> None:
    first, second = tmp_path / "first.tar.gz", tmp_path / "second.tar.gz"
    pack(results(tmp_path / "results"), first)
    job = tmp_path / "job" / "some-gpu" / "job"
    add_attempt(job, Attempt("search", "done", 300.0, "", "def456", "2026-01-03T03:04:05+00:00"))
    pack(tmp_path / "job", second)
    assert summary(first, "--results", tmp_path / "there").returncode == 0
    assert summary(second, "--results", tmp_path / "there").returncode == 0
    page = (tmp_path / "there" / "some-gpu" / "README.md").read_text()
    assert "| job | search | done | 300 | def456 |" in page
    assert "| evidence | networks | done |" in page


def test_what_is_no_archive_or_holds_no_results_is_refused_in_a_line(tmp_path: Path) -> None:
    torn, empty, failed = (tmp_path / f"{name}.tar.gz" for name in ("torn", "empty", "failed"))
    torn.write_bytes(b"no archive")
    (tmp_path / "results").mkdir()
    pack(tmp_path / "results", empty)
    for part in ("probe", "table"):
        why = Attempt(part, "failed", 0.0, "no worker could be started", "abc123", "2026-01-02T03:04:05+00:00")
        add_attempt(tmp_path / "results" / "unknown-device" / "evidence", why)
    pack(tmp_path / "results", failed)
    for archive, said in (
        (torn, "reading the archive failed"),
        (empty, "reading its results failed: got none"),
        (failed, "reading its results failed: got 2 parts that did not run, the last as no worker could be started;"),
    ):
        done = summary(archive, "--results", tmp_path / "there")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert said in done.stderr
    assert not (tmp_path / "there").exists()
