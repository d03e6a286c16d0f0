"""`genet align`: widths at the edges of the device's latency staircase, for a network that exists already."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from genet.commands.measuring import calibrated, measure_of, meter_of, say_damaged
from genet.commands.printing import milliseconds, progress, table
from genet.errors import EvidenceError, SpecError
from genet.files import Journal, write_atomic
from genet.latency.meter import Meter
from genet.latency.part import Part, own_network, timm_model
from genet.latency.table import LatencyTable
from genet.runfolder import RunFolder
from genet.spec.network import Network
from genet.spec.reader import read_network, read_recipe, read_widths, to_yaml
from genet.spec.recipe import Measure
from genet.studies.align.module_subject import ModuleSubject, pruned
from genet.studies.align.place import Option, Place
from genet.studies.align.study import Alignment, Goal, Ratio, align, find_places
from genet.studies.align.subject import NetworkSubject, Subject

Answer = dict[str, Any]
EVIDENCE = Path("runs") / "align" / "latency.jsonl"
USUAL = {"device": "auto", "runtime": "auto", "dtype": "fp32", "memory_format": "contiguous", "batch": 64}


def align_network(arguments: argparse.Namespace) -> Answer:
    """`genet align`."""
    goal = _goal(arguments)
    subject = _subject(arguments)
    run = _run_of(arguments.what)
    meter = calibrated(meter_of(_measure(arguments, run)), arguments.calibrate or [])
    rows = _rows(arguments.evidence or EVIDENCE, meter, run)
    print(f"{subject.name} on {meter.setting}{': estimates, not measurements' if meter.setting.estimate else ''}")
    places = _places(subject, rows, meter)
    _print_places(places, subject)
    if not any(place.left or place.right for place in places):
        raise EvidenceError(
            f"{subject.name}: must have a layer whose latency has steps, and none has one on {meter.setting.device.name}: there "
            "is nothing to gain"
        )
    with progress().track("choices, each measured whole", 1) as tracker:

        def tried(tolerance: float, ratio: Ratio) -> None:
            told = f"parameters within {tolerance:.0%}" if goal.mode == "latency" else "more parameters"
            tracker.advance(f"{told}: {ratio.mean:.3f} of the latency")

        found = align(subject, places, meter, goal, tried)
        tracker.total = tracker.done
    _print(found, goal)
    answer = found.model_dump(mode="json") | {"parameter_gain": found.parameter_gain, "ratio": found.measured.mean}
    if not found.reached:
        raise EvidenceError(_unreached(found, goal))
    if arguments.into:
        answer["folder"] = str(_write(subject, found, arguments.into))
    return answer


def _goal(arguments: argparse.Namespace) -> Goal:
    faults = []
    if arguments.reduce is not None and not 0 < arguments.reduce < 1:
        faults.append(f"--reduce must be a share of the latency between 0 and 1, such as 0.85 (got {arguments.reduce:g})")
    if not 0 < arguments.tau < 1:
        faults.append(f"--tau must be a share of the parameters between 0 and 1, such as 0.05 (got {arguments.tau:g})")
    if arguments.reduce is not None and arguments.mode == "accuracy":
        faults.append("--reduce must go with --mode latency: the other mode keeps the latency (got --mode accuracy)")
    if faults:
        raise SpecError(faults)
    return Goal(arguments.mode, arguments.reduce, arguments.tau, arguments.solver)


def _subject(arguments: argparse.Namespace) -> Subject:
    """What to align, by its name."""
    what, size = arguments.what, arguments.size
    if what.startswith("timm:"):
        part = timm_model(what.removeprefix("timm:"), size)
        part.groups()  # SpecError where it does not run at this size
    elif re.fullmatch(r"\w+(\.\w+)*:\w+", what):
        part = own_network(what, _example(arguments.example))
    else:
        if arguments.pruned or arguments.example:
            raise SpecError([f"--pruned and --example must go with timm:MODEL or MODULE:FUNCTION (got {what})"])
        network = Network.parse(what) if "|" in what else read_network(what)
        return NetworkSubject(network.at(size) if size else network)
    return _of_module(part, arguments.pruned)


def _of_module(part: Part, widths: str | None) -> ModuleSubject:
    subject = ModuleSubject(part, part.build(), {})
    if widths is None:
        return subject
    layers = {layer: group.width for group in subject.tied.groups if not group.fixed for layer in group.writers}
    tied = {layer: group.name for group in subject.tied.groups for layer in group.writers}
    wanted = read_widths(widths, layers, tied)
    return pruned(subject, {tied[layer]: width for layer, width in wanted.items()})


def _example(text: str | None) -> tuple[int, int, int]:
    if text is None:
        raise SpecError(["--example must tell what a network of your own reads, as in --example 1,3,224,224 (got none)"])
    if not re.fullmatch(r"\d+(,\d+){3}", text) or "0" in text.split(","):
        raise SpecError([f"--example must be images,channels,height,width, as in 1,3,224,224 (got {text!r})"])
    _, channels, height, width = map(int, text.split(","))
    return channels, height, width


def _run_of(what: str) -> RunFolder | None:
    """The run that a network's folder lies in."""
    folder = Path(what).absolute()
    run = RunFolder(folder.parent.parent)
    return run if folder.parent.name == "networks" and run.recipe_file.exists() else None


