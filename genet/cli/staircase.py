"""`genet staircase`: the steps of a device's latency over width, and the widths at their edges."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from genet.arch.network import MULTIPLE, Block
from genet.cli.console import Answer, progress, save_picture, table
from genet.cli.measuring import measure_of, say_damaged
from genet.errors import SpecError
from genet.latency.evidence import open_rows, read_evidence
from genet.latency.noise import with_interval
from genet.latency.profile import profile_sweep
from genet.latency.staircase.portability import Portability, portability
from genet.latency.staircase.staircase import Staircase, analyse
from genet.latency.staircase.sweep import read_sweep
from genet.latency.timing.curves import read_range
from genet.latency.timing.meter import Meter, meter_of
from genet.latency.workload import read_blocks, with_width
from genet.names import damaged_lines
from genet.report.latency_figures import draw_staircase
from genet.storage import Journal

PATTERNS = {
    "stairs": "latency jumps after each edge, so the edges are candidates; a sloping step keeps some of its other widths too",
    "slope": "no steps: latency rises evenly, as for depthwise convolutions, so every multiple of 8 stays a candidate",
    "flat": "no steps: more channels cost no time in this whole range, so only the widest is a candidate",
}


def run(arguments: argparse.Namespace) -> Answer:
    """Measure a staircase or read one from a file, or compare two."""
    given = [arguments.what is not None, arguments.csv is not None, arguments.compare is not None]
    if sum(given) != 1:
        raise SpecError(
            [
                f"genet staircase: got {sum(given)} of BLOCK, --from CSV and --compare EVIDENCE EVIDENCE, expected one; a "
                "BLOCK is such as 'XX k3 c256 @14'"
            ]
        )
    if arguments.compare:
        portable = portability(*map(read_evidence, arguments.compare))
        for file in arguments.compare:
            say_damaged(file)
        _print_portability(portable)
        return portable.model_dump(mode="json")
    if arguments.csv:
        source, estimate = arguments.csv, None
        found = analyse(read_sweep(arguments.csv))
    else:
        meter = meter_of(measure_of(arguments))
        source, estimate = f"{arguments.what} on {meter.setting}", meter.setting.estimate
        found = _measured(arguments, meter)
    _print(found, source, estimate)
    if arguments.plot:
        save_picture(arguments.plot, draw_staircase(found, source))
    return {"source": source, "estimate": estimate, "too_noisy": found.unclear, **found.model_dump(mode="json")}


def _measured(arguments: argparse.Namespace, meter: Meter) -> Staircase:
    at_width = _blocks_at(arguments.what, arguments.widths)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(arguments.evidence or Path(folder) / "latency.jsonl", waiting=print)
        rows = open_rows(journal, meter.setting)
        if rows.damaged:
            print(f"{damaged_lines(journal.path, rows.damaged)} and measured again")
        with progress().track("latency over widths", len({block for blocks in at_width.values() for block in blocks})) as tracker:
            sweep, macs = profile_sweep(rows, meter, at_width, tracker=tracker)
            tracker.end_here()
    print(f"{len(sweep.widths)} of {len(at_width)} widths measured")
    return analyse(sweep, macs)


def _blocks_at(text: str, widths: str | None) -> dict[int, tuple[Block, ...]]:
    """Return the blocks at every legal width of the range: inner widths must be multiples of 8 too."""
    own = read_blocks(text)[-1].width
    grid = read_range(widths, "--widths") if widths else tuple(range(MULTIPLE, 2 * own + 1, MULTIPLE))
    found, faults = {}, list[str]()
    for width in grid:
        try:
            found[width] = read_blocks(with_width(text, width))
        except SpecError as fault:
            faults += fault.faults
    if len(found) < 2:
        first = f"; {faults[0]}" if faults else ""
        raise SpecError([f"--widths: got {len(found)} legal widths for {text!r}, expected at least 2{first}"])
    return found


def _print(found: Staircase, source: str, estimate: bool | None) -> None:
    """Print the noise, and the staircase as far as it can be seen."""
    print(f"{source}{': an estimate, not a measurement' if estimate else ''}")
    if found.unclear:
        print(
            f"too noisy to tell ({found.eps:.0%}): latencies within that count as equal, and few steps are larger; measure "
            "on a quiet machine, or at a larger --batch"
        )
        table(["width", "ms per batch"], [[str(w), with_interval(ms)] for w, ms in zip(found.widths, found.ms, strict=True)])
        return
    print(f"latencies within {found.eps:.1%} count as equal, given the noise of this sweep\n{PATTERNS[found.pattern]}")
    throughput = found.throughput or (None,) * len(found.widths)
    rows = [
        [
            str(width),
            with_interval(ms),
            f"{utilization:.0%}",
            "n/a" if rate is None else f"{2 * rate / 1e12:.4g}",
            "yes" if width in found.edges else "",
            "yes" if width in found.candidates else "",
        ]
        for width, ms, utilization, rate in zip(found.widths, found.ms, found.utilization, throughput, strict=True)
    ]
    table(["width", "ms per batch", "utilization U", "throughput T, TFLOP/s", "edge", "candidate"], rows)
    plateaus = (f"{tread.first}-{tread.last} ({with_interval(tread.ms)} ms)" for tread in found.treads)
    print(f"plateaus: {', '.join(plateaus)}")
    print(f"edges: {', '.join(map(str, found.edges)) or 'none'}")
    print(f"candidates: {', '.join(map(str, found.candidates))}")


def _print_portability(found: Portability) -> None:
    print(f"A: {found.first}\nB: {found.second}")
    rows = [
        [
            place.block,
            ", ".join(map(str, place.first)),
            ", ".join(map(str, place.second)),
            ", ".join(map(str, place.both)) or "none",
            f"{place.cost_first:+.1%}",
            f"{place.cost_second:+.1%}",
        ]
        for place in found.places
    ]
    table(["block", "aligned on A", "aligned on B", "aligned on both", "cost on A", "cost on B"], rows)
    print(
        "cost: how much longer the same number of channels takes, on average, when only widths aligned on both are "
        f"used; overall {found.cost_first:+.1%} on A, {found.cost_second:+.1%} on B"
    )
