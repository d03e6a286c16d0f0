"""Tasks in several processes of this machine: one per GPU, several per GPU if networks are small, or some on a CPU."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from genet.errors import LostDeviceError, RunError
from genet.trials.results import Event, ProgressDelta, Task
from genet.trials.runners.runner import Work

LOOK_S = 1.0
GRACE_S = 5.0  # time for a worker to end by itself
STARTS = 3  # failed starts of a worker in a row before it is given up
DEATHS = 2  # deaths of its worker after which a single task is not tried again


@dataclass(frozen=True)
class _TaskGroup:
    tasks: tuple[Task, ...]
    deaths: int = 0  # deaths of workers on the task

    def parts(self) -> list[_TaskGroup]:
        """Return the same tasks in smaller groups, so that a task that kills its worker is found and affects no others."""
        size = max(1, (len(self.tasks) + 1) // 2) if self.deaths == 0 else 1
        starts = range(0, len(self.tasks), size)
        return [_TaskGroup(self.tasks[start : start + size], self.deaths + 1) for start in starts]


class Processes:
    """A runner with one worker process per entry of `devices`.

    One killed or silent is replaced; its tasks are tried in halves, then alone.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = tuple(devices)
        self.workers = len(self._devices)
        self.speed = float(len(set(self._devices)))  # several on one device share it

    def __call__(self, groups: Iterable[Sequence[Task]], work: Work) -> Generator[Event]:
        """See `Runner`. RunError if a worker does not even start."""
        import torch

        waiting = deque(_TaskGroup(tuple(group)) for group in groups)
        devices = self._devices[: len(waiting)]
        threads = max(1, torch.get_num_threads() // max(1, len(devices)))
        slots = [_Slot(d, work.on(d, 1 / devices.count(d)), threads) for d in devices]
        try:
            for slot in slots:
                slot.start()
            while waiting or any(slot.group for slot in slots):
                for slot in slots:
                    if waiting and slot.group is None:
                        slot.give(waiting.popleft())
                wait([slot.pipe for slot in slots if slot.group], LOOK_S if work.silence_s else None)
                for slot in slots:
                    yield from slot.events()
                    slot.end_if_silent(work.silence_s)
                    if slot.group and slot.dead:
                        yield from slot.requeue_unfinished(waiting)
        finally:
            for slot in slots:
                slot.stop()
            for slot in slots:
                slot.end()


class _Slot:
    """A device with its worker process and the group that it works on."""

    def __init__(self, device: str, work: Work, threads: int) -> None:
        self._device, self._work, self._threads, self._sent = device, work, threads, pickle.dumps(work)
        self.group: _TaskGroup | None = None
        self._process: SpawnProcess | None = None
        self._failed_starts = 0  # in a row

    def start(self) -> None:
        """Start a worker. It is sent its work with its first group, so that several can start at once."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._threads), name=f"work on {self._device}")
        self._process.start()
        theirs.close()
        self._ready = self._knows_work = self.dead = False

    def _send(self, data: bytes) -> None:
        try:
            self.pipe.send_bytes(data)
        except OSError:
            self.dead = True

    def give(self, group: _TaskGroup) -> None:
        """Give the worker a group; start a new worker if the last was killed."""
        if self._process is None:
            self.start()
        self.group, self._left, self._done = group, {task.id: task for task in group.tasks}, 0.0
        if not self._knows_work:
            self._send(self._sent)
            self._knows_work = True
        self._send(pickle.dumps(group.tasks))
        self._heard = time.monotonic()

    def events(self) -> Generator[Event]:
        """Yield the worker's events since the last call."""
        while self.group and not self.dead and self.pipe.poll():
            try:
                event = pickle.loads(self.pipe.recv_bytes())
            except (EOFError, OSError):
                self.dead = True
                return
            self._heard = time.monotonic()
            if event is None:
                self._ready, self.group = True, self.group if not self._ready else None
                continue
            if isinstance(event, ProgressDelta):
                self._done += event.tasks
            else:
                del self._left[event.id]
            yield event

    def end_if_silent(self, limit_s: float | None) -> None:
        """Kill a busy worker without events for longer than that."""
        if limit_s and self.group and self._process and self._ready and time.monotonic() - self._heard > limit_s:
            self._process.kill()
            self.dead = True

    def requeue_unfinished(self, waiting: deque[_TaskGroup]) -> Generator[Event]:
        """Give a dead worker's unfinished tasks back, or yield them as failed if they were tried often enough."""
        if self.group is None or self._process is None:
            return
        group, left = self.group, tuple(self._left.values())
        self.end()
        code = self._process.exitcode
        self.group = self._process = None
        self._failed_starts = 0 if self._ready else self._failed_starts + 1
        if self._failed_starts == STARTS:
            raise RunError(
                f"a worker on {self._device} failed to start {STARTS} times, with exit code {code}; use --runner in-process"
            )
        if not self._ready:
            waiting.appendleft(group)
            return
        yield ProgressDelta(len(group.tasks) - len(left) - self._done)
        if group.deaths < DEATHS:
            waiting.extendleft(_TaskGroup(left, group.deaths).parts())
        else:
            yield from (self._work.failed(task, "worker killed", f"{DEATHS + 1} times, with exit code {code}") for task in left)
            yield ProgressDelta(len(left))

    def stop(self) -> None:
        """Ask the worker to end."""
        if self._process:
            self._process.terminate()

    def end(self) -> None:
        """Wait for the worker to end, or kill it."""
        if self._process:
            self._process.join(GRACE_S)
            self._process.kill()
            self._process.join()
            self.pipe.close()


def _serve(pipe: Connection, threads: int) -> None:
    """Run a worker: receive the work, then one group after the other, until the parent ends it or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    work: Work = pickle.loads(pipe.recv_bytes())
    if torch := sys.modules.get("torch"):  # a work without it starts in a tenth of the time
        torch.set_num_threads(threads)
    pipe.send_bytes(pickle.dumps(None))
    try:
        while True:
            for event in work(pickle.loads(pipe.recv_bytes())):
                pipe.send_bytes(pickle.dumps(event))
            pipe.send_bytes(pickle.dumps(None))
    except (EOFError, BrokenPipeError, LostDeviceError):
        os._exit(1)  # the parent is gone, or the device is: another process goes on


def _die_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
