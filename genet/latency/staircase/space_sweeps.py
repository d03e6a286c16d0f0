"""The measurements of a search space, and the staircases that follow: only necessary rows, each once.

First the repeated block of every super-block and block type over its widths, sampled at the steps; then the blocks
that read another super-block's output, for the kept widths and a few of the input widths, between which the table
interpolates; and a few random whole networks that show the error of sums of blocks.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from genet.arch.cost import block_cost
from genet.arch.layers import is_repeated
from genet.arch.network import Block, BlockType, Network, blocks
from genet.arch.space import SearchSpace, WidthsOnOffer
from genet.errors import EvidenceError
from genet.latency.noise import sentinel_noise, timing_error
from genet.latency.staircase.staircase import Staircase, analyse
from genet.latency.staircase.sweep import SHORT, Sweep, next_widths
from genet.latency.table import LatencyTable
from genet.storage import Record

READERS = 3  # input widths measured of a block that reads another super-block's output


class PlacedStaircase(Record):
    """The staircase of one block type at one super-block and resolution, and the widths that stay on offer there.

    Kept are the wave-aligned widths, and the MasterNet's own. Without a staircase (the plain grid of `multiple_of`, or too
    few widths that could be measured) all that could be measured are kept.
    """

    superblock: int
    resolution: int
    block_type: str
    staircase: Staircase | None
    kept: tuple[int, ...]


class Staircases(Record):
    """All staircases of a run, and the digest of the setting they were measured in."""

    setting: str
    staircases: tuple[PlacedStaircase, ...]

    def kept_widths(self, offered: WidthsOnOffer, resolution: int) -> WidthsOnOffer:
        """Return the widths on offer at a resolution."""
        kept = {(s.superblock, s.block_type): s.kept for s in self.staircases if s.resolution == resolution}
        return {(index, kind): kept.get((index, str(kind)), widths) for (index, kind), widths in offered.items()}


@dataclass(frozen=True, slots=True)
class StaircaseSite:
    """A super-block, block type and resolution whose staircase is searched for."""

    superblock: int
    resolution: int
    block_type: BlockType
    sweep: tuple[Block, ...]  # the repeated block at every width on offer


def staircase_sites(space: SearchSpace) -> tuple[StaircaseSite, ...]:
    """Return every site of a staircase; none if the space asks for a plain grid."""
    if space.widths != "wave-aligned":
        return ()
    offered = space.widths_on_offer()
    return tuple(
        StaircaseSite(index, resolution, kind, tuple(space.repeated_blocks(index, kind, offered, resolution)))
        for resolution in space.input.resolutions
        for index, kind in offered
    )


def sweep_blocks(site: StaircaseSite, own_width: int, table: LatencyTable) -> tuple[Block, ...]:
    """Return the blocks of a sweep to measure next, the MasterNet's own width always; none when all steps are found."""
    by_width = {block.width: block for block in site.sweep}
    if len(by_width) < SHORT:
        return tuple(table.missing(site.sweep))
    known = {width: table.ms(block) for width, block in by_width.items() if block in table}
    grid = [width for width in by_width if known.get(width, 0.0) < math.inf]  # failures are not part of the curve
    wanted = set(next_widths(grid, {w: ms for w, ms in known.items() if ms < math.inf}, _sigma(site, table)))
    wanted |= {own_width} & set(by_width) - set(known)
    return tuple(by_width[width] for width in sorted(wanted))


def _sigma(site: StaircaseSite, table: LatencyTable) -> float:
    """Return the relative standard error of one latency: from its repeats, and from how the sentinel varied."""
    rows = [row for block in site.sweep if (row := table.block_row(block)) and row.spread is not None]
    spreads = [row.spread for row in rows if row.spread is not None]
    return max(table.noise, timing_error(statistics.median(spreads)) if spreads else 0.0)


def find_staircases(space: SearchSpace, table: LatencyTable) -> Staircases:
    """Return the staircases that the table's rows show. EvidenceError if a place has no row at all."""
    everywhere = staircase_sites(space)
    swept = {block for site in everywhere for block in site.sweep}
    noise = sentinel_noise(row for row in table.block_rows if row.block in swept)  # in the order of measuring
    own = [superblock.width for superblock in space.superblocks]
    found = tuple(_staircase(site, own[site.superblock], table, noise) for site in everywhere)
    return Staircases(setting=table.setting.digest, staircases=found)


