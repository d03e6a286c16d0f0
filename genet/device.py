"""The device of this machine and the facts that could be read. An unknown fact is None and prints as n/a, never a guess."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from genet.errors import DeviceError, GenetError, LostDeviceError, OutOfMemoryError
from genet.storage import Record

if TYPE_CHECKING:
    import torch


class DeviceCard(Record):
    """Facts about a device and the software that drives it; part of every latency row's key."""

    kind: str  # cpu, cuda, or estimate: a GPU that this machine lacks
    name: str
    processors: int | None  # streaming multiprocessors of a GPU, threads that a CPU is timed with
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
    """Return the torch device for `auto`, `cpu`, `cuda` or `cuda:N`; DeviceError if it is not there.

    From then on torch has no more threads than this process has processors, since more would only wait for one another.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise DeviceError(f"device must be auto, cpu, cuda or cuda:N (got {name})")
    torch.set_num_threads(min(torch.get_num_threads(), cpus()))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(f"device {name} needs an NVIDIA GPU that torch can use, got none here; use --device cpu")
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise DeviceError(f"device {name} must be one of the {count} GPUs here; use cuda:{count - 1} or below")
        device = torch.device("cuda", device.index or 0)
    return device


def cpus(system: Path = Path("/")) -> int:
    """Return the number of processors that this process may use at a time, within its affinity and its cgroups' quotas."""
    tied = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([tied, *(max(1, math.ceil(quota)) for quota in _quotas(system))])


def _quotas(system: Path) -> Iterator[float]:
    """Yield the quota in processors of each of this process's cgroups and their parents, in either version of cgroups."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (controllers, "cpu") if controllers else ("", "unified"):
            top = system / "sys/fs/cgroup" / mount
            for folder in (top / path.lstrip("/"), *(top / path.lstrip("/")).parents):
                if folder.is_relative_to(top):
                    yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """Yield the quota in a cgroup's files, if they exist and set one."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)  # "max" is no number
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            yield int(quota) / int(period)


def gpus_here() -> int:
    """Return the NVIDIA GPUs that torch can use."""
    import torch

    return torch.cuda.device_count()


def check_threads(threads: int | None) -> None:
    """Raise DeviceError for more threads than processors."""
    if threads and threads > cpus():
        raise DeviceError(f"measure.threads: got {threads}, expected at most {cpus()}, the processors here; more would only wait")


@contextmanager
def current(device: torch.device, threads: int | None = None) -> Iterator[None]:
    """Make a GPU the current one, or let a CPU use so many threads meanwhile, if they are given.

    Events are recorded on the current GPU's stream, whatever tensors are elsewhere. DeviceError for more threads than processors.
    """
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            yield
        return
    before = torch.get_num_threads()
    if threads and threads > before:
        check_threads(threads)
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


DeviceFault = Literal["out of memory", "no engine", "device lost"]
NO_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "allocation_failed")  # lower case of torch's messages
NO_ENGINE = ("unable to find an engine", "no valid engine config", "no execution plan", "cudnn error", "cudnn frontend error")
LIBRARIES = ("cudnn_status_", "cublas_status_")
LOST = ("cuda error", "cuda driver error")


def device_fault(fault: BaseException) -> DeviceFault | None:
    """Return the device fault that an exception stands for, None if it is of another kind.

    `out of memory`: less work at a time may fit. `no engine`: cuDNN or cuBLAS has no kernel for this work in its number format
    and layout, and the device may go on with other work; cuDNN says so too if no kernel finds memory for its workspace.
    `device lost`: only another process can use the device again. A CUDA graph that cannot be captured is none of them.
    """
    import torch

    if isinstance(fault, GenetError):
        lost: DeviceFault | None = "device lost" if isinstance(fault, LostDeviceError) else None
        return "out of memory" if isinstance(fault, OutOfMemoryError) else lost
    text = str(fault).lower()
    if isinstance(fault, torch.OutOfMemoryError | MemoryError) or any(sign in text for sign in NO_MEMORY):
        return "out of memory"
    if any(sign in text for sign in (*NO_ENGINE, *LIBRARIES)):  # messages of cuBLAS begin with "CUDA error" too
        return "no engine"
    is_lost = isinstance(fault, torch.AcceleratorError) or any(sign in text for sign in LOST)
    return "device lost" if is_lost and "captur" not in text else None


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Run the body on a stream of its own, ordered after and before the current stream's work, as a capture requires."""
    import torch

    side = _side(device)
    side.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(side):
            yield
    finally:  # after a fault too: its memory is free, and must not be written to while the side stream still reads it
        torch.cuda.current_stream(device).wait_stream(side)


@functools.cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """Return one stream for all uses, since allocators and libraries keep memory for every stream they have seen."""
    import torch

    return torch.cuda.Stream(device)


