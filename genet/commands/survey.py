"""`genet survey`: how well networks use a device, and which of them no other beats."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genet.commands.measuring import calibrated, measure_of, meter_of
from genet.commands.printing import milliseconds, progress, table
from genet.errors import EvidenceError, GenetError, LostDeviceError, MeasurementError, SpecError
from genet.files import Journal, Record, write_atomic
from genet.latency.meter import DeviceMeter, Meter
from genet.latency.part import Part, read_part
from genet.latency.reading import read_latency
from genet.latency.table import Setting
from genet.report.page import render
from genet.report.study_figures import cloud_info, draw_clouds, draw_roofline, draw_shades
from genet.spec.reader import read_structure
from genet.studies.survey.intensity import Layer, layers_of
from genet.studies.survey.presets import PRESETS
from genet.studies.survey.roof import Product, Roof, read_roof
from genet.studies.survey.survey import Frontiers, Percent, Surveyed, frontiers, survey
from genet.studies.tables import as_csv, read_table

Answer = dict[str, Any]
EVIDENCE = Path("runs") / "survey" / "survey.jsonl"
HEAD = [
    "network",
    "images/s",
    "TFLOP/s",
    "utilization",
    "FLOP/byte",
    "of FLOPs above ratio",
    "batch",
    "largest",
    "GMACs",
    "top-1 %",
]
TIMMS = {"top1": "top1_percent", "img_size": "resolution"}  # how timm's table of results names its columns
ON = {"throughput_accuracy": "throughput-accuracy", "utilization_accuracy": "utilization-accuracy"}
ON |= {"throughput_utilization": "throughput-utilization"}


class Accuracy(Record):
    """A row of a table of accuracies, at one resolution or, where none is told, at the usual one."""

    model: str
    top1_percent: Percent
    resolution: int | None = None


class Kept(Record):
    """A row of the journal: a network surveyed in a setting; `at` is the batch that was asked for, or the largest.

    `structure` tells the network that a file's name stood for.
    """

    setting: str
    at: str
    structure: str
    row: Surveyed

    @property
    def key(self) -> tuple[str, ...]:
        """What must be the same for the row to be used again."""
        return self.setting, self.at, self.structure, self.row.model


def survey_networks(arguments: argparse.Namespace) -> Answer:
    """`genet survey`."""
    _check(arguments)
    if arguments.csv_from:
        rows = tuple(_with_peak(row, arguments.peak) for row in read_table(arguments.csv_from, Surveyed, ("model",)))
        return _tell(rows, {}, None, str(arguments.csv_from), False, arguments)
    accuracies = read_table(arguments.accuracy, Accuracy, ("model", "resolution"), TIMMS) if arguments.accuracy else ()
    parts = _parts([*arguments.networks, *PRESETS.get(arguments.preset, ())], arguments.size)
    meter = calibrated(meter_of(measure_of(arguments)), arguments.calibrate or [])
    roof, product = read_roof(meter)
    _print_roof(roof, meter.setting)
    journal = Journal(arguments.evidence or EVIDENCE)
    found, failed = _survey_all(parts, meter, roof, product, journal, arguments)
    known = {(row.model, row.resolution): row.top1_percent for row in accuracies}
    rows = tuple(row.model_copy(update={"top1_percent": _accuracy(row, known)}) for row in found)
    if len(parts) == 1 and rows:
        _print_layers(parts[0], meter, roof, arguments.roofline)
    if not rows:
        raise EvidenceError("\n".join(f"{name}: {why}" for name, why in failed.items()))
    return _tell(rows, failed, roof, str(meter.setting), meter.setting.estimate, arguments)


def _check(arguments: argparse.Namespace) -> None:
    """SpecError with every option that does not fit the others."""
    faults = []
    asked = bool(arguments.networks or arguments.preset)
    if asked == bool(arguments.csv_from):
        faults.append("genet survey must be given networks, --preset paper, or --from CSV: one of them")
    if arguments.peak is not None and (not arguments.csv_from or not arguments.peak > 0):
        faults.append(f"--peak must be TFLOP/s above 0, and go with --from: here the peak is measured (got {arguments.peak:g})")
    if arguments.roofline and (len(arguments.networks) != 1 or arguments.preset):
        faults.append(f"--roofline must go with one network, whose layers it draws (got {len(arguments.networks)})")
    if faults:
        raise SpecError(faults)


def _with_peak(row: Surveyed, peak: float | None) -> Surveyed:
    return row if peak is None else row.model_copy(update={"peak_tflops_per_sec": peak})


def _parts(names: Sequence[str], size: int | None) -> list[Part]:
    """What is named, each once; timm's by a pattern too. SpecError with every name at fault."""
    parts: dict[str, Part] = {}
    faults: list[str] = []
    for name in names:
        try:
            for each in _matching(name):
                parts[each] = read_part(each, size)
        except SpecError as fault:
            faults += fault.faults
    if faults:
        raise SpecError(faults)
    return list(parts.values())


