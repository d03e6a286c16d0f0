"""The analytic device model: waves computed by hand, laws that always hold, and its agreement with published timings."""

from __future__ import annotations

import csv
import gzip
import random
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.arch.network import Network
from genet.errors import DeviceError, EvidenceError, SpecError
from genet.latency.estimate.analytic import LAUNCH_MS, TILES, Tile, corrected, estimate, scale_of, tiled, waves
from genet.latency.estimate.gpus import GPUS, find_gpu
from genet.latency.estimate.residual import FEWEST, LearnedCorrection, TimedKernels
from genet.latency.ops import Op, network_ops
from tests.fixtures.strategies import networks

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared"
V100 = find_gpu("v100")


def conv(width: int = 64, in_width: int = 64, size: int = 7, kernel: int = 3, groups: int = 1) -> Op:
    weights = width * in_width // groups * kernel**2
    pixels = size**2
    shape = (pixels, width, in_width, (kernel, kernel), groups)
    return Op("conv", "conv", in_width * pixels, width * pixels, weights, *shape)


convs = st.builds(
    conv, st.integers(1, 96).map(lambda n: 8 * n), st.sampled_from([3, 64, 512]), st.integers(1, 56), st.sampled_from([1, 3, 5])
)
gpus = st.sampled_from(GPUS)
dtypes = st.sampled_from(["fp32", "fp16", "bf16"])


@pytest.mark.parametrize(
    ("blocks", "slots", "expected"),
    [(80, 80, 1), (81, 80, 2), (160, 80, 2), (161, 80, 3), (109, 108, 2), (12, 8, 2), (1, 132, 1)],
)
def test_a_wave_holds_one_block_per_processor(blocks: int, slots: int, expected: int) -> None:
    assert waves(blocks, slots) == expected  # Titan V: 80 processors; 109 blocks on an A100 are two waves


def test_the_last_wave_of_81_tiles_on_80_processors_is_lost_but_for_one_tile() -> None:
    titan = find_gpu("titan-v")
    full, waves_full, lost_full = tiled(conv(width=128, size=1), titan, 128 * 80, "fp16", Tile(128, 128, 0.88))
    over, waves_over, lost_over = tiled(conv(width=128, size=1), titan, 128 * 81, "fp16", Tile(128, 128, 0.88))
    assert (waves_full, lost_full) == (1, 0.0)
    assert (waves_over, over) == (2, 2 * full)
    assert lost_over == pytest.approx(full * 79 / 80)


def test_the_time_of_one_wave_is_the_one_computed_by_hand() -> None:
    total = 64 * 9  # 80 tiles of 128 x 128 with sums of 576: 2 * 80 * 128 * 128 * 576 operations at 0.88 * 0.75 of 125 TFLOP/s
    seconds = 2 * 80 * 128 * 128 * total / (125e12 * 0.88 * total / (total + 192))
    assert tiled(conv(width=128, size=1), V100, 128 * 80, "fp16", Tile(128, 128, 0.88))[0] == pytest.approx(1e3 * seconds)


def test_two_small_tiles_share_a_processor() -> None:
    assert tiled(conv(width=64, size=1), V100, 64 * 160, "fp16", Tile(64, 64, 0.46))[1] == 1
    assert tiled(conv(width=64, size=1), V100, 64 * 161, "fp16", Tile(64, 64, 0.46))[1] == 2


def test_a_normalisation_takes_its_traffic_at_four_fifths_of_the_bandwidth() -> None:
    (op,) = estimate([Op("bn", "norm", 9 * 10**5, 9 * 10**5)], V100, 200, "fp16", "cudagraph").ops
    assert op.ms == pytest.approx(LAUNCH_MS + 1e3 * 2 * 200 * 18e5 / (0.8 * 900e9))
    assert op.waves is None


def test_eager_pays_the_host_for_every_kernel_and_graphs_do_not() -> None:
    ops = [conv(size=1)] * 10
    eager, graph = (estimate(ops, V100, 1, "fp16", runtime) for runtime in ("eager", "cudagraph"))  # type: ignore[arg-type]
    assert (eager.bound, eager.host_ms, eager.ms) == ("host", pytest.approx(0.4), pytest.approx(0.4))
    assert (graph.bound, graph.host_ms, graph.ms) == ("device", 0.0, eager.device_ms)


