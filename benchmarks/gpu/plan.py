"""Which parts there are, in which order, and how long each may take; the most valuable comes first."""

from __future__ import annotations

from dataclasses import dataclass

CLOSING_S = 14.0  # of a command: an interrupted part ends, and the archive is written
ENDING_S = 7.0  # that an interrupted part may take to keep what it has


@dataclass(frozen=True)
class Part:
    """A part, the most seconds it may take, the fewest it is begun with, and the function that is called for it."""

    name: str
    limit_s: float
    least_s: float
    where: str  # module:function


@dataclass(frozen=True)
class Command:
    """The parts of a command, and the seconds that it may take in all, and with the smallest settings."""

    name: str
    limit_s: float
    small_limit_s: float
    parts: tuple[Part, ...]


EVIDENCE = Command(
    "evidence",
    limit_s=330,
    small_limit_s=260,
    parts=(
        Part("probe", 40, 10, "gpu.probe:probe"),
        Part("tests", 45, 10, "gpu.checks:tests"),
        Part("table", 100, 10, "gpu.table:table"),
        Part("staircases", 10, 3, "gpu.table:staircases"),
        Part("prediction", 60, 10, "gpu.table:prediction"),
        Part("networks", 50, 5, "gpu.networks:networks"),
        Part("align", 90, 15, "gpu.studies:align"),
        Part("blocks", 60, 5, "gpu.sweeps:blocks"),
        Part("filters", 60, 5, "gpu.sweeps:filters"),
        Part("survey", 60, 10, "gpu.studies:survey"),
        Part("fold", 40, 10, "gpu.studies:fold"),
        Part("serving", 30, 10, "gpu.studies:serving"),
        Part("trials", 60, 15, "gpu.costs:trials"),
        Part("both-kernels", 100, 20, "gpu.table:both_kernels"),
        Part("workers", 60, 20, "gpu.costs:workers"),
        Part("compile", 150, 30, "gpu.networks:compiled"),
    ),
)
JOB = Command(
    "job",
    limit_s=420,
    small_limit_s=250,
    parts=(Part("search", 410, 30, "gpu.job:search"),),
)
COMMANDS = {command.name: command for command in (EVIDENCE, JOB)}


def seconds_for(part: Part, left_s: float) -> float | None:
    """Return how long a part may take when so much of the command's time is left; None if it is not to be begun."""
    seconds = min(part.limit_s, left_s - CLOSING_S)
    return seconds if seconds >= part.least_s else None
