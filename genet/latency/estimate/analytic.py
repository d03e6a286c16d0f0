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
from typing import Literal, NamedTuple

from genet.config.recipe import Dtype, Runtime
from genet.errors import DeviceError, EvidenceError, SpecError
from genet.latency.estimate.gpus import GPUS, Gpu
from genet.latency.estimate.intensity import BYTES
from genet.latency.ops import Op, OpKind


class Tile(NamedTuple):
    """Rows and columns of the output that one thread block computes, and the share of the peak it reaches for long sums."""

    tall: int
    wide: int
    share: float


TILES = (
    Tile(256, 128, 0.99),
    Tile(128, 128, 0.88),
    Tile(256, 64, 0.80),
    Tile(128, 64, 0.51),
    Tile(64, 64, 0.46),
    Tile(256, 32, 0.45),
    Tile(128, 32, 0.41),
)
LARGE_TILE = 128 * 64  # a larger tile fills a multiprocessor alone, of others two fit
FILL = 192  # length of the sum at which a tile reaches half of its share: K / (K + 192)
DEPTHWISE_TFLOPS = {3: 2.3, 5: 1.7, 7: 2.2}  # by kernel size, on a V100 ...
V100_HALF_TFLOPS = 31.4  # ... whose CUDA cores have this peak
DEPTHWISE_BANDWIDTH = 0.65  # share of the data sheet's value
ELEMENTWISE_BANDWIDTH = 0.8
GROUP_WIDTH = 32  # a group is padded to this many channels, at half of the peak
INT8_WIDTH = 32  # channels that int8 kernels read at once; those of an image have a layout of their own
LAUNCH_MS = 0.004
FUSED = ("compile", "onnxruntime", "tensorrt")  # these fuse normalisation and activation into the producing kernel
FUSED_KINDS: tuple[OpKind, ...] = ("norm", "activation", "swish", "add")

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


@dataclass(frozen=True, slots=True)
class _Conditions:
    """What the time of a kernel depends on beside itself: the kinds of operation that vanish in others, and a launch's time."""

    gpu: Gpu
    batch: int
    dtype: Dtype
    fused: tuple[OpKind, ...]
    launch_ms: float

    @classmethod
    def of(cls, gpu: Gpu, batch: int, dtype: Dtype, runtime: Runtime) -> _Conditions:
        """Return those of a runtime: TensorRT is that of the GPU's published timings."""
        if runtime != "tensorrt":
            return cls(gpu, batch, dtype, FUSED_KINDS if runtime in FUSED else (), LAUNCH_MS)
        fused = tuple(kind for kind in FUSED_KINDS if kind != "swish" or gpu.engine.fuses_swish)
        return cls(gpu, batch, dtype, fused, gpu.engine.kernel_us / 1e3)


def estimate(ops: Sequence[Op], gpu: Gpu, batch: int, dtype: Dtype, runtime: Runtime) -> KernelEstimate:
    """Return the time of a batch on a GPU; "auto" is CUDA graphs, as for a measured GPU."""
    if batch < 1:
        raise SpecError([f"a batch must have at least 1 image, got {batch}"])
    at = _Conditions.of(gpu, batch, dtype, runtime)
    parts = tuple(_op_estimate(op, at) for op in ops)
    kernels = sum(op.kind not in at.fused for op in ops)
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


