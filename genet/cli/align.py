"""`genet align`: widths at the edges of the device's latency staircase, for a network that exists already."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

from genet.arch.network import Network
from genet.cli.align_importance import by_importance, importance_faults
from genet.cli.align_result import Destination, check_place, destination, write_aligned
from genet.cli.align_weights import Kept, kept, source_of
from genet.cli.console import TOO_NOISY, labelled, milliseconds, progress, save_picture, table
from genet.cli.measuring import calibrated, measure_of, open_rows, say_damaged
from genet.cli.naming import structure_named
from genet.config.options import checked_measure
from genet.config.reader import read_recipe
from genet.config.recipe import Measure
from genet.errors import EvidenceError, SpecError
from genet.latency.report import read_latency
from genet.latency.table import LatencyTable
from genet.latency.timing.meter import Meter, meter_of
from genet.models.plain import baked
from genet.models.weights import check_kept
from genet.pipeline.run_folder import RunFolder
from genet.search.outcome import percent
from genet.storage import Journal
from genet.studies.align.module_subject import ModuleSubject, cut_to
from genet.studies.align.place import Option, Place
from genet.studies.align.scale import EXPONENTS, Dimension, scale, sizes_at
from genet.studies.align.study import UNNOTICED, Alignment, Goal, Ratio, align, find_places
from genet.studies.align.subject import LEFT_OUT, NetworkSubject, ResizableNetwork, Scope, Widths
from genet.studies.figures import draw_alignment

Answer = dict[str, Any]
EVIDENCE = Path("runs") / "align" / "latency.jsonl"
UNSTEADY = 0.05  # of a latency, from one reading to the next
USUAL = {"device": "auto", "runtime": "auto", "dtype": "fp32", "memory_format": "contiguous", "batch": 64}


def run(arguments: argparse.Namespace) -> Answer:
    """Align a network, and print what each width costs and gains."""
    goal = _goal(arguments)
    recipe = check_place(arguments)
    subject = _subject(arguments)
    weights = _weights(arguments, subject)
    run = _run_of(arguments.what)
    meter = calibrated(meter_of(_measure(arguments, run)), arguments.calibrate or [])
    result = destination(arguments, recipe, meter.setting, subject.network)
    if known := result.earlier():
        return result.finish(known)
    before = _before(weights)
    if arguments.scale:
        return result.finish(_scaled(subject, arguments, meter, weights, before, result))
    rows = _rows(arguments.evidence or EVIDENCE, meter, run)
    print(f"{subject.name} on {labelled(meter.setting)}")
    if arguments.objective == "importance":
        return result.finish(by_importance(weights, rows, meter, arguments.target_ratio, before, result))
    places = _places(subject, rows, meter)
    if rows.noise > UNSTEADY:
        told = "too noisy to tell steps" if rows.noise > TOO_NOISY else "smaller steps may be noise"
        print(f"  one block's latency moved by {rows.noise:.0%} from one reading to the next (a busy machine?): {told}")
    _print_places(places, subject)
    promising = any(_promises(place, goal) for place in places)
    if not promising and not arguments.pruned:
        raise EvidenceError(_no_edge(subject, goal, meter))
    with progress().track("choices, each measured whole", None) as tracker:

        def tried(tolerance: float, ratio: Ratio) -> None:
            told = f"parameters within {tolerance:.0%}" if goal.mode == "latency" else "more parameters"
            tracker.advance(f"{told}: {ratio.mean:.3f} of the latency")

        found = align(subject, places, meter, goal, tried)
        tracker.end_here()
    _print(found, goal)
    if arguments.plot:
        save_picture(arguments.plot, draw_alignment(found))
    answer = _answer_of(found)
    if not found.reached:
        why = _unreached(found, goal) + _waiting(subject, meter) if promising else _no_edge(subject, goal, meter)
        if goal.reduce is None or found.measured.above >= 1:
            if not arguments.pruned:
                raise EvidenceError(why)
            found = found.unmoved()  # its cut is a result by itself
            answer = _answer_of(found)
        print(f"{why}; the result is {'the best one found' if found.widths else 'the network as it was pruned'}")
    answer |= _accuracies(weights, found.widths, before)
    if arguments.into:
        answer["folder"] = str(write_aligned(subject, found.widths, found, result, weights))
    return result.finish(answer)


def _answer_of(found: Alignment) -> Answer:
    return found.model_dump(mode="json") | {"parameter_gain": found.parameter_gain, "ratio": found.measured.mean}


def _no_edge(subject: ResizableNetwork, goal: Goal, meter: Meter) -> str:
    side, device = "narrower" if goal.mode == "latency" else "wider", meter.setting.device.name
    return f"{subject.name}: no layer has a {side} edge on {device}, so there is nothing to gain"


def _promises(place: Place, goal: Goal) -> bool:
    """Return whether an edge beside its width gives what the goal asks for."""
    if goal.mode == "accuracy":
        return place.right is not None
    return any(place.latency_gain(option) > 0 for option in place.options)


def _goal(arguments: argparse.Namespace) -> Goal:
    faults = []
    if arguments.target_ratio is not None and not 0 < arguments.target_ratio < 1:
        faults.append(
            f"--target-ratio must be a share of the latency between 0 and 1, such as 0.85 (got {arguments.target_ratio:g})"
        )
    if not 0 < arguments.param_tolerance < 1:
        share = arguments.param_tolerance
        faults.append(f"--param-tolerance must be a share of the parameters between 0 and 1, such as 0.05 (got {share:g})")
    dimensions = (arguments.scale or "width").split(",")
    if sorted(dimensions) not in (["width"], ["resolution"], ["resolution", "width"]):
        faults.append(f"--scale must be width, resolution or width,resolution (got {arguments.scale})")
    if arguments.scale and (arguments.mode == "latency" or arguments.pruned):
        faults.append("--scale must go with --mode accuracy and without --pruned: it grows a network at its latency")
    if arguments.scale and arguments.plot:
        faults.append("--plot must go without --scale: it is of widths that are chosen layer by layer (got both)")
    if arguments.target_ratio is not None and arguments.mode == "accuracy":
        faults.append("--target-ratio must go with --mode latency: the other mode keeps the latency (got --mode accuracy)")
    faults += importance_faults(arguments)
    if faults:
        raise SpecError(faults)
    return Goal(arguments.mode, arguments.target_ratio, arguments.param_tolerance, arguments.solver)


def _scaled(
    subject: ResizableNetwork,
    arguments: argparse.Namespace,
    meter: Meter,
    weights: Kept | None,
    before: float | None,
    result: Destination,
) -> Answer:
    """Grow width and resolution together, at the current latency."""
    dimensions = cast("tuple[Dimension, ...]", tuple(arguments.scale.split(",")))
    print(f"{subject.name} on {labelled(meter.setting)}")
    with progress().track("sizes, each measured whole", len(EXPONENTS).bit_length()) as tracker:
        found = scale(subject, dimensions, meter, lambda scaled: tracker.advance(f"{scaled.measured.mean:.3f} of the latency"))
        tracker.end_here()
    rows = [
        [f"{each.exponent:g}", str(each.resolution), f"{each.parameters:,}", f"{each.macs:,}", f"{each.measured.mean:.3f}"]
        for each in sorted(found.tried, key=lambda each: each.exponent)
    ]
    now = ["now", str(found.resolution), f"{found.parameters:,}", f"{found.macs:,}", "1"]
    table(["exponent", "pixels", "parameters", "MACs", "latency over the present one"], [now, *rows])
    best = found.best
    if best is None:
        raise EvidenceError(
            f"{found.network}: no larger network met the current latency on {found.device}: all sizes tried were slower"
        )
    print(
        f"{best.resolution} pixels and {best.parameters / found.parameters:.2f} times the parameters, "
        f"{best.macs / found.macs:.2f} times the MACs, at {best.measured.mean:.3f} of the latency"
    )
    widths, _ = sizes_at(subject, dimensions, best.exponent)
    answer = found.model_dump(mode="json") | _accuracies(weights, widths, before, best.resolution)
    if arguments.into:
        answer["folder"] = str(write_aligned(subject, widths, found, result, weights, best.resolution))
    return answer


def _subject(arguments: argparse.Namespace) -> ResizableNetwork:
    """Return the subject to align, by its name."""
    what = arguments.what
    structure = structure_named(what, arguments.size, arguments.example)
    scope = Scope(tuple(arguments.include or ()), tuple(arguments.exclude or ()))
    if isinstance(structure, Network):
        if arguments.pruned:
            raise SpecError([f"--pruned needs a network that other code builds, got {what}, which is made of super-blocks"])
        subject: ResizableNetwork = NetworkSubject(structure, scope)
    else:
        source = source_of(arguments, structure)
        if told := baked(source):
            print(f"  {structure.name}: {told}")
        if arguments.into:
            check_kept(source, structure)
        subject = ModuleSubject(structure, source, scope=scope)
        subject = cut_to(subject, arguments.pruned) if arguments.pruned else subject
    scope.check(subject.layers)
    return subject


def _run_of(what: str) -> RunFolder | None:
    """Return the run that a network's folder lies in."""
    folder = Path(what).absolute()
    run = RunFolder(folder.parent.parent)
    return run if folder.parent.name == "networks" and run.recipe_file.exists() else None


