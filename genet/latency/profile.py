"""Filling of the latency table: blocks in context and in random order between readings of a sentinel, and whole networks."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genet.arch.cost import block_cost
from genet.arch.external import ModelSpec
from genet.arch.layers import is_repeated
from genet.arch.network import Block, Network
from genet.errors import EvidenceError, LostDeviceError, MeasurementError
from genet.latency.noise import timing_error
from genet.latency.ops import block_ops
from genet.latency.staircase.sweep import SHORT, Sweep, next_widths
from genet.latency.table import BlockRow, LatencyTable, NetworkRow
from genet.latency.timing.ratio import StopRule, measure_ratio
from genet.latency.workload import block_chain, network_workload, workload_of
from genet.progress import UNSEEN, Tracker

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter

DRIFT = 0.02  # a sentinel that moves by more between two readings flags the rows in between
GROUP_S = 0.5  # between two readings of the sentinel; timed after every row it would evict the row's data from the caches
GPU_GROUP_S = 5.0  # the same on a GPU, whose clock drifts slowly
TRIES = 3  # at a repeated block, if noise exceeds it
GROUP_ROWS = 32
SCAN = StopRule(least=2)  # of a scale that is timed to find the next one: a single round has no error estimate
FEW = StopRule()  # enough rounds to compare a prediction with
MANY = StopRule(least=10)  # for the MasterNet, as all others are compared with it


def profile_blocks(
    table: LatencyTable, meter: Meter, wanted: Iterable[Block], sentinel: Block, seed: int = 0, tracker: Tracker = UNSEEN
) -> int:
    """Measure the blocks missing from the table, in random order so that a drifting clock favours no width.

    A table that has a sentinel keeps it, so that all its rows are brought to the same speed of the machine; the one given begins
    a new table. Every few seconds it is timed again. If it moved by more than 2 % the rows in between are measured once more and
    the calmer of both counts; the remaining drift stays with the row, and is divided out. Returns the number of rows that keep
    such a mark. A block that cannot be measured is a recorded failure.
    """
    missing = table.missing(wanted)
    random.Random(seed).shuffle(missing)
    marked = 0
    if not missing:
        return marked

    def read() -> float:
        table.add_sentinel(sentinel, timer()[0].ms)
        return table.sentinels[str(sentinel)][-1]

    begun = False
    while not begun:  # another process may have begun the table: then its sentinel counts
        kept = table.sentinel
        sentinel = kept or sentinel
        try:
            timer = meter.prepare([block_chain([sentinel])])
            before = read()
        except MeasurementError as fault:
            if kept is None:
                raise
            raise MeasurementError(
                f"{table.path}: timing again the block that its rows are compared with failed: {fault}; give another evidence "
                "file to begin a new table"
            ) from None
        begun = table.sentinel == sentinel
    while missing := table.missing(missing):  # another process may have measured some of them
        window = _Window([], before, before)
        try:
            for row in _group(meter, missing):
                window.rows.append(row)
                tracker.advance()
            window.after = before = read()
            if window.moved > DRIFT:
                again = _Window([_block_row(meter, row.block) for row in window.rows], before, before)
                again.after = before = read()
                window = min(window, again, key=lambda each: each.moved)
        finally:  # also if the device is lost: earlier measurements are kept
            drift = math.sqrt(window.before * window.after) / table.sentinels[str(sentinel)][0]
            for row in window.rows:
                table.add_block(row.model_copy(update={"drift": drift}))
        marked += len(window.rows) if window.moved > DRIFT else 0
    return marked


@dataclass
class _Window:
    """The rows measured between two readings of the sentinel."""

    rows: list[BlockRow]
    before: float
    after: float

    @property
    def moved(self) -> float:
        """Relative change of the machine's speed meanwhile."""
        return abs(math.log(self.after / self.before))


def _group(meter: Meter, missing: list[Block]) -> Iterator[BlockRow]:
    """Yield the rows of some seconds, taken off `missing`. The block at which a device is lost is a failure like others."""
    start = time.monotonic()
    for _ in range(GROUP_ROWS):
        if not missing or time.monotonic() - start > _group_s(meter):
            return
        block = missing.pop()
        try:
            row = _block_row(meter, block)
        except LostDeviceError as fault:
            yield BlockRow(block=block, ops=len(block_ops(block)), failure=str(fault))
            raise
        yield row


def _group_s(meter: Meter) -> float:
    """Return the seconds of rows between two readings of the sentinel."""
    return GPU_GROUP_S if meter.setting.device.kind == "cuda" else GROUP_S


