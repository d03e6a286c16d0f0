"""Runners by name."""

from __future__ import annotations

from typing import Literal

from genet.device import gpus_here, open_device
from genet.errors import GenetError
from genet.trials.runners.on_ray import OnRay, check_address
from genet.trials.runners.processes import Processes
from genet.trials.runners.runner import InProcess, Runner

RunnerName = Literal["auto", "in-process", "processes", "ray"]


def check_options(name: RunnerName, workers: int | None, address: str | None) -> None:
    """Raise GenetError for options that do not go together, and if nothing answers at the address of a Ray cluster."""
    if address and name != "ray":
        raise GenetError(f"--address must go with --runner ray, got --runner {name}; leave it out")
    if workers and name in ("ray", "in-process"):
        raise GenetError(f"--workers must go with --runner processes, got --runner {name}; leave it out")
    check_address(address)


def open_runner(
    device: str, name: RunnerName = "auto", workers: int | None = None, trials_per_gpu: int = 1, address: str | None = None
) -> Runner:
    """Return the runner of that name for a device; `auto` is a process per GPU, or this one if there are not several.

    GenetError for options that do not go together and if Ray is requested but not installed; DeviceError if the
    device is not there.
    """
    check_options(name, workers, address)
    if name == "ray":
        return OnRay(address, device, trials_per_gpu)
    first = str(open_device(device))
    if trials_per_gpu > 1 and not first.startswith("cuda"):
        raise GenetError(f"--trials-per-gpu needs a GPU, got trials that run on {first}; use --runner processes --workers N")
    all_gpus = first.startswith("cuda") and device in ("auto", "cuda")
    devices = [f"cuda:{number}" for number in range(gpus_here())] if all_gpus else [first]
    devices = devices * trials_per_gpu
    if workers:
        devices = [devices[number % len(devices)] for number in range(workers)]
    if name == "in-process" or (name == "auto" and len(devices) == 1):
        return InProcess()
    return Processes(devices if len(devices) > 1 or workers else devices * 2)