def test_a_host_that_nobody_measured_is_not_free() -> None:
    assert estimate([conv(size=1)] * 10, find_gpu("h200"), 1, "fp16", "eager").host_ms == pytest.approx(0.08)


def test_fusion_removes_the_kernels_between_convolutions_and_reads_the_shortcut_once() -> None:
    ops = [conv(), Op("bn", "norm", 8, 8), Op("relu", "activation", 8, 8), Op("add", "add", 16 * 10**6, 8 * 10**6)]
    fused = estimate(ops, V100, 64, "fp16", "tensorrt")
    assert fused.kernels == 1
    assert [op.ms for op in fused.ops[1:3]] == [0.0, 0.0]
    assert fused.ops[3].ms == pytest.approx(1e3 * 2 * 64 * 8e6 / (0.8 * 900e9))


def test_a_gpu_without_tensor_cores_uses_its_faster_cores() -> None:
    dense = conv(width=512, in_width=512, size=28)
    p6000, nano = find_gpu("p6000"), find_gpu("jetson-nano")
    half, single = (estimate([dense], p6000, 8, dtype, "cudagraph").ms for dtype in ("fp16", "fp32"))  # type: ignore[arg-type]
    assert half == pytest.approx(single)  # its fp16 is 64 times slower than its fp32
    half, single = (estimate([dense], nano, 8, dtype, "cudagraph").ms for dtype in ("fp16", "fp32"))  # type: ignore[arg-type]
    assert single / half == pytest.approx(0.47 / 0.24, rel=1e-3)


def test_a_larger_depthwise_kernel_costs_more_than_its_operations() -> None:
    small, large = (
        estimate([conv(512, 512, 28, kernel, 512)], V100, 64, "fp16", "cudagraph").device_ms - LAUNCH_MS for kernel in (3, 5)
    )
    assert large / small == pytest.approx(25 / 9 * 2.3 / 1.7)


def test_narrow_groups_are_padded() -> None:
    a100 = find_gpu("a100")
    narrow, padded = (estimate([conv(512, 512, 28, 3, groups)], a100, 64, "fp16", "cudagraph") for groups in (64, 16))
    assert narrow.ms > 0.99 * padded.ms  # groups of 8 do a quarter of the work of groups of 32, and are no faster


def test_software_of_2020_launches_a_kernel_for_every_group_and_two_for_a_swish() -> None:
    one, grouped = conv(8, 8, 28), conv(512, 512, 28, 3, 64)
    single, looped = (estimate([op], V100, 64, "fp16", "eager") for op in (one, grouped))
    assert looped.device_ms == pytest.approx(64 * single.device_ms, rel=1e-6)
    assert looped.host_ms == pytest.approx(single.host_ms + 63 * LAUNCH_MS)
    assert estimate([grouped], V100, 64, "fp16", "tensorrt").ms < looped.device_ms
    swish = Op("act", "swish", 10**6, 10**6)
    old, new = (estimate([swish], find_gpu(name), 64, "fp16", "eager") for name in ("v100", "a100"))
    assert (old.host_ms, new.host_ms) == (pytest.approx(0.08), pytest.approx(0.008))
    moved = 5 * 2 * 64 * 10**6 / (0.8 * 900e9) * 1e3  # a read and a write for the sigmoid, two reads and a write after it
    assert old.device_ms == pytest.approx(2 * LAUNCH_MS + moved)


def test_int8_computes_at_its_own_peak_and_moves_bundles_of_32_channels_of_one_byte() -> None:
    t4, launch_ms = find_gpu("t4"), 0.02
    full = estimate([conv(64, 64, 28, 1)], t4, 64, "int8", "tensorrt").ms
    assert full == estimate([conv(33, 33, 28, 1)], t4, 64, "int8", "tensorrt").ms + (64**2 - 33**2) / 320e6
    assert full == pytest.approx(launch_ms + (64**2 + 64 * 2 * 64 * 28**2) / 320e6)
    ours, theirs = (tiled(conv(512, 512, 28), t4, 64, dtype, Tile(256, 128, 0.99))[0] for dtype in ("fp16", "int8"))  # type: ignore
    assert ours == 2 * theirs


