"""The process that does parts, one after another, as the session asks. A part that fails ends it; the next gets a fresh one."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

INTERRUPTED = 130
LOG = "log.txt"
ROOT = Path(__file__).parents[2]
Do = Callable[[str, Path], None]  # what a part is called (module:function), and its folder


def serve(open_device: Callable[[], tuple[str, Do]]) -> int:
    """Open the device, name it, and do the parts that are asked for on standard input until it ends."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what is printed is no event
    device, do = open_device()

    def tell(event: str, **facts: object) -> None:
        with suppress(BrokenPipeError):
            events.write(json.dumps({"event": event, **facts}) + "\n")

    tell("ready", device=device)
    try:
        for line in sys.stdin:
            wanted = json.loads(line)
            folder = Path(wanted["folder"])
            log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            try:
                do(wanted["where"], folder)
            except Exception as fault:
                print(traceback.format_exc().replace(f"{ROOT}/", ""), file=sys.stderr)
                said = str(fault).strip().splitlines()
                reason = said[0] if said else "no reason given"
                tell("failed", reason=f"{type(fault).__name__}: {reason}"[:500])
                return 1
            tell("done")
            gc.collect()
    except BaseException as end:
        if not isinstance(end, KeyboardInterrupt) and type(end).__name__ != "Terminated":
            tell("failed", reason=f"{type(end).__name__}: {end}"[:500])
            raise
        tell("interrupted")
        return INTERRUPTED
    return 0


def _bench(arguments: argparse.Namespace) -> tuple[str, Do]:
    from gpu.bench import Bench

    bench = Bench.opened(arguments.device, arguments.small, arguments.scratch, arguments.supplies)

    def do(where: str, folder: Path) -> None:
        module, _, function = where.partition(":")
        part: Callable[[Any], None] = getattr(import_module(module), function)
        bench.card.save(folder.parent / "environment.json")
        try:
            part(bench.at(folder))
        finally:
            bench.give_back()

    return bench.name, do


def main() -> int:
    """Serve the parts of genet's evidence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--supplies", type=Path)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    try:
        return serve(lambda: _bench(arguments))
    except Exception as fault:  # before the first part: the session repeats the last line
        print(f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
