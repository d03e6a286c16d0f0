"""The device's latency staircase over the width of a block, and the widths that stand at its edges.

A GPU computes in waves: until a wave is full, more channels cost nothing (tail-effect paper, section 3). A width
inside a step is dominated by the step's right edge, which is as fast and has more channels. So width c stays when no
wider width has a latency within (1 + eps) of c's own; this needs no profiler and holds for any device.
"""

from __future__ import annotations

import math
from typing import Self

from pydantic import model_validator

from genet.errors import EvidenceError
from genet.files import Record

NOISE_FLOOR = 0.02  # two latencies closer than this are never told apart, however quiet the repeats looked
NOISE_FACTOR = 2.0


class Staircase(Record):
    """Latency over width of one block type at one place, and what follows from it."""

    superblock: int
    resolution: int
    block_type: str
    widths: tuple[int, ...]
    ms: tuple[float, ...]
    eps: float
    edges: tuple[int, ...]  # widths after which latency steps up
    kept: tuple[int, ...]  # wave-aligned widths, the MasterNet's own among them

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        if len(self.widths) != len(self.ms) or not set(self.kept) <= set(self.widths):
            raise ValueError("a staircase must have one latency per width, and keep only widths it has")
        return self


class Staircases(Record):
    """All staircases of a run, and the digest of the setting they were measured in."""

    setting: str
    staircases: tuple[Staircase, ...]


def noise(spreads: list[float]) -> float:
    """The relative difference below which two latencies count as equal, from the spread of their repeats.

    `spreads` are interquartile ranges over medians; the trimmed mean of 30 repeats is far steadier than one repeat.
    """
    if not spreads:
        raise EvidenceError("noise needs at least one measured spread")
    typical = sorted(spreads)[len(spreads) // 2]
    return max(NOISE_FLOOR, NOISE_FACTOR * typical / math.sqrt(30))


def wave_aligned(widths: tuple[int, ...], ms: tuple[float, ...], eps: float) -> tuple[int, ...]:
    """The widths that no wider width matches within a factor of 1 + eps; the widest always stays."""
    kept = []
    fastest_wider = float("inf")
    for width, latency in sorted(zip(widths, ms, strict=True), reverse=True):
        if fastest_wider > latency * (1 + eps):
            kept.append(width)
        fastest_wider = min(fastest_wider, latency)
    return tuple(reversed(kept))


def edges(widths: tuple[int, ...], ms: tuple[float, ...], eps: float) -> tuple[int, ...]:
    """The wave-aligned widths after which latency steps up: all but the widest, after which nothing is known."""
    return tuple(width for width in wave_aligned(widths, ms, eps) if width < max(widths))
