"""Trials on a Ray cluster, for those who outgrow one machine.

Groups are Ray tasks: Ray finds them a GPU, and runs them again elsewhere when a node is lost. Work and weights travel once
through Ray's object store; images must lie under the same path on all nodes. Only the driver writes the journal.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from genet.errors import GenetError, LostDeviceError
from genet.trials.plan import Trial
from genet.trials.results import Event, Stride, TrialResult, failed
from genet.trials.runner import Work

RETRIES = 2  # of a task whose worker or node is lost
LOOK_S = 1.0


class OnRay:
    """Every group is a task with a GPU of its own, or a share of one; without GPUs, with a CPU core."""

    def __init__(self, address: str | None, device: str, trials_per_gpu: int = 1) -> None:
        self._ray, self._ours = _connect(address)
        self._gpus = 1 / trials_per_gpu if device.startswith("cuda") else 0
        resources = self._ray.cluster_resources()
        self.workers = max(1, int(resources.get("GPU", 0) * trials_per_gpu if self._gpus else resources.get("CPU", 1)))

    def __call__(self, groups: Iterable[Sequence[Trial]], work: Work) -> Generator[Event]:
        """See `Runner`."""
        ray = self._ray
        task = ray.remote(_run).options(num_cpus=1, num_gpus=self._gpus, max_retries=RETRIES)
        paces = ray.remote(_Paces).options(num_cpus=0, scheduling_strategy=_on_this_node(ray)).remote()
        shared = ray.put(work.on("cuda:0" if self._gpus else "cpu"))
        running = {task.remote(shared, tuple(group), number, paces): (number, group) for number, group in enumerate(groups)}
        seen = dict.fromkeys(range(len(running)), 0.0)
        try:
            while running:
                done, _ = ray.wait(list(running), timeout=LOOK_S)
                walked = ray.get(paces.walked.remote())
                for number, _ in running.values():
                    yield Stride(walked.get(number, 0.0) - seen[number])
                    seen[number] = walked.get(number, 0.0)
                for reference in done:
                    number, group = running.pop(reference)
                    yield from _results(ray, reference, group)
                    yield Stride(len(group) - seen[number])
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if self._ours:
                ray.shutdown()


def _connect(address: str | None) -> tuple[Any, bool]:
    """Ray, connected; and whether it was connected here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise GenetError("--runner ray needs Ray, and it is not installed; pip install 'genet[ray]'") from None
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError:
        raise GenetError(
            f"--address must be that of a running Ray cluster, got {address!r}; `ray start --head` starts one"
        ) from None
    return ray, True


def _on_this_node(ray: Any) -> Any:
    """With the driver, so that no other node takes it along when it is lost."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _run(work: Work, group: tuple[Trial, ...], number: int, paces: Any) -> list[TrialResult]:
    """The task: a group's results; its strides go to the actor that the driver looks at."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    results = []
    try:
        for event in work(group):
            if isinstance(event, TrialResult):
                results.append(event)
            else:
                paces.walk.remote(number, event.trials)
    except LostDeviceError:
        os._exit(1)  # Ray runs the group again in another process
    return results


class _Paces:
    """An actor: how far every group has come, for the driver's progress."""

    def __init__(self) -> None:
        self._walked: dict[int, float] = {}

    def walk(self, number: int, trials: float) -> None:
        """A group has come this much further."""
        self._walked[number] = self._walked.get(number, 0.0) + trials

    def walked(self) -> dict[int, float]:
        """Group number -> trials walked."""
        return self._walked


def _results(ray: Any, reference: Any, group: Sequence[Trial]) -> Iterator[Event]:
    """A finished task's results; those of a task whose workers died as often as it was tried."""
    try:
        yield from ray.get(reference)
    except ray.exceptions.RayError as fault:
        reason = str(fault).strip().splitlines()[0]
        yield from (failed(trial, "worker killed", f"{RETRIES + 1} times ({reason})") for trial in group)
