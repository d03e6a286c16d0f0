"""Trials per hour with one worker and with two, and how many results a second the driver can take.

    python benchmarks/scaling.py                 on the processor; on a machine with a GPU: 1, 2 and 4 workers on one GPU

Digits and the trials of its space, with weights that were not trained: what is timed does not depend on them.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

import torch

from genet.device import read_card
from genet.files import Journal
from genet.nets.build import build
from genet.nets.data import load_data
from genet.spec.reader import read_recipe, read_space
from genet.spec.recipe import Recipe
from genet.trials.course import Course
from genet.trials.finetune import FineTune
from genet.trials.group import STRIDE_S
from genet.trials.plan import Trial, groups, plan_trials
from genet.trials.processes import Processes
from genet.trials.results import Event, TrialResult
from genet.trials.runner import Work, run_trials

RESULTS = 3000  # handed to the driver at once


class Instant:
    """A runner whose trials take no time: what is left is the driver."""

    workers, speed = 1, 1.0

    def __call__(self, given: Iterable[Sequence[Trial]], work: Work) -> Generator[Event]:
        """A result for every trial."""
        for group in given:
            for trial in group:
                yield TrialResult(**dict(trial), accuracy=0.5, curve=(0.4, 0.5), group=len(group))


def main() -> None:
    """Print the report."""
    print(report("cuda:0" if torch.cuda.is_available() else "cpu"))


def report(device: str) -> str:
    """What was timed, as Markdown."""
    recipe = read_recipe("digits")
    space = recipe.space
    trials = plan_trials(space, space.widths_on_offer(), recipe.search_resolution, 0, recipe.distill)
    torch.set_num_threads(1)
    lines = [f"{read_card(torch.device(device)).name}, one thread per worker; {len(trials)} trials of digits", ""]
    lines += ["| workers | seconds until they work | seconds of work | trials per hour of work |", "|---|---|---|---|"]
    for workers in (1, 2, 4) if device != "cpu" else (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            start, work = seconds_of(recipe, trials, Processes([device] * workers), Path(folder), device)
        lines.append(f"| {workers} | {start:.1f} | {work:.1f} | {3600 * len(trials) / work:.0f} |")
    many = [(trial,) for trial in trials] * (RESULTS // len(trials))
    nothing = FineTune(Course(build(space.masternet(32)), *(None,) * 4), device)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_trials(many, Journal(Path(folder) / "trials.jsonl"), Instant(), nothing, lambda _: None)
        pace = len(many) / (time.perf_counter() - start)
    paper = FineTune(Course(build(read_space("masternet").masternet(224)), *(None,) * 4), device)  # type: ignore[arg-type]
    sent, each = len(pickle.dumps(paper)) / 2**20, len(pickle.dumps(trials[:9])) / 2**10
    lines += [
        "",
        f"The driver writes {pace:.0f} results a second, each on the disk before the next.",
        f"A worker is sent {sent:.0f} MiB once for the paper's MasterNet, and {each:.0f} KiB per group of 9 trials.",
        "",
    ]
    return "\n".join(lines)


def seconds_of(recipe: Recipe, trials: Sequence[Trial], runner: Processes, folder: Path, device: str) -> tuple[float, float]:
    """Wall seconds until the first worker tells of its work, and from then to the end."""
    splits = load_data(recipe.data, recipe.space.input, recipe.seed)
    parent = build(recipe.space.masternet(recipe.search_resolution))
    work = FineTune(Course(parent, splits, recipe.distill, recipe.search_resolution, 0), device)
    heard: list[float] = []
    start = time.perf_counter()
    journal = Journal(folder / "trials.jsonl")
    run_trials(groups(trials, runner.workers), journal, runner, work, lambda _: heard.append(time.perf_counter()))
    first = heard[0] - STRIDE_S  # it is told a stride after it began
    return first - start, time.perf_counter() - first


if __name__ == "__main__":
    main()
