"""`genet latency`: a network's latency and its parts; sweeps and repeatability."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from genet.cli.console import Answer, noise, progress, save_picture, say_untimed, table
from genet.cli.measuring import calibrated, measure_of
from genet.config.reader import read_space
from genet.device import current, open_device, read_card
from genet.errors import EvidenceError, SpecError
from genet.export.format_latency import RUNTIMES, time_formats
from genet.export.manifest import EVIDENCE_FILE, FormatLatency
from genet.latency.noise import TOO_NOISY, with_interval
from genet.latency.report import LatencyReport, report_latency
from genet.latency.timing.curves import Curve, Curves, measure_curves, read_sweep_option
from genet.latency.timing.meter import Meter, meter_of
from genet.latency.timing.ratio import Repeatability, repeatability
from genet.latency.timing.stopwatch import REPEATS, ROUNDS_APART
from genet.latency.workload import Workload, network_workload, read_workload
from genet.models.weights import NETWORK_FILE
from genet.names import quoted
from genet.report.latency_figures import draw_curves

MOST_LAYERS = 40  # number of rows printed; --json has all
USUAL = "digits"  # the space whose MasterNet is timed against itself if no network is named


def run(arguments: argparse.Namespace) -> Answer:
    """Time networks, sweep one, or time the formats of an export."""
    names: list[str] = arguments.networks
    files = [name for name in names if Path(name).suffix in (".onnx", ".pt2")]
    if files:
        folder = Path(files[0]).parent
        if not (folder / EVIDENCE_FILE).exists():
            raise SpecError(
                [
                    f"{files[0]}: got a file from elsewhere, expected one in the folder of a genet export; import the function "
                    "that builds its network (genet import --help) and time that"
                ]
            )
        raise SpecError(
            [f"{files[0]}: got one file of an export, expected its folder; genet latency {quoted(folder)} times all its formats"]
        )
    places = (place for name in names if "|" not in name for place in (Path(name), Path(name) / "export"))
    exported = [place for place in places if (place / EVIDENCE_FILE).exists()]
    if exported and not (arguments.sweep or arguments.repeatability or arguments.device.startswith("estimate:")):
        return _time_exports(exported, arguments)
    meter = calibrated(meter_of(measure_of(arguments)), arguments.calibrate or [])
    if arguments.repeatability:
        return _repeatability(names, meter, arguments.size)
    if not names:
        raise SpecError(
            [
                "genet latency: got nothing to time, expected a network or a block; name one, such as timm:resnet50 or 'BL "
                "k3 c64 r0.25 @14'"
            ]
        )
    if arguments.sweep:
        return _sweep(names, arguments)
    if arguments.plot:
        raise SpecError(["--plot: got no --sweep, expected one to draw; give --sweep or leave --plot out"])
    workloads = [read_workload(name, arguments.size) for name in names]
    reports = [_report(workload, meter) for workload in workloads]
    answers = [_answer(report) for report in reports]
    return answers[0] if len(answers) == 1 else {"networks": answers}


def _time_exports(folders: Sequence[Path], arguments: argparse.Namespace) -> Answer:
    """Time every format of exported networks, each in its own runtime."""
    names: list[str] = arguments.networks
    measure_of(arguments)
    usual = {"calibrate": None, "plot": None, "size": None, "runtime": "auto", "dtype": "fp32", "memory_format": "contiguous"}
    given = [f"--{name.replace('_', '-')}" for name, value in usual.items() if getattr(arguments, name) != value]
    if given or len(folders) < len(names):
        raise SpecError(
            [
                f"timing the formats of an export failed: got {', '.join(given or names)}, expected neither other networks nor "
                f"such options; genet latency {quoted(folders[0] / NETWORK_FILE)} times its network with any option"
            ]
        )
    device, answers = open_device(arguments.device), {}
    for folder in folders:
        with progress().track("timing the formats", ROUNDS_APART * len(RUNTIMES)) as tracker:
            with current(device, arguments.threads):
                found = time_formats(folder, device, arguments.batch, tracker)
            tracker.end_here()
        print(f"{folder}\n  {found.setting}")
        rows = [[one.format, one.runtime, *_speed(one, arguments.batch)] for one in found.served]
        table(["format", "runtime", "ms per batch", "ms per image", "images/s", "rounds spread by"], rows)
        say_untimed(found)
        answers[str(folder)] = [one.model_dump(mode="json") for one in found.served]
    return {"device": read_card(device).name, "batch": arguments.batch, "exports": answers}


def _speed(one: FormatLatency, batch: int) -> list[str]:
    if one.ms is None or one.spread is None:
        return ["n/a"] * 4
    return [with_interval(one.ms), with_interval(one.ms / batch), f"{1e3 * batch / one.ms:,.0f}", noise(one.spread)]


def _report(workload: Workload, meter: Meter) -> LatencyReport:
    if meter.setting.estimate:
        report = report_latency(workload, meter)
    else:
        with progress().track("repeats", REPEATS) as tracker:
            report = report_latency(workload, meter, tracker)
    how = "estimated, not measured" if report.setting.estimate else f"repeats spread by {report.spread:.1%}"
    if report.spread > TOO_NOISY:
        how = f"{noise(report.spread)}: other work disturbs this machine, so the figures below are only a hint"
    print(f"{report.name}\n  {report.setting}\n  {how}")
    image = f"{with_interval(report.ms_per_image)} ms per image"
    print(f"  {with_interval(report.ms)} ms per batch, {image}; {report.ops} kernels")
    if report.bound and report.device_ms:
        waits = "the host, which launches them" if report.bound == "host" else "the device"
        print(f"  its kernels alone take {with_interval(report.device_ms)} ms: the bottleneck is {waits}")
    if report.tail_ms is not None:
        print(
            f"  {report.tail_ms / (report.device_ms or report.ms):.1%} of it is lost in the last waves of kernels, by the "
            "wave model"
        )
    _print_layers(report)
    return report


def _print_layers(report: LatencyReport) -> None:
    """Print the slowest layers, with their shares of all layers together."""
    slowest = sorted(report.layers, key=lambda layer: -layer.ms)[:MOST_LAYERS]
    total = sum(layer.ms for layer in report.layers)
    rows = [
        [
            layer.name or report.name,
            layer.kind,
            with_interval(layer.ms),
            f"{layer.ms / total:.1%}",
            "" if layer.waves is None else str(layer.waves),
            "" if layer.tail_ms is None else with_interval(layer.tail_ms),
        ]
        for layer in slowest
    ]
    if not rows:
        return
    ms_heading = "ms" if report.setting.runtime in ("eager", report.layers_runtime) else f"ms in {report.layers_runtime} mode"
    table(["layer", "kind", ms_heading, "share", "waves", "lost in the last wave, ms"], rows)
    left = sum(layer.ms for layer in report.layers if layer not in slowest)
    if left:
        print(
            f"  the {MOST_LAYERS} slowest of {len(report.layers)} layers; the others take {left / total:.1%} (--json lists all)"
        )
    print(f"  the layers timed one by one take {with_interval(total)} ms in all, {total / report.ms:.0%} of the whole network")


def _answer(report: LatencyReport) -> Answer:
    setting = report.setting
    fields = report.model_dump(mode="json", exclude={"setting"})
    return {
        **fields,
        "ms_per_image": report.ms_per_image,
        "device": setting.device.name,
        "estimate": setting.estimate,
        "batch": setting.batch,
        "dtype": setting.dtype,
        "runtime": setting.runtime,
        "memory_format": setting.memory_format,
    }


def _sweep(names: Sequence[str], arguments: argparse.Namespace) -> Answer:
    variable, values = read_sweep_option(arguments.sweep)
    usual = calibrated(meter_of(measure_of(arguments)), arguments.calibrate or [])  # at the batch of --batch, whatever is swept

    def meter_at(batch: int | None) -> Meter:
        return usual if batch is None else usual.at(batch)

    with progress().track(f"latency over {variable}", len(values)) as tracker:
        curves = measure_curves(names, variable, values, meter_at, arguments.size, tracker)
    _print_curves(curves)
    if arguments.plot:
        save_picture(arguments.plot, draw_curves(curves))
    return curves.model_dump(mode="json")


def _print_curves(curves: Curves) -> None:
    unit = "ms per image" if curves.batch is None else f"ms per batch of {curves.batch}"
    print(f"{curves.device}{', estimated, not measured' if curves.estimate else ''}: {unit}")
    if not curves.estimate:
        print(f"  repeats spread by {max(spread or 0.0 for curve in curves.curves for spread in curve.spread):.1%} at most")
    rows = [
        [str(value)] + [_cell(curve, place, value if curves.batch is None else 1) for curve in curves.curves]
        for place, value in enumerate(curves.curves[0].values)
    ]
    table([curves.variable, *(curve.name for curve in curves.curves)], rows)


def _cell(curve: Curve, place: int, images: int) -> str:
    ms, spread = curve.ms[place], curve.spread[place]
    if ms is None or spread is None:
        return "no memory"
    return noise(spread) if spread > TOO_NOISY else with_interval(ms / images)


def _repeatability(names: Sequence[str], meter: Meter, size: int | None) -> Answer:
    if meter.setting.estimate:
        raise EvidenceError(
            "--repeatability: got an estimate, which is always the same, expected a device of this machine; change --device"
        )
    usual = read_space(USUAL)
    workloads = [read_workload(name, size) for name in names] or [network_workload(usual.masternet(max(usual.input.resolutions)))]
    found: list[Repeatability] = []
    for workload in workloads:
        with progress().track("timing the network against itself", 1) as tracker:
            found.append(repeatability(workload, meter))
            tracker.advance()
        print(f"{workload.name}\n  {meter.setting}\n  {with_interval(found[-1].ms)} ms per batch")
        print(
            f"  95 of 100 pairs of timings differ by at most {found[-1].in_turn:.2%} if taken in turn, "
            f"{found[-1].apart:.2%} if taken apart;"
        )
        print("  a smaller difference between two networks cannot be seen on this machine in its present state")
    answers = [{"device": meter.setting.device.name, "estimate": meter.setting.estimate, **one.model_dump()} for one in found]
    return answers[0] if len(answers) == 1 else {"networks": answers}
