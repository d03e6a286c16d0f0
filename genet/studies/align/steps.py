"""The steps of an alignment, by either objective, with their progress: what the command line and programs have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genet.config.options import Spelling, as_option, checked_measure, standalone_measure
from genet.config.recipe import Measure
from genet.errors import SpecError
from genet.latency.evidence import open_rows
from genet.latency.table import LatencyTable
from genet.latency.timing.meter import Meter
from genet.names import damaged_lines
from genet.pipeline.run_folder import RunFolder
from genet.progress import Progress
from genet.storage import Journal
from genet.studies.align.kept import KeptWeights
from genet.studies.align.module_subject import ResizableNetwork
from genet.studies.align.place import Place
from genet.studies.align.prune import MeteredSubject, Pruning, find_offers, find_program, prune
from genet.studies.align.study import Alignment, Goal, Ratio, choose_widths, find_places

EVIDENCE = Path("runs") / "align" / "latency.jsonl"


def run_of(what: str) -> RunFolder | None:
    """Return the run that a network's folder is in."""
    folder = Path(what).absolute()
    run = RunFolder(folder.parent.parent)
    return run if folder.parent.name == "networks" and run.recipe_file.exists() else None


def measure_for(given: Mapping[str, Any], run: RunFolder | None, spelled: Spelling = as_option) -> Measure:
    """Return the way of measuring: what is given, else that of the network's run, or the usual one on another device.

    SpecError if the run's latencies are another machine's and no device is named.
    """
    if run:
        measure = run.recipe().measure
        if measure.latency_file and "device" not in given:
            raise SpecError(
                [
                    f"{spelled('device')}: got none, expected one, as the run's latencies come from {measure.latency_file}; "
                    "give auto for this machine"
                ]
            )
        if given.get("device", measure.device) == measure.device:
            return checked_measure({**measure.model_dump(exclude={"latency_file"}), **given}, spelled)
    return standalone_measure(checked_measure(given, spelled))


def rows_of(path: Path, meter: Meter, run: RunFolder | None, progress: Progress) -> LatencyTable:
    """Return the journal of all alignments, with the rows that the network's run has measured already."""
    rows = open_rows(Journal(path, waiting=progress.say), meter.setting)
    if rows.damaged:
        progress.say(damaged_lines(path, rows.damaged))
    if run:
        rows.adopt(LatencyTable(run.latency, meter.setting))
    return rows


def places_of(subject: ResizableNetwork, rows: LatencyTable, meter: Meter, progress: Progress) -> tuple[Place, ...]:
    """Measure every place over its widths, as far as the rows lack them."""
    wanted = {block for place in subject.movable for width in place.grid for block in place.blocks(width)}
    known = sum(rows.block_row(block) is not None for block in wanted)
    with progress.track("latency of layers over their widths", len(wanted), known) as tracker:
        found = find_places(subject, rows, meter, tracker)  # a step may end farther off than the grids reach
        tracker.end_here()
    return found


def align_by_paper(
    subject: ResizableNetwork, places: tuple[Place, ...], meter: Meter, goal: Goal, progress: Progress
) -> Alignment:
    """Choose widths among the edges beside the present ones, by whole networks measured."""
    with progress.track("choices, each measured whole", None) as tracker:

        def tried(tolerance: float, ratio: Ratio) -> None:
            bounds = f"parameters within {tolerance:.0%}" if goal.mode == "latency" else "more parameters"
            tracker.advance(f"{bounds}: {ratio.mean:.3f} of the latency")

        found = choose_widths(subject, places, meter, goal, tried)
        tracker.end_here()
    return found


def prune_to_share(
    kept: KeptWeights, rows: LatencyTable, meter: Meter, target: float, progress: Progress, spelled: Spelling = as_option
) -> Pruning:
    """Choose the most important channels and blocks at a share of the latency."""
    assert kept.importance is not None
    metered, importance = MeteredSubject(kept.subject, rows, meter), kept.importance()
    blocks = {name: importance.lost_with(name) for name in kept.subject.removable}
    with progress.track("latency of layers over their widths", None) as tracker:
        offers = find_offers(metered, importance, tracker)
        program = find_program(metered, offers, blocks, tracker)
        tracker.end_here()
    with progress.track("choices, each measured whole", None) as tracker:
        found = prune(metered, program, target, tracker, spelled)
        tracker.end_here()
    return found
