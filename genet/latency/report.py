"""One network's latency, whole and layer by layer: its bottleneck, device or host, and the waste in waves."""

from __future__ import annotations

from typing import Literal

from genet.errors import MeasurementError
from genet.latency.estimate.analytic import estimate
from genet.latency.estimate.gpus import similar_gpu
from genet.latency.table import Setting
from genet.latency.timing.meter import DeviceMeter, EstimateMeter, Meter
from genet.latency.workload import Workload
from genet.progress import UNSEEN, Tracker
from genet.storage import Record

BOUND = 1.1  # a network that is slower than its kernels alone by this factor waits for the host


class LayerLatency(Record):
    """One layer of a network, in milliseconds per batch; waves and the waste of the last one if a model counts them."""

    name: str
    kind: str
    ms: float
    waves: int | None = None
    tail_ms: float | None = None


class LatencyReport(Record):
    """A network's latency in milliseconds per batch.

    `device_ms` is the time of its kernels alone, if it is known; `bound` says whether it waits for the device or for the
    host, None if device and host are one. `tail_ms` is the time lost in last waves that are not full: counted by the
    wave model, also beside a measurement. Layers are listed in the order in which they run.
    """

    name: str
    setting: Setting
    ms: float
    spread: float
    ops: int
    device_ms: float | None
    bound: Literal["device", "host"] | None
    tail_ms: float | None
    layers: tuple[LayerLatency, ...]
    layers_runtime: str  # measured layers are always those of eager mode, as other runtimes do not keep them apart

    def __repr__(self) -> str:
        ms = f"{self.ms:.4g} ms per batch of {self.setting.batch}, spread {self.spread:.1%}"
        return f"LatencyReport({self.name}: {ms}, {len(self.layers)} layers, {self.setting})"

    @property
    def ms_per_image(self) -> float:
        """Milliseconds per image at the setting's batch."""
        return self.ms / self.setting.batch


def report_latency(workload: Workload, meter: Meter, tracker: Tracker = UNSEEN) -> LatencyReport:
    """Time a network whole, counting the stopwatch's repeats, and its layers; or estimate both."""
    if isinstance(meter, EstimateMeter):
        return _estimated(workload, meter)
    (timing,) = meter.prepare([workload])(tracker=tracker)
    device_ms: float | None = None
    layers: tuple[LayerLatency, ...] = ()
    if isinstance(meter, DeviceMeter):
        layers = tuple(LayerLatency(name=name, kind=kind, ms=ms) for name, kind, ms in meter.layers(workload))
        device_ms = _device_ms(workload, meter)
    return LatencyReport(
        name=workload.name,
        setting=meter.setting,
        ms=timing.ms,
        spread=timing.spread,
        ops=len(workload.ops()),
        device_ms=device_ms,
        bound=None if device_ms is None else "host" if timing.ms > BOUND * device_ms else "device",
        tail_ms=_tail_ms(workload, meter.setting, timing.ms),
        layers=layers,
        layers_runtime="eager",
    )


def _device_ms(workload: Workload, meter: DeviceMeter) -> float | None:
    """Return the time of the kernels without launches by the host; it differs only on a GPU in eager mode."""
    if meter.device.type != "cuda" or meter.setting.runtime != "eager":
        return None
    graphs = meter.setting.model_copy(update={"runtime": "cudagraph"})
    try:
        return DeviceMeter(graphs, meter.device).prepare([workload])()[0].ms
    except MeasurementError:  # it cannot be captured
        return None


def _tail_ms(workload: Workload, setting: Setting, ms: float) -> float | None:
    """Return the modelled tail of a measured time; None for a device that the wave model does not know."""
    gpu = similar_gpu(setting.device.name)
    if gpu is None:
        return None
    modelled = estimate(workload.ops(), gpu, setting.batch, setting.dtype, setting.runtime)
    return ms * modelled.tail_ms / modelled.device_ms


def _estimated(workload: Workload, meter: EstimateMeter) -> LatencyReport:
    found = meter.estimate(workload)
    return LatencyReport(
        name=workload.name,
        setting=meter.setting,
        ms=found.ms if workload.whole else found.device_ms,
        spread=0.0,
        ops=len(found.ops),
        device_ms=found.device_ms,
        bound=found.bound if workload.whole else None,
        tail_ms=found.tail_ms,
        layers=tuple(LayerLatency(name=op.name, kind=op.kind, ms=op.ms, waves=op.waves, tail_ms=op.tail_ms) for op in found.ops),
        layers_runtime=meter.setting.runtime,
    )
