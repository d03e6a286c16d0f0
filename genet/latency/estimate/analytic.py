"""An analytic model of a GPU: tiles, waves and memory traffic give every kernel a time. An estimate, never a measurement.

A convolution is a matrix product cut into tiles; each tile is a thread block, and the blocks run in waves of as many as
the GPU holds. A wave that is not full takes as long as a full one: L = dL * ceil(B / S), the tail-effect paper's
equation 3. Autotuning picks the fastest tile, and no kernel is faster than its memory traffic.

The constants come from timings of single layers (dense and depthwise convolutions on a V100), never from a network.
The model is good for the order of networks and widths; its milliseconds need one calibration factor.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from genet.config.recipe import Dtype, Runtime
from genet.errors import EvidenceError, SpecError
from genet.latency.estimate.hardware import Gpu
from genet.latency.ops import Op

# Rows and columns of the output that one thread block computes, and the share of the peak it reaches for long sums.
TILES = (
    (256, 128, 0.99),
    (128, 128, 0.88),
    (256, 64, 0.80),
    (128, 64, 0.51),
    (64, 64, 0.46),
    (256, 32, 0.45),
    (128, 32, 0.41),
)
LARGE_TILE = 128 * 64  # a larger tile fills a multiprocessor alone, of others two fit
FILL = 192  # length of the sum at which a tile reaches half of its share: K / (K + 192)
DEPTHWISE_TFLOPS = {3: 2.3, 5: 1.7, 7: 2.2}  # by kernel size, on a V100 ...
V100_HALF_TFLOPS = 31.4  # ... whose CUDA cores have this peak
DEPTHWISE_BANDWIDTH = 0.65  # share of the data sheet's value
ELEMENTWISE_BANDWIDTH = 0.8
GROUP_WIDTH = 32  # a group is padded to this many channels, at half of the peak
LAUNCH_MS = 0.004
FUSED = ("compile", "onnxruntime", "tensorrt")  # these fuse normalisation and activation into the producing kernel
FUSED_KINDS = ("norm", "activation", "swish", "add")

Bound = Literal["device", "host"]


@dataclass(frozen=True, slots=True)
class OpEstimate:
    """One kernel's time for a batch; `waves` is None if they are not counted.

    `tail_ms` is the cost of a last wave that is not full: its time times its empty share, if memory does not hide it.
    """

    name: str
    kind: str
    ms: float
    waves: int | None = None
    tail_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class KernelEstimate:
    """One forward pass of a batch: `ms` is the larger of the device's time and the host's time to launch it."""

    ms: float
    device_ms: float
    host_ms: float
    kernels: int
    bound: Bound
    tail_ms: float
    ops: tuple[OpEstimate, ...]


def estimate(ops: Sequence[Op], gpu: Gpu, batch: int, dtype: Dtype, runtime: Runtime) -> KernelEstimate:
    """Return the time of a batch on a GPU; "auto" is CUDA graphs, as for a measured GPU."""
    if batch < 1:
        raise SpecError([f"a batch must have at least 1 image, got {batch}"])
    fused = runtime in FUSED
    parts = tuple(_op_estimate(op, gpu, batch, dtype, fused) for op in ops)
    kernels = sum(not (fused and op.kind in FUSED_KINDS) for op in ops)
    host_ms = sum(_host_us(op, gpu) for op in ops) / 1e3 if runtime == "eager" else 0.0
    return _summed(parts, host_ms, kernels)


def _host_us(op: Op, gpu: Gpu) -> float:
    """Return the host's microseconds for one operation; further launches inside it cost no more than a launch."""
    software = gpu.software
    if op.kind == "swish":
        return software.host_us * software.swish_kernels
    return software.host_us + 1e3 * LAUNCH_MS * (_looped(op, gpu) - 1)


def _looped(op: Op, gpu: Gpu) -> int:
    """Return the number of kernels of a convolution: one, or one per group."""
    return op.groups if gpu.software.loops_over_groups and op.groups > 1 and not op.depthwise else 1


def corrected(found: KernelEstimate, factors: Sequence[float], host_factor: float) -> KernelEstimate:
    """Return the estimate with every kernel's time multiplied by its factor, and the host's by its own."""
    pairs = zip(found.ops, factors, strict=True)
    ops = tuple(dataclasses.replace(op, ms=op.ms * factor, tail_ms=op.tail_ms * factor) for op, factor in pairs)
    return _summed(ops, found.host_ms * host_factor, found.kernels)


def _summed(ops: tuple[OpEstimate, ...], host_ms: float, kernels: int) -> KernelEstimate:
    """Return the time of kernels in sequence, while the host launches the next ones: the slower of the two sets the pace."""
    device_ms, tail_ms = math.fsum(op.ms for op in ops), math.fsum(op.tail_ms for op in ops)
    bound: Bound = "host" if host_ms > device_ms else "device"
    return KernelEstimate(max(device_ms, host_ms), device_ms, host_ms, kernels, bound, tail_ms, ops)


