"""A command on a borrowed GPU: whatever becomes of its parts, one archive comes home, and the next call goes on from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu.archive import archive_name, unpack
from gpu.attempts import Attempt, add_attempt, last_of_each, read_attempts
from gpu.plan import CLOSING_S, COMMANDS, Part, seconds_for
from gpu.session import STARTS, folder_name

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = Path(__file__).with_name("trivial_session.py")
ENOUGH_S = "100"


def begun(
    out: Path, *parts: str, seconds: str = ENOUGH_S, earlier: Path | None = None, **environment: str
) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(out), str(earlier or "/nowhere"), seconds, *parts]
    paths = {"PYTHONPATH": f"{BENCHMARKS}{os.pathsep}{BENCHMARKS.parent}"}
    return subprocess.Popen(
        command, env=os.environ | paths | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(out: Path, *parts: str, **options: object) -> tuple[int, Path]:
    """The exit code, and the folder of the device in the archive unpacked."""
    process = begun(out, *parts, **options)  # type: ignore[arg-type]
    said, _ = process.communicate(timeout=60)
    print(said)
    return process.returncode, unpacked(out)


def unpacked(out: Path) -> Path:
    into = out / f"unpacked-{time.monotonic_ns()}"
    unpack(out / archive_name("trivial"), into)
    return into / "some-gpu-80gb" / "trivial"


def ends(folder: Path) -> dict[str, str]:
    return {attempt.part: attempt.status for attempt in read_attempts(folder)}


def test_parts_run_in_their_order_in_one_process_and_leave_all_but_checkpoints(tmp_path: Path) -> None:
    code, found = run(tmp_path, "quick:5", "saves:5")
    assert code == 0
    assert [(each.part, each.status, each.commit, each.reason) for each in read_attempts(found)] == [
        ("quick", "done", "abc", ""),
        ("saves", "done", "abc", ""),
    ]
    assert (found / "quick" / "process.txt").read_text() == (found / "saves" / "process.txt").read_text()
    assert (found / "saves" / "master.json").exists()
    assert not (found / "saves" / "master.safetensors").exists()
    assert "quick in process" in (found / "quick" / "log.txt").read_text()


def test_a_part_that_fails_or_whose_process_dies_is_recorded_and_the_next_runs_in_a_fresh_process(tmp_path: Path) -> None:
    code, found = run(tmp_path, "fails:5", "quick:5", "dies:5", "saves:5")
    assert code == 75
    assert ends(found) == {"fails": "failed", "quick": "done", "dies": "failed", "saves": "done"}
    reasons = {each.part: each.reason for each in read_attempts(found)}
    assert reasons["fails"] == "ValueError: no such thing"
    assert reasons["dies"] == "its process ended with 9"
    processes = [(found / name / "process.txt").read_text() for name in ("fails", "quick", "dies", "saves")]
    assert processes[0] != processes[1] == processes[2] != processes[3]


def test_a_part_beyond_its_limit_is_cut_off_with_what_it_had_and_the_next_begins(tmp_path: Path) -> None:
    start = time.monotonic()
    code, found = run(tmp_path, "long:1", "quick:5")
    assert time.monotonic() - start < 30
    assert code == 75
    assert ends(found) == {"long": "cut off", "quick": "done"}
    assert (found / "long" / "times.txt").exists()


def test_the_next_call_goes_on_from_the_archive_and_tries_again_what_is_not_done(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(first, "quick:5", "fails:5", "long:1")
    code, found = run(second, "quick:5", "fails:5", "long:1", earlier=first / archive_name("trivial"))
    assert code == 75
    times = {name: len((found / name / "times.txt").read_text().split()) for name in ("quick", "fails", "long")}
    assert times == {"quick": 1, "fails": 2, "long": 2}
    assert [each.status for each in read_attempts(found)] == ["done", "failed", "cut off", "failed", "cut off"]


def test_parts_that_no_longer_fit_are_recorded_as_not_begun(tmp_path: Path) -> None:
    code, found = run(tmp_path, "quick:5", "long:60", "saves:5", seconds=str(CLOSING_S + 2))
    assert code == 75
    assert ends(found) == {"quick": "done", "long": "cut off", "saves": "not begun"}
    assert not (found / "saves").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_end_leaves_its_archive_and_nothing_running(number: signal.Signals, tmp_path: Path) -> None:
    process = begun(tmp_path, "quick:5", "long:60", "saves:5")
    assert process.stdout
    for line in process.stdout:
        if line.startswith("== long"):
            break
    process.send_signal(number)
    process.communicate(timeout=30)
    found = unpacked(tmp_path)
    assert process.returncode == 143
    assert ends(found) == {"quick": "done", "long": "cut off", "saves": "not begun"}
    with pytest.raises(ProcessLookupError):
        os.kill(int((found / "quick" / "process.txt").read_text()), 0)


def test_an_archive_comes_home_also_where_no_worker_can_be_started(tmp_path: Path) -> None:
    starts = tmp_path / "starts.txt"
    code, _ = run(tmp_path, "quick:5", "saves:5", "fails:5", NO_DEVICE=str(starts))
    folder = next(tmp_path.glob("unpacked-*")) / "unknown-device" / "trivial"
    assert code == 75
    assert ends(folder) == {"quick": "failed", "saves": "failed", "fails": "failed"}
    assert len(starts.read_text().split()) == STARTS  # a third would cost what others could use
    assert all(each.reason == "no worker could be started: there is no GPU here" for each in read_attempts(folder))


def test_that_no_worker_can_be_started_is_said_once(tmp_path: Path) -> None:
    said, _ = begun(tmp_path, "quick:5", "saves:5", "fails:5", NO_DEVICE=str(tmp_path / "starts.txt")).communicate(timeout=60)
    assert said == "no worker could be started: there is no GPU here\n"


def test_a_device_that_is_none_is_refused_before_anything_begins(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gpu", "evidence", "--device", "tpu"]
    paths = {"PYTHONPATH": f"{BENCHMARKS}{os.pathsep}{BENCHMARKS.parent}"}
    done = subprocess.run(command, env=os.environ | paths, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("argument --device: got tpu, expected cpu, cuda or cuda:N\n")
    assert not list(tmp_path.iterdir())


def test_a_part_is_given_its_limit_or_what_is_left_and_never_the_time_to_close() -> None:
    part = Part("part", limit_s=50, least_s=10, where="")
    assert seconds_for(part, 300) == 50
    assert seconds_for(part, CLOSING_S + 20) == 20
    assert seconds_for(part, CLOSING_S + 9) is None


def test_the_most_valuable_parts_of_the_evidence_fit_even_if_each_takes_its_whole_limit() -> None:
    first = ("probe", "tests", "table", "staircases", "prediction", "networks")
    parts = COMMANDS["evidence"].parts
    assert tuple(part.name for part in parts[: len(first)]) == first
    assert sum(part.limit_s for part in parts[: len(first)]) <= COMMANDS["evidence"].limit_s - CLOSING_S - 10
    assert parts[-1].name == "compile"


def test_a_part_stays_done_whatever_is_tried_later_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    for status in ("failed", "done", "cut off"):
        add_attempt(tmp_path, Attempt("part", status, 1.0, "", "abc", "now"))
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('{"part": "torn')
    add_attempt(tmp_path, Attempt("other", "failed", 1.0, "why", "abc", "now"))
    assert {name: each.status for name, each in last_of_each(read_attempts(tmp_path)).items()} == {
        "part": "done",
        "other": "failed",
    }


def test_results_lie_in_a_folder_named_after_the_card() -> None:
    assert folder_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert folder_name("../") == "unknown-device"
