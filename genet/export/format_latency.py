"""Latency of each format of an export: torch's own in torch, ONNX files in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from genet.config.reader import read_structure
from genet.device import current, keep_memory
from genet.errors import GenetError, first_line
from genet.export.manifest import EVIDENCE_FILE, Exports
from genet.export.onnx_formats import FILES
from genet.export.timm_form import FOLDER, open_timm
from genet.export.torch_formats import PROGRAM_FILE, open_program
from genet.latency.timing.clock import Timing, Work, measure_apart
from genet.latency.timing.runtimes import WAITING, onnx_work
from genet.models.weights import load
from genet.progress import UNSEEN, Tracker
from genet.storage import Record, read_checked

CPU = torch.device("cpu")


class Served(Record):
    """Milliseconds per batch of one format in its own runtime, or why it has none."""

    format: str
    runtime: str
    ms: float | None = None
    spread: float | None = None
    failure: str | None = None


def serving_times(folder: Path, device: torch.device, batch: int, tracker: Tracker = UNSEEN) -> tuple[Served, ...]:
    """Time every format in an export's folder on random images; one that cannot run here has the reason instead.

    GenetError if the folder holds no export.
    """
    exports = Exports.load(folder / EVIDENCE_FILE)
    reads = read_structure(folder / "network.yaml").input
    if device.type == "cpu":
        keep_memory()
    images = torch.randn(batch, reads.channels, reads.resolution, reads.resolution, device=device)
    works: dict[str, Work] = {}
    failures: dict[str, str] = {}
    with torch.inference_mode(), current(device):
        for name in (each.format for each in exports.exported if each.format in RUNTIMES):
            try:
                works[name] = _work(name, folder, images)
            except (GenetError, RuntimeError) as fault:
                failures[name] = first_line(fault)
        timings = _timed(works, device, tracker)
    found = [Served(format=n, runtime=RUNTIMES[n][0], ms=t.ms, spread=t.spread) for n, t in timings.items()]
    return (*found, *(Served(format=n, runtime=RUNTIMES[n][0], failure=why) for n, why in failures.items()))


def _work(name: str, folder: Path, images: Tensor) -> Work:
    work = RUNTIMES[name][1](folder, images)
    work()
    return work


def _timed(works: dict[str, Work], device: torch.device, tracker: Tracker) -> dict[str, Timing]:
    """Time the works in turn; the host's clock times those that return when a GPU has answered."""
    waits = {name for name in works if RUNTIMES[name][0] in WAITING}
    timings: dict[str, Timing] = {}
    for clock, names in ((device, works.keys() - waits), (CPU, waits)):
        timings |= zip(names, measure_apart([works[name] for name in names], clock, tracker), strict=True)
    return {name: timings[name] for name in works}


def _own(folder: Path, images: Tensor) -> Work:
    return _called(load(folder).to(images.device), images)


def _timm(folder: Path, images: Tensor) -> Work:
    return _called(open_timm(folder / FOLDER).to(images.device), images)


def _program(folder: Path, images: Tensor) -> Work:
    from torch.export.passes import move_to_device_pass

    file = folder / PROGRAM_FILE
    program = open_program(read_checked(file), str(file))
    return _called(move_to_device_pass(program, images.device).module(), images)


def _called(module: nn.Module, images: Tensor) -> Work:
    return lambda: module(images)


def _onnx(name: str) -> Callable[[Path, Tensor], Work]:
    return lambda folder, images: onnx_work(read_checked(folder / FILES[name]), images)


RUNTIMES: dict[str, tuple[str, Callable[[Path, Tensor], Work]]] = {
    "safetensors": ("eager", _own),
    "timm": ("eager", _timm),
    "pt2": ("eager", _program),
    **{name: ("onnxruntime", _onnx(name)) for name in FILES},
}
