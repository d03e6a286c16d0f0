"""Latency of each format of an export: torch's own in torch, ONNX files in ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from genet.config.reader import read_structure
from genet.device import current, device_fault, keep_memory, read_card
from genet.errors import LostDeviceError, first_line
from genet.export.manifest import EVIDENCE_FILE, ExportLatencies, Exports, FormatLatency
from genet.export.onnx_formats import FILES
from genet.export.timm_form import FOLDER, open_timm
from genet.export.torch_formats import PROGRAM_FILE, open_program
from genet.latency.timing.runtimes import WAITING, onnx_work
from genet.latency.timing.stopwatch import TimedCall, Timing, measure_apart
from genet.models.weights import load
from genet.progress import UNSEEN, Tracker
from genet.storage import read_checked

CPU = torch.device("cpu")
BRIEFLY_S = 1.0  # for each format, when a network is exported


def with_latencies(exports: Exports, folder: Path, device: torch.device, batch: int) -> Exports:
    """Return an export's record with the latency of every format, timed briefly unless all are known in this setting.

    A format's failure is known too, but for a missing package that has been installed since.
    """
    known, names = exports.serving, _runnable(exports)
    setting = read_card(device).name, _threads(device), batch
    if known and (known.device, known.threads, known.batch) == setting and all(_is_known(known.of(name)) for name in names):
        return exports
    timed = exports.model_copy(update={"serving": time_formats(folder, device, batch, limit_s=BRIEFLY_S * len(names))})
    timed.save(folder / EVIDENCE_FILE)
    return timed


def _runnable(exports: Exports) -> list[str]:
    return [each.format for each in exports.exported if each.format in RUNTIMES]


def _is_known(one: FormatLatency | None) -> bool:
    return one is not None and (one.lacks is None or find_spec(one.lacks) is None)


def time_formats(
    folder: Path, device: torch.device, batch: int, tracker: Tracker = UNSEEN, limit_s: float = math.inf
) -> ExportLatencies:
    """Time every format in an export's folder on random images; one that cannot run here has the reason instead.

    No further round begins after `limit_s` seconds. GenetError if the folder holds no export.
    """
    exports = Exports.load(folder / EVIDENCE_FILE)
    shape = (batch, *read_structure(folder / "network.yaml").input.image)
    if device.type == "cpu":
        keep_memory()
    names = _runnable(exports)
    works: dict[str, TimedCall] = {}
    found: dict[str, Timing | Exception] = {}
    with torch.inference_mode(), current(device):
        for name in names:
            try:
                works[name] = _work(name, folder, torch.randn(shape, device=device))
            except Exception as fault:  # any error of a runtime's own
                found[name] = fault.with_traceback(None)  # which may hold the device's memory
        found |= _timed(works, device, tracker, limit_s)
    served = tuple(_format_latency(name, found[name]) for name in names)
    return ExportLatencies(device=read_card(device).name, threads=_threads(device), batch=batch, served=served)


def _format_latency(name: str, found: Timing | Exception) -> FormatLatency:
    """Return a format's latency, or its failure; LostDeviceError for a failure of the device, which is no format's own."""
    runtime = RUNTIMES[name][0]
    if isinstance(found, Timing):
        return FormatLatency(format=name, runtime=runtime, ms=found.ms, spread=found.spread)
    why = first_line(found)
    if device_fault(found) == "device lost":
        raise LostDeviceError(f"the device stopped answering while {name} was timed ({why}); give the same command again")
    lacks = runtime if runtime in WAITING and find_spec(runtime) is None else None
    return FormatLatency(format=name, runtime=runtime, failure=why, lacks=lacks)


def _threads(device: torch.device) -> int | None:
    return torch.get_num_threads() if device.type == "cpu" else None


def _work(name: str, folder: Path, images: Tensor) -> TimedCall:
    work = RUNTIMES[name][1](folder, images)
    work()
    return work


def _timed(works: dict[str, TimedCall], device: torch.device, tracker: Tracker, limit_s: float) -> dict[str, Timing | Exception]:
    """Time the works, torch's own before the others: the host's clock times those that return when a GPU has answered."""
    waits = {name for name in works if RUNTIMES[name][0] in WAITING}
    timings: dict[str, Timing | Exception] = {}
    for clock, names in ((device, works.keys() - waits), (CPU, waits)):
        own = limit_s * len(names) / max(1, len(works))
        timings |= zip(names, measure_apart([works[name] for name in names], clock, tracker, own), strict=True)
    return timings


def _own(folder: Path, images: Tensor) -> TimedCall:
    return _called(load(folder).to(images.device), images)


def _timm(folder: Path, images: Tensor) -> TimedCall:
    return _called(open_timm(folder / FOLDER).to(images.device), images)


def _program(folder: Path, images: Tensor) -> TimedCall:
    from torch.export.passes import move_to_device_pass

    file = folder / PROGRAM_FILE
    program = open_program(read_checked(file), str(file))
    return _called(move_to_device_pass(program, images.device).module(), images)


def _called(module: nn.Module, images: Tensor) -> TimedCall:
    return lambda: module(images)


def _onnx(name: str) -> Callable[[Path, Tensor], TimedCall]:
    return lambda folder, images: onnx_work(read_checked(folder / FILES[name]), images)


RUNTIMES: dict[str, tuple[str, Callable[[Path, Tensor], TimedCall]]] = {
    "safetensors": ("eager", _own),
    "timm": ("eager", _timm),
    "pt2": ("eager", _program),
    **{name: ("onnxruntime", _onnx(name)) for name in FILES},
}
