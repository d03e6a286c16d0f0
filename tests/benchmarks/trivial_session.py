"""A command of trivial parts, run as a process of its own: trivial_session.py OUT EARLIER SECONDS PART:LIMIT...

With `worker` as its one argument it is the worker of these parts.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from gpu.archive import archive_name, unpack
from gpu.plan import Part
from gpu.process import WorkerProcess
from gpu.session import Session, ToldToEnd, ended_by_signals
from gpu.worker import serve


def do(where: str, folder: Path) -> None:
    """Do a part by its name."""
    with (folder / "times.txt").open("a") as file:
        file.write("once\n")
    print(f"{where} in process {os.getpid()}")
    (folder / "process.txt").write_text(str(os.getpid()))
    match where:
        case "fails":
            raise ValueError("no such thing\nand more of it")
        case "dies":
            os._exit(9)
        case "long":
            time.sleep(60)
        case "saves":
            (folder / "master.safetensors").write_bytes(b"weights")
            (folder / "master.json").write_text("{}")


def opened() -> tuple[str, object]:
    """Open a device that is none."""
    if "NO_DEVICE" in os.environ:
        with Path(os.environ["NO_DEVICE"]).open("a") as starts:
            starts.write("start\n")
        print("there is no GPU here", file=sys.stderr)
        sys.exit(2)
    return "Some GPU 80GB", do


def main() -> int:
    """Run the session; 0 when all is done, 75 if not, 143 if it was told to end."""
    if sys.argv[1:] == ["worker"]:
        return serve(opened)
    out, earlier, seconds, *parts = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results"
        if Path(earlier).exists():
            unpack(Path(earlier), results)
        limits = (part.split(":") for part in parts)
        session = Session(
            command="trivial",
            parts=[Part(name, float(limit), 0.5, name) for name, limit in limits],
            ends=time.monotonic() + float(seconds),
            results=results,
            archive=Path(out) / archive_name("trivial"),
            commit="abc",
            start=partial(WorkerProcess, [sys.executable, __file__, "worker"], os.environ, Path(scratch), Path(scratch) / "log"),
            log=Path(scratch) / "log",
        )
        try:
            with ended_by_signals():
                return 0 if session.run() else 75
        except ToldToEnd:
            return 143


if __name__ == "__main__":
    sys.exit(main())
