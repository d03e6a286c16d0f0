"""The tests that need a GPU, run there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from genet.errors import EvidenceError
from genet.storage import Record
from gpu.bench import Bench

ROOT = Path(__file__).parents[2]
SLOW = "compile"  # tests whose name has it wait for a compiler, and come last


class Tests(Record):
    """What the tests ended with, and the names of those that failed or could not be collected."""

    passed: int
    skipped: int
    failed: tuple[str, ...]
    seconds: float


def tests(bench: Bench) -> None:
    """Run all tests marked `gpu` but those that compile; EvidenceError names those that fail."""
    run_tests(bench, f"not {SLOW}", bench.folder / "tests.json")


def run_tests(bench: Bench, names: str, result: Path) -> None:
    """Run the tests marked `gpu` whose names fit, in this one process's turn: two would time one GPU at once.

    EvidenceError if one fails, or if on a GPU none was run.
    """
    files = ["tests/test_device.py"] if bench.small else [str(file) for file in files_with_gpu_tests()]
    told = result.with_suffix(".xml")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",  # if it is cut off, the log tells how far it came
        "--tb=short",
        "--no-header",  # which names a folder of that machine
        "-rs",
        "-m",
        "gpu",
        "-k",
        names,
        "--continue-on-collection-errors",
    ]
    command += [
        "-o",
        "addopts=--strict-markers --import-mode=importlib",
        "-o",
        "filterwarnings=default",
        "-p",
        "no:cacheprovider",
    ]
    command += [f"--junit-xml={told}", *files]  # without `-n`, which the replaced addopts have, all runs in one process
    done = subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL)
    if not told.exists():
        raise EvidenceError(f"running the tests failed: pytest ended with {done.returncode}, expected a result; see its log")
    found = read_junit(told)
    found.save(result)
    told.unlink()
    if found.failed or done.returncode not in (0, 5):
        raise EvidenceError(f"{len(found.failed)} of {found.passed + len(found.failed)} tests failed: {', '.join(found.failed)}")
    if bench.cuda and not found.passed:
        raise EvidenceError(f"running the tests failed: got {found.skipped} that were skipped, expected some that ran")


def files_with_gpu_tests(tests: Path = ROOT / "tests") -> Iterable[Path]:
    """Return the files that have tests marked `gpu`: another one's imports must not stop these."""
    marked = re.compile(r"^\s*(@|.*marks?\s*=.*)pytest\.mark\.gpu\b", re.MULTILINE)
    return [file.relative_to(tests.parent) for file in sorted(tests.rglob("test_*.py")) if marked.search(file.read_text())]


def read_junit(file: Path) -> Tests:
    """Return what pytest's XML file tells."""
    failed, skipped, passed, seconds = [], 0, 0, 0.0
    for case in ElementTree.parse(file).iter("testcase"):
        seconds += float(case.get("time") or 0)
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}".lstrip(":"))
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return Tests(passed=passed, skipped=skipped, failed=tuple(failed), seconds=round(seconds, 1))
