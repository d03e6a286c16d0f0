"""Tasks on a Ray cluster, for work that outgrows one machine.

Groups are Ray tasks: Ray finds them a GPU, and runs them again elsewhere when a node is lost. Work and weights travel once
through Ray's object store; images must lie under the same path on all nodes. Only the driver writes the journal, a group's
results when the whole group is done.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Generator, Iterable, Sequence
from typing import Any

from genet.errors import DeviceError, GenetError, LostDeviceError
from genet.trials.results import Event, ProgressDelta, Result, Task
from genet.trials.runners.runner import Work

RETRIES = 2  # retries of a task whose worker or node is lost
LOOK_S = 1.0
ANSWERS_S = 5.0


class OnRay:
    """On Ray every group is a task with a GPU of its own, or a share of one; on a cluster without GPUs, with a CPU core.

    `device` is the recipe's: `cpu` asks for no GPU, `cuda` for nothing else.
    """

    speed = None

    def __init__(self, address: str | None, device: str, trials_per_gpu: int = 1) -> None:
        self._ray, self._ours = _connect(address)
        resources = self._ray.cluster_resources()
        gpus = 0 if device == "cpu" else int(resources.get("GPU", 0))
        if device.startswith("cuda") and not gpus:
            raise DeviceError("a recipe for cuda needs GPUs in the Ray cluster, got none; `ray start --num-gpus N`")
        self._share = 1 / trials_per_gpu
        self._gpus = self._share if gpus else 0
        self.workers = gpus * trials_per_gpu or int(resources.get("CPU", 0))
        if not self.workers:
            raise DeviceError("a Ray cluster needs a GPU or a CPU core, got none; `ray start --num-cpus N`")

    def __call__(self, groups: Iterable[Sequence[Task]], work: Work) -> Generator[Event]:
        """See `Runner`."""
        ray = self._ray
        task = ray.remote(_run).options(num_cpus=1, num_gpus=self._gpus, max_retries=RETRIES)
        progress = ray.remote(_GroupProgress).options(num_cpus=0, scheduling_strategy=_on_this_node(ray)).remote()
        shared = ray.put(work.on("cuda:0", self._share) if self._gpus else work.on("cpu"))
        running: dict[Any, tuple[Task, ...]] = {}

        def submit(group: Sequence[Task]) -> None:
            running[task.remote(shared, tuple(group), progress)] = tuple(group)

        for group in groups:
            submit(group)
        reported_by_group: dict[str, float] = {}  # progress shown so far, by the group's first task
        try:
            while running:
                done, _ = ray.wait(list(running), timeout=LOOK_S)
                done_by_group = ray.get(progress.done_by_group.remote())
                for group in running.values():
                    name = group[0].id
                    yield ProgressDelta(done_by_group.get(name, 0.0) - reported_by_group.get(name, 0.0))
                    reported_by_group[name] = done_by_group.get(name, 0.0)
                for reference in done:
                    group = running.pop(reference)
                    results = _results(ray, reference, group, work)
                    reported = reported_by_group.pop(group[0].id)
                    yield ProgressDelta(len(results) - reported)
                    yield from results
                    if not results:  # a task that kills its workers then affects no others
                        for alone in group:
                            submit((alone,))
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if self._ours:
                ray.shutdown()


def _connect(address: str | None) -> tuple[Any, bool]:
    """Connect to Ray; return it, and whether this call connected it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ours = signal.getsignal(signal.SIGTERM)
    try:
        import ray
    except ImportError:
        raise GenetError("--runner ray needs Ray, which is not installed; pip install 'genet-nas[ray]'") from None
    if ray.is_initialized():
        return ray, False
    check_address(address)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as fault:
        reason = str(fault).strip().splitlines()[0]
        raise GenetError(
            f"--address must be that of a running Ray cluster of this version, got {address!r} ({reason}); `ray start --head`"
        ) from None
    if threading.current_thread() is threading.main_thread():  # Ray replaces the handler
        signal.signal(signal.SIGTERM, ours)
    return ray, True


def check_address(address: str | None) -> None:
    """Raise GenetError if nobody answers at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWERS_S).close()
    except (OSError, OverflowError) as fault:
        raise GenetError(f"--address: got {address!r}, where nothing answers ({fault}), expected a running Ray cluster") from None


def _on_this_node(ray: Any) -> Any:
    """Place an actor with the driver, so that it is not lost with another node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _run(work: Work, group: tuple[Task, ...], progress: Any) -> list[Result]:
    """Run a group as a task and return its results; its progress goes to the actor that the driver reads."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    name, results = group[0].id, []
    progress.begin.remote(name)
    try:
        for event in work(group):
            if isinstance(event, ProgressDelta):
                progress.add.remote(name, event.tasks)
            else:
                results.append(event)
    except LostDeviceError:
        os._exit(1)  # Ray runs the group again in another process
    return results


class _GroupProgress:
    """An actor that keeps the progress of every group for the driver. A group is named by its first task."""

    def __init__(self) -> None:
        self._done_by_group: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """Record that a group starts, perhaps again."""
        self._done_by_group[name] = 0.0

    def add(self, name: str, tasks: float) -> None:
        """Record further progress of a group."""
        self._done_by_group[name] += tasks

    def done_by_group(self) -> dict[str, float]:
        """Return the progress in tasks, by group."""
        return self._done_by_group


def _results(ray: Any, reference: Any, group: Sequence[Task], work: Work) -> list[Result]:
    """Return a finished task's results; none if its workers died at every try and it can still be divided."""
    try:
        found: list[Result] = ray.get(reference)
        return found
    except ray.exceptions.RayTaskError as fault:
        reason = str(fault).strip().splitlines()[-1]
        return [work.failed(each, "bug", f"on a node of the cluster: {reason}") for each in group]
    except ray.exceptions.RayError as fault:
        reason = str(fault).strip().splitlines()[0]
        if len(group) > 1:
            return []
        return [work.failed(each, "worker killed", f"{RETRIES + 1} times ({reason})") for each in group]