def test_an_engine_of_2020_takes_a_pass_for_a_swish_which_is_never_in_int8() -> None:
    swish = Op("act", "swish", 10**6, 10**6)
    half, int8 = (estimate([swish], find_gpu("t4"), 64, dtype, "tensorrt") for dtype in ("fp16", "int8"))  # type: ignore[arg-type]
    assert half.ms == int8.ms == pytest.approx(0.02 + 2 * 2 * 64 * 10**6 / (0.8 * 320e6))
    assert (half.kernels, estimate([swish], V100, 64, "fp16", "tensorrt").kernels) == (1, 0)


def test_a_gpu_without_int8_tensor_cores_is_refused_with_those_that_have_them() -> None:
    with pytest.raises(DeviceError, match=r"got Tesla V100 SXM2, expected one of t4, a100, .*; set dtype to fp16"):
        estimate([conv()], V100, 64, "int8", "tensorrt")


@given(convs, gpus, dtypes, st.integers(1, 200), st.integers(1, 200))
def test_a_larger_batch_is_never_faster(op: Op, gpu: object, dtype: object, batch: int, more: int) -> None:
    small, large = (estimate([op], gpu, size, dtype, "eager").ms for size in (batch, batch + more))  # type: ignore[arg-type]
    assert small <= large


@given(convs, gpus, dtypes, st.integers(1, 128))
def test_a_wider_layer_is_never_faster_in_the_model(op: Op, gpu: object, dtype: object, batch: int) -> None:
    wider = replace(op, width=op.width + 8, written=op.written + 8 * op.rows)
    here, there = (estimate([part], gpu, batch, dtype, "cudagraph").ms for part in (op, wider))  # type: ignore[arg-type]
    assert here <= there


@given(convs, gpus, dtypes, st.integers(1, 128))
def test_the_tail_is_less_than_one_wave_and_never_negative(op: Op, gpu: object, dtype: object, batch: int) -> None:
    (part,) = estimate([op], gpu, batch, dtype, "cudagraph").ops  # type: ignore[arg-type]
    assert part.waves is not None
    assert 0 <= part.tail_ms * (1 - 1e-9) <= (part.ms - LAUNCH_MS) / part.waves


@given(convs, gpus, dtypes, st.integers(1, 128))
def test_no_kernel_beats_its_traffic_or_its_arithmetic(op: Op, gpu: object, dtype: object, batch: int) -> None:
    ms = estimate([op], gpu, batch, dtype, "cudagraph").ms  # type: ignore[arg-type]
    value = 4 if dtype == "fp32" else 2
    peaks = [gpu.fp16_tensor_tflops, gpu.tf32_tflops, gpu.fp32_tflops, gpu.fp16_tflops]  # type: ignore[attr-defined]
    assert ms > op.bytes(batch, value) / gpu.bandwidth_gbs * 1e-6  # type: ignore[attr-defined]
    assert ms > 2 * op.macs * batch / max(peak or 0 for peak in peaks) * 1e-9


@given(networks(), gpus)
def test_fused_networks_are_never_slower_and_the_parts_make_the_whole(network: Network, gpu: object) -> None:
    ops = network_ops(network)
    eager, fused = (estimate(ops, gpu, 16, "fp16", runtime) for runtime in ("eager", "compile"))  # type: ignore[arg-type]
    assert fused.ms < eager.ms
    assert eager.ms == max(eager.device_ms, eager.host_ms)
    assert eager.device_ms == pytest.approx(sum(op.ms for op in eager.ops))
    assert eager.kernels == len(ops)


def test_a_batch_without_images_is_refused() -> None:
    with pytest.raises(SpecError, match="at least 1 image, got 0"):
        estimate([conv()], V100, 0, "fp16", "eager")


def test_a_correction_multiplies_every_kernel_by_its_factor_and_the_host_by_its_own() -> None:
    plain = estimate([conv(size=1)] * 2, V100, 1, "fp16", "eager")
    found = corrected(plain, (1000, 3000), 2)
    assert (plain.bound, found.bound, found.host_ms) == ("host", "device", 2 * plain.host_ms)
    assert found.ms == pytest.approx(2000 * plain.device_ms)