def _matching(name: str) -> Iterable[str]:
    """The name, or all timm models that a pattern fits."""
    if not name.startswith("timm:") or not set("*?[") & set(name):
        return [name]
    import timm

    found = fnmatch.filter(timm.list_models(), name.removeprefix("timm:"))
    if not found:
        raise SpecError([f"{name} must fit the name of a timm model, and fits none"])
    return [f"timm:{each}" for each in found]


def _survey_all(
    parts: Sequence[Part], meter: Meter, roof: Roof, product: Product, journal: Journal, arguments: argparse.Namespace
) -> tuple[list[Surveyed], dict[str, str]]:
    """Every network that the journal lacks; one that fails is told of, and does not hold up the others."""
    at = "largest batch" if arguments.largest_batch else str(meter.setting.batch)
    known = {kept.key: kept.row for kept in _kept(journal)}
    keys = {part.name: (meter.setting.digest, at, _structure(part), part.name.removeprefix("timm:")) for part in parts}
    rows: list[Surveyed] = []
    failed: dict[str, str] = {}
    done = sum(key in known for key in keys.values())
    with progress().track("networks", len(parts), done) as tracker:
        for part in parts:
            key = keys[part.name]
            if key in known:
                rows.append(known[key])
                continue
            try:
                row = _one(part, meter, roof, product, arguments)
            except LostDeviceError:
                raise
            except GenetError as fault:
                failed[part.name] = str(fault).removeprefix(f"{part.name}: ")
                tracker.advance(f"{part.name} failed")
                continue
            journal.append(Kept(setting=key[0], at=at, structure=key[2], row=row).model_dump(mode="json"))
            rows.append(row)
            tracker.advance(f"{row.model}: {row.images_per_sec:,.0f} images/s")
    return rows, failed


def _structure(part: Part) -> str:
    """A network by its notation, of what others build by name and resolution: a file's name may come to stand for another."""
    known = part.name.startswith("timm:") or not Path(part.name).exists()
    return f"{part.name} @{part.image[-1]}" if known else str(read_structure(part.name).at(part.image[-1]))


def _kept(journal: Journal) -> list[Kept]:
    content = journal.read()
    if content.damaged and not content.records:
        raise EvidenceError(f"{journal.path}: must be the journal of a survey or a new file, and is neither; name another")
    if content.damaged:
        print(f"{journal.path}: damaged lines {', '.join(map(str, content.damaged))} are left out")
    return [Kept.model_validate(record) for record in content.records]


def _one(part: Part, meter: Meter, roof: Roof, product: Product, arguments: argparse.Namespace) -> Surveyed:
    largest = meter.largest_batch(part) if isinstance(meter, DeviceMeter) else None
    batch = largest if arguments.largest_batch and largest else meter.setting.batch
    while True:
        wanted = measure_of(arguments).model_copy(update={"batch": batch})
        at = meter if batch == meter.setting.batch else meter_of(wanted)
        try:
            return survey(part, at, product.at(batch), roof.ratio).model_copy(update={"largest_batch": largest})
        except MeasurementError:
            if batch == 1 or not arguments.largest_batch:
                raise
            batch //= 2  # the runtime, and the product beside the network, need memory too


def _accuracy(row: Surveyed, known: dict[tuple[str, int | None], float]) -> float | None:
    """By its name, or as timm's table has it, with the tag of timm's usual weights; never that of another resolution."""
    import timm

    names = [row.model]
    usual = timm.models.get_pretrained_cfg(row.model, allow_unregistered=True) if timm.is_model(row.model) else None
    if usual:
        names.append(f"{row.model}.{usual.tag}")
    found = [known[name, size] for name in names for size in (row.resolution, None) if (name, size) in known]
    return found[0] if found else None


def _print_roof(roof: Roof, setting: Setting) -> None:
    print(f"{setting}{': estimates, not measurements' if setting.estimate else ''}")
    told = [
        f"a matrix product ({roof.product}): {roof.tflops_per_sec:.4g} TFLOP/s",
        f"a pass over memory: {roof.gb_per_sec:.4g} GB/s; compute-to-memory ratio {roof.ratio:.4g} FLOP per byte",
    ]
    if roof.published_ratio:
        told.append(
            f"data sheet: {roof.published_tflops_per_sec:.4g} TFLOP/s, {roof.published_gb_per_sec:.4g} GB/s, "
            f"{roof.published_ratio:.4g} FLOP per byte"
        )
    print("  " + "\n  ".join(told))


