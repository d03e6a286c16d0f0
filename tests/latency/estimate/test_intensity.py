"""Arithmetic intensity against sums made by hand, and the roof against what it is made of."""

from __future__ import annotations

import statistics

import pytest
import torch

from genet.config.recipe import Dtype, Measure
from genet.device import read_card
from genet.latency.estimate.gpus import find_gpu
from genet.latency.estimate.intensity import flops_of, intensity_of, layers_of
from genet.latency.estimate.roofline import PASS_BYTES, MatrixProduct, measure_roof, memory_pass
from genet.latency.timing.meter import EstimateMeter, Meter, open_meter
from genet.latency.workload import read_workload
from genet.studies.survey.survey import survey

# Convolutions of ResNet-50 at 224 pixels: how many, kernel, channels read and written, size read and written.
RESNET50 = [
    (1, 7, 3, 64, 224, 112),
    (1, 1, 64, 64, 56, 56), (2, 1, 256, 64, 56, 56), (3, 3, 64, 64, 56, 56), (3, 1, 64, 256, 56, 56), (1, 1, 64, 256, 56, 56),
    (1, 1, 256, 128, 56, 56), (1, 3, 128, 128, 56, 28), (3, 1, 512, 128, 28, 28), (3, 3, 128, 128, 28, 28),
    (4, 1, 128, 512, 28, 28), (1, 1, 256, 512, 56, 28),
    (1, 1, 512, 256, 28, 28), (1, 3, 256, 256, 28, 14), (5, 1, 1024, 256, 14, 14), (5, 3, 256, 256, 14, 14),
    (6, 1, 256, 1024, 14, 14), (1, 1, 512, 1024, 28, 14),
    (1, 1, 1024, 512, 14, 14), (1, 3, 512, 512, 14, 7), (2, 1, 2048, 512, 7, 7), (2, 3, 512, 512, 7, 7),
    (3, 1, 512, 2048, 7, 7), (1, 1, 1024, 2048, 14, 7),
]  # fmt: skip
# Convolutions of GENet-large at 256 pixels, likewise; the inner widths of bottlenecks are a quarter or three times.
GERNET_L = [
    (1, 3, 3, 32, 256, 128),
    (1, 3, 32, 128, 128, 64), (1, 3, 128, 128, 64, 64), (1, 1, 32, 128, 128, 64),
    (1, 3, 128, 192, 64, 32), (3, 3, 192, 192, 32, 32), (1, 1, 128, 192, 64, 32),
    (1, 1, 192, 160, 32, 32), (1, 3, 160, 160, 32, 16), (6, 1, 160, 640, 16, 16), (5, 1, 640, 160, 16, 16),
    (5, 3, 160, 160, 16, 16), (1, 1, 192, 640, 32, 16),
    (1, 1, 640, 1920, 16, 16), (1, 1, 640, 640, 16, 8), (8, 1, 640, 1920, 8, 8), (9, 1, 1920, 640, 8, 8),
    (1, 1, 640, 2560, 8, 8),
]  # fmt: skip
DEPTHWISE = [(1, 3, 1920, 16, 8), (8, 3, 1920, 8, 8)]  # how many, kernel, channels, size read and written


def by_hand(dense: list[tuple[int, ...]], depthwise: list[tuple[int, ...]], last: int, batch: int, value: int) -> float:
    """Equation 2, summed over layers: the classifier reads `last` channels, writes 1,000 classes and has a bias."""
    flops = bytes_moved = 0
    shapes = [(count, k * k * read * written, read, written, a, b) for count, k, read, written, a, b in dense]
    shapes += [(count, k * k * width, width, width, a, b) for count, k, width, a, b in depthwise]
    for count, weights, read, written, size, out in shapes:
        flops += count * 2 * batch * weights * out * out
        bytes_moved += count * value * (weights + batch * (read * size * size + written * out * out))
    flops += 2 * batch * last * 1000
    bytes_moved += value * (last * 1000 + 1000 + batch * (last + 1000))
    return flops / bytes_moved


@pytest.mark.parametrize(("batch", "dtype", "value"), [(64, "fp16", 2), (1, "fp32", 4)])
def test_resnet50_and_gernet_l_have_the_intensity_that_a_sum_by_hand_gives(batch: int, dtype: Dtype, value: int) -> None:
    for name, dense, depthwise, last in (
        ("timm:resnet50", RESNET50, [], 2048),
        ("timm:gernet_l", GERNET_L, DEPTHWISE, 2560),
    ):
        layers = layers_of(read_workload(name).ops(), batch, dtype)
        assert intensity_of(layers) == pytest.approx(by_hand(dense, depthwise, last, batch, value), rel=1e-9), name


def test_a_network_of_ours_has_the_intensity_of_timms_model_of_it() -> None:
    ours, theirs = (layers_of(read_workload(name).ops(), 64, "fp16") for name in ("genet-large", "timm:gernet_l"))
    assert intensity_of(ours) == pytest.approx(intensity_of(theirs))
    assert flops_of(ours) == flops_of(theirs)


def test_larger_batches_raise_the_intensity_up_to_what_activations_allow() -> None:
    """Utilization paper, section 2.2."""
    ops = read_workload("genet-light").ops()
    found = [intensity_of(layers_of(ops, batch, "fp16")) for batch in (1, 8, 64, 512, 4096)]
    assert found == sorted(found)
    assert found[-1] < 1.02 * found[-2]


@pytest.mark.parametrize("batch", [1, 6, 64, 1000])
def test_a_product_is_what_it_says_in_any_batch(batch: int) -> None:
    for kind in ("linear layer", "convolution"):
        part = MatrixProduct(kind, 256, batch).workload
        module = part.build()
        images = torch.randn(batch, *part.image)
        written = module(images)
        assert 2 * written.numel() * 256 == MatrixProduct(kind, 256, batch).flops
        assert sum(2 * op.macs * batch for op in part.ops()) == MatrixProduct(kind, 256, batch).flops


def estimate(gpu: str) -> Meter:
    measure = Measure(device=f"estimate:{gpu}", dtype="fp16", runtime="tensorrt", batch=64)
    return EstimateMeter(measure, find_gpu(gpu))


def test_a_roof_tells_the_data_sheet_beside_what_is_reached() -> None:
    """V100: 125 TFLOP/s over 900 GB/s are the 139 FLOP per byte of the utilization paper."""
    roof, _ = measure_roof(estimate("v100"))
    assert roof.published_ratio == pytest.approx(139, abs=0.5)
    assert 0.75 * 125 < roof.tflops_per_sec < 125
    assert 0.7 * 900 < roof.gb_per_sec < 900
    assert roof.at(roof.ratio) == pytest.approx(roof.tflops_per_sec)
    assert roof.at(roof.ratio / 2) == pytest.approx(roof.tflops_per_sec / 2)


def test_a_pass_over_memory_is_beyond_every_cache() -> None:
    setting = estimate("v100").setting
    (op,) = memory_pass(setting).ops()
    assert op.read * setting.batch * 2 == op.written * setting.batch * 2 == PASS_BYTES


@pytest.mark.slow
def test_a_matrix_product_timed_in_turn_with_itself_uses_the_whole_device() -> None:
    """The median of a few within 5 %, or within what they scatter by where others share this machine."""
    meter = open_meter(Measure(device="cpu", batch=4), read_card(torch.device("cpu")), torch.device("cpu"))
    product = MatrixProduct("convolution", 1024, 4)
    shares = [survey(product.workload, meter, product, 10.0).utilization or 0.0 for _ in range(5)]
    assert abs(statistics.median(shares) - 1) < max(0.05, 2 * statistics.stdev(shares)), shares
