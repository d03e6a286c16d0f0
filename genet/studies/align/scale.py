"""More width and resolution at the same latency and depth (tail-effect paper, section 5.3).

A small network at batch 1 leaves most of a GPU idle, so there is room to grow into. Width and resolution grow together as
EfficientNet scales them: 1.1 to 1.15 for each unit of the exponent (Tan & Le, 2019).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from genet.arch.network import MULTIPLE
from genet.progress import UNSEEN, Tracker
from genet.storage import Record
from genet.studies.align.study import Ratio, no_slower, ratio_of
from genet.studies.align.subject import Movable, Widths

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter
    from genet.studies.align.module_subject import ResizableNetwork

Dimension = Literal["width", "resolution"]
GROWTH: dict[Dimension, float] = {"width": 1.1, "resolution": 1.15}
EXPONENTS = tuple(step / 4 for step in range(1, 33))  # up to 2.1 times the width and 3.1 times the resolution
RESOLUTION_STEP = 16


class Scaled(Record):
    """One exponent: the network it makes, and its latency over that of the present one."""

    exponent: float
    resolution: int
    parameters: int
    macs: int
    measured: Ratio


class Scaling(Record):
    """The largest network found that takes no longer; None if all tried ones do. `tried` is in the order of trial."""

    network: str
    device: str
    estimate: bool
    batch: int
    dimensions: tuple[Dimension, ...]
    resolution: int
    parameters: int
    macs: int
    best: Scaled | None
    tried: tuple[Scaled, ...]


def widths_at(subject: ResizableNetwork, factor: float) -> Widths:
    """Return every movable width times a factor, in its multiples, of 8 if possible; never narrower."""
    scaled = {each.name: (each.width, _times(each, factor)) for each in subject.movable}
    return {name: new for name, (now, new) in scaled.items() if new > now}


def _times(movable: Movable, factor: float) -> int:
    step = math.lcm(movable.multiple, 1 if movable.width % MULTIPLE else MULTIPLE)
    return round(movable.width * factor / step) * step


def sizes_at(subject: ResizableNetwork, dimensions: tuple[Dimension, ...], exponent: float) -> tuple[Widths, int]:
    """Return the widths and the resolution of an exponent, the latter as a multiple of 16 and never smaller."""
    widths = widths_at(subject, GROWTH["width"] ** exponent) if "width" in dimensions else {}
    grown = subject.resolution * (GROWTH["resolution"] ** exponent if "resolution" in dimensions else 1.0)
    return widths, max(subject.resolution, round(grown / RESOLUTION_STEP) * RESOLUTION_STEP)


def scale(
    subject: ResizableNetwork,
    dimensions: tuple[Dimension, ...],
    meter: Meter,
    tracker: Tracker = UNSEEN,
) -> Scaling:
    """Search by bisection for the largest exponent whose network, measured in turn with the present one, is no slower.

    Each exponent that is no slower moves the search up, so latency is taken to rise with size. Every network timed is counted.
    """
    found: list[Scaled] = []
    low, high = -1, len(EXPONENTS)
    best: Scaled | None = None
    while high - low > 1:
        middle = (low + high) // 2
        widths, resolution = sizes_at(subject, dimensions, EXPONENTS[middle])
        workload = subject.workload(widths, resolution)
        scaled = Scaled(
            exponent=EXPONENTS[middle],
            resolution=resolution,
            parameters=subject.parameters(widths),
            macs=sum(op.macs for op in workload.ops()),
            measured=ratio_of(workload, subject.workload({}), meter),
        )
        found.append(scaled)
        tracker.advance(f"{scaled.measured.mean:.3f} of the latency")
        if no_slower(scaled.measured):
            low, best = middle, scaled
        else:
            high = middle
    setting = meter.setting
    return Scaling(
        network=subject.name,
        device=setting.device.name,
        estimate=setting.estimate,
        batch=setting.batch,
        dimensions=dimensions,
        resolution=subject.resolution,
        parameters=subject.parameters({}),
        macs=sum(op.macs for op in subject.workload({}).ops()),
        best=best if best and (best.parameters, best.resolution) != (subject.parameters({}), subject.resolution) else None,
        tried=tuple(found),
    )