def record_graph(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """Record one call of `work` as a CUDA graph; returns its replay, which launches all its kernels at once.

    Call `work` a few times in a `side_stream` first, so that libraries and allocator have settled. The recorded call itself
    computes nothing. RuntimeError if `work` cannot be captured; the current stream is then restored, and memory and random
    numbers are available as before.
    """
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()  # during a capture the allocator gives no unused memory back, and would run out
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    with torch.cuda.stream(_side(device)), _no_collection():
        try:
            graph.capture_begin(pool, capture_error_mode="thread_local")  # other threads may pin images meanwhile
            output = work()
            graph.capture_end()
        except BaseException:
            _abandon(graph, pool, device)
            raise

    def replay(_keep: tuple[object, ...] = (work, output)) -> None:
        graph.replay()

    return replay


@contextmanager
def _no_collection() -> Iterator[None]:
    """Suspend the garbage collector: a graph that it frees during a capture spoils the capture."""
    import gc

    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _abandon(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], device: torch.device) -> None:
    """End a capture that failed, and release the allocator and random numbers that torch 2.11 leaves waiting."""
    import torch

    with suppress(RuntimeError):  # the error says only that the capture was invalidated
        graph.capture_end()
    graph.reset()
    with suppress(RuntimeError):  # newer versions release the memory by themselves, and raise
        torch._C._cuda_endAllocateToPool(device.index or 0, pool)
        torch._C._cuda_releasePool(device.index or 0, pool)
    token, another = torch.zeros(1, device=device), torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.Stream(device)):  # a capture that ends well allows random numbers again
        another.capture_begin(capture_error_mode="thread_local")
        token.zero_()
        another.capture_end()


@contextmanager
def fp32_as_served() -> Iterator[None]:
    """Have fp32 mean TF32 in convolutions and IEEE in linear layers, which is torch's default, whatever the caller has set.

    Older and newer switches are kept in agreement, since torch raises if they differ when one is read. Both are restored.
    """
    import torch

    cudnn, mkldnn = cast(Any, torch.backends.cudnn), cast(Any, torch.backends.mkldnn)
    parts = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul, mkldnn.matmul)
    newer = [part.fp32_precision for part in parts]
    try:
        older = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # they differ: the newer ones were set alone, and the older ones have their defaults
        older = True, "highest"
    cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        cudnn.allow_tf32 = older[0]
        torch.set_float32_matmul_precision(older[1])
        for part, precision in zip(parts, newer, strict=True):
            part.fp32_precision = precision


def read_card(device: torch.device) -> DeviceCard:
    """Return the facts that this machine gives about `device`."""
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
    """Return the processor's model as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


KEPT_BYTES = 2**31 - 1  # the largest value that the C library accepts
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


@functools.cache
def keep_memory() -> bool:
    """Have the C library keep freed memory instead of giving it back to the system; False if it does not support that.

    Otherwise every large tensor may cost page faults on every pass, or none, depending on the process's history: the same
    block took 1.2 or 8 ms. Serving runtimes keep their memory too.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        settings = ((M_MMAP_THRESHOLD, KEPT_BYTES // 2), (M_TRIM_THRESHOLD, KEPT_BYTES))
        return all(library.mallopt(name, value) == 1 for name, value in settings)
    except (OSError, AttributeError):
        return False


def available_bytes() -> int | None:
    """Return the memory that programs on the processor can still use; None if the system does not tell."""
    return _memory("MemAvailable")


def free_bytes(device: torch.device) -> int | None:
    """Return the memory on the device that this process can still use, including its own unused memory; None if it is unknown."""
    import torch

    if device.type != "cuda":
        return available_bytes()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + unused)


def total_bytes(device: torch.device) -> int | None:
    """Return the memory of the device, used or not; None if it is unknown."""
    import torch

    return _memory("MemTotal") if device.type != "cuda" else int(torch.cuda.get_device_properties(device).total_memory)


def give_back_memory(device: torch.device) -> None:
    """Release the GPU memory that this process holds unused to other processes."""
    import gc

    import torch

    if device.type == "cuda":
        gc.collect()
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


def _memory(line: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(found.split()[1]) * 1024 for found in lines if found.startswith(line))
    except (OSError, StopIteration, IndexError, ValueError):
        return None


def _driver_facts(gpu: str) -> dict[str, str | None]:
    """Return the driver version and clock limits of a GPU, given by its UUID, from the driver's own command."""
    query = "--query-gpu=driver_version,clocks.max.sm,clocks.max.memory"
    identity = gpu if gpu.isdigit() or gpu.startswith("GPU-") else f"GPU-{gpu}"
    command = ["nvidia-smi", query, "--format=csv,noheader", "-i", identity]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        driver, processors, memory = (fact.strip() for fact in answer.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {"driver": None, "clocks": None}
    return {"driver": driver, "clocks": f"{processors} / {memory}"}
