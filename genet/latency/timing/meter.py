"""Sources of latencies: the device at hand, the estimate of an absent one, or an evidence file alone.

All three have the same interface, so the rest of the code works with any; a setting tells them apart in every row.
"""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from genet.config.recipe import Measure
from genet.device import (
    DeviceCard,
    available_bytes,
    current,
    device_fault,
    fp32_as_served,
    free_bytes,
    give_back_memory,
    keep_memory,
    open_device,
    read_card,
)
from genet.errors import (
    DeviceError,
    EvidenceError,
    GenetError,
    LostDeviceError,
    MeasurementError,
    OutOfMemoryError,
    first_line,
)
from genet.latency.estimate.analytic import KernelEstimate, corrected, estimate, scale_of
from genet.latency.estimate.gpus import Gpu, find_gpu, similar_gpu
from genet.latency.estimate.residual import LearnedCorrection, TimedKernels
from genet.latency.noise import TOO_NOISY
from genet.latency.ops import block_ops
from genet.latency.table import LatencyTable, Setting
from genet.latency.timing.layers import time_layers
from genet.latency.timing.runtimes import ONE_LAYOUT, WAITING, prepare
from genet.latency.timing.stopwatch import REPEATS, TimedCall, Timing, measure
from genet.latency.workload import Workload
from genet.progress import UNSEEN, Tracker

_Answer = TypeVar("_Answer")
ATTEMPTS = 3
PASSES = 10  # over which layers are timed
MOST_IMAGES = 2**14  # upper limit of the search for the largest batch
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class InterleavedTimer(Protocol):
    """A timer of prepared workloads, a repeat of each in turn."""

    def __call__(self, repeats: int = REPEATS, tracker: Tracker = UNSEEN) -> tuple[Timing, ...]:
        """Return one timing per workload; every round is counted."""


class Meter(Protocol):
    """A meter times workloads in one setting. MeasurementError if one cannot be timed, DeviceError if none can."""

    @property
    def setting(self) -> Setting:
        """The key of every row."""

    def prepare(self, workloads: Sequence[Workload]) -> InterleavedTimer:
        """Make workloads ready to be timed in turn, as often as the caller likes."""

    def at(self, batch: int) -> Meter:
        """Return the same meter with so many images at a time."""


def meter_of(wanted: Measure) -> Meter:
    """Return the meter for the options of a user: the device that they name, or an estimate."""
    device = open_device(wanted.device if wanted.here else "cpu")
    with current(device, wanted.threads):
        return open_meter(wanted, read_card(device), device)


def open_meter(wanted: Measure, card: DeviceCard, device: torch.device) -> Meter:
    """Return the meter for the options of a recipe or a user: the device at hand, or the estimate of another."""
    if wanted.device.startswith("estimate:"):
        return EstimateMeter(wanted, find_gpu(wanted.device.removeprefix("estimate:")))
    if device.type == "cpu":
        keep_memory()
    return DeviceMeter(Setting.of(card, wanted), device)