def test_a_scale_is_the_median_of_measured_over_estimated_and_needs_real_times() -> None:
    assert scale_of([2.0, 3.0, 400.0], [1.0, 1.0, 1.0]) == 3.0
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(EvidenceError, match="above 0"):
            scale_of([wrong], [2.0])
    with pytest.raises(EvidenceError, match="got 0 and 0"):
        scale_of([], [])


def timed(ratio: float, op: Op) -> TimedKernels:
    return TimedKernels((op,), 64, ratio, 1.0)


def test_a_residual_corrects_what_it_has_seen_and_keeps_depthwise_apart() -> None:
    dense = [timed(2.0, conv(8 * n)) for n in range(1, 21)]
    depthwise = [timed(0.5, conv(8 * n, 8 * n, groups=8 * n)) for n in range(1, 21)]
    factors = LearnedCorrection([*dense, *depthwise]).factors([((conv(84),), 64), ((conv(84, 84, groups=84),), 64)])
    assert factors == pytest.approx((2.0, 0.5))


def test_a_residual_refuses_too_few_rows_and_times_that_cannot_be() -> None:
    with pytest.raises(EvidenceError, match=f"at least {FEWEST} timed rows, got 4"):
        LearnedCorrection([timed(1.0, conv())] * 4)
    with pytest.raises(EvidenceError, match=r"above 0, got 0\.0"):
        LearnedCorrection([timed(0.0, conv())] * 5)
    assert LearnedCorrection([timed(1.0, conv())] * 5).factors([]) == ()


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The benchmark as a module."""
    spec = spec_from_file_location("wave_model", ROOT / "benchmarks" / "wave_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["wave_model"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def published(*place: str) -> Path:
    path = SHARED.joinpath(*place)
    if not path.is_file():
        pytest.skip(f"the published timings {path.name} are not beside the project")
    return path


@pytest.mark.parametrize(("number", "spearman", "mean_error"), [(7, 0.94, 0.12), (8, 0.93, 0.1), (9, 0.93, 0.1)])
def test_the_genet_papers_networks_keep_their_order_and_are_off_by_little(
    bench: ModuleType, number: int, spearman: float, mean_error: float
) -> None:
    table = next(table for table in bench.PAPER_TABLES if table.number == number)
    found = bench.score_table(published("papers", table.file), table)
    assert found.count >= 14
    assert found.spearman >= spearman
    assert found.mean_error <= mean_error


@pytest.mark.slow
def test_the_order_of_timms_networks_is_kept(bench: ModuleType) -> None:
    found, _ = bench.score_rtx3090(published("data", "timm_benchmark_rtx3090_amp_nhwc.csv"))
    assert found.count >= 60
    assert found.spearman >= 0.97
    assert found.mean_error <= 0.12


def test_waves_explain_single_layers_and_a_residual_still_betters_them(bench: ModuleType, tmp_path: Path) -> None:
    lines = gzip.decompress(published("data", "v100_tensorrt_fp16_conv.csv.gz").read_bytes()).decode().splitlines()
    chosen = tmp_path / "layers.csv.gz"
    chosen.write_bytes(gzip.compress("\n".join(lines[:1] + lines[1::19]).encode()))
    rows, smooth = bench.read_layers(chosen)
    measured = [row.measured_ms for row in rows]
    with_waves = bench.score([], measured, [row.estimated_ms for row in rows])
    without = bench.score([], measured, smooth)
    assert with_waves.mean_error < 0.28 < 0.40 < without.mean_error
    random.Random(0).shuffle(rows)
    left = bench.residual_errors(rows[:1000], rows[1000:])
    assert sum(left) / len(left) < 0.9 * with_waves.mean_error


def test_the_layer_timings_are_read_with_their_columns() -> None:
    with gzip.open(published("data", "v100_tensorrt_fp16_conv.csv.gz"), "rt") as lines:
        row = next(csv.DictReader(lines))
    assert {"conv", "batch", "in_channels", "in_size", "out_channels", "kernel", "stride", "add_fused", "latency_ms"} <= set(row)


def test_tiles_grow_more_efficient_with_their_size() -> None:
    shares = {(tall, wide): share for tall, wide, share in TILES}
    assert all(shares[a] > shares[b] for a in shares for b in shares if a[0] >= b[0] and a[1] >= b[1] and a != b)
