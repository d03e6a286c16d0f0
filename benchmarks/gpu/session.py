"""One command: its parts in their order, each within its limit and recorded whatever becomes of it, and the archive of all."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gpu.archive import pack
from gpu.attempts import Attempt, Status, add_attempt, last_of_each, read_attempts
from gpu.plan import CLOSING_S, ENDING_S, Part, seconds_for
from gpu.process import GONE, Event, WorkerProcess

STARTING_S = 90.0  # that a worker may take to import torch and to open the device
STARTS = 2  # failures in a row after which no worker is started any more
PACK_EVERY_S = 20.0
UNKNOWN_DEVICE = "unknown-device"


class ToldToEnd(BaseException):
    """A signal asked the command to end: what is there is packed, and nothing more is begun."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it the first SIGTERM, SIGINT or SIGHUP raises ToldToEnd; later ones do not disturb the packing."""

    def told(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise ToldToEnd(signal.Signals(number).name)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, told) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def folder_name(device: str) -> str:
    """Return the folder of a device's results."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or UNKNOWN_DEVICE


@dataclass
class Session:
    """A command at work. `results` is packed into `archive`; the device's results lie in results/DEVICE/COMMAND."""

    command: str
    parts: Sequence[Part]
    ends: float  # by time.monotonic
    results: Path
    archive: Path
    commit: str
    start: Callable[[], WorkerProcess]
    log: Path  # what a worker says before its first part
    folder: Path = field(init=False)
    worker: WorkerProcess | None = field(init=False, default=None)
    failed_starts: int = field(init=False, default=0)
    why: str = field(init=False, default="")
    packed: float = field(init=False, default=0.0)
    recorded: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.folder = self.results / UNKNOWN_DEVICE / self.command

    def run(self) -> bool:
        """Do what is not done yet, as far as the time goes; return whether all parts are done now.

        ToldToEnd is raised again when the rest is recorded as not begun.
        """
        try:
            for part in self.parts:
                self._next(part)
        except ToldToEnd as told:
            for part in self.parts:
                if part.name not in self.recorded and self._status(part) != "done":
                    self._record(part, "not begun", 0.0, f"the command was told to end ({told})")
            raise
        finally:
            self._end_worker()
            self.pack()
        return all(self._status(part) == "done" for part in self.parts)

    def pack(self) -> None:
        """Renew the archive."""
        for line in pack(self.results, self.archive):
            print(f"left out of the archive: {line}", flush=True)
        self.packed = time.monotonic()

    def _next(self, part: Part) -> None:
        """Do a part if it is not done, if there is time and if there is a worker; record what became of it."""
        if self._known_device() and self._status(part) == "done":
            print(f"== {part.name}: done before", flush=True)
            return
        if seconds_for(part, self._left()) is None:
            self._record(part, "not begun", 0.0, f"{max(0.0, self._left()):.0f} s were left of the command's time")
            return
        if not (self.worker or self._opened()):
            self._record(part, "failed", 0.0, self.why, said=True)
            return
        if self._status(part) == "done":  # as is seen when the worker has named the device
            print(f"== {part.name}: done before", flush=True)
            return
        seconds = seconds_for(part, self._left())
        if seconds is None:
            self._record(part, "not begun", 0.0, f"{max(0.0, self._left()):.0f} s were left when a worker was ready")
            return
        self._do(part, seconds)

    def _do(self, part: Part, seconds: float) -> None:
        worker, start = self.worker, time.monotonic()
        assert worker
        try:
            print(f"== {part.name}: at most {seconds:.0f} s", flush=True)
            folder = self.folder / part.name
            folder.mkdir(parents=True, exist_ok=True)
            worker.ask({"part": part.name, "where": part.where, "folder": str(folder)})
            event = worker.event(seconds, self._pack_if_due)
            if event is None:
                self.worker = None
                event = worker.interrupt(ENDING_S)
        except ToldToEnd as told:
            self.worker = None
            worker.interrupt(ENDING_S)
            self._record(part, "cut off", time.monotonic() - start, f"the command was told to end ({told})")
            raise
        status, said = _outcome(event)
        if status != "done":
            self._end_worker()  # a device that failed once may go on failing in that process
        self._record(part, status, time.monotonic() - start, said or f"it took longer than its {seconds:.0f} s")
        self.pack()

    def _opened(self) -> bool:
        """Start a worker, unless that has failed too often; return whether there is one."""
        if self.failed_starts >= STARTS:
            return False
        size = self.log.stat().st_size if self.log.exists() else 0
        self.worker = self.start()
        event = self.worker.event(max(1.0, min(STARTING_S, self._left() - CLOSING_S)), self._pack_if_due)
        if event and event["event"] == "ready":
            self.folder = self.results / folder_name(event["device"]) / self.command
            self.failed_starts = 0
            return True
        self._end_worker()
        self.failed_starts += 1
        said = self.log.read_bytes()[size:].decode(errors="replace").strip().splitlines() if self.log.exists() else []
        before, self.why = self.why, f"no worker could be started: {said[-1][:300] if said else 'it said nothing in time'}"
        if self.why != before:
            print(self.why, flush=True)
        return False

    def _end_worker(self) -> None:
        if self.worker:
            self.worker.end()
            self.worker = None

    def _known_device(self) -> bool:
        return self.folder.parent.name != UNKNOWN_DEVICE

    def _status(self, part: Part) -> Status | None:
        found = last_of_each(read_attempts(self.folder)).get(part.name)
        return found.status if found else None

    def _left(self) -> float:
        return self.ends - time.monotonic()

    def _pack_if_due(self) -> None:
        if time.monotonic() - self.packed > PACK_EVERY_S:
            self.pack()

    def _record(self, part: Part, status: Status, seconds: float, reason: str, said: bool = False) -> None:
        now = datetime.now(UTC).timestamp()
        began = datetime.fromtimestamp(now - seconds, UTC).isoformat(timespec="seconds")
        reason = "" if status == "done" else reason
        self.recorded.add(part.name)
        add_attempt(self.folder, Attempt(part.name, status, round(seconds, 1), reason, self.commit, began))
        if not said:
            print(f"== {part.name}: {status}, {seconds:.1f} s{f' ({reason})' if reason else ''}", flush=True)


def _outcome(event: Event | None) -> tuple[Status, str]:
    """Return how a part ended, by what its worker said last."""
    match event:
        case {"event": "done"}:
            return "done", ""
        case {"event": "failed", "reason": reason}:
            return "failed", str(reason)
        case {"event": kind, "code": code} if kind == GONE and code not in (130, -2):
            return "failed", f"its process ended with {code}"
    return "cut off", ""