def _measure(arguments: argparse.Namespace, run: RunFolder | None) -> Measure:
    """Return the way of measuring: the command line's, else that of the network's run, or the usual one on another device.

    SpecError if the run's latencies are another machine's and no device is named.
    """
    given = {name: value for name in USUAL if (value := getattr(arguments, name)) is not None}
    if run:
        measure = read_recipe(run.recipe_file).measure
        if measure.latency_file and "device" not in given:
            raise SpecError(
                [f"--device must be given: the run took its latencies from {measure.latency_file} (auto: this machine)"]
            )
        if given.get("device", measure.device) == measure.device:
            return checked_measure(measure.model_dump(exclude={"latency_file"}) | given)
    for name, value in (USUAL | given).items():
        setattr(arguments, name, value)
    return measure_of(arguments)


def _rows(path: Path, meter: Meter, run: RunFolder | None) -> LatencyTable:
    """Return the journal of all alignments, with the rows that the network's run has measured already."""
    rows = open_rows(Journal(path, waiting=print), meter)
    if rows.damaged:
        say_damaged(path)
    if run:
        rows.adopt(LatencyTable(run.latency, meter.setting))
    return rows


def _places(subject: ResizableNetwork, rows: LatencyTable, meter: Meter) -> tuple[Place, ...]:
    wanted = {block for place in subject.movable for width in place.grid for block in place.blocks(width)}
    known = sum(rows.block_row(block) is not None for block in wanted)
    with progress().track("layers over their widths", len(wanted), known) as tracker:
        found = find_places(subject, rows, meter, tracker.advance)  # a step may end farther off than the grids reach
        tracker.end_here()
    return found


