"""The device at hand: opened by name, refused with a way out, and described without a guess."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from genet.arch.network import Network
from genet.config.recipe import Measure
from genet.device import DeviceCard, cpus, device_fault, fp32_as_served, open_device, read_card, record_graph, side_stream
from genet.errors import DeviceError, LostDeviceError, MeasurementError, OutOfMemoryError
from genet.latency.timing import stopwatch
from genet.latency.timing.meter import meter_of
from genet.latency.workload import network_workload

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_cpu_opens_the_processor() -> None:
    assert open_device("cpu") == torch.device("cpu")


def test_auto_opens_the_first_gpu_where_there_is_one_and_else_the_processor() -> None:
    wanted = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    assert open_device("auto") == wanted


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_without_a_gpu_says_so_and_names_the_processor_as_the_way_out(name: str) -> None:
    with pytest.raises(DeviceError, match=f"^device {name} needs an NVIDIA GPU .* none here; use --device cpu$"):
        open_device(name)


def test_the_card_of_the_processor_has_a_name_and_no_fact_of_a_gpu() -> None:
    card = read_card(torch.device("cpu"))
    assert (card.kind, card.l2_bytes, card.driver, card.cuda, card.cudnn) == ("cpu", None, None, None, None)
    assert card.name.strip()
    assert card.capability


def test_the_card_names_the_software_at_work() -> None:
    card = read_card(torch.device("cpu"))
    assert (card.torch, card.python) == (torch.__version__, platform.python_version())
    assert card.platform == f"{platform.system()} {platform.machine()}"


def test_a_network_is_timed_with_the_threads_that_are_asked_for_and_torch_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()

    def repeat(work: Callable[[], object], _calls: int) -> float:
        seen.append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr(stopwatch, "_cpu_repeat", repeat)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        meter = meter_of(Measure(device="cpu", threads=1, batch=2))
        meter.prepare([network_workload(Network.parse("@8x1 | Conv k3 c8 s2 | XX k3 c8 s1 d1 | 10"))])(3)
        assert (meter.setting.device.processors, set(seen), torch.get_num_threads()) == (1, {1}, min(2, cpus()))
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(DeviceError, match=r"measure.threads: got 4096, expected at most \d+"):
        meter_of(Measure(device="cpu", threads=4096))


def test_the_processors_of_a_processor_are_the_threads_that_torch_uses() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert read_card(torch.device("cpu")).processors == 1
    finally:
        torch.set_num_threads(threads)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")).write_text(text)


def grouped(system: Path, lines: str) -> Path:
    """A system whose only processes are in these cgroups."""
    write(system / "proc" / "self", cgroup=lines)
    return system


def test_without_a_quota_a_process_has_the_processors_that_it_is_tied_to(tmp_path: Path) -> None:
    tied = len(os.sched_getaffinity(0))
    assert cpus(tmp_path) == tied
    write(grouped(tmp_path, "0::/\n4:cpu,cpuacct:/\nodd\n") / "sys/fs/cgroup", cpu_max="max 100000\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct", cpu_cfs_quota_us="-1\n", cpu_cfs_period_us="100000\n")
    assert cpus(tmp_path) == tied
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from genet.device import cpus; print(cpus())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "1\n"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor is all there is")
@pytest.mark.parametrize("quota", ["100000", "50000", "2000"])
@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ("0::/\n", "sys/fs/cgroup"),  # inside a container
        ("0::/user/job\n", "sys/fs/cgroup/user/job"),
        ("0::/user/job\n", "sys/fs/cgroup/user"),  # what is above limits it too
        ("1:name=systemd:/\n0::/job\n", "sys/fs/cgroup/unified/job"),
        ("3:memory:/other\n2:cpu,cpuacct:/docker/a:b\n", "sys/fs/cgroup/cpu,cpuacct/docker/a:b"),
        ("2:cpuacct,cpu:/docker/ab\n", "sys/fs/cgroup/cpu"),  # its path is that of the machine outside
    ],
)
def test_a_process_has_the_processors_that_its_quota_pays_for_rounded_up(
    lines: str, place: str, quota: str, tmp_path: Path
) -> None:
    system = grouped(tmp_path, lines)
    if "cpu" in lines:
        write(system / place, cpu_cfs_quota_us=f"{quota}\n", cpu_cfs_period_us="100000\n")
    else:
        write(system / place, cpu_max=f"{quota} 100000\n")
    assert cpus(system) == 1


def test_a_device_is_opened_with_no_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    try:
        for given, there, expected in ((3, 2, 2), (1, 2, 1)):
            monkeypatch.setattr("genet.device.cpus", lambda there=there: there)
            torch.set_num_threads(given)
            assert read_card(open_device("cpu")).processors == expected
    finally:
        torch.set_num_threads(threads)


def test_the_memory_is_in_bytes_or_unknown() -> None:
    memory = read_card(torch.device("cpu")).memory_bytes
    assert memory is None or memory > 2**27


def test_the_same_machine_gives_the_same_card_and_a_card_survives_its_file(tmp_path) -> None:
    card = read_card(torch.device("cpu"))
    assert read_card(torch.device("cpu")) == card
    card.save(tmp_path / "card.json")
    assert DeviceCard.load(tmp_path / "card.json") == card


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_card_of_a_gpu_has_its_facts() -> None:
    device = open_device("cuda")
    card = read_card(device)
    assert device == torch.device("cuda", 0)
    assert (card.kind, card.name) == ("cuda", torch.cuda.get_device_name(0))
    assert card.capability == ".".join(map(str, torch.cuda.get_device_capability(0)))
    assert card.processors >= 1
    assert card.memory_bytes > 2**30
    assert card.l2_bytes > 2**18
    assert card.cuda == torch.version.cuda
    assert card.cudnn == torch.backends.cudnn.version()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_beyond_those_here_is_refused_with_their_number() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(DeviceError, match=f"must be one of the {count} GPUs here; use cuda:{count - 1} or below"):
        open_device(f"cuda:{count}")


FAULTS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "out of memory"),
    (RuntimeError("CUDA error: out of memory"), "out of memory"),
    (torch.AcceleratorError("CUDA error: out of memory"), "out of memory"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out of memory"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "out of memory"),
    (OutOfMemoryError("XX: must fit into memory"), "out of memory"),
    (RuntimeError("FIND was unable to find an engine to execute this computation after trying 9 plans"), "no engine"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if"), "no engine"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx( handle`"), "no engine"),
    (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "device lost"),
    (RuntimeError("CUDA error: unspecified launch failure"), "device lost"),
    (LostDeviceError("it stopped"), "device lost"),
    (torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"), None),
    (MeasurementError("exporting the model to ONNX failed: cuDNN error"), None),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    (ValueError("too wide"), None),
]


@pytest.mark.parametrize(("fault", "kind"), FAULTS, ids=[str(fault)[:60] for fault, _ in FAULTS])
def test_what_torch_raises_tells_what_became_of_the_device(fault: Exception, kind: str | None) -> None:
    assert device_fault(fault) == kind


def test_memory_that_a_processor_does_not_have_is_told_like_a_gpus() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert device_fault(caught.value) == "out of memory"


@pytest.fixture
def default_precision() -> Iterator[None]:
    """Torch's own switches before and after."""

    def reset() -> None:
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"

    reset()
    yield
    reset()


