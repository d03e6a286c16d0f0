"""The device at hand and what could be read of it. What is unknown is None and prints as n/a, never a guess."""

from __future__ import annotations

import ctypes
import functools
import platform
import re
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from genet.errors import DeviceError
from genet.files import Record

if TYPE_CHECKING:
    import torch


class DeviceCard(Record):
    """Facts about a device and the software that drives it; part of every latency row's key."""

    kind: str  # cpu, cuda, or estimate: a GPU that is not here
    name: str
    processors: int | None  # streaming multiprocessors of a GPU, threads torch uses on a CPU
    memory_bytes: int | None
    l2_bytes: int | None
    capability: str | None
    driver: str | None
    clocks: str | None  # the highest clocks of processors and memory that the driver allows
    cuda: str | None
    cudnn: int | None
    torch: str | None
    python: str
    platform: str


def open_device(name: str) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda` or `cuda:N`; DeviceError where it is not there."""
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise DeviceError(f"device must be auto, cpu, cuda or cuda:N (got {name})")
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


def gpus_here() -> int:
    """NVIDIA GPUs that torch can use."""
    import torch

    return torch.cuda.device_count()


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
            **_driver_facts(str(getattr(facts, "uuid", device.index or 0))),
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            **shared,
        )
    return DeviceCard(
        kind="cpu",
        name=_cpu_name(),
        processors=torch.get_num_threads(),
        memory_bytes=_memory("MemTotal"),
        l2_bytes=None,
        capability=torch.backends.cpu.get_cpu_capability(),
        driver=None,
        clocks=None,
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


KEPT_BYTES = 2**31 - 1  # as much as the C library takes for an answer
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


@functools.cache
def keep_memory() -> bool:
    """Have the C library keep freed memory instead of giving it back to the system; False where it does not listen.

    Otherwise every large tensor may cost page faults on every pass, or none, as the process's history has it: the same
    block took 1.2 or 8 ms. Serving runtimes keep their memory too.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        settings = ((M_MMAP_THRESHOLD, KEPT_BYTES // 2), (M_TRIM_THRESHOLD, KEPT_BYTES))
        return all(library.mallopt(name, value) == 1 for name, value in settings)
    except (OSError, AttributeError):
        return False


def available_bytes() -> int | None:
    """Memory that programs on the processor can still have; None where the system does not tell."""
    return _memory("MemAvailable")


def free_bytes(device: torch.device) -> int | None:
    """Memory on the device that this process can still have, what it holds unused included; None where nobody tells."""
    import torch

    if device.type != "cuda":
        return available_bytes()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + held)


def give_back_memory(device: torch.device) -> None:
    """Let other processes have the GPU memory that this one holds unused."""
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


def _memory(line: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(found.split()[1]) * 1024 for found in lines if found.startswith(line))
    except (OSError, StopIteration, IndexError, ValueError):
        return None


def _driver_facts(gpu: str) -> dict[str, str | None]:
    """Driver version and clock limits of a GPU, given by its UUID, as the driver's own command tells them."""
    query = "--query-gpu=driver_version,clocks.max.sm,clocks.max.memory"
    identity = gpu if gpu.isdigit() or gpu.startswith("GPU-") else f"GPU-{gpu}"
    command = ["nvidia-smi", query, "--format=csv,noheader", "-i", identity]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        driver, processors, memory = (fact.strip() for fact in answer.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {"driver": None, "clocks": None}
    return {"driver": driver, "clocks": f"{processors} / {memory}"}