def _print_places(places: tuple[Place, ...], subject: ResizableNetwork) -> None:
    rows = [
        [
            place.name,
            str(len(place.layers)),
            str(place.now.width),
            *_lies(place),
            _offer(place, place.left),
            _offer(place, place.right),
        ]
        for place in places
    ]
    table(["layer", "tied", "width", "lies", "U", "T, TFLOP/s", "left edge", "right edge"], rows)
    print("  time, and T: of all layers that a width changes, its readers among them; U: the share of its step that it fills;")
    print("  edges: the nearest ones; the widest looked at where there is none at the right")
    for name, why in subject.fixed.items():
        if why != LEFT_OUT:
            print(f"  {name} stays as it is: {why}")


def _lies(place: Place) -> tuple[str, str, str]:
    """Return the position of its width on the staircase, with utilization and throughput."""
    filled, rate = place.now.utilization, place.now.throughput
    told = "" if filled is None or place.where == "no step" else f"{filled:.0%}"
    return place.where, told, "" if rate is None else f"{2 * rate / 1e12:.3g}"


def _offer(place: Place, option: Option | None) -> str:
    """Return an option in words, such as 48 -> 64: +33 % filters, +1 % time."""
    if option is None:
        return ""
    filters, time = option.width / place.now.width - 1, option.ms / place.now.ms - 1
    return f"{place.now.width} -> {option.width}: {filters:+.0%} filters, {time:+.1%} time"