def _staircase(site: StaircaseSite, own_width: int, table: LatencyTable, noise: float) -> PlacedStaircase:
    answered = [row for block in site.sweep if (row := table.block_row(block))]
    rows = [row for row in answered if row.ms is not None]
    if not answered:
        raise EvidenceError(
            f"super-block {site.superblock + 1}: got no latency for any width of {site.block_type} at {site.resolution} "
            f"pixels in {table.setting}, expected at least one; `genet profile RUN` of this space measures it"
        )
    widths = tuple(row.block.width for row in rows)
    staircase = None
    if len(rows) > 1:
        sigma = tuple(max(noise, timing_error(row.spread or 0.0)) for row in rows)
        macs = [block_cost(row.block).macs * table.setting.batch for row in rows]
        staircase = analyse(Sweep(widths=widths, ms=tuple(table.ms(row.block) for row in rows), sigma=sigma), macs)
    kept = set(staircase.candidates if staircase else widths) | {own_width} & set(widths)
    return PlacedStaircase(
        superblock=site.superblock,
        resolution=site.resolution,
        block_type=str(site.block_type),
        staircase=staircase,
        kept=tuple(sorted(kept)),
    )


def rows_needed(space: SearchSpace, kept: Mapping[int, WidthsOnOffer]) -> Iterator[Block]:
    """Yield every block that the table must hold for the kept widths per resolution, input widths thinned out."""
    for resolution, widths in kept.items():
        yield from _thinned(space.blocks(widths, resolution))
        yield from blocks(space.masternet(resolution))


def grid_rows(space: SearchSpace) -> int:
    """Return the number of blocks in the table of all widths on offer, which a search without staircases would measure."""
    return len(set(rows_needed(space, dict.fromkeys(space.input.resolutions, space.widths_on_offer()))))


def _thinned(every: list[Block]) -> Iterator[Block]:
    """Yield, among blocks that differ only in the width they read, those at the ends and in the middle."""
    readers: dict[Block, list[Block]] = {}
    for block in every:
        if is_repeated(block):
            yield block
        else:
            readers.setdefault(dataclasses.replace(block, in_width=0), []).append(block)
    for alike in readers.values():
        alike.sort(key=lambda block: block.in_width)
        picks = range(READERS) if len(alike) > READERS else range(len(alike))
        yield from (alike[round(pick * (len(alike) - 1) / max(1, len(picks) - 1))] for pick in picks)


def random_networks(space: SearchSpace, kept: Mapping[int, WidthsOnOffer], count: int, seed: int) -> tuple[Network, ...]:
    """Return random networks of the kept widths, all different, as many as there are up to `count`; resolutions in turn."""
    rng = random.Random(seed)
    options = {
        resolution: [list(space.choices(index, widths)) for index in range(len(space.superblocks))]
        for resolution, widths in kept.items()
    }
    found: dict[Network, None] = {}
    for attempt in range(20 * count):
        resolution = list(kept)[attempt % len(kept)]
        found[space.network(tuple(rng.choice(choices) for choices in options[resolution]), resolution, space.name)] = None
        if len(found) == count:
            break
    return tuple(found)


def correction_networks(space: SearchSpace, kept: Mapping[int, WidthsOnOffer], count: int, seed: int) -> tuple[Network, ...]:
    """Return the networks measured whole to correct predictions: the MasterNet at every resolution, and random ones."""
    masternets = [space.masternet(resolution) for resolution in kept]
    return tuple(dict.fromkeys([*masternets, *random_networks(space, kept, count, seed)]))


class ExpectedRows(Record):
    """The expected number of rows of a space's table: for the sweeps, and for the blocks of the widths that they keep."""

    sweep: int
    rest: int
    networks: int

    @property
    def rows(self) -> int:
        """All rows of blocks."""
        return self.sweep + self.rest


def expected_rows(space: SearchSpace, networks: int) -> ExpectedRows:
    """Estimate the rows of a table before anything is measured; of a staircase about a quarter of the widths is kept."""
    offered = space.widths_on_offer()
    sweeps = {site.sweep for site in staircase_sites(space)}
    sweep = sum(len(blocks) if len(blocks) < SHORT else len(blocks) // 3 for blocks in sweeps)
    kept = {key: widths[::4] if sweeps else widths for key, widths in offered.items()}
    everything = set(rows_needed(space, dict.fromkeys(space.input.resolutions, kept)))
    rest = sum(not (sweeps and is_repeated(block)) for block in everything)
    return ExpectedRows(sweep=sweep, rest=rest, networks=networks + len(space.input.resolutions))