def waves(blocks: int, slots: int) -> int:
    """Return the waves of `blocks` thread blocks on a GPU that holds `slots` at a time (tail-effect paper, equation 3)."""
    return -(-blocks // slots)


def tiled(op: Op, gpu: Gpu, batch: int, dtype: Dtype, tall: int, wide: int, share: float) -> tuple[float, int, float]:
    """Return milliseconds, waves, and milliseconds lost in the last wave, of the implicit GEMM with one tile."""
    total = _padded(op.in_width) * op.kernel[0] * op.kernel[1]
    resident = 1 if tall * wide > LARGE_TILE else 2
    slots = gpu.sms * resident
    blocks = -(-batch * op.rows // tall) * -(-_padded(op.width) // wide)
    wave_ms = slots * 2 * tall * wide * total / (peak(gpu, dtype) * share * _filled(total)) * 1e-9
    count = waves(blocks, slots)
    return count * wave_ms, count, wave_ms * (count - blocks / slots)


def scale_of(measured_ms: Sequence[float], estimated_ms: Sequence[float]) -> float:
    """Return the median of measured over estimated, for several networks: a factor that a single odd one cannot move."""
    if not measured_ms or len(measured_ms) != len(estimated_ms):
        raise EvidenceError(f"a scale needs as many times as estimates, got {len(measured_ms)} and {len(estimated_ms)}")
    _check_times(*measured_ms, *estimated_ms)
    return median(measured / estimated for measured, estimated in zip(measured_ms, estimated_ms, strict=True))


def _check_times(*times: float) -> None:
    wrong = [time for time in times if not 0 < time < math.inf]
    if wrong:
        raise EvidenceError(f"calibration needs milliseconds above 0, got {wrong[0]}; time the network again")


def _op_estimate(op: Op, gpu: Gpu, batch: int, dtype: Dtype, fused: bool) -> OpEstimate:
    value = 4 if dtype == "fp32" else 2
    traffic = op.bytes(batch, value)
    if op.kind in ("conv", "linear") and op.groups == 1:
        return _dense(op, gpu, batch, dtype, traffic)
    if op.kind == "conv":
        return _grouped(op, gpu, batch, dtype, fused)
    if fused and op.kind in ("norm", "activation", "swish"):
        return OpEstimate(op.name, op.kind, 0.0)
    if fused and op.kind == "add":  # the producer adds, so only the other operand is read
        return OpEstimate(op.name, op.kind, _memory_ms(value * batch * op.written, gpu, ELEMENTWISE_BANDWIDTH))
    ms = LAUNCH_MS + _memory_ms(traffic, gpu, ELEMENTWISE_BANDWIDTH)
    if op.kind == "swish" and gpu.software.swish_kernels == 2:  # the product reads both its input and the sigmoid
        ms += LAUNCH_MS + _memory_ms(traffic + value * batch * op.read, gpu, ELEMENTWISE_BANDWIDTH)
    return OpEstimate(op.name, op.kind, ms)


def _dense(op: Op, gpu: Gpu, batch: int, dtype: Dtype, traffic: int) -> OpEstimate:
    """Return the time of the fastest tile's waves, or of the memory traffic if that takes longer."""
    memory_ms = _memory_ms(traffic, gpu)
    compute_ms, count, tail_ms = min(tiled(op, gpu, batch, dtype, *tile) for tile in TILES)
    shown = min(tail_ms, max(0.0, compute_ms - memory_ms))
    return OpEstimate(op.name, op.kind, LAUNCH_MS + max(compute_ms, memory_ms), count, shown)


def _grouped(op: Op, gpu: Gpu, batch: int, dtype: Dtype, fused: bool) -> OpEstimate:
    """Return the time of a grouped convolution: depthwise on the CUDA cores, others padded and at half of the peak; no stairs."""
    flops, traffic = 2 * op.macs * batch, op.bytes(batch, 4 if dtype == "fp32" else 2)
    if op.depthwise:
        compute_ms = flops / _depthwise_tflops(op, gpu, dtype) * 1e-9
        return OpEstimate(op.name, op.kind, LAUNCH_MS + max(compute_ms, _memory_ms(traffic, gpu, DEPTHWISE_BANDWIDTH)))
    if _looped(op, gpu) > 1 and not fused:
        one = _op_estimate(_one_group(op), gpu, batch, dtype, fused)
        return OpEstimate(op.name, op.kind, op.groups * one.ms, one.waves, op.groups * one.tail_ms)
    group = op.in_width // op.groups
    total = _padded(group) * op.kernel[0] * op.kernel[1]
    padding = max(GROUP_WIDTH, group) / group
    compute_ms = flops * padding / (0.5 * peak(gpu, dtype) * _filled(total)) * 1e-9
    return OpEstimate(op.name, op.kind, LAUNCH_MS + max(compute_ms, _memory_ms(traffic, gpu)))


def _one_group(op: Op) -> Op:
    read, written, weights = (values // op.groups for values in (op.read, op.written, op.weights))
    width, in_width = op.width // op.groups, op.in_width // op.groups
    return dataclasses.replace(op, read=read, written=written, weights=weights, width=width, in_width=in_width, groups=1)


def _depthwise_tflops(op: Op, gpu: Gpu, dtype: Dtype) -> float:
    """Return the TFLOP/s of depthwise kernels of this size, scaled by the peak of the CUDA cores."""
    nearest = min(DEPTHWISE_TFLOPS, key=lambda size: abs(size - max(op.kernel)))
    cores = gpu.fp32_tflops if dtype == "fp32" or gpu.fp16_tflops is None else gpu.fp16_tflops
    return DEPTHWISE_TFLOPS[nearest] * max(cores, gpu.fp32_tflops) / V100_HALF_TFLOPS


def peak(gpu: Gpu, dtype: Dtype) -> float:
    """Return TFLOP/s of a matrix product; without tensor cores for the number format the better of the CUDA cores' peaks."""
    if dtype == "fp32":
        return gpu.tf32_tflops or gpu.fp32_tflops
    return gpu.fp16_tensor_tflops or max(gpu.fp16_tflops or 0.0, gpu.fp32_tflops)


def _memory_ms(traffic: float, gpu: Gpu, share: float = 1.0) -> float:
    return traffic / (gpu.bandwidth_gbs * share) * 1e-6


def _padded(channels: int) -> int:
    """Return the channels as tensor cores read them: padded to a multiple of 8."""
    return -(-channels // 8) * 8


def _filled(total: int) -> float:
    return total / (total + FILL)
