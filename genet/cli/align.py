"""`genet align`: widths at the edges of the device's latency staircase, for an existing network."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import cast

from genet.arch.network import Network
from genet.cli.align_result import Destination, check_destination, compared, destination, write_aligned
from genet.cli.console import Answer, progress, save_picture, setting_in_words, table
from genet.cli.measuring import calibrated
from genet.errors import EvidenceError, SpecError
from genet.latency.naming import structure_named
from genet.latency.noise import TOO_NOISY, with_interval
from genet.latency.table import LatencyTable
from genet.latency.timing.meter import Meter, meter_of
from genet.models.plain import baked
from genet.models.weights import check_rebuildable
from genet.names import some_of
from genet.search.outcome import percent
from genet.studies.align.criteria import NORMS
from genet.studies.align.kept import KeptWeights, SourceNetwork, by_norm, kept_with_images, source_of
from genet.studies.align.module_subject import ModuleSubject, ResizableNetwork, cut_to
from genet.studies.align.place import Option, Place
from genet.studies.align.prune import Pruning
from genet.studies.align.scale import EXPONENTS, Dimension, scale, sizes_at
from genet.studies.align.steps import EVIDENCE, align_by_paper, measure_for, places_of, prune_to_share, rows_of, run_of
from genet.studies.align.study import Alignment, Goal
from genet.studies.align.subject import LEFT_OUT, NetworkSubject, Scope, Widths
from genet.studies.align.verdict import error_of, final_alignment, goal_faults, has_useful_edge, importance_faults, no_edge
from genet.studies.figures import draw_alignment
from genet.training.inventory import images_named

UNSTEADY = 0.05  # of a latency, from one reading to the next
MEASURED = ("device", "runtime", "dtype", "memory_format", "batch", "threads")


def run(arguments: argparse.Namespace) -> Answer:
    """Align a network, and print what each width costs and gains."""
    goal = _goal(arguments)
    recipe = check_destination(arguments)
    subject, source = _subject(arguments)
    weights = _weights(arguments, subject, source)
    run = run_of(arguments.what)
    given = {name: value for name in MEASURED if (value := getattr(arguments, name)) is not None}
    meter = calibrated(meter_of(measure_for(given, run)), arguments.calibrate or [])
    result = destination(arguments, recipe, meter.setting, subject.network)
    if known := result.earlier():
        return result.finish(known)
    before = _accuracy_before(weights)
    if arguments.scale:
        return result.finish(_scale_network(subject, arguments, meter, weights, before, result))
    rows = rows_of(arguments.evidence or EVIDENCE, meter, run, progress())
    print(f"{subject.name} on {setting_in_words(meter.setting)}")
    if arguments.objective == "importance":
        return result.finish(prune_by_importance(weights, rows, meter, arguments.target_ratio, before, result))
    places = places_of(subject, rows, meter, progress())
    if rows.noise > UNSTEADY:
        warning = "too noisy to see steps" if rows.noise > TOO_NOISY else "small steps may be noise"
        print(f"  the latency of one block changed by {rows.noise:.0%} between readings (is the machine busy?): {warning}")
    _print_places(places, subject)
    if not (has_useful_edge(places, goal) or arguments.pruned):
        raise EvidenceError(no_edge(subject, goal, meter))
    found = align_by_paper(subject, places, meter, goal, progress())
    _print(found, goal)
    if arguments.plot:
        save_picture(arguments.plot, draw_alignment(found))
    found, why = final_alignment(found, subject, goal, meter, as_it_was=bool(arguments.pruned))
    if why:
        print(f"{why}; the result is {'the best network found' if found.widths else 'the network as pruned'}")
    answer: Answer = found.model_dump(mode="json")
    answer |= {"parameter_gain": found.parameter_gain, "ratio": found.measured.mean}
    answer |= _accuracies(weights, found.widths, before)
    if arguments.into:
        answer["folder"] = str(write_aligned(subject, found.widths, found, result, weights))
    return result.finish(answer)


def _goal(arguments: argparse.Namespace) -> Goal:
    goal = Goal(arguments.mode, arguments.target_ratio, arguments.param_tolerance, arguments.solver)
    faults = [*goal_faults(goal)]
    dimensions = (arguments.scale or "width").split(",")
    if sorted(dimensions) not in (["width"], ["resolution"], ["resolution", "width"]):
        faults.append(f"--scale: got {arguments.scale}, expected width, resolution or width,resolution")
    if arguments.scale and (arguments.mode == "latency" or arguments.pruned):
        faults.append(
            "--scale: got --mode latency or --pruned, expected --mode accuracy alone, as it grows a network at the same "
            "latency; change one"
        )
    if arguments.scale and arguments.plot:
        faults.append(
            "--plot: got --scale too, expected one of them, as the figure is of widths chosen layer by layer; leave one out"
        )
    faults += option_faults(arguments, goal) if arguments.objective == "importance" else ()
    if faults:
        raise SpecError(faults)
    return goal


def _scale_network(
    subject: ResizableNetwork,
    arguments: argparse.Namespace,
    meter: Meter,
    weights: KeptWeights | None,
    before: float | None,
    result: Destination,
) -> Answer:
    """Grow width and resolution together, at the current latency."""
    dimensions = cast("tuple[Dimension, ...]", tuple(arguments.scale.split(",")))
    print(f"{subject.name} on {setting_in_words(meter.setting)}")
    with progress().track("sizes, each measured whole", len(EXPONENTS).bit_length()) as tracker:
        found = scale(subject, dimensions, meter, tracker)
        tracker.end_here()
    rows = [
        [f"{each.exponent:g}", str(each.resolution), f"{each.parameters:,}", f"{each.macs:,}", f"{each.measured.mean:.3f}"]
        for each in sorted(found.tried, key=lambda each: each.exponent)
    ]
    now = ["now", str(found.resolution), f"{found.parameters:,}", f"{found.macs:,}", "1"]
    table(["exponent", "pixels", "parameters", "MACs", "relative latency"], [now, *rows])
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


def _subject(arguments: argparse.Namespace) -> tuple[ResizableNetwork, SourceNetwork | None]:
    """Return the subject to align, by its name, and the origin of its weights if it keeps them."""
    what = arguments.what
    structure = structure_named(what, arguments.size, arguments.example)
    scope = Scope(tuple(arguments.include or ()), tuple(arguments.exclude or ()))
    if isinstance(structure, Network):
        if arguments.pruned:
            raise SpecError(
                [f"--pruned: got {what}, a network of super-blocks, expected one that other code builds; leave it out"]
            )
        subject: ResizableNetwork = NetworkSubject(structure, scope)
        source = None
    else:
        trained = bool(arguments.into or arguments.data) and not arguments.untrained
        way = "train it first" if arguments.objective == "importance" else "--untrained for fresh ones"
        source = source_of(what, structure, trained, way)
        if remark := baked(source.module):
            print(f"  {structure.name}: {remark}")
        if arguments.into:
            check_rebuildable(source.module, structure)
        subject = ModuleSubject(structure, source.module, scope=scope)
        subject = cut_to(subject, arguments.pruned) if arguments.pruned else subject
    scope.check(subject.layers)
    return subject, source


def _print_places(places: tuple[Place, ...], subject: ResizableNetwork) -> None:
    rows = [
        [
            place.name,
            str(len(place.layers)),
            str(place.now.width),
            *_position_cells(place),
            _option_in_words(place, place.left),
            _option_in_words(place, place.right),
        ]
        for place in places
    ]
    table(["layer", "tied", "width", "position", "U", "T, TFLOP/s", "left edge", "right edge"], rows)
    print("  time and T: of all layers that a width changes, with those that read it; U: how much of its step the width fills;")
    print("  edges: the nearest on each side; if there is none on the right, the widest width measured")
    _print_fixed(subject.fixed)


def _print_fixed(fixed: Mapping[str, str]) -> None:
    for name, why in fixed.items():
        if why != LEFT_OUT:
            print(f"  {name} stays as it is: {why}")


def _position_cells(place: Place) -> tuple[str, str, str]:
    """Return the position of its width on the staircase, with utilization and throughput."""
    filled, rate = place.now.utilization, place.now.throughput
    utilization = "" if filled is None or place.where == "no step" else f"{filled:.0%}"
    return place.where, utilization, "" if rate is None else f"{2 * rate / 1e12:.3g}"


def _option_in_words(place: Place, option: Option | None) -> str:
    """Return an option in words, such as 48 -> 64: +33 % filters, +1 % time."""
    if option is None:
        return ""
    filters, time = option.width / place.now.width - 1, option.ms / place.now.ms - 1
    return f"{place.now.width} -> {option.width}: {filters:+.0%} filters, {time:+.1%} time"


def _print(found: Alignment, goal: Goal) -> None:
    moved = {place.name: place for place in found.places if place.name in found.widths}
    if moved:
        table(["layer", "width", "new"], [[name, str(p.now.width), str(found.widths[name])] for name, p in moved.items()])
    _print_change(found)
    said = f"ratio predicted from the layers alone: {found.predicted:.3f}"
    if goal.solver == "greedy" and goal.mode == "latency":
        said += f"; the optimum within the same bounds is {found.optimum:.3f} (--solver exact)"
    print(said)


def _print_change(found: Alignment | Pruning) -> None:
    """Print latency and parameters before and after."""
    ratio, (before, after) = found.measured, found.parameters
    how = "estimated" if found.estimate else "measured"
    print(f"{how}: {with_interval(ratio.before_ms)} -> {with_interval(ratio.ms)} ms per batch of {found.batch}", end=", ")
    print(f"ratio {ratio.mean:.3f}{error_of(ratio)}; parameters {before:,} -> {after:,} ({found.parameter_gain:+.1%})")


def _weights(arguments: argparse.Namespace, subject: ResizableNetwork, source: SourceNetwork | None) -> KeptWeights | None:
    """Return the rule by which its weights are kept; None for a network that is trained from scratch."""
    if isinstance(subject, ModuleSubject) and source is not None:
        criterion = "taylor" if arguments.objective == "importance" else arguments.criterion
        if arguments.data:
            return kept_with_images(subject, source, images_named(arguments.data), criterion, progress())
        if criterion not in NORMS:
            raise SpecError(
                [f"--criterion {criterion}: got no images, expected some to score the channels by; give --data FOLDER"]
            )
        return KeptWeights(subject, by_norm(subject, criterion), labels=source.labels)
    rule = (
        "got a network of super-blocks, which is trained from scratch, expected an external model, which keeps its "
        "weights; leave it out"
    )
    importance = arguments.objective == "importance"
    given = {
        "--objective importance": importance,
        "--criterion": arguments.criterion != "l1",
        "--data": arguments.data and not importance,
    }
    if faults := [f"{option}: {rule}" for option, value in given.items() if value]:
        raise SpecError(faults)
    return None


def _accuracy_before(weights: KeptWeights | None) -> float | None:
    """Return its present accuracy; None if no images are given."""
    if weights is None or weights.images is None:
        return None
    found = weights.accuracy(weights.build({}), progress=progress())
    state = " as pruned" if weights.subject.cut else ""
    print(f"{weights.subject.name}{state}: test accuracy {percent(found)} on {weights.images.size:,} images")
    return found


def _accuracies(weights: KeptWeights | None, widths: Widths, before: float | None, resolution: int | None = None) -> Answer:
    """Return its accuracy before and after, with the weights that were kept and no further training."""
    return compared(weights, weights.build(widths), before, resolution) if weights and before is not None else {}


def option_faults(arguments: argparse.Namespace, goal: Goal) -> Iterator[str]:
    """Yield what is wrong with the options for the objective of importance, one line each."""
    asked = "--objective importance"
    if not arguments.data:
        yield f"{asked}: got no images, expected training images to compute importance from; give --data FOLDER"
    if arguments.untrained:
        yield (
            f"{asked}: got --untrained, expected trained weights, as random ones are all equally important; train the "
            "network first"
        )
    given = {
        "--scale": arguments.scale,
        "--pruned": arguments.pruned,
        "--plot": arguments.plot,
        f"--criterion {arguments.criterion}": arguments.criterion not in ("l1", "taylor"),
    }
    yield from importance_faults(goal, asked, others=[option for option, value in given.items() if value])


def prune_by_importance(
    kept: KeptWeights | None, rows: LatencyTable, meter: Meter, target: float, before: float | None, result: Destination
) -> Answer:
    """Keep the most important channels and blocks at a share of the latency: choose, print, write."""
    assert kept is not None  # a network that keeps its weights
    found = prune_to_share(kept, rows, meter, target, progress())
    _print_pruning(found)
    answer: Answer = found.model_dump(mode="json")
    answer |= {"widths": found.widths, "parameter_gain": found.parameter_gain, "ratio": found.measured.mean}
    module, subject = kept.renewed(kept.build(found.widths, found.removed)), kept.subject
    answer |= compared(kept, module, before) if before is not None else {}
    if result.folder:
        structure = subject.described(module, f"{subject.name}-aligned", removed=found.removed)
        answer["folder"] = str(result.write(structure, module, kept.labels, found))
    return answer


def _print_pruning(found: Pruning) -> None:
    rows = [
        [slot.name, str(len(slot.layers)), str(slot.width), ", ".join(map(str, slot.offered[:-1])), *_choice(found, number)]
        for number, slot in enumerate(found.slots)
    ]
    table(["layer", "tied", "width", "narrower widths", "new", "importance kept"], rows)
    _print_fixed(found.fixed)
    if found.blocks:
        named = f": {some_of(found.removed)}" if found.removed else ""
        print(f"  {len(found.removed)} of {len(found.blocks)} residual blocks removed{named}")
    _print_change(found)
    print(f"importance kept: {found.kept:.1%}; estimated rise of the loss, to second order: {found.rise:.3f}", end="; ")
    print(f"predicted from the layers alone: ratio {found.predicted:.3f}")


def _choice(found: Pruning, number: int) -> tuple[str, str]:
    """Return a group's new width, and the share of its importance that it keeps."""
    slot = found.slots[number]
    if slot.new is None:
        return "removed", ""
    return str(slot.new), f"{slot.kept[slot.offered.index(slot.new)]:.1%}"
