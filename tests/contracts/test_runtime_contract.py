"""What every runtime must do: time a block, a chain and a whole network; or refuse in one line that names the way out."""

from __future__ import annotations

import gc
import itertools
import math
import tomllib
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from genet.config.recipe import Measure
from genet.device import available_bytes, read_card
from genet.errors import DeviceError, LostDeviceError, MeasurementError, OutOfMemoryError
from genet.latency import profile
from genet.latency.table import LatencyTable, Setting
from genet.latency.timing import meter as meters
from genet.latency.timing.meter import DeviceMeter
from genet.latency.timing.runtimes import RUNTIMES, prepare
from genet.latency.workload import Workload, block_chain, network_workload, read_blocks
from genet.storage import Journal
from tests.fixtures.tiny import tiny_recipe

ROOT = Path(__file__).parents[2]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PARTS = ("block", "chain", "network")
ON_CPU = ("eager", pytest.param("compile", marks=pytest.mark.slow), "onnxruntime")
ON_GPU = tuple(RUNTIMES)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def meter(runtime: str, device: torch.device, **wanted: object) -> DeviceMeter:
    measure = Measure.model_validate({"batch": 2, "runtime": runtime, **wanted})
    return DeviceMeter(Setting.of(read_card(device), measure), device)


def part(kind: str, folder: Path) -> Workload:
    if kind == "network":
        return network_workload(tiny_recipe(folder).space.masternet(16))
    return block_chain(read_blocks("DW k3 c8>16 s2 r2 @8" if kind == "block" else "BL k3 c8>16 s2 d3 r0.5 @8"))


def times_it(found: DeviceMeter, asked: Workload) -> None:
    race = found.prepare([asked, asked])
    for repeats in (3, 5):  # work that is ready can be repeated as often as the caller likes
        for timing in race(repeats):
            assert 0 < timing.ms < math.inf
            assert 0 < timing.median_ms < math.inf
            assert timing.spread >= 0


def test_every_runtime_that_a_recipe_may_name_is_known() -> None:
    known = set(Measure.model_fields["runtime"].annotation.__args__)  # type: ignore[union-attr]
    assert set(RUNTIMES) == known - {"auto"}


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("runtime", ON_CPU)
def test_a_runtime_times_a_block_a_chain_and_a_whole_network(runtime: str, kind: str, tmp_path: Path) -> None:
    times_it(meter(runtime, CPU), part(kind, tmp_path))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("runtime", ON_GPU)
def test_a_runtime_times_them_on_a_gpu(runtime: str, dtype: str, kind: str, tmp_path: Path) -> None:
    if runtime == "tensorrt" and find_spec("tensorrt") is None:
        pytest.skip("needs tensorrt")
    if runtime == "onnxruntime" and not _onnxruntime_reaches_the_gpu():
        pytest.skip("needs onnxruntime-gpu")
    times_it(meter(runtime, GPU, dtype=dtype), part(kind, tmp_path))


def _onnxruntime_reaches_the_gpu() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_both_memory_formats_are_timed(memory_format: str, tmp_path: Path) -> None:
    times_it(meter("eager", CPU, memory_format=memory_format), part("network", tmp_path))


def test_a_runtime_of_one_layout_refuses_the_other(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="needs memory format contiguous, got channels_last"):
        meter("onnxruntime", CPU, memory_format="channels_last").prepare([part("network", tmp_path)])