def tiled(op: Op, gpu: Gpu, batch: int, dtype: Dtype, tile: Tile) -> tuple[float, int, float]:
    """Return milliseconds, waves, and milliseconds lost in the last wave, of the implicit GEMM with one tile."""
    total = _padded(op.in_width, dtype) * op.kernel[0] * op.kernel[1]
    resident = 1 if tile.tall * tile.wide > LARGE_TILE else 2
    slots = gpu.sms * resident
    blocks = -(-batch * op.rows // tile.tall) * -(-_padded(op.width, dtype) // tile.wide)
    wave_ms = slots * 2 * tile.tall * tile.wide * total / (peak(gpu, dtype) * tile.share * _filled(total)) * 1e-9
    count = waves(blocks, slots)
    return count * wave_ms, count, wave_ms * (count - blocks / slots)


def scale_of(measured_ms: Sequence[float], estimated_ms: Sequence[float]) -> float:
    """Return the median of measured over estimated, for several networks: a factor that a single odd one cannot move."""
    if not measured_ms or len(measured_ms) != len(estimated_ms):
        raise EvidenceError(f"a scale needs as many times as estimates, got {len(measured_ms)} and {len(estimated_ms)}")
    wrong = [time for time in (*measured_ms, *estimated_ms) if not 0 < time < math.inf]
    if wrong:
        raise EvidenceError(f"calibration needs milliseconds above 0, got {wrong[0]}; time the network again")
    return median(measured / estimated for measured, estimated in zip(measured_ms, estimated_ms, strict=True))


def _op_estimate(op: Op, at: _Conditions) -> OpEstimate:
    if op.kind in ("conv", "linear") and op.groups == 1:
        return _dense(op, at)
    if op.kind == "conv":
        return _grouped(op, at)
    if op.kind == "add" and op.kind in at.fused:  # the producer adds, so only the other operand is read
        other = BYTES[at.dtype] * at.batch * op.written
        return OpEstimate(op.name, op.kind, _memory_ms(other, at.gpu, ELEMENTWISE_BANDWIDTH))
    if op.kind in at.fused:
        return OpEstimate(op.name, op.kind, 0.0)
    value = BYTES["fp16" if at.dtype == "int8" else at.dtype]  # engines compute in int8 in convolutions and linear layers alone
    traffic = op.bytes(at.batch, value)
    ms = at.launch_ms + _memory_ms(traffic, at.gpu, ELEMENTWISE_BANDWIDTH)
    if op.kind == "swish" and at.gpu.software.swish_kernels == 2:  # the product reads both its input and the sigmoid
        ms += at.launch_ms + _memory_ms(traffic + value * at.batch * op.read, at.gpu, ELEMENTWISE_BANDWIDTH)
    return OpEstimate(op.name, op.kind, ms)


def _dense(op: Op, at: _Conditions) -> OpEstimate:
    """Return the time of the fastest tile's waves, or of the memory traffic if that takes longer."""
    memory_ms = _memory_ms(_traffic(op, at), at.gpu)
    compute_ms, count, tail_ms = min(tiled(op, at.gpu, at.batch, at.dtype, tile) for tile in TILES)
    visible_tail_ms = min(tail_ms, max(0.0, compute_ms - memory_ms))
    return OpEstimate(op.name, op.kind, at.launch_ms + max(compute_ms, memory_ms), count, visible_tail_ms)


def _grouped(op: Op, at: _Conditions) -> OpEstimate:
    """Return the time of a grouped convolution: depthwise on the CUDA cores, others padded and at half of the peak; no stairs."""
    flops, traffic = 2 * op.macs * at.batch, _traffic(op, at)
    if op.depthwise:
        compute_ms = flops / _depthwise_tflops(op, at.gpu, at.dtype) * 1e-9
        memory_ms = _memory_ms(traffic, at.gpu, DEPTHWISE_BANDWIDTH)
        return OpEstimate(op.name, op.kind, at.launch_ms + max(compute_ms, memory_ms))
    if _looped(op, at.gpu) > 1 and not at.fused:
        one = _op_estimate(_one_group(op), at)
        return OpEstimate(op.name, op.kind, op.groups * one.ms, one.waves, op.groups * one.tail_ms)
    group = op.in_width // op.groups
    total = _padded(group, at.dtype) * op.kernel[0] * op.kernel[1]
    padding = max(GROUP_WIDTH, group) / group
    compute_ms = flops * padding / (0.5 * peak(at.gpu, at.dtype) * _filled(total)) * 1e-9
    return OpEstimate(op.name, op.kind, at.launch_ms + max(compute_ms, _memory_ms(traffic, at.gpu)))


def _traffic(op: Op, at: _Conditions) -> float:
    """Return the bytes that a convolution or a linear layer moves; in int8 whole bundles of channels."""
    if at.dtype != "int8":
        return op.bytes(at.batch, BYTES[at.dtype])
    read = op.read * _padded(op.in_width, at.dtype) / op.in_width
    written = op.written * _padded(op.width, at.dtype) / op.width
    return op.weights + at.batch * (read + written)


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
    if dtype == "int8":
        if gpu.int8_tensor_tops is None:
            able = ", ".join(each.key for each in GPUS if each.int8_tensor_tops is not None)
            raise DeviceError(f"an estimate in int8 failed: got {gpu.name}, expected one of {able}; set dtype to fp16")
        return gpu.int8_tensor_tops
    return gpu.fp16_tensor_tflops or max(gpu.fp16_tflops or 0.0, gpu.fp32_tflops)


def _memory_ms(traffic: float, gpu: Gpu, share: float = 1.0) -> float:
    return traffic / (gpu.bandwidth_gbs * share) * 1e-6


def _padded(channels: int, dtype: Dtype) -> int:
    """Return the channels as tensor cores read them: padded to a multiple of 8, or in int8 of 32."""
    step = INT8_WIDTH if dtype == "int8" and channels > 8 else 8
    return -(-channels // step) * step


def _filled(total: int) -> float:
    return total / (total + FILL)
