"""Shared code of the commands that measure latency: their options for measuring, and their journals."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from genet.config.options import checked_measure, standalone_measure
from genet.config.recipe import Measure
from genet.errors import EvidenceError, SpecError
from genet.latency.evidence import read_evidence
from genet.latency.timing.meter import EstimateMeter, Meter
from genet.latency.workload import Workload, read_workload
from genet.names import damaged_lines
from genet.storage import Journal


def measure_of(arguments: argparse.Namespace) -> Measure:
    """Return the measurement options that `add_measure` has added."""
    names = ("device", "runtime", "dtype", "memory_format", "batch", "threads")
    return standalone_measure(checked_measure({name: getattr(arguments, name) for name in names}))


def calibrated(meter: Meter, calibrations: list[str]) -> Meter:
    """Return an estimate corrected by times measured on its GPU: `NETWORK=MS`, in ms per batch, or the evidence file of that GPU.

    SpecError for any other text, EvidenceError if the meter measures and needs no correction.
    """
    if not calibrations:
        return meter
    if not isinstance(meter, EstimateMeter):
        raise EvidenceError(
            "--calibrate: got a device of this machine, which is measured, expected --device estimate:GPU; leave --calibrate out"
        )
    files = [text for text in calibrations if Path(text).is_file()]
    if len(files) > 1:
        raise SpecError([f"--calibrate: got {', '.join(files)}, expected at most one evidence file; leave the others out"])
    corrected = meter
    for file in files:
        evidence = read_evidence(Path(file), meter.wanted.model_copy(update={"runtime": "auto"}))
        say_damaged(Path(file))
        corrected = corrected.corrected_by(evidence)
    return corrected.scaled_by([_calibration(text) for text in calibrations if text not in files])


def say_damaged(file: Path) -> None:
    """Name the lines of an evidence file that are not used."""
    damaged = Journal(file).read().damaged
    if damaged:
        print(damaged_lines(file, damaged))


def _calibration(text: str) -> tuple[Workload, float]:
    name, _, ms = text.rpartition("=")
    try:
        known_ms = float(ms)
    except ValueError:
        known_ms = math.nan
    if not name or not 0 < known_ms < math.inf:
        raise SpecError([f"--calibrate: got {text!r}, expected NETWORK=MS such as timm:resnet50=31.5, or an evidence file"])
    return read_workload(name), known_ms
