"""`genet survey`: how well networks use a device, and which of them are on the frontier."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from genet.cli.console import Answer, progress, save_picture, setting_in_words, table
from genet.cli.measuring import calibrated, measure_of
from genet.cli.survey_journal import SurveyJournal
from genet.config.reader import read_structure
from genet.errors import EvidenceError, LostDeviceError, MeasurementError, OutOfMemoryError, SpecError, first_line
from genet.latency.estimate.intensity import LayerIntensity, layers_of
from genet.latency.estimate.roofline import MatrixProduct, Roof
from genet.latency.noise import with_interval
from genet.latency.report import report_latency
from genet.latency.table import Setting
from genet.latency.timing.meter import MOST_IMAGES, DeviceMeter, Meter, meter_of
from genet.latency.workload import BLOCK, Workload, read_workload
from genet.names import counted
from genet.report.page import render
from genet.storage import Record, write_atomic
from genet.studies.figures import cloud_info, draw_clouds, draw_roofline, draw_shades
from genet.studies.survey.survey import PRESETS, Frontiers, Percent, Surveyed, frontiers, survey
from genet.studies.tables import as_csv, read_table

EVIDENCE = Path("runs") / "survey" / "survey.jsonl"
HEAD = [
    "network",
    "pixels",
    "images/s",
    "TFLOP/s",
    "utilization",
    "FLOP/byte",
    "FLOPs above ratio",
    "batch",
    "largest",
    "GMACs",
    "top-1 %",
]
TIMMS = {"top1": "top1_percent", "img_size": "resolution"}  # column names of timm's table of results
ON = {"throughput_accuracy": "throughput-accuracy", "utilization_accuracy": "utilization-accuracy"}
ON |= {"throughput_utilization": "throughput-utilization"}


class Accuracy(Record):
    """A row of a table of accuracies, at one resolution or, if none is given, at the usual one."""

    model: str
    top1_percent: Percent
    resolution: int | None = None


@dataclass(frozen=True)
class Survey:
    """The results of a survey: its rows, why networks failed, and the device's peak performance if it is known."""

    source: str
    rows: tuple[Surveyed, ...]
    failed: Mapping[str, str]
    roof: Roof | None = None

    @property
    def estimate(self) -> bool:
        """Return whether any row is an estimate."""
        return any(row.estimate for row in self.rows)

    @cached_property
    def frontiers(self) -> Frontiers:
        """The networks that no other beats."""
        return frontiers(self.rows)

    @cached_property
    def cells(self) -> list[list[str]]:
        """The rows as they are printed, the fastest network first."""
        return [_row(row) for row in sorted(self.rows, key=lambda row: -row.images_per_sec)]


class NamedNetwork(NamedTuple):
    """A network that a user named: the workload to time, and the structure that distinguishes it from others of that name."""

    workload: Workload
    structure: str


def run(arguments: argparse.Namespace) -> Answer:
    """Survey networks on a device, and print their frontiers."""
    _check(arguments)
    if arguments.csv_from:
        rows = read_table(arguments.csv_from, Surveyed, ("model",))
        if arguments.peak is not None:
            rows = tuple(row.model_copy(update={"peak_tflops_per_sec": arguments.peak}) for row in rows)
        return _print_survey(Survey(str(arguments.csv_from), rows, {}), arguments)
    accuracies = read_table(arguments.accuracy, Accuracy, ("model", "resolution"), TIMMS) if arguments.accuracy else ()
    failed: dict[str, str] = {}
    networks = _named(dict.fromkeys(arguments.networks) | PRESETS.get(arguments.preset, {}), arguments.size, failed)
    meter = calibrated(meter_of(measure_of(arguments)), arguments.calibrate or [])
    at = "largest batch" if arguments.largest_batch else str(meter.setting.batch)
    journal = SurveyJournal(arguments.evidence or EVIDENCE, meter, at)
    roof, _ = journal.roof()
    _print_roof(roof, meter.setting)
    found = _survey_all(networks, meter, journal, arguments.largest_batch, failed)
    known = {(row.model, row.resolution): row.top1_percent for row in accuracies}
    rows = tuple(row.model_copy(update={"top1_percent": _accuracy(row, not arguments.size, known)}) for row in found)
    if accuracies and all(row.top1_percent is None for row in rows):
        print(f"  {arguments.accuracy}: no row is for these networks at these resolutions")
    if not rows:
        raise EvidenceError(*(f"{name}: {why}" for name, why in failed.items()))
    if meter.setting.device.kind == "cpu":
        print("  the largest batch is a power of two, estimated from free memory")
    answer = _print_survey(Survey(str(meter.setting), rows, failed, roof), arguments)
    if len(networks) == 1:
        _print_layers(networks[0].workload, meter.at(rows[0].batch or meter.setting.batch), roof, arguments.roofline)
    return answer