def precision() -> list[object]:
    """What the newer switches say, and the older ones where they answer."""
    cudnn = torch.backends.cudnn
    parts = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    found: list[object] = [part.fp32_precision for part in parts]
    for ask in (lambda: cudnn.allow_tf32, torch.get_float32_matmul_precision, lambda: torch.backends.cuda.matmul.allow_tf32):
        try:
            found.append(ask())
        except RuntimeError:
            found.append("mixed")
    return found


def by_newer_switches() -> None:
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def by_older_switches() -> None:
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("medium")


@pytest.mark.parametrize("wanted", [by_newer_switches, by_older_switches, lambda: None], ids=["newer", "older", "default"])
@pytest.mark.usefixtures("default_precision")
def test_fp32_is_as_torch_serves_it_whatever_was_set_and_what_was_set_comes_back(wanted: Callable[[], None]) -> None:
    wanted()
    before = precision()
    with fp32_as_served():
        convolutions, _, products, _, *older = precision()
    assert (convolutions, products in ("ieee", "none"), older) == ("tf32", True, [True, "highest", False])
    assert precision() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_recorded_work_is_replayed_and_does_nothing_while_it_is_recorded() -> None:
    device = open_device("cuda")
    total = torch.zeros(1, device=device)
    with side_stream(device):
        total.add_(1)
    replay = record_graph(lambda: total.add_(1), device)
    assert total.item() == 1
    replay()
    replay()
    assert total.item() == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_work_that_cannot_be_captured_leaves_stream_random_numbers_and_memory_as_they_were() -> None:
    device = open_device("cuda")
    ones = torch.ones(2**24, device=device)
    stream = torch.cuda.current_stream(device)
    for _ in range(3):
        with pytest.raises(RuntimeError) as caught:
            record_graph(lambda: (ones * 2).sum().item(), device)
        assert device_fault(caught.value) is None
    assert torch.cuda.current_stream(device) == stream
    assert torch.randn(8, device=device).isfinite().all()
    held = torch.cuda.memory_allocated(device)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(device) < held + ones.nbytes  # no capture still keeps its memory
    record_graph(lambda: ones * 2, device)()
