"""`genet align --objective importance`: what its options must be, and how the choice is found and told."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from genet.cli.align_result import Destination, compared
from genet.cli.console import Answer, milliseconds, progress, table
from genet.latency.table import LatencyTable
from genet.latency.timing.meter import Meter
from genet.names import some_of
from genet.studies.align.kept import Kept
from genet.studies.align.prune import Pruning
from genet.studies.align.steps import by_importance
from genet.studies.align.subject import LEFT_OUT
from genet.studies.align.verdict import error_of

TOLERANCE = 0.05  # default of --param-tolerance


def importance_faults(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with the options for this objective, one line each."""
    if arguments.objective != "importance":
        return
    law = "must go with --objective importance"
    if not arguments.data:
        yield f"--data {law}: it looks at training images (got none); give --data FOLDER"
    if arguments.target_ratio is None:
        yield f"--target-ratio {law}: it is the latency to reach (got none); give one such as 0.7"
    if arguments.untrained:
        yield "--untrained must go without --objective importance: fresh weights are all as important; train the network first"
    given = {
        "--scale": arguments.scale,
        "--pruned": arguments.pruned,
        "--mode accuracy": arguments.mode == "accuracy",
        "--plot": arguments.plot,
        "--param-tolerance": arguments.param_tolerance != TOLERANCE,
        "--solver exact": arguments.solver == "exact",
        f"--criterion {arguments.criterion}": arguments.criterion not in ("l1", "taylor"),
    }
    for option in (option for option, value in given.items() if value):
        yield f"{option} must go without --objective importance, which chooses widths and channels itself; leave one of them out"


def prune_by_importance(
    kept: Kept | None, rows: LatencyTable, meter: Meter, target: float, before: float | None, result: Destination
) -> Answer:
    """Keep the most important channels and blocks at a share of the latency: choose, print, write."""
    assert kept is not None  # a network that keeps its weights
    found = by_importance(kept, rows, meter, target, progress())
    _print(found)
    answer: Answer = found.model_dump(mode="json")
    answer |= {"widths": found.widths, "parameter_gain": found.parameter_gain, "ratio": found.measured.mean}
    module, subject = kept.renewed(kept.build(found.widths, found.removed)), kept.subject
    answer |= compared(kept, module, before) if before is not None else {}
    if result.folder:
        structure = subject.described(module, f"{subject.name}-aligned", removed=found.removed)
        answer["folder"] = str(result.write(structure, module, kept.labels, found))
    return answer


def _print(found: Pruning) -> None:
    rows = [
        [slot.name, str(len(slot.layers)), str(slot.width), ", ".join(map(str, slot.offered[:-1])), *_choice(found, number)]
        for number, slot in enumerate(found.slots)
    ]
    table(["layer", "tied", "width", "narrower ones on offer", "new", "importance kept"], rows)
    for name, why in found.fixed.items():
        if why != LEFT_OUT:
            print(f"  {name} stays as it is: {why}")
    if found.blocks:
        named = f": {some_of(found.removed)}" if found.removed else ""
        print(f"  {len(found.removed)} of {len(found.blocks)} residual blocks removed{named}")
    ratio, (before, after) = found.measured, found.parameters
    how, error = "estimated" if found.estimate else "measured", error_of(ratio)
    print(f"{how}: {milliseconds(ratio.before_ms)} -> {milliseconds(ratio.ms)} ms per batch of {found.batch}", end=", ")
    print(f"{ratio.mean:.3f}{error} of it; parameters {before:,} -> {after:,} ({found.parameter_gain:+.1%})")
    print(f"importance kept: {found.kept:.1%}; to second order the loss rises by {found.rise:.3f}", end="; ")
    print(f"predicted from the layers alone: {found.predicted:.3f}")


def _choice(found: Pruning, number: int) -> tuple[str, str]:
    """Return a group's new width, and the share of its importance that it keeps."""
    slot = found.slots[number]
    if slot.new is None:
        return "removed", ""
    return str(slot.new), f"{slot.kept[slot.offered.index(slot.new)]:.1%}"