@dataclass(frozen=True)
class DeviceMeter:
    """A meter that measures on the device at hand."""

    setting: Setting
    device: torch.device

    def at(self, batch: int) -> DeviceMeter:
        """See `Meter`."""
        return dataclasses.replace(self, setting=self.setting.model_copy(update={"batch": batch}))

    def prepare(self, workloads: Sequence[Workload]) -> InterleavedTimer:
        """Build the workloads with fresh weights on the device, on random images; a time depends on their shapes alone."""
        runtime = self.setting.runtime
        if runtime in ONE_LAYOUT and self.setting.memory_format != "contiguous":
            raise DeviceError(f"runtime {runtime} needs memory format contiguous, got {self.setting.memory_format}")

        def works_of() -> tuple[TimedCall, ...]:
            modules = [(self._module(workload), self._images(workload)) for workload in workloads]
            return prepare(runtime, modules, kernels_alone=not any(workload.whole for workload in workloads))

        works = self._run_inference(workloads, works_of)
        clock = torch.device("cpu") if runtime in WAITING else self.device

        def timed(repeats: int, tracker: Tracker) -> tuple[Timing, ...]:
            attempts = [measure(works, clock, repeats, tracker)]
            while len(attempts) < ATTEMPTS and _unrest(attempts[-1]) > TOO_NOISY:
                attempts.append(measure(works, clock, repeats))
            return min(attempts, key=_unrest)

        def timer(repeats: int = REPEATS, tracker: Tracker = UNSEEN) -> tuple[Timing, ...]:
            return self._run_inference(workloads, lambda: timed(repeats, tracker))

        return timer

    def layers(self, workload: Workload) -> tuple[tuple[str, str, float], ...]:
        """Return name, kind and milliseconds of every layer in eager mode, the median of some passes, in running order."""
        return self._run_inference([workload], lambda: time_layers(self._module(workload), self._images(workload), PASSES))

    def largest_batch(self, workload: Workload) -> int | None:
        """Return the largest power of two of images that fits into memory, up to MOST_IMAGES; None if no batch does.

        It is tried on a GPU, by one pass in eager mode, and calculated on a CPU.
        """
        fitting, batch = None, 1
        while batch <= MOST_IMAGES and self.at(batch)._fits(workload):
            fitting, batch = batch, 2 * batch
        give_back_memory(self.device)  # runtimes beside torch need it too
        return fitting

    def _fits(self, workload: Workload) -> bool:
        def one_pass() -> None:
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True):
                self._module(workload)(self._images(workload))
            torch.cuda.synchronize(self.device)

        try:
            self._run_inference([workload], one_pass if self.device.type == "cuda" else lambda: None)
        except OutOfMemoryError:
            return False
        return True

    def _module(self, workload: Workload) -> nn.Module:
        """Build a workload with random weights on the device."""
        if self.device.type == "cpu":
            module = workload.build().to(dtype=DTYPES[self.setting.dtype])
        else:  # of thousands of blocks, copying the weights to a GPU would take longer than timing
            with torch.device("meta"):
                module = workload.build()
            module = module.to(dtype=DTYPES[self.setting.dtype]).to_empty(device=self.device)
            for name, weights in (*module.named_parameters(), *module.named_buffers()):
                if weights.is_floating_point():
                    weights.normal_(std=0.05) if "running_var" not in name else weights.fill_(1)
                else:
                    weights.zero_()
        return module.eval().to(memory_format=MEMORY_FORMATS[self.setting.memory_format])

    def _images(self, workload: Workload) -> Tensor:
        shape = (self.setting.batch, *workload.image)
        pixels = torch.randn(shape, device=self.device, dtype=DTYPES[self.setting.dtype])
        return pixels.contiguous(memory_format=MEMORY_FORMATS[self.setting.memory_format])

    def _run_inference(self, workloads: Sequence[Workload], body: Callable[[], _Answer]) -> _Answer:
        """Do the body's inference on the device, with cuDNN's own choice of kernels, and translate its faults.

        fp32 means what torch serves by default: TF32 convolutions if available, and IEEE linear layers.
        """
        if self.device.type == "cpu":  # its allocator may promise more than there is, and the process would be killed
            free = available_bytes()
            if free is not None and sum(self._bytes(workload, self.setting.batch) for workload in workloads) > free:
                raise self._too_large(workloads, free)
        try:
            with (
                fp32_as_served(),
                torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True),
                torch.inference_mode(),
                current(self.device, self.setting.device.processors),
            ):
                return body()
        except Exception as fault:
            kind, what = device_fault(fault), first_line(fault)
            if kind is None or isinstance(fault, GenetError):
                raise
        if kind == "out of memory":  # by now the fault is gone, and so are the tensors in its traceback
            give_back_memory(self.device)
            raise self._too_large(workloads, free_bytes(self.device))
        name = workloads[0].name
        if kind == "device lost" or not self._still_works():
            raise LostDeviceError(
                f"{self.setting.device.name} stopped answering while {name} was timed ({what}); the same command continues "
                "without it"
            )
        raise MeasurementError(
            f"{name}: got {what}, expected kernels in {self.setting.dtype} and {self.setting.memory_format}; "
            "set measure.dtype or measure.memory_format to another"
        )

    def _still_works(self) -> bool:
        """Return whether the device goes on with other work after a fault of one of its libraries."""
        try:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        except RuntimeError:
            return False
        return True

    def _too_large(self, workloads: Sequence[Workload], free: int | None) -> OutOfMemoryError:
        workload = max(workloads, key=lambda workload: self._bytes(workload, self.setting.batch))
        fits, available = self.setting.batch, math.inf if free is None else free / 2
        while fits > 1 and self._bytes(workload, fits) > available:
            fits //= 2
        return OutOfMemoryError(
            f"{workload.name} does not fit into memory at batch {self.setting.batch}; "
            f"batch {min(fits, max(1, self.setting.batch // 2))} should"
        )

    def _bytes(self, workload: Workload, batch: int) -> int:
        """Return the memory of one pass: weights, images, and the largest input and output of a kernel, twice for workspace."""
        ops = workload.ops()
        largest = max((op.read + op.written for op in ops), default=0)
        values = sum(op.weights for op in ops) + 2 * batch * largest
        return values * DTYPES[self.setting.dtype].itemsize