def _print(found: Alignment, goal: Goal) -> None:
    moved = {place.name: place for place in found.places if place.name in found.widths}
    if moved:
        table(["layer", "width", "new"], [[name, str(p.now.width), str(found.widths[name])] for name, p in moved.items()])
    ratio, count = found.measured, found.parameters
    how = "estimated" if found.estimate else "measured"
    print(f"{how}: {milliseconds(ratio.before_ms)} -> {milliseconds(ratio.ms)} ms per batch of {found.batch}", end=", ")
    print(f"{ratio.mean:.3f}{_error(ratio)} of it; parameters {count[0]:,} -> {count[1]:,} ({found.parameter_gain:+.1%})")
    said = f"the layers by themselves say {found.predicted:.3f}"
    if goal.solver == "greedy" and goal.mode == "latency":
        said += f"; the exact choice under the same bounds would give {found.optimum:.3f} (--solver exact)"
    print(said)


def _unreached(found: Alignment, goal: Goal) -> str:
    """Return the reason why no network is returned."""
    better = goal.solver == "greedy" and (goal.mode == "accuracy" or found.optimum < found.predicted - UNNOTICED)
    other = "; --solver exact may do better" if better else ""
    if goal.mode == "accuracy":
        return (
            f"{found.network}: no choice among the edges beside its widths was certain to gain parameters without taking longer"
            f"{other}"
        )
    if goal.reduce is None:
        return (
            f"{found.network}: no choice among the edges beside its widths was certain to be faster with the parameters kept "
            f"within {goal.tolerance:.0%}; a larger --param-tolerance lets the parameters move farther{other}"
        )
    return (
        f"{found.network}: --target-ratio must be a latency that edges beside its widths reach with certainty "
        f"(got {goal.reduce}); their best is {found.measured.mean:.3f}{_error(found.measured)}, "
        f"with {found.parameter_gain:+.1%} parameters{other}"
    )


def _waiting(subject: ResizableNetwork, meter: Meter) -> str:
    """Return the reason why no width can matter much, if it is known."""
    if meter.setting.device.kind == "cpu" or read_latency(subject.part({}), meter).bound != "host":
        return ""
    return "; it waits for the host, which launches its kernels: a larger --batch, or --runtime cudagraph, lets widths count"


def _error(ratio: Ratio) -> str:
    return f" ± {ratio.error:.3f}" if ratio.error else ""


def _weights(arguments: argparse.Namespace, subject: ResizableNetwork) -> Kept | None:
    """Return what happens to its weights; None for a network that is trained from scratch."""
    if isinstance(subject, ModuleSubject):
        return kept(arguments, subject)
    law = "must go with a network that keeps its weights: one of super-blocks is trained anew"
    importance = arguments.objective == "importance"
    given = {
        "--objective importance": importance,
        "--criterion": arguments.criterion != "l1",
        "--data": arguments.data and not importance,
    }
    if faults := [f"{option} {law}" for option, value in given.items() if value]:
        raise SpecError(faults)
    return None


def _before(weights: Kept | None) -> float | None:
    """Return its present accuracy; None if no images are given."""
    if weights is None or weights.images is None:
        return None
    found = weights.accuracy(weights.build({}))
    state = ", as it was pruned" if weights.subject.cut else ""
    print(f"{weights.subject.name}{state}: {percent(found)} of {weights.images.size:,} test images")
    return found


def _accuracies(weights: Kept | None, widths: Widths, before: float | None, resolution: int | None = None) -> Answer:
    """Return its accuracy before and after, with the weights that were kept and no training in between."""
    return weights.compared(weights.build(widths), before, resolution) if weights and before is not None else {}
