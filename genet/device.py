"""The device at hand and what could be read of it. What is unknown is None and prints as n/a, never a guess."""

from __future__ import annotations

import platform
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from genet.errors import DeviceError
from genet.files import Record

if TYPE_CHECKING:
    import torch


class DeviceCard(Record):
    """Facts about a device and the software that drives it; part of every latency row's key."""

    kind: str  # cpu or cuda
    name: str
    processors: int | None  # streaming multiprocessors of a GPU, threads torch uses on a CPU
    memory_bytes: int | None
    l2_bytes: int | None
    capability: str | None
    driver: str | None
    cuda: str | None
    cudnn: int | None
    torch: str
    python: str
    platform: str


def open_device(name: str) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda` or `cuda:N`; DeviceError where it is not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(f"device {name} must be an NVIDIA GPU that torch can use, and there is none here; use --device cpu")
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise DeviceError(f"device {name} must be one of the {count} GPUs here; use cuda:{count - 1} or below")
        device = torch.device("cuda", device.index or 0)
    return device


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one: events are recorded on the current GPU's stream, whatever tensors are elsewhere."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def read_card(device: torch.device) -> DeviceCard:
    """What this machine tells about `device`."""
    import torch

    shared = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        return DeviceCard(
            kind="cuda",
            name=facts.name,
            processors=facts.multi_processor_count,
            memory_bytes=facts.total_memory,
            l2_bytes=getattr(facts, "L2_cache_size", None),
            capability=f"{facts.major}.{facts.minor}",
            driver=_driver(),
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            **shared,
        )
    return DeviceCard(
        kind="cpu",
        name=_cpu_name(),
        processors=torch.get_num_threads(),
        memory_bytes=_memory(),
        l2_bytes=None,
        capability=torch.backends.cpu.get_cpu_capability(),
        driver=None,
        cuda=None,
        cudnn=None,
        **shared,
    )


def _cpu_name() -> str:
    """The processor's model as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        line = Path("/proc/meminfo").read_text().splitlines()[0]
        return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def _driver() -> str | None:
    """The NVIDIA driver's version, as the kernel or else the optional nvidia-ml-py tells it."""
    try:
        found = re.search(r"Kernel Module[^\d]*([\d.]+)", Path("/proc/driver/nvidia/version").read_text())
        if found:
            return found[1]
    except OSError:
        pass
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # the package is optional, and its own errors differ from version to version
        return None