@pytest.mark.parametrize("runtime", ON_CPU)
def test_more_work_takes_longer(runtime: str) -> None:
    one, eight = (block_chain(read_blocks(f"XX k3 c32 d{depth} @16")) for depth in (1, 8))
    few, many = meter(runtime, CPU).prepare([one, eight])(10)
    assert many.median_ms > 2 * few.median_ms


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_the_work_runs_the_module_and_not_nothing(runtime: str) -> None:
    """Works of a wider module take longer, so the clock sees the module itself."""
    modules = [nn.Conv2d(width, width, 3, padding=1, bias=False).eval() for width in (8, 128)]
    with torch.inference_mode():
        works = prepare(runtime, [(module, torch.randn(1, module.in_channels, 32, 32)) for module in modules])
        from genet.latency.timing.stopwatch import measure

        narrow, wide = measure(works, CPU, 5)
    assert wide.median_ms > 5 * narrow.median_ms


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("runtime", ["cudagraph", "tensorrt"])
def test_a_runtime_that_needs_a_gpu_refuses_a_processor_in_one_line(runtime: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        meter(runtime, CPU).prepare([part(kind, tmp_path)])
    refusal = str(caught.value)
    assert "\n" not in refusal
    assert runtime in refusal
    assert "use --runtime eager" in refusal or "pip install" in refusal


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_a_runtime_whose_package_is_missing_names_an_extra_that_there_is(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"runtime tensorrt needs its package.*pip install 'genet-nas\[tensorrt\]'"):
        meter("tensorrt", CPU).prepare([part("block", tmp_path)])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "tensorrt" in extras


class Untraceable(nn.Module):
    """No exporter and no compiler can make anything of it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("this module\ndoes not like to be run")


def test_a_module_that_a_runtime_refuses_is_a_fault_of_that_part_alone() -> None:
    with pytest.raises(MeasurementError, match="exporting the model to ONNX failed: ") as caught:
        prepare("onnxruntime", [(Untraceable(), torch.randn(1, 1, 4, 4))])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["eager", "compile", "onnxruntime"])
def test_a_batch_that_memory_cannot_hold_is_refused_before_memory_is_touched(runtime: str) -> None:
    huge = block_chain(read_blocks("XX k3 c64 @224"))
    built: list[int] = []
    before = available_bytes()
    watched = Workload(huge.name, huge.image, huge.groups, lambda: built.append(1) or huge.build(), whole=False)  # type: ignore[func-returns-value]
    with pytest.raises(MeasurementError, match=r"does not fit into memory at batch 10000000; batch \d+ should") as caught:
        meter(runtime, CPU, batch=10**7).prepare([watched])
    after = available_bytes()
    assert not built
    assert before is None or after is None or before - after < 2**30
    fits = int(str(caught.value).split("batch ")[-1].split()[0])
    assert 1 <= fits < 10**7
    assert before is None or fits * 64 * 224 * 224 * 4 < before


def test_the_batch_that_is_said_to_fit_fits() -> None:
    part = block_chain(read_blocks("Conv k1 c8 @64"))
    batch = 10**9
    for _ in range(3):
        with pytest.raises(MeasurementError) as caught:
            meter("eager", CPU, batch=batch).prepare([part])
        batch = int(str(caught.value).split("batch ")[-1].split()[0])
        if batch < 10**6:
            break
    assert meter("eager", CPU, batch=batch)._run_inference([part], lambda: "not refused") == "not refused"


class Failing(nn.Module):
    """Raises in the midst of its work, with a tensor at hand."""

    def __init__(self, fault: type[Exception], words: str, made: list[weakref.ref[object]]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(8, 8))
        self._fault, self._words, self._made = fault, words, made

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scratch = images.clone()
        self._made += [weakref.ref(one) for one in (images, scratch, self.weights)]
        try:
            raise ValueError("what it came from")
        except ValueError as cause:
            raise self._fault(self._words) from cause


def failing(fault: type[Exception], words: str, made: list[weakref.ref[object]] | None = None) -> Workload:
    plain = block_chain(read_blocks("XX k3 c8 @8"))
    return Workload("XX", plain.image, plain.groups, lambda: Failing(fault, words, [] if made is None else made), whole=False)


UNSUPPORTED = "GET was unable to find an engine to execute this computation"


@pytest.mark.parametrize(
    ("fault", "words", "told", "law"),
    [
        (RuntimeError, f"{UNSUPPORTED}\nmore", MeasurementError, f"XX: got {UNSUPPORTED}, expected kernels in fp32"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling", MeasurementError, "expected kernels in"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling", OutOfMemoryError, "does not fit into memory"),
        (torch.AcceleratorError, "CUDA error: an illegal memory access", LostDeviceError, "stopped answering while XX"),
        (ValueError, "a fault of the module itself", ValueError, "a fault of the module itself"),
    ],
)
@pytest.mark.parametrize("asked", [lambda found, part: found.prepare([part])(3), DeviceMeter.layers], ids=["race", "layers"])
def test_what_a_device_raises_is_told_by_what_it_means(
    fault: type[Exception], words: str, told: type[Exception], law: str, asked: Callable[[DeviceMeter, Workload], object]
) -> None:
    with pytest.raises(told, match=law) as caught:
        asked(meter("eager", CPU, batch=64), failing(fault, words))
    assert "\n" not in str(caught.value)


def test_a_device_that_is_lost_behind_a_librarys_fault_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeviceMeter, "_still_works", lambda self: False)
    with pytest.raises(LostDeviceError, match="stopped answering while XX"):
        meter("eager", CPU).prepare([failing(RuntimeError, "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")])(3)


def test_memory_is_free_again_before_a_batch_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[object]] = []
    held: list[bool] = []

    def free_bytes(device: torch.device) -> int | None:
        held.extend(one() is not None for one in made)
        return available_bytes()

    monkeypatch.setattr(meters, "free_bytes", free_bytes)
    part = failing(torch.OutOfMemoryError, "CUDA out of memory", made)
    with pytest.raises(OutOfMemoryError, match="batch 32 should"):
        meter("eager", CPU, batch=64).layers(part)
    assert held == [False] * 3
    made.clear()
    held.clear()
    monkeypatch.setattr(meters, "prepare", lambda runtime, parts, kernels_alone: [module(images) for module, images in parts])
    with pytest.raises(OutOfMemoryError, match="batch 32 should"):
        meter("eager", CPU, batch=64).prepare([part])
    assert held == [False] * 3


def test_a_block_that_a_library_has_no_kernel_for_is_a_failed_row_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentinel, good, bad = (read_blocks(f"Conv k1 c{width} @4")[0] for width in (4, 8, 12))
    tried: list[str] = []

    def chain_of(blocks: list[object]) -> Workload:
        tried.append(str(blocks[0]))
        return failing(RuntimeError, UNSUPPORTED) if bad in blocks else block_chain(blocks)  # type: ignore[arg-type]

    monkeypatch.setattr(profile, "block_chain", chain_of)
    found = meter("eager", CPU)
    for again in (False, True):
        tried.clear()
        table = LatencyTable(Journal(tmp_path / "latency.jsonl"), found.setting)
        profile.profile_blocks(table, found, [good, bad], sentinel)
        assert (str(bad) in tried) is not again
    assert {row.block: row.failure is None for row in table.block_rows} == {good: True, bad: False}


@pytest.mark.slow
def test_compiled_networks_that_nobody_times_any_more_leave_memory() -> None:
    weights: list[weakref.ref[object]] = []
    images = torch.randn(1, 8, 4, 4)
    with torch.inference_mode():
        for width in (4, 8, 16):
            module = nn.Conv2d(8, width, 1).eval()
            weights.append(weakref.ref(module.weight))
            works = prepare("compile", [(module, images)])
            works[0]()
        del module
        assert [one() is None for one in weights] == [True, True, False]
        del works
        gc.collect()
    assert [one() is None for one in weights] == [True, True, True]


@pytest.mark.gpu
@needs_gpu
def test_a_batch_that_a_gpu_cannot_hold_names_one_that_fits() -> None:
    huge = block_chain(read_blocks("XX k3 c64 @224"))
    with pytest.raises(MeasurementError, match=r"does not fit into memory at batch 10000000; batch \d+ should"):
        meter("eager", GPU, batch=10**7).prepare([huge])
    times_it(meter("eager", GPU, batch=2), huge)  # the device is as good as before


def test_parts_are_timed_in_turn_and_answered_in_their_order() -> None:
    small, large = block_chain(read_blocks("Conv k1 c8 @4")), block_chain(read_blocks("Conv k3 c64 @32"))
    for order in itertools.permutations((small, large)):
        timings = dict(zip([part.name for part in order], meter("eager", CPU).prepare(order)(5), strict=True))
        assert timings[large.name].ms > 2 * timings[small.name].ms
