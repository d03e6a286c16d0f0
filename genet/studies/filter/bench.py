"""A whole search space as a table: every network's accuracy and throughput, and the cost of measuring them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, PositiveFloat, PositiveInt

from genet.arch.network import broken_rule
from genet.errors import GenetError, SpecError, first_line
from genet.progress import Progress
from genet.storage import Record
from genet.studies.survey.survey import Percent, pareto_positions
from genet.studies.tables import read_table

TIMING_S = 1.0  # assumed cost of timing a network if a table does not give it
NATS_EPOCHS = "90"  # of the trainings behind NATS-Bench's accuracies
NATS_IMAGES = 256  # at a time, behind its latencies
NATS_PLACE = "NATS-sss-v1_0-50262.pickle.pbz2, or the folder NATS-sss-v1_0-50262-simple, from github.com/D-X-Y/NATS-Bench"


def _choices(text: str) -> str:
    if not re.fullmatch(r"\d+(:\d+)*", text):
        raise broken_rule("must be widths joined by colons, such as 8:16:64")
    return text


class BenchRow(Record):
    """One network of a space: its widths and known values. Throughput is in images per second, MACs are of one image."""

    network: Annotated[str, AfterValidator(_choices)]
    top1_percent: Percent
    images_per_sec: PositiveFloat
    macs: PositiveInt
    train_sec: PositiveFloat  # seconds until its accuracy is known
    time_sec: PositiveFloat = TIMING_S  # seconds until its throughput is known

    @property
    def choices(self) -> tuple[int, ...]:
        """Its widths."""
        return tuple(map(int, self.network.split(":")))

    @property
    def utilization(self) -> float:
        """Operations per second: the share of a peak that all networks have in common."""
        return 2 * self.macs * self.images_per_sec

    @property
    def point(self) -> tuple[float, float]:
        """Throughput and accuracy."""
        return self.images_per_sec, self.top1_percent


@dataclass(frozen=True)
class Bench:
    """A space of which all networks are known. SpecError if one is missing: searches move from each to its neighbours."""

    rows: tuple[BenchRow, ...]

    def __post_init__(self) -> None:
        positions = {len(row.choices) for row in self.rows}
        if len(positions) != 1:
            raise SpecError([f"a space needs networks with the same number of widths, got {sorted(positions)}"])
        size = math.prod(map(len, self.options))
        if len(self.rows) != size:
            sizes = " x ".join(str(len(each)) for each in self.options)
            raise SpecError([f"a space needs every combination of its widths, {sizes} = {size} networks, got {len(self.rows)}"])

    @cached_property
    def options(self) -> tuple[tuple[int, ...], ...]:
        """The widths on offer at every position."""
        return tuple(tuple(sorted(set(each))) for each in zip(*(row.choices for row in self.rows), strict=True))

    @cached_property
    def row_of(self) -> dict[tuple[int, ...], BenchRow]:
        """Networks by their widths."""
        return {row.choices: row for row in self.rows}

    @cached_property
    def true_frontier(self) -> tuple[BenchRow, ...]:
        """The frontier of throughput and accuracy."""
        return frontier_of(self.rows)

    @cached_property
    def corner(self) -> tuple[float, float]:
        """The least throughput and accuracy of all, the reference point of hypervolumes."""
        return min(row.images_per_sec for row in self.rows), min(row.top1_percent for row in self.rows)

    def hypervolume(self, rows: Sequence[BenchRow]) -> float:
        """Return the share of the true frontier's area of throughput and accuracy that networks dominate; 1 for no area."""
        whole = _area(self.true_frontier, self.corner)
        return _area(frontier_of(rows), self.corner) / whole if whole else 1.0


def frontier_of(rows: Sequence[BenchRow]) -> tuple[BenchRow, ...]:
    """Return the networks that no other beats in throughput and accuracy."""
    return tuple(rows[place] for place in pareto_positions([row.point for row in rows]))


def _area(rows: Sequence[BenchRow], corner: tuple[float, float]) -> float:
    """Return the area of the staircase from a corner up to a frontier."""
    points = np.array(sorted({row.point for row in rows}, reverse=True)).reshape(-1, 2) - corner
    heights = np.diff(points[:, 1], prepend=0.0)  # accuracy rises as throughput falls
    return float(points[:, 0] @ np.maximum(heights, 0.0))


def read_bench(path: Path) -> Bench:
    """Read a CSV file with the columns network, top1_percent, images_per_sec, macs, train_sec, and perhaps time_sec."""
    return Bench(read_table(path, BenchRow, ("network",)))


def read_nats(path: Path, progress: Progress) -> Bench:
    """Return NATS-Bench's size space (Dong et al., 2021): 32,768 networks of five widths, through its own package.

    Accuracies are those on CIFAR-10's test images, throughput is by the benchmark's own latencies. GenetError if
    the file or the package is not there.
    """
    if not path.exists():
        raise GenetError(f"{path} does not exist, expected NATS-Bench's size space; get {NATS_PLACE}")
    try:
        from nats_bench import create
    except ImportError:
        raise GenetError(
            "--nats needs the package of NATS-Bench, which is not installed; pip install 'genet-nas[nats]'"
        ) from None
    try:
        api = create(str(path), "sss", fast_mode=path.is_dir(), verbose=False)
        with progress.track("networks of NATS-Bench", len(api.meta_archs)) as tracker:
            rows = []
            for index, network in enumerate(api.meta_archs):
                rows.append(_row(api, index, network))
                tracker.advance()
    except Exception as fault:  # any error of the package for a damaged file
        failure = f"{path}: reading it as NATS-Bench's size space failed"
        raise GenetError(f"{failure} ({first_line(fault)}); get {NATS_PLACE}") from None
    return Bench(tuple(rows))


def _row(api: Any, index: int, network: str) -> BenchRow:
    cost = api.get_cost_info(index, "cifar10")
    found = api.get_more_info(index, "cifar10", hp=NATS_EPOCHS, is_random=False)
    return BenchRow(
        network=network,
        top1_percent=found["test-accuracy"],
        images_per_sec=NATS_IMAGES / cost["latency"],
        macs=round(1e6 * cost["flops"]),
        train_sec=found["train-all-time"],
    )