def _check(arguments: argparse.Namespace) -> None:
    """Raise SpecError with every option that does not go with the others."""
    faults = []
    asked = bool(arguments.networks or arguments.preset)
    if asked == bool(arguments.csv_from):
        got = "both" if asked else "neither"
        faults.append(f"genet survey: got {got} of networks (or --preset paper) and --from CSV, expected one of them")
    measuring = {"--accuracy": arguments.accuracy, "--largest-batch": arguments.largest_batch, "--size": arguments.size}
    measuring |= {"--calibrate": arguments.calibrate, "--evidence": arguments.evidence}
    given = [name for name, value in measuring.items() if value]
    if arguments.csv_from and given:
        faults.append(f"--from: got {', '.join(given)} too, expected it without options for measuring here; leave them out")
    if arguments.largest_batch and arguments.device.startswith("estimate:"):
        faults.append(f"--largest-batch: got --device {arguments.device}, expected a device of this machine; give --batch")
    if arguments.peak is not None and (not arguments.csv_from or not 0 < arguments.peak < math.inf):
        faults.append(
            f"--peak: got {arguments.peak:g}, expected TFLOP/s above 0 together with --from, as a survey made here "
            "measures the peak"
        )
    if arguments.roofline and (len(arguments.networks) != 1 or arguments.preset):
        faults.append(
            f"--roofline: got {'--preset' if arguments.preset else counted(len(arguments.networks), 'network')}, "
            "expected one network, whose layers are drawn"
        )
    if faults:
        raise SpecError(faults)


def _named(names: Mapping[str, int | None], size: int | None, failed: dict[str, str]) -> list[NamedNetwork]:
    """Return the named networks, at their own resolution, the one given beside the name or `size`; timm's by a pattern too.

    SpecError with every name at fault. Networks of a pattern or a preset that cannot be read go to `failed`.
    """
    found: dict[str, NamedNetwork] = {}
    faults: list[str] = []
    for name, own in names.items():
        try:
            for each in _matching(name):
                try:
                    found[each] = _read(each, size or own)
                except SpecError as fault:
                    if each == name:
                        raise
                    failed[each] = str(fault)
        except SpecError as fault:
            faults += fault.faults
    if faults:
        raise SpecError(faults)
    return list(found.values())


def _read(name: str, size: int | None) -> NamedNetwork:
    """Return a network with its notation, as a file's content may change; timm's by name and resolution."""
    workload = dataclasses.replace(read_workload(name, size), name=name)
    file = not name.startswith("timm:") and "|" not in name and not re.match(BLOCK, name)
    return NamedNetwork(workload, str(read_structure(name).at(workload.image[-1])) if file else f"{name} @{workload.image[-1]}")


def _matching(name: str) -> list[str]:
    """Return the name, or all timm models that match a pattern."""
    if not name.startswith("timm:") or not set("*?[") & set(name):
        return [name]
    import timm

    found = fnmatch.filter(timm.list_models(), name.removeprefix("timm:"))
    if not found:
        raise SpecError([f"{name} matches no timm model, expected a pattern that matches one"])
    return [f"timm:{each}" for each in found]


