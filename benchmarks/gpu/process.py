"""The process that does the parts: told which by lines of JSON, it answers by lines, and can be interrupted or killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

TICK_S = 0.5
GONE = "gone"
Event = dict[str, Any]


class WorkerProcess:
    """A worker in a process group of its own, so that what it began ends with it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
            )
        self._read = b""

    def ask(self, wanted: Event) -> None:
        """Send a line; a worker that is gone is noticed by `event`."""
        stdin = self._process.stdin
        if stdin:
            with suppress(BrokenPipeError):
                stdin.write(json.dumps(wanted).encode() + b"\n")
                stdin.flush()

    def event(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> Event | None:
        """Return the next event, or None if there is none in so many seconds; `meanwhile` is called every now and then."""
        stdout, end = self._process.stdout, time.monotonic() + seconds
        while stdout:
            line, found, rest = self._read.partition(b"\n")
            if found:
                self._read = rest
                with suppress(ValueError):
                    event: Event = json.loads(line)
                    return event
                continue
            left = end - time.monotonic()
            if left <= 0:
                return None
            if select.select([stdout], [], [], min(left, TICK_S))[0]:
                got = os.read(stdout.fileno(), 65536)
                if not got:
                    break
                self._read += got
            else:
                meanwhile()
        return {"event": GONE, "code": self._process.wait()}

    def interrupt(self, seconds: float) -> Event | None:
        """Send what Ctrl-C sends, to all that the worker began too; return what it says of it before it is killed."""
        self._send(signal.SIGINT)
        said = self.event(seconds)
        self.end()
        return said

    def end(self) -> None:
        """Kill the worker and all that it began."""
        self._send(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
