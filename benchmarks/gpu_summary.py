"""The page of a device's results, made of the archives that benchmarks/gpu.sh leaves.

    python benchmarks/gpu_summary.py ARCHIVE [ARCHIVE ...]

Unpacks the small files into benchmarks/results/DEVICE/COMMAND/, in place of what an earlier archive of that command left there,
and writes benchmarks/results/DEVICE/README.md of all that is there: what was measured, on which card, at which commit, beside
the papers' figures.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from gpu.archive import DamagedArchiveError, unpack
from gpu.attempts import FILE, last_of_each, read_attempts
from gpu.sections import SECTIONS, Lines, as_table

from genet.device import DeviceCard
from genet.storage import write_atomic

RESULTS = Path(__file__).parent / "results"
SMALL_BYTES = 2 * 2**20
CARD = "environment.json"
DRY_RUN = "dry-run"  # of --small


def main() -> int:
    """Unpack and write; 2 if an archive cannot be read or holds nothing: no part, or none that began and did not fail."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the devices' folders are (default: %(default)s)")
    arguments = parser.parse_args()
    devices: set[Path] = set()
    for archive in arguments.archives:
        with tempfile.TemporaryDirectory() as folder:
            try:
                unpack(archive, Path(folder))
            except DamagedArchiveError as fault:
                print(fault, file=sys.stderr)
                return 2
            tried = [
                each for file in Path(folder).glob(f"*/*/{FILE}") for each in last_of_each(read_attempts(file.parent)).values()
            ]
            if not any(each.status in ("done", "cut off") for each in tried):
                got = f"{len(tried)} parts that did not run, the last as {tried[-1].reason}" if tried else "none"
                print(f"{archive}: reading its results failed: got {got}; expected some; see what gpu.sh said", file=sys.stderr)
                return 2
            devices |= take(Path(folder), arguments.results)
    for device in sorted(devices):
        write_atomic(device / "README.md", page(device).encode())
        print(device / "README.md")
    return 0


def take(unpacked: Path, results: Path) -> set[Path]:
    """Put what an archive holds in the place of what an earlier one held; return the devices' folders."""
    devices = set()
    for attempts in sorted(unpacked.glob(f"*/*/{FILE}")):
        command = attempts.parent
        into = results / command.parent.name / command.name
        shutil.rmtree(into, ignore_errors=True)
        for file in sorted(command.rglob("*")):
            if file.is_file() and file.stat().st_size <= SMALL_BYTES:
                write_atomic(into / file.relative_to(command), file.read_bytes())
        devices.add(into.parent)
    return devices


def page(device: Path) -> str:
    """Return a device's page as Markdown."""
    commands = sorted(file.parent for file in device.glob(f"*/{FILE}"))
    cards = [DeviceCard.load(command / CARD) for command in commands if (command / CARD).exists()]
    lines = [f"# {cards[0].name if cards else device.name}", ""]
    for text in dict.fromkeys(map(facts_of, cards)):
        lines += [text, ""]
    lines += ["Made by `benchmarks/gpu.sh` there and `python benchmarks/gpu_summary.py` of its archives.", ""]
    if device.name == DRY_RUN:
        lines += ["Small settings: this shows that all parts run, and no figure here means anything.", ""]
    lines += ["## What was run", ""]
    rows, sections = [], []
    for command in commands:
        for attempt in last_of_each(read_attempts(command)).values():
            seconds = f"{attempt.seconds:.0f}"
            rows.append((command.name, attempt.part, attempt.status, seconds, attempt.commit, attempt.began, attempt.reason))
        for name, (title, section) in SECTIONS.items():
            found = section(command / name) if (command / name).is_dir() else []
            if found:
                sections += [f"## {title}", "", *linked(found, name, command.name)]
    lines += as_table(("command", "part", "ended", "seconds", "commit", "began (UTC)", "why it is not done"), rows)
    return "\n".join([*lines, *sections]).rstrip() + "\n"


def linked(lines: Lines, part: str, command: str) -> Lines:
    """Return a section's lines with their links as seen from the device's folder."""
    return [line.replace(f"]({part}/", f"]({command}/{part}/") for line in lines]


def facts_of(card: DeviceCard) -> str:
    """Return what is known of a card and the software that drives it."""
    gib = None if card.memory_bytes is None else f"{card.memory_bytes / 2**30:.0f} GiB"
    facts = {
        "processors": card.processors,
        "memory": gib,
        "capability": card.capability,
        "clocks at most": card.clocks,
        "driver": card.driver,
        "CUDA": card.cuda,
        "cuDNN": card.cudnn,
        "torch": card.torch,
        "Python": card.python,
    }
    return f"{card.name}: " + ", ".join(f"{name} {'n/a' if value is None else value}" for name, value in facts.items()) + "."


if __name__ == "__main__":
    sys.exit(main())