def _survey_all(
    networks: Sequence[NamedNetwork], meter: Meter, journal: SurveyJournal, at_largest: bool, failed: dict[str, str]
) -> list[Surveyed]:
    """Survey every network that the journal lacks; one that fails is reported, and the others go on."""
    roof, product = journal.roof()
    rows: list[Surveyed] = []
    done = sum(journal.row(network.structure) is not None for network in networks)
    with progress().track("networks", len(networks), done) as tracker:
        for workload, structure in networks:
            before = journal.row(structure)
            if before and before.row:
                rows.append(before.row.model_copy(update={"model": workload.name.removeprefix("timm:")}))
            elif before:
                failed[workload.name] = str(before.failure)
            else:
                try:
                    rows.append(_survey_one(workload, meter, roof, product, at_largest))
                except LostDeviceError as fault:
                    journal.keep(structure, None, str(fault))  # otherwise the same command would end at the same network again
                    raise
                except Exception as fault:  # any error from building or running another author's network
                    failed[workload.name] = first_line(fault).removeprefix(f"{workload.name}: ")
                    tracker.advance(f"{workload.name} failed")
                    continue
                journal.keep(structure, rows[-1])
                tracker.advance(f"{rows[-1].model}: {rows[-1].images_per_sec:,.4g} images/s")
    if done:
        print(f"  {done} of {len(networks)} are read from {journal.path}; give another --evidence to measure them again")
    return rows


def _survey_one(workload: Workload, meter: Meter, roof: Roof, product: MatrixProduct, at_largest: bool) -> Surveyed:
    """Survey one network, at the meter's batch or at the largest that fits."""
    largest = meter.largest_batch(workload) if isinstance(meter, DeviceMeter) else None
    batch = largest if at_largest and largest else meter.setting.batch
    while True:
        try:
            row = survey(workload, meter.at(batch), product.at(batch), roof.ratio)
            return row.model_copy(update={"largest_batch": largest})
        except OutOfMemoryError:
            if batch == 1 or not at_largest:
                raise
            batch //= 2  # the runtime, and the product beside the network, need memory too


def _accuracy(row: Surveyed, usual: bool, known: dict[tuple[str, int | None], float]) -> float | None:
    """Return the accuracy listed under the network's name, or for timm's usual weights; never one of another resolution.

    A table without resolutions is for the `usual` ones.
    """
    import timm

    names = [row.model]
    weights = timm.models.get_pretrained_cfg(row.model, allow_unregistered=True) if timm.is_model(row.model) else None
    if weights:
        names.append(f"{row.model}.{weights.tag}")
    found = [known[name, size] for name in names for size in (row.resolution, *[None] * usual) if (name, size) in known]
    return found[0] if found else None


def _print_roof(roof: Roof, setting: Setting) -> None:
    print(setting_in_words(setting))
    lines = [
        f"a matrix product ({roof.product}): {roof.tflops_per_sec:.4g} TFLOP/s",
        f"a pass over memory: {roof.gb_per_sec:.4g} GB/s; compute-to-memory ratio {roof.ratio:.4g} FLOP per byte",
    ]
    if roof.published_ratio:
        lines.append(
            f"data sheet: {roof.published_tflops_per_sec:.4g} TFLOP/s, {roof.published_gb_per_sec:.4g} GB/s, "
            f"{roof.published_ratio:.4g} FLOP per byte"
        )
    print("  " + "\n  ".join(lines))


def _print_layers(workload: Workload, meter: Meter, roof: Roof, picture: Path | None) -> None:
    """Print the layers of one network, and their position under the roof."""
    layers = layers_of(workload.ops(), meter.setting.batch, meter.setting.dtype)
    try:
        report = report_latency(workload, meter)
    except MeasurementError as fault:
        print(f"  its layers are not timed: {fault}")
        return
    times = {layer.name: layer.ms for layer in report.layers}
    rows = [_layer_row(layer, times.get(layer.name), roof) for layer in layers]
    mode = "" if report.layers_runtime == meter.setting.runtime else f" in {report.layers_runtime} mode"
    table(["layer", "GFLOP", "FLOP/byte", f"ms{mode}", "TFLOP/s", "share of roof", "bound by"], rows)
    if picture:
        timed = [(layer, times[layer.name]) for layer in layers if layer.name in times]
        how = "estimated" if meter.setting.estimate else "measured"
        title = f"{workload.name} on {meter.setting.device.name}, batch {meter.setting.batch}, {how}{mode}"
        save_picture(picture, draw_roofline(timed, roof, title))