def _measure(arguments: argparse.Namespace, run: RunFolder | None) -> Measure:
    """As the command line says, or as the run of the network measured where the command line is silent."""
    given = {name: value for name in USUAL if (value := getattr(arguments, name)) is not None}
    if run and not given:
        return read_recipe(run.recipe_file).measure
    for name, value in (USUAL | given).items():
        setattr(arguments, name, value)
    return measure_of(arguments)


def _rows(path: Path, meter: Meter, run: RunFolder | None) -> LatencyTable:
    """The journal of all alignments, with what the network's run has measured already."""
    journal = Journal(path)
    content = journal.read()
    if content.damaged and not content.records:
        raise EvidenceError(f"{journal.path}: must be a journal of latencies or a new file, and is neither; name another")
    rows = LatencyTable(journal, meter.setting)
    if rows.damaged:
        say_damaged(path)
    if run:
        rows.adopt(LatencyTable(run.latency, meter.setting))
    return rows


def _places(subject: Subject, rows: LatencyTable, meter: Meter) -> tuple[Place, ...]:
    count = [len({block for width in place.grid for block in place.blocks(width)}) for place in subject.movable]
    with progress().track("layers over their widths", sum(count)) as tracker:
        found = find_places(subject, rows, meter, tracker.advance)
        tracker.total = tracker.done
    return found


def _print_places(places: tuple[Place, ...], subject: Subject) -> None:
    rows = [
        [
            place.name,
            str(len(place.layers)),
            str(place.now.width),
            place.where,
            _offer(place, place.left),
            _offer(place, place.right),
        ]
        for place in places
    ]
    table(["layer", "tied", "width", "lies", "left edge", "right edge"], rows)
    for name, why in subject.fixed.items():
        print(f"  {name} stays as it is: {why}")


def _offer(place: Place, option: Option | None) -> str:
    """48 -> 64: +33 % filters, +1 % time."""
    if option is None:
        return ""
    filters, time = option.width / place.now.width - 1, option.ms / place.now.ms - 1
    return f"{place.now.width} -> {option.width}: {filters:+.0%} filters, {time:+.1%} time"


def _print(found: Alignment, goal: Goal) -> None:
    moved = {place.name: place for place in found.places if place.name in found.widths}
    if moved:
        table(["layer", "width", "new"], [[name, str(p.now.width), str(found.widths[name])] for name, p in moved.items()])
    ratio, count = found.measured, found.parameters
    error = f" ± {ratio.error:.3f}" if ratio.error else ""
    how = "estimated" if found.estimate else "measured"
    print(f"{how}: {milliseconds(ratio.before_ms)} -> {milliseconds(ratio.ms)} ms per batch of {found.batch}", end=", ")
    print(f"{ratio.mean:.3f}{error} of it; parameters {count[0]:,} -> {count[1]:,} ({found.parameter_gain:+.1%})")
    said = f"the layers by themselves say {found.predicted:.3f}"
    if goal.solver == "greedy":
        said += f"; the exact choice under the same bounds would be {found.optimum:.3f}"
    print(said if goal.mode == "latency" else f"the layers by themselves say {found.predicted:.3f}")


def _unreached(found: Alignment, goal: Goal) -> str:
    if goal.mode == "accuracy":
        return f"{found.network}: must gain parameters at no latency, and cannot: every choice was slower"
    other = "" if goal.solver == "exact" else "; --solver exact may do better"
    return (
        f"{found.network}: --reduce must be a latency that these widths reach (got {goal.reduce}); the best is "
        f"{found.measured.mean:.3f}, with {found.parameter_gain:+.1%} parameters{other}"
    )


def _write(subject: Subject, found: Alignment, folder: Path) -> Path:
    """The aligned network, ready for `genet train`."""
    if isinstance(subject, NetworkSubject):
        network = subject.at(found.widths)
        network = network.model_copy(update={"name": f"{network.name}-aligned"})
        write_atomic(folder / "network.yaml", to_yaml(network).encode())
    found.save(folder / "alignment.json")
    print(f"{folder}: the network with these widths")
    return folder
