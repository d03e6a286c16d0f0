"""The command line behind benchmarks/gpu.sh, which says what it takes and leaves."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gpu.archive import DamagedArchiveError, archive_name, unpack
from gpu.plan import COMMANDS, Command
from gpu.process import WorkerProcess
from gpu.session import Session, ToldToEnd, ended_by_signals
from gpu.supplies import commit_of, install_wheels

ROOT = Path(__file__).parents[2]
MORE_IS_LEFT = 75
TOLD_TO_END = 143


def main() -> int:
    """Run a command; 0 when all its parts are done, 75 if some are left, 143 if it was told to end."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="benchmarks/gpu.sh", description="See the head of that file.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("supplies", nargs="?", type=Path, metavar="FOLDER", help="wheels, images, an earlier archive, COMMIT")
    parser.add_argument("--small", action="store_true", help="the smallest settings, on the processor")
    parser.add_argument("--device", type=_device, help="cpu, cuda or cuda:N (default: cuda, and cpu with --small)")
    arguments = parser.parse_args()
    if arguments.supplies and not arguments.supplies.is_dir():
        parser.error(f"reading FOLDER failed: got {arguments.supplies}, expected a folder; leave it out to go without")
    command = COMMANDS[arguments.command]
    ends = began + (command.small_limit_s if arguments.small else command.limit_s)
    scratch = Path(tempfile.mkdtemp(prefix="genet-gpu-"))
    try:
        with ended_by_signals():
            return 0 if _run(command, arguments, ends, scratch) else MORE_IS_LEFT
    except ToldToEnd:
        return TOLD_TO_END
    except OSError as fault:
        print(f"writing the archive failed: got {fault}, expected a folder with room for it; set OUT to one", file=sys.stderr)
        return 2
    finally:
        for folder in _images(scratch), scratch:
            shutil.rmtree(folder, ignore_errors=True)


def _device(name: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise argparse.ArgumentTypeError(f"got {name}, expected cpu, cuda or cuda:N")
    return name


def _images(scratch: Path) -> Path:
    """Return where a worker has unpacked the images, or a folder that is not there."""
    told = scratch / "images.txt"
    return Path(told.read_text()) if told.exists() else scratch / "images"


def _run(command: Command, arguments: argparse.Namespace, ends: float, scratch: Path) -> bool:
    """Prepare what the parts need, and do them; whatever happens in between, an archive is left."""
    results, site, log = scratch / "results", scratch / "site", scratch / "worker.txt"
    results.mkdir()
    archive = Path(os.environ.get("OUT") or ".").absolute() / archive_name(command.name)
    supplies = arguments.supplies.absolute() if arguments.supplies else None
    environment = dict(os.environ)
    paths = [str(site), str(ROOT), str(ROOT / "benchmarks"), environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    if arguments.small:
        environment.setdefault("OMP_NUM_THREADS", "1")  # threads of networks so small only wait for one another
    device = arguments.device or ("cpu" if arguments.small else "cuda")
    worker = [sys.executable, "-m", "gpu.worker", "--device", device, "--scratch", str(scratch)]
    worker += ["--small"] * arguments.small + (["--supplies", str(supplies)] if supplies else [])
    session = Session(
        command=command.name,
        parts=command.parts,
        ends=ends,
        results=results,
        archive=archive,
        commit=commit_of(ROOT, supplies),
        start=partial(WorkerProcess, worker, environment, scratch, log),
        log=log,
    )
    try:
        restore_results([folder / archive.name for folder in (supplies, archive.parent) if folder], results)
        if supplies:
            _take(supplies, results, site)
        print(f"genet at {session.commit}; the archive will be {archive}", flush=True)
    finally:  # also where it is told to end before the first part
        session.pack()
    return session.run()


def restore_results(archives: Sequence[Path], results: Path) -> None:
    """Go on from the first of these archives that is there; of a damaged one with what could be read."""
    for earlier in filter(Path.exists, archives):
        try:
            unpack(earlier, results)
            print(f"going on from {earlier}", flush=True)
        except DamagedArchiveError as fault:
            print(f"{fault}; what could be read of it is used", flush=True)
        return


def _take(supplies: Path, results: Path, site: Path) -> None:
    """Install the wheels; what of them cannot be used is told in a line each."""
    said = install_wheels(supplies, site)
    if said:
        (results / "wheels.txt").write_text("\n".join(said) + "\n")
    for line in said:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