def _print_layers(part: Part, meter: Meter, roof: Roof, picture: Path | None) -> None:
    """The layers of one network, and their place under the roof."""
    layers = layers_of(part.ops(), meter.setting.batch, meter.setting.dtype)
    times = {layer.name: layer.ms for layer in read_latency(part, meter).layers}
    rows = [_layer_row(layer, times.get(layer.name), roof) for layer in layers]
    table(["layer", "GFLOP", "FLOP/byte", "ms", "TFLOP/s", "of its roof", "held up by"], rows)
    if picture:
        timed = [(layer, times[layer.name]) for layer in layers if layer.name in times]
        how = "estimated" if meter.setting.estimate else "measured"
        write_atomic(picture, draw_roofline(timed, roof, f"{part.name} on {meter.setting.device.name}, {how}").encode())
        print(f"picture: {picture}")


def _layer_row(layer: Layer, ms: float | None, roof: Roof) -> list[str]:
    bound = "memory" if layer.intensity < roof.ratio else "arithmetic"
    told = [layer.name, f"{layer.flops / 1e9:.4g}", f"{layer.intensity:.1f}"]
    if ms is None:
        return [*told, "n/a", "n/a", "n/a", bound]
    reached = layer.flops / ms * 1e-9
    return [*told, milliseconds(ms), f"{reached:.4g}", f"{reached / roof.at(layer.intensity):.0%}", bound]


def _tell(
    rows: Sequence[Surveyed], failed: dict[str, str], roof: Roof | None, title: str, estimate: bool, arguments: argparse.Namespace
) -> Answer:
    """Print, draw and answer."""
    found = frontiers(rows)
    shown = [_row(row) for row in sorted(rows, key=lambda row: -row.images_per_sec)]
    table(HEAD, shown)
    for name, told in ON.items():
        print(f"{told} frontier: {', '.join(getattr(found, name)) or 'no accuracies are known'}")
    print(f"on all three: {', '.join(found.on_all) or 'none'}")
    for name, why in failed.items():
        print(f"  {name} is left out: {why}")
    _write(rows, failed, roof, title, estimate, found, arguments)
    return {
        "source": title,
        "estimate": estimate,
        "roof": roof and {**roof.model_dump(mode="json"), "ratio": roof.ratio},
        "networks": [{**row.model_dump(mode="json"), "utilization": row.utilization} for row in rows],
        "failed": failed,
        "frontiers": {**found.model_dump(mode="json"), "on_all": found.on_all},
    }


def _row(row: Surveyed) -> list[str]:
    def told(value: float | None, form: str) -> str:
        return "n/a" if value is None else format(value, form)

    return [
        row.model,
        f"{row.images_per_sec:,.5g}" if row.images_per_sec < 1000 else f"{row.images_per_sec:,.0f}",
        f"{row.tflops_per_sec:.4g}",
        told(row.utilization, ".1%"),
        told(row.intensity, ".1f"),
        told(row.bound_share, ".0%"),
        told(row.batch, "d"),
        told(row.largest_batch, "d"),
        told(None if row.macs is None else row.macs / 1e9, ".3f"),
        told(row.top1_percent, ".2f"),
    ]


def _write(
    rows: Sequence[Surveyed],
    failed: dict[str, str],
    roof: Roof | None,
    title: str,
    estimate: bool,
    found: Frontiers,
    arguments: argparse.Namespace,
) -> None:
    """The files asked for."""
    if arguments.csv:
        write_atomic(arguments.csv, as_csv(rows).encode())
        print(f"table: {arguments.csv}")
    if not (arguments.picture or arguments.page):
        return
    clouds = draw_clouds(cloud_info(rows, found, roof.ratio if roof else None), f"{title}{', estimated' * estimate}")
    if arguments.picture:
        write_atomic(arguments.picture, clouds.encode())
        print(f"picture: {arguments.picture}")
    if arguments.page:
        known = any(row.top1_percent is not None for row in rows)
        page = render(
            "survey.html",
            title=title,
            estimate=estimate,
            roof=roof,
            found=found,
            clouds=clouds,
            shades=draw_shades(rows) if known else "",
            head=HEAD,
            rows=[_row(row) for row in sorted(rows, key=lambda row: -row.images_per_sec)],
            failed=failed,
        )
        write_atomic(arguments.page, page.encode())
        print(f"page: {arguments.page}")
