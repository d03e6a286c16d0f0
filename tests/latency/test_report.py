"""One latency read whole and layer by layer, on this machine and as an estimate."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from genet.config.recipe import Measure
from genet.device import read_card
from genet.latency.report import BOUND, report_latency
from genet.latency.table import Setting
from genet.latency.timing.layers import time_layers
from genet.latency.timing.meter import DeviceMeter, EstimateMeter, open_meter
from genet.latency.timing.ratio import PAIRS, repeatability
from genet.latency.workload import network_workload, read_workload
from tests.fixtures.tiny import tiny_recipe

CPU = torch.device("cpu")
CARD = read_card(CPU)
HERE = DeviceMeter(Setting.of(CARD, Measure(batch=2)), CPU)
BLOCK = "DW k3 c8 r2 @8"


def estimate(**wanted: object) -> EstimateMeter:
    meter = open_meter(Measure.model_validate({"device": "estimate:v100", "dtype": "fp16"} | wanted), CARD, CPU)
    assert isinstance(meter, EstimateMeter)
    return meter


def test_a_block_is_read_on_this_machine_with_its_layers_in_the_order_they_run() -> None:
    part = read_workload(BLOCK)
    found = report_latency(part, HERE)
    assert (found.name, found.setting, found.ops) == (part.name, HERE.setting, len(part.ops()))
    assert 0 < found.ms < math.inf
    assert found.ms_per_image == found.ms / 2
    assert (found.device_ms, found.bound, found.tail_ms) == (None, None, None)  # on a processor the two are one
    kinds = [layer.kind for layer in found.layers]
    assert kinds.count("Conv2d") == 3
    assert [layer.kind for layer in found.layers if layer.kind in ("Conv2d", "BatchNorm2d")] == ["Conv2d", "BatchNorm2d"] * 3
    convolutions = [layer.name.removeprefix("0.") for layer in found.layers if layer.kind == "Conv2d"]
    assert [name.split(".")[0] for name in convolutions] == ["conv1_1x1", "conv2_kxk", "conv3_1x1"]
    assert all(layer.ms > 0 for layer in found.layers)
    assert all(layer.waves is None and layer.tail_ms is None for layer in found.layers)


def test_a_whole_network_is_read_on_this_machine(tmp_path: Path) -> None:
    network = tiny_recipe(tmp_path).space.masternet(16)
    found = report_latency(network_workload(network), HERE)
    assert found.layers[0].name.startswith("stem")
    assert found.layers[-1].kind == "Linear"
    assert sum(layer.kind == "Conv2d" for layer in found.layers) == sum(
        op.kind == "conv" for op in network_workload(network).ops()
    )


def test_layers_are_timed_in_the_order_they_run_and_not_in_which_they_are_listed() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first, self.never = nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Identity()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(images))

    module = Backwards().eval()
    with torch.inference_mode():
        found = time_layers(module, torch.randn(1, 3, 4, 4), passes=3)
    assert [(name, kind) for name, kind, _ in found] == [("first", "Conv2d"), ("second", "ReLU")]
    assert all(ms > 0 for *_, ms in found)
    assert not module.first._forward_hooks  # the module is left as it was


def test_a_slow_layer_is_told_from_a_fast_one() -> None:
    module = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1, 1)).eval()
    with torch.inference_mode():
        times = {name: ms for name, _, ms in time_layers(module, torch.randn(2, 64, 32, 32), passes=5)}
    assert times["0"] > 2 * times["2"]


@pytest.mark.parametrize("batch", [1, 64])
def test_an_estimate_is_labelled_as_one_and_counts_waves(tmp_path: Path, batch: int) -> None:
    part, meter = network_workload(tiny_recipe(tmp_path).space.masternet(16)), estimate(batch=batch)
    found = report_latency(part, meter)
    assert found.setting.estimate
    assert found.setting.device.name == "estimate:v100"
    assert str(found.setting).startswith("estimate:v100, ")
    assert found.spread == 0
    assert found.ms == meter.prepare([part])()[0].ms
    assert found.device_ms is not None
    assert found.tail_ms is not None
    assert 0 <= found.tail_ms < found.device_ms
    assert any(layer.waves for layer in found.layers)
    assert sum(layer.ms for layer in found.layers) == pytest.approx(found.device_ms)


def test_a_small_network_waits_for_the_host_and_a_large_one_for_the_device(tmp_path: Path) -> None:
    small = report_latency(network_workload(tiny_recipe(tmp_path).space.masternet(16)), estimate(batch=1, runtime="eager"))
    large = report_latency(read_workload("genet-light"), estimate(batch=256, runtime="eager"))
    assert (small.bound, large.bound) == ("host", "device")
    assert small.device_ms is not None
    assert small.ms > BOUND * small.device_ms


def test_of_a_block_alone_the_kernels_are_estimated_and_nothing_is_said_of_the_host() -> None:
    found = report_latency(read_workload("XX k3 c64 @14"), estimate())
    assert found.bound is None
    assert found.ms == found.device_ms


def test_an_estimate_that_was_scaled_says_so_and_never_mixes_with_one_that_was_not() -> None:
    part, plain = read_workload("XX k3 c64 @14"), estimate()
    half = plain.scaled_by([(part, 0.5 * plain.estimate(part).ms)])
    assert report_latency(part, half).ms == pytest.approx(0.5 * report_latency(part, plain).ms)
    assert half.setting.device.name != plain.setting.device.name
    assert half.setting.digest != plain.setting.digest
    assert plain.scaled_by([]) is plain


def test_a_network_timed_against_itself_tells_what_can_be_told_apart() -> None:
    found = repeatability(read_workload("XX k3 c16 @8"), HERE)
    assert found.pairs == PAIRS
    assert found.ms > 0
    assert 0 < found.in_turn < math.inf
    assert 0 < found.apart < math.inf
    exact = repeatability(read_workload("XX k3 c16 @8"), estimate())
    assert (exact.in_turn, exact.apart) == (0, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_in_eager_mode_tells_device_from_host(tmp_path: Path) -> None:
    gpu = torch.device("cuda", 0)
    meter = DeviceMeter(Setting.of(read_card(gpu), Measure(batch=1, runtime="eager")), gpu)
    found = report_latency(network_workload(tiny_recipe(tmp_path).space.masternet(16)), meter)
    assert found.device_ms is not None
    assert found.bound == "host"
    assert found.ms > found.device_ms
