"""The latency table of the paper's search space at 224 pixels, its staircases, and how far predictions from it are off."""

from __future__ import annotations

import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path

from prediction import errors_of, written

from genet.arch.network import Kernel
from genet.cli.console import progress
from genet.config.reader import read_recipe
from genet.config.recipe import Recipe
from genet.latency.staircase.space_sweeps import Staircases
from genet.pipeline.context import RunContext, open_run
from genet.pipeline.profile import profile_device
from genet.pipeline.run_folder import RunFolder
from genet.report.latency_figures import draw_staircase
from genet.report.search_figures import draw_staircases, staircase_info
from genet.storage import Journal, Record, write_atomic
from gpu.bench import Bench

RESOLUTION = 224
UNSEEN = 16  # networks that the correction has not seen


class TableFacts(Record):
    """What a table holds and what it cost, all calls together."""

    setting: str
    kernels: tuple[int, ...]
    rows: int
    failed: int
    networks: int
    sentinel_scatter: float
    seconds: float
    rows_measured: int  # in these seconds


class PlacedEdges(Record):
    """The staircase of a block type at a stage."""

    superblock: int
    block_type: str
    resolution: int
    pattern: str
    edges: tuple[int, ...]
    kept: tuple[int, ...]


class Edges(Record):
    """Every staircase of a table."""

    setting: str
    staircases: tuple[PlacedEdges, ...]


def table(bench: Bench) -> None:
    """Fill the table of the MasterNet's own block types, with kernel 5 alone."""
    _fill(bench, bench.folder, (5,))


def both_kernels(bench: Bench) -> None:
    """Fill the table of the same types with kernels 3 and 5, beginning with the rows that are there."""
    rows, known = bench.folder / "run" / "latency.jsonl", bench.beside("table") / "run" / "latency.jsonl"
    if known.exists() and not rows.exists():
        rows.parent.mkdir(parents=True, exist_ok=True)
        RunFolder(rows.parent).adopt(_recipe(bench, (3, 5)))
        shutil.copyfile(known, rows)
    _fill(bench, bench.folder, (3, 5))
    _draw(bench, bench.folder, (3, 5))


def staircases(bench: Bench) -> None:
    """Draw the staircase of every stage and write down its edges, once a table that was cut off is whole."""
    table(bench.at(bench.beside("table")))
    _draw(bench, bench.beside("table"), (5,), bench.folder)


def prediction(bench: Bench) -> None:
    """Hold predictions against networks that the correction has not seen; see `staircases` for a table that was cut off."""
    table(bench.at(bench.beside("table")))
    with _job(bench, bench.beside("table"), (5,)) as job:
        errors = errors_of(job, 2 if bench.small else UNSEEN)
    errors.save(bench.folder / "prediction.json")
    write_atomic(bench.folder / "prediction.md", written(errors, "benchmarks/gpu.sh evidence").encode())


def _fill(bench: Bench, folder: Path, kernels: tuple[Kernel, ...]) -> None:
    """Measure what the table lacks; the time of a call that is interrupted counts too."""
    spent = Journal(folder / "seconds.jsonl")
    with _job(bench, folder, kernels) as job:
        before, start = len(job.table), time.monotonic()
        try:
            profile_device(job)
        finally:
            spent.append({"rows": len(job.table) - before, "seconds": time.monotonic() - start})
            calls = spent.read().records
            TableFacts(
                setting=str(job.table.setting),
                kernels=kernels,
                rows=len(job.table),
                failed=sum(row.failure is not None for row in job.table.block_rows),
                networks=len(job.table.network_rows),
                sentinel_scatter=job.table.noise,
                seconds=sum(call["seconds"] for call in calls),
                rows_measured=sum(call["rows"] for call in calls),
            ).save(folder / "table.json")


def _draw(bench: Bench, folder: Path, kernels: tuple[Kernel, ...], into: Path | None = None) -> None:
    into = into or folder
    with _job(bench, folder, kernels) as job:
        found = job.folder.read(job.folder.staircase, Staircases)
        placed = []
        for place in found.staircases:
            if place.staircase is None:
                continue
            stairs = place.staircase
            name = f"super-block {place.superblock + 1}, {place.block_type}, {place.resolution} px"
            file = f"{place.superblock + 1}-{str(place.block_type).replace(' ', '-')}.svg"
            write_atomic(into / "pictures" / file, draw_staircase(stairs, name).encode())
            placed.append(
                PlacedEdges(
                    superblock=place.superblock + 1,
                    block_type=place.block_type,
                    resolution=place.resolution,
                    pattern=stairs.pattern,
                    edges=stairs.edges,
                    kept=place.kept,
                )
            )
        Edges(setting=str(job.table.setting), staircases=tuple(placed)).save(into / "staircases.json")
        panels = staircase_info(found, job.recipe.search_resolution)
        write_atomic(into / "staircases.svg", draw_staircases(panels).encode())


def _job(bench: Bench, folder: Path, kernels: tuple[Kernel, ...]) -> AbstractContextManager[RunContext]:
    """Return the table's run folder as a job; it is made where it is not there yet."""
    RunFolder(folder / "run").adopt(_recipe(bench, kernels))
    return open_run(folder / "run", progress())


def _recipe(bench: Bench, kernels: tuple[Kernel, ...]) -> Recipe:
    """Return the paper's space at one resolution with every super-block's own type; nothing is trained here."""
    whole = read_recipe("digits" if bench.small else "genet-imagenet")
    size = 16 if bench.small else RESOLUTION
    perturb = whole.space.perturb.model_copy(update={"types": None, "kernel": kernels})
    if bench.small:
        perturb = perturb.model_copy(update={"width": (0.5, 1.0), "depth": (0, 2), "kernel": kernels[-1:]})
    reads = whole.space.input.model_copy(update={"resolutions": (size,)})
    superblocks = whole.space.superblocks[:1] if bench.small else whole.space.superblocks
    space = whole.space.model_copy(update={"input": reads, "perturb": perturb, "superblocks": superblocks})
    measure = bench.measure(calibration_networks=3) if bench.small else bench.measure()
    return whole.model_copy(update={"space": space, "measure": measure, "resolution": size})
