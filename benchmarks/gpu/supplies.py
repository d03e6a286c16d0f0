"""What a machine without a network is given in a folder: wheels, an earlier archive, and the commit's id."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

UNKNOWN = "n/a"
GIT_S, PIP_S = 10, 60


def fits(wheel: str, version: tuple[int, int]) -> bool:
    """Return whether a wheel's file name says that it is for a Python such as (3, 12); pip itself looks at the platform."""
    fields = wheel.removesuffix(".whl").split("-")
    if len(fields) < 5:
        return False
    major, minor = version
    for tag in fields[-3].split("."):
        if tag in (f"py{major}", f"py{major}{minor}", f"cp{major}{minor}"):
            return True
        lowest = re.fullmatch(rf"cp{major}(\d+)", tag)
        if lowest and "abi3" in fields[-2].split(".") and int(lowest[1]) <= minor:
            return True
    return False


def install_wheels(folder: Path, into: Path) -> list[str]:
    """Install the wheels of a folder that fit this Python into another folder; return a line for everything that went wrong."""
    version = sys.version_info[:2]
    wheels = sorted(folder.glob("*.whl"))
    said = [
        f"{wheel.name}: skipped, for it is not for this Python {version[0]}.{version[1]}; "
        f"pip download --python-version {version[0]}.{version[1]} fetches one that is"
        for wheel in wheels
        if not fits(wheel.name, version)
    ]
    fitting = [str(wheel) for wheel in wheels if fits(wheel.name, version)]
    if not fitting:
        return said
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-compile", "--quiet"]
    command += ["--disable-pip-version-check", "--target", str(into), *fitting]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=PIP_S)
    except (OSError, subprocess.TimeoutExpired) as fault:
        return [*said, f"installing {len(fitting)} wheels failed: {fault}"]
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        said.append(f"installing {len(fitting)} wheels failed: {' '.join(lines) or f'pip ended with {done.returncode}'}")
    return said


def commit_of(root: Path, supplies: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the commit that runs here: `GENET_COMMIT`, the folder's file COMMIT, what git says of the checkout, or n/a.

    What is told by hand comes first: a checkout that was copied without its history says what it was made from.
    """
    if environment.get("GENET_COMMIT"):
        return environment["GENET_COMMIT"].strip()
    file = supplies / "COMMIT" if supplies else None
    written = file.read_text(errors="replace").strip() if file and file.is_file() else ""
    if written:
        return written.splitlines()[0][:80]
    if (root / ".git").exists() and (told := _git(root, "rev-parse", "--short=12", "HEAD")):
        return told + (" with changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    return UNKNOWN


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