def _layer_row(layer: LayerIntensity, ms: float | None, roof: Roof) -> list[str]:
    bound = "memory" if layer.intensity < roof.ratio else "arithmetic"
    cells = [layer.name, f"{layer.flops / 1e9:.4g}", f"{layer.intensity:.1f}"]
    if ms is None:
        return [*cells, "n/a", "n/a", "n/a", bound]
    rate = layer.flops / ms * 1e-9
    return [*cells, with_interval(ms), f"{rate:.4g}", f"{rate / roof.at(layer.intensity):.0%}", bound]


def _print_survey(survey: Survey, arguments: argparse.Namespace) -> Answer:
    """Print, draw and answer."""
    found, roof = survey.frontiers, survey.roof
    if arguments.csv_from and survey.estimate:
        print(f"{survey.source}: estimates, not measurements")
    table(HEAD, survey.cells)
    for name, frontier_name in ON.items():
        print(f"{frontier_name} frontier: {', '.join(getattr(found, name)) or 'no accuracies are known'}")
    print(f"on all three frontiers: {', '.join(found.on_all) or 'none'}")
    for name, why in survey.failed.items():
        print(f"  {name} is left out: {why}")
    _write(survey, arguments)
    return {
        "source": survey.source,
        "estimate": survey.estimate,
        "roof": roof and {**roof.model_dump(mode="json"), "ratio": roof.ratio},
        "networks": [{**row.model_dump(mode="json"), "utilization": row.utilization} for row in survey.rows],
        "failed": survey.failed,
        "frontiers": {**found.model_dump(mode="json"), "on_all": found.on_all},
    }


def _row(row: Surveyed) -> list[str]:
    def formatted(value: float | None, form: str) -> str:
        return "n/a" if value is None else format(value, form)

    return [
        row.model,
        formatted(row.resolution, "d"),
        f"{row.images_per_sec:,.5g}" if row.images_per_sec < 1000 else f"{row.images_per_sec:,.0f}",
        f"{row.tflops_per_sec:.4g}",
        _share(row),
        formatted(row.intensity, ".1f"),
        formatted(row.bound_share, ".0%"),
        formatted(row.batch, "d"),
        "≥ " * (row.largest_batch == MOST_IMAGES) + formatted(row.largest_batch, "d"),
        formatted(None if row.macs is None else row.macs / 1e9, ".3f"),
        formatted(row.top1_percent, ".2f"),
    ]


def _share(row: Surveyed) -> str:
    """Return utilization with its standard error."""
    if row.utilization is None:
        return "n/a"
    error = f" ± {100 * row.utilization * row.utilization_error:.1f}" if row.utilization_error else ""
    return f"{row.utilization:.1%}{error}"


def _write(survey: Survey, arguments: argparse.Namespace) -> None:
    """Write the requested files."""
    rows, title, roof, found = survey.rows, survey.source, survey.roof, survey.frontiers
    if arguments.csv:
        write_atomic(arguments.csv, as_csv(rows).encode())
        print(f"table: {arguments.csv}")
    if not (arguments.plot or arguments.page):
        return
    clouds = draw_clouds(cloud_info(rows, found, roof.ratio if roof else None), f"{title}{', estimated' * survey.estimate}")
    if arguments.plot:
        save_picture(arguments.plot, clouds)
    if arguments.page:
        known = any(row.top1_percent is not None for row in rows)
        page = render(
            "survey.html",
            title=title,
            estimate=survey.estimate,
            roof=roof,
            found=found,
            clouds=clouds,
            shades=draw_shades(rows) if known else "",
            head=HEAD,
            rows=survey.cells,
            failed=survey.failed,
        )
        write_atomic(arguments.page, page.encode())
        print(f"page: {arguments.page}")
