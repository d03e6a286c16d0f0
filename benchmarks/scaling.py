"""Trials per hour with one worker and with two, and how many results a second the driver can take.

    python benchmarks/scaling.py                 on the processor; on a machine with a GPU: 1, 2 and 4 workers on one GPU

Digits and the trials of its space, with weights that were not trained: what is timed does not depend on them. Writes
benchmarks/results/scaling-cpu.md (or -cuda), with what follows from it for a thousand GPUs.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from trials import check_all_ended_well

from genet.config.reader import read_recipe, read_space
from genet.config.recipe import Recipe
from genet.device import read_card
from genet.models.build import build
from genet.storage import Journal, write_atomic
from genet.training.splits import load_data
from genet.trials.context import TrialContext
from genet.trials.finetune import PROGRESS_EVERY_S
from genet.trials.plan import Trial, groups, plan_trials
from genet.trials.results import Event, TrialResult, read_results
from genet.trials.runners.processes import Processes
from genet.trials.runners.runner import Work, run_trials
from genet.trials.work import FineTune

RESULTS = 3000  # handed to the driver at once
GPUS = 1000


class Instant:
    """A runner whose trials take no time: what is left is the driver."""

    workers, speed = 1, 1.0

    def __call__(self, groups: Iterable[Sequence[Any]], work: Work) -> Generator[Event]:
        """A result for every trial."""
        for group in groups:
            for trial in group:
                yield TrialResult(**dict(trial), accuracy=0.5, curve=(0.4, 0.5), group=len(group))


def main() -> None:
    """Print the report and write it down."""
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    text = report(device, (1, 2, 4) if device != "cpu" else (1, 2))
    print(text)
    write_atomic(Path(__file__).parent / "results" / f"scaling-{device.split(':')[0]}.md", text.encode())


def report(device: str, workers: Sequence[int], most: int | None = None) -> str:
    """Return what was timed with so many workers, as Markdown; of all trials, or of so many."""
    recipe = read_recipe("digits")
    space = recipe.space
    trials = plan_trials(space, space.widths_on_offer(), recipe.search_resolution, 0, recipe.distill)[:most]
    torch.set_num_threads(1)
    lines = ["# More workers", ""]
    lines += [f"{read_card(torch.device(device)).name}, one thread per worker; {len(trials)} trials of digits.", ""]
    lines += ["| workers | seconds until they work | seconds of work | trials per hour of work |", "|---|---|---|---|"]
    for count in workers:
        with tempfile.TemporaryDirectory() as folder:
            start, work = seconds_of(recipe, trials, Processes([device] * count), Path(folder), device)
        lines.append(f"| {count} | {start:.1f} | {work:.1f} | {3600 * len(trials) / work:.0f} |")
    many = [(trial,) for trial in trials] * (RESULTS // len(trials))
    nothing = FineTune(TrialContext(build(space.masternet(32)), *(None,) * 4), device)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_trials(many, Journal(Path(folder) / "trials.jsonl"), Instant(), nothing, lambda _: None)
        pace = len(many) / (time.perf_counter() - start)
    paper = FineTune(TrialContext(build(read_space("masternet").masternet(224)), *(None,) * 4), device)  # type: ignore[arg-type]
    sent, each = len(pickle.dumps(paper)) / 2**20, len(pickle.dumps(trials[:9])) / 2**10
    return "\n".join([*lines, "", *a_thousand(pace, sent, each), ""])


def a_thousand(pace: float, sent_mib: float, group_kib: float) -> list[str]:
    """What limits a thousand GPUs on the paper's space, from what the driver can do."""
    recipe = read_recipe("genet-imagenet")
    space = recipe.space
    trials = plan_trials(space, space.widths_on_offer(), recipe.search_resolution, 0, recipe.distill)
    most = len(groups(trials, GPUS))
    lines = [
        f"The driver writes {pace:.0f} results a second, each on the disk before the next. A worker is sent {sent_mib:.0f} MiB",
        f"once for the paper's MasterNet, and {group_kib:.0f} KiB per group of 9 trials.",
        "",
        f"## {GPUS:,} GPUs",
        "",
        f"`genet-imagenet` has {len(trials)} trials:",
        "",
        "| workers | groups | trials in the largest |",
        "|---|---|---|",
    ]
    for workers in (1, 8, 64, 256, GPUS):
        made = groups(trials, workers)
        lines.append(f"| {workers} | {len(made)} | {max(map(len, made))} |")
    return [
        *lines,
        "",
        f"- The trials end first: {GPUS:,} workers find {most} groups of one trial, and the search takes as long as one trial.",
        "  More trials per super-block would occupy the rest; the regression does not ask for them.",
        "- Sharing ends before that: a trial alone computes its own prefix and decodes its own images, and costs what",
        "  `each alone` does in [trials/table.md](trials/table.md).",
        "- Then come the images: every group reads all 1.28 million training files in every epoch; these groups ask the disks",
        f"  for {most * 1_281_167 / 1e6:,.0f} million files an epoch, where the five groups of one worker ask for 6.",
        f"- The driver is idle: {most} results are {most / pace:.1f} s of its time. It sends {sent_mib * most / 1024:.0f} GiB of",
        "  weights in all, once; with Ray they are put into the object store, and nodes fetch them from each other.",
    ]


def seconds_of(recipe: Recipe, trials: Sequence[Trial], runner: Processes, folder: Path, device: str) -> tuple[float, float]:
    """Wall seconds until the first worker tells of its work, and from then to the end."""
    splits = load_data(recipe.data, recipe.space.input, recipe.seed)
    parent = build(recipe.space.masternet(recipe.search_resolution))
    work = FineTune(TrialContext(parent, splits, recipe.distill, recipe.search_resolution, 0), device)
    heard: list[float] = []
    start = time.perf_counter()
    journal = Journal(folder / "trials.jsonl")
    run_trials(groups(trials, runner.workers), journal, runner, work, lambda _: heard.append(time.perf_counter()))
    ended = time.perf_counter()
    check_all_ended_well(read_results(journal).values())
    first = heard[0] - PROGRESS_EVERY_S  # it is told a stride after it began
    return first - start, ended - first


if __name__ == "__main__":
    main()