def _block_row(meter: Meter, block: Block) -> BlockRow:
    """Measure a block; a repeated one costs half of the extra time of three in a row over one, which cancels fixed costs."""
    row = BlockRow(block=block, ops=len(block_ops(block)))
    try:
        if not is_repeated(block):
            (timing,) = meter.prepare([block_chain([block])])()
            return row.model_copy(update=timing.model_dump())
        for _ in range(TRIES):
            one, three = meter.prepare([block_chain([block]), block_chain([block] * 3)])()
            ms, median_ms = (three.ms - one.ms) / 2, (three.median_ms - one.median_ms) / 2
            if min(ms, median_ms) > 0:
                break
        else:  # each time noise exceeded the time of two blocks: a third of the three is safer, as it can only be too large
            ms, median_ms = three.ms / 3, three.median_ms / 3
    except MeasurementError as fault:
        return row.model_copy(update={"failure": str(fault)})
    spread = math.hypot(three.spread * three.median_ms, one.spread * one.median_ms) / 2 / median_ms
    return row.model_copy(update={"ms": ms, "median_ms": median_ms, "spread": spread})


def seconds_per_row(meter: Meter, kinds: Sequence[Sequence[Block]]) -> list[float]:
    """Measure how long a row of each kind of block takes here, with all that a disturbed machine repeats; nothing is kept.

    The first block is the sentinel, and what `profile_blocks` does with it is counted: it is read after every group of rows, and
    if it moves, rows are measured twice.
    """
    timer = meter.prepare([block_chain(kinds[0][:1])])
    began = time.monotonic()
    before, reading_s, seconds = timer()[0].ms, time.monotonic() - began, []
    for some in kinds:
        began = time.monotonic()
        for block in some:
            _block_row(meter, block)
        row_s = (time.monotonic() - began) / len(some)
        seconds.append(row_s + reading_s * min(1.0, row_s / _group_s(meter)))
    times = 2 if abs(math.log(timer()[0].ms / before)) > DRIFT else 1
    return [times * each for each in seconds]


def measure_network(
    table: LatencyTable, meter: Meter, network: ModelSpec, reference: Network, stop: StopRule = FEW
) -> NetworkRow:
    """Time a whole network in turn with the reference until the rule says stop; the table keeps all rounds, and those count.

    MeasurementError if it cannot be timed.
    """
    row = table.network_row(network)
    earlier = row if row is not None and row.reference == str(reference) else None
    parts = [workload_of(network)] if network == reference else [workload_of(network), network_workload(reference)]
    rounds = measure_ratio(parts, meter, stop, earlier)
    if not isinstance(rounds, NetworkRow):  # those of the table were not enough
        ops = len(parts[0].ops())
        rounds = NetworkRow(network=str(network), reference=str(reference), ops=ops, **rounds.model_dump())
        table.add_network(rounds)
    return rounds


def profile_sweep(
    table: LatencyTable,
    meter: Meter,
    at_width: Mapping[int, tuple[Block, ...]],
    always: Sequence[int] = (),
    tracker: Tracker = UNSEEN,
) -> tuple[Sweep, tuple[int, ...]]:
    """Return latency over width of a block, layer or super-block, measured at its possible steps; and the MACs per batch.

    `at_width` gives the blocks it is made of at every width on offer. A short grid is measured whole; of a long one, the
    widths in `always` are never passed over. EvidenceError if fewer than two widths can be measured.
    """
    grid = sorted(at_width)
    sampled = len(grid) >= SHORT and not table.setting.estimate  # an estimate costs nothing
    sentinel = at_width[grid[0]][0]  # sentinel of a new table: the narrowest fits into memory if any does
    while True:
        measured = [width for width in grid if all(block in table for block in at_width[width])]
        known = {width: sum(map(table.ms, at_width[width])) for width in measured}
        finite = {width: ms for width, ms in known.items() if ms < math.inf}
        offered = [width for width in grid if width in finite or width not in known]
        wanted = [width for width in (always if sampled else grid) if width not in known]
        wanted += next_widths(offered, finite, table.noise) if sampled else []
        if not wanted:
            break
        profile_blocks(table, meter, [block for width in wanted for block in at_width[width]], sentinel, 0, tracker)
    if len(finite) < 2:
        failure = next((row.failure for row in table.block_rows if row.failure), "the range has one width")
        raise EvidenceError(f"a staircase needs at least 2 widths that can be measured, got {len(finite)}: {failure}")
    spreads = [[row.spread or 0.0 for block in at_width[width] if (row := table.block_row(block))] for width in finite]
    sigma = tuple(max(table.noise, *map(timing_error, each)) for each in spreads)
    macs = tuple(table.setting.batch * sum(block_cost(block).macs for block in at_width[width]) for width in finite)
    return Sweep(widths=tuple(finite), ms=tuple(finite.values()), sigma=sigma), macs