def _unrest(timings: tuple[Timing, ...]) -> float:
    return max(timing.spread for timing in timings)


@dataclass(frozen=True)
class EstimateMeter:
    """A meter that answers from the wave model of an absent GPU; its setting says so, and names its corrections."""

    wanted: Measure
    gpu: Gpu
    scale: float = 1.0
    residual: LearnedCorrection | None = None
    rows: int = 0  # number of rows that the residual was learnt from

    def at(self, batch: int) -> EstimateMeter:
        """See `Meter`; its corrections stay."""
        return dataclasses.replace(self, wanted=self.wanted.model_copy(update={"batch": batch}))

    @property
    def setting(self) -> Setting:
        """The setting of the estimate; the device's name marks it as one."""
        calibration = f" x {self.scale:.4g}" * (self.scale != 1) + f" corrected by {self.rows} rows" * (self.rows > 0)
        return Setting.of(estimate_card(self.gpu, f"estimate:{self.gpu.key}{calibration}"), self.wanted)

    def prepare(self, workloads: Sequence[Workload]) -> InterleavedTimer:
        """Return the estimates, which no repetition changes."""
        found = [(workload, self.estimate(workload)) for workload in workloads]
        estimates = [estimate.ms if workload.whole else estimate.device_ms for workload, estimate in found]
        timings = tuple(Timing(ms=ms, median_ms=ms, spread=0.0) for ms in estimates)
        return lambda repeats=REPEATS, tracker=UNSEEN: timings

    def estimate(self, workload: Workload) -> KernelEstimate:
        """Return the whole estimate of a workload, calibrated."""
        groups = workload.groups()
        factors = (
            self.residual.factors([(group, self.wanted.batch) for group in groups]) if self.residual else (1.0,) * len(groups)
        )
        per_op = [self.scale * factor for factor, group in zip(factors, groups, strict=True) for _ in group]
        setting = self.setting
        plain = estimate(workload.ops(), self.gpu, setting.batch, setting.dtype, setting.runtime)
        return corrected(plain, per_op, self.scale)

    def scaled_by(self, known: Sequence[tuple[Workload, float]]) -> EstimateMeter:
        """Return the meter with one more factor, from measured times of some networks, in ms per batch."""
        if not known:
            return self
        factor = scale_of([ms for _, ms in known], [self.estimate(workload).ms for workload, _ in known])
        return dataclasses.replace(self, scale=self.scale * factor)

    def corrected_by(self, evidence: LatencyTable) -> EstimateMeter:
        """Return the meter with the residual of measured rows of that GPU, which is worthwhile from a few hundred rows on.

        EvidenceError if the rows are of another device.
        """
        setting = evidence.setting
        if similar_gpu(setting.device.name) != self.gpu:
            raise EvidenceError(
                f"--calibrate: got rows of {setting.device.name} for an estimate of {self.gpu.name}, expected rows of that GPU; "
                "measure there with `genet profile RUN`"
            )
        rows = [(block_ops(row.block), evidence.ms(row.block)) for row in evidence.block_rows if row.ms is not None]
        learnt = [
            TimedKernels(ops, setting.batch, ms, estimate(ops, self.gpu, setting.batch, setting.dtype, setting.runtime).device_ms)
            for ops, ms in rows
        ]
        return dataclasses.replace(self, residual=LearnedCorrection(learnt), rows=len(learnt))


def estimate_card(gpu: Gpu, name: str) -> DeviceCard:
    """Return the card of an absent GPU: its published facts, and nothing of this machine's software."""
    return DeviceCard(
        kind="estimate",
        name=name,
        processors=gpu.sms,
        memory_bytes=None,
        l2_bytes=None,
        capability=None,
        driver=None,
        clocks=None,
        cuda=None,
        cudnn=None,
        torch=None,
        python=platform.python_version(),
        platform="n/a",
    )


@dataclass(frozen=True)
class EvidenceMeter:
    """A meter for a device that is elsewhere: workloads missing from its evidence file cannot be timed here."""

    setting: Setting

    def at(self, batch: int) -> EvidenceMeter:
        """See `Meter`."""
        return dataclasses.replace(self, setting=self.setting.model_copy(update={"batch": batch}))

    def prepare(self, workloads: Sequence[Workload]) -> InterleavedTimer:
        """Refuse; EvidenceError names the missing workload."""
        raise EvidenceError(
            f"the evidence of {self.setting.device.name} lacks {workloads[0].name}; measure it there with `genet profile "
            "RUN` of this space, or leave --latency out"
        )
