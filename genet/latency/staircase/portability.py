"""Portability of aligned widths: the cost of using only widths that are aligned on two devices."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from genet.arch.layers import SINGLE, is_repeated
from genet.errors import EvidenceError
from genet.latency.noise import timing_error
from genet.latency.staircase.staircase import Staircase, analyse
from genet.latency.staircase.sweep import Sweep
from genet.latency.table import LatencyTable
from genet.storage import Record

FEWEST = 3  # widths that make a staircase


class PlacePortability(Record):
    """One block at one size: the wave-aligned widths on each device and on both, and the cost of keeping to those on both.

    A cost is the mean over all widths that may be wanted: the latency of the narrowest common width that is wide enough, over
    that of the device's own, minus one.
    """

    block: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    both: tuple[int, ...]
    cost_first: float
    cost_second: float


class Portability(Record):
    """All places that both evidence files have staircases of, and the mean costs."""

    first: str
    second: str
    places: tuple[PlacePortability, ...]
    cost_first: float
    cost_second: float


def portability(first: LatencyTable, second: LatencyTable) -> Portability:
    """Compare the staircases of repeated blocks; EvidenceError if the files share none."""
    one, other = _staircases(first), _staircases(second)
    places = tuple(_place(name, one[name], other[name]) for name in one if name in other)
    if not places:
        raise EvidenceError(
            f"two evidence files need a common block measured over at least {FEWEST} widths, got none "
            f"({len(one)} on {first.setting.device.name}, {len(other)} on {second.setting.device.name})"
        )
    return Portability(
        first=str(first.setting),
        second=str(second.setting),
        places=places,
        cost_first=statistics.fmean(place.cost_first for place in places),
        cost_second=statistics.fmean(place.cost_second for place in places),
    )


def _staircases(table: LatencyTable) -> dict[str, Staircase]:
    """Return a staircase for every repeated block or single layer of some size, over the widths in the table."""
    families: dict[str, dict[int, tuple[float, float]]] = {}
    for row in table.block_rows:
        block = row.block
        if row.ms is not None and (is_repeated(block) or block.kind in SINGLE):
            family = dataclasses.replace(block, width=0, in_width=0 if is_repeated(block) else block.in_width)
            sigma = max(table.noise, timing_error(row.spread or 0.0))
            families.setdefault(str(family).replace("c0>0", "c*"), {})[block.width] = (table.ms(block), sigma)
    found = {}
    for name, points in families.items():
        if len(points) >= FEWEST:
            widths = sorted(points)
            ms, errors = zip(*(points[width] for width in widths), strict=True)
            found[name] = analyse(Sweep(widths=tuple(widths), ms=ms, sigma=errors))
    return found


def _place(name: str, one: Staircase, other: Staircase) -> PlacePortability:
    both = tuple(sorted(set(one.candidates) & set(other.candidates)))
    return PlacePortability(
        block=name,
        first=one.candidates,
        second=other.candidates,
        both=both,
        cost_first=_cost(one, both),
        cost_second=_cost(other, both),
    )


def _cost(stairs: Staircase, common: Sequence[int]) -> float:
    """Return the mean extra latency over the widths wanted, up to the widest that is common; 0 if no width is common."""
    ms = dict(zip(stairs.widths, stairs.fitted_ms, strict=True))
    known = [width for width in common if width in ms]
    ratios = []
    for wanted in stairs.widths:
        wide_enough = [ms[width] for width in known if width >= wanted]
        if wide_enough:
            own = min(ms[width] for width in stairs.candidates if width >= wanted)
            ratios.append(min(wide_enough) / own)
    return statistics.fmean(ratios) - 1 if ratios else math.nan if not known else 0.0
