"""Networks that a search selects against other ways to spend the same latency, all trained with one recipe.

    python benchmarks/budgets.py --data CIFAR10       hours on two cores; stopped, it goes on where it was

At three budgets: the selected network; random networks of the space that are as fast, ten of them; the MasterNet with all
widths scaled; timm's shapes with all widths scaled (`shapes.py`). Latencies are measured here, in turn with the MasterNet.
Writes benchmarks/results/budgets/.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch
from shapes import SHAPES
from torch import nn
from trials import CPU, HERE, STUDIES, few_images

from genet import pipeline
from genet.choose.certificate import Selection
from genet.commands.printing import progress
from genet.device import keep_memory
from genet.files import Journal, Record, digest, write_atomic
from genet.job import Job, open_job, predictor
from genet.latency.part import Part, whole
from genet.latency.profile import ROUND_REPEATS, ROUNDS
from genet.latency.trace import module_ops
from genet.nets.build import build
from genet.nets.data import load_data
from genet.nets.evaluation import accuracy
from genet.nets.training import train
from genet.spec.network import MULTIPLE, Network
from genet.spec.recipe import Recipe, Select
from genet.steps.learn import current_regression
from genet.steps.select import kept_widths, offers
from genet.trials.workers import open_runner

RESULTS = HERE / "results" / "budgets"
BUDGETS = ("0.8x", "0.6x", "0.4x")
RANDOM, DRAWN, SEEDS = 10, 20_000, (0, 1, 2)
IMAGE = (3, 32, 32)


class Design(Record):
    """A network within a budget, and its measured share of the MasterNet's latency."""

    budget: str
    way: str
    network: str  # a notation, or a shape and its width
    share: float


def as_part(network: str) -> Part:
    """What to time."""
    if "|" in network:
        return whole(Network.parse(network))
    return Part(network, IMAGE, lambda: (tuple(module_ops(as_module(network, 0), IMAGE)),), lambda: as_module(network, 0))


def as_module(network: str, seed: int) -> nn.Module:
    """What to train."""
    if "|" in network:
        return build(Network.parse(network), seed)
    name, width = network.split()
    torch.manual_seed(seed)
    return SHAPES[name](float(width))


def share_of(job: Job, network: str) -> float:
    """Its latency over the MasterNet's, timed in turn."""
    race = job.meter.prepare([as_part(network), whole(job.masternet)])
    return fmean(one.ms / reference.ms for one, reference in (race(ROUND_REPEATS) for _ in range(ROUNDS)))


def widest_within(job: Job, limit: float, scaled: Callable[[float], str]) -> tuple[str, float]:
    """The widest of a family that is within the limit, by bisection over its width."""
    low, high, best = 0.05, 3.0, ("", 0.0)
    for _ in range(9):
        width = (low + high) / 2
        network = scaled(width)
        share = share_of(job, network)
        if share <= limit:
            low, best = width, (network, share)
        else:
            high = width
    return best


def scaled_masternet(masternet: Network, width: float) -> str:
    """All super-blocks and the head so many times as wide."""

    def wide(width_now: int, step: int) -> int:
        return max(step, step * round(width_now * width / step))

    superblocks = tuple(
        block.model_copy(update={"width": wide(block.width, round(MULTIPLE / min(1.0, block.ratio or 1.0)))})
        for block in masternet.superblocks
    )
    head = masternet.head and masternet.head.model_copy(update={"width": wide(masternet.head.width, MULTIPLE)})
    return str(masternet.model_copy(update={"superblocks": superblocks, "head": head}))


def designs(job: Job) -> Iterable[Design]:
    """All rivals of all budgets, as fast as their budget allows."""
    selection = job.folder.read(job.folder.selection, Selection)
    for choice in selection.answers:
        budget, limit = str(choice.budget), float(str(choice.budget)[:-1])
        yield Design(budget=budget, way="selected", network=choice.network, share=share_of(job, choice.network))
        yield from random_ones(job, budget, limit)
        ways = {"MasterNet scaled": partial(scaled_masternet, job.masternet)}
        ways |= {name: lambda width, name=name: f"{name} {width:.4f}" for name in SHAPES}  # type: ignore[misc]
        for way, scaled in ways.items():
            network, share = widest_within(job, limit, scaled)
            if network:  # else not even the narrowest is as fast
                yield Design(budget=budget, way=way, network=network, share=share)


def random_ones(job: Job, budget: str, limit: float) -> Iterable[Design]:
    """Random networks of the space whose measured latency is within a tenth below the limit."""
    kept, resolution = kept_widths(job, job.table), job.recipe.search_resolution
    offered = offers(job, predictor(job, job.table, kept), current_regression(job), resolution, kept[resolution])
    draw = np.random.default_rng(int(100 * limit))
    picks = np.column_stack([draw.integers(len(offer.choices), size=DRAWN) for offer in offered.superblocks])
    shares = offered.totals(picks).ms / job.table.masternet_ms(job.masternet)
    found = 0
    for pick in picks[(shares <= limit) & (shares > 0.9 * limit)]:
        network = str(offered.network(pick.tolist()))
        share = share_of(job, network)
        if 0.9 * limit < share <= limit:
            found += 1
            yield Design(budget=budget, way="random", network=network, share=share)
        if found == RANDOM:
            return


def train_one(recipe: Recipe, network: str, seed: int) -> dict[str, object]:
    """One network from scratch; its accuracy on the test images, and on those held out for the search."""
    torch.set_num_threads(1)
    keep_memory()
    splits = load_data(recipe.data, recipe.space.input, recipe.seed)
    drawn = int(digest(f"{seed}/{network}")[:12], 16)
    module = as_module(network, drawn)
    train(module, splits.train, recipe.train, recipe.search_resolution, CPU, drawn)
    held_out, test = (accuracy(module, images, recipe.search_resolution, CPU) for images in (splits.nas_validation, splits.test))
    return {"network": network, "seed": seed, "held_out": held_out, "test": test}


def search(recipe: Recipe, folder: Path) -> list[Design]:
    """Run the search once, and find the rivals; both are kept."""
    journal = Journal(RESULTS / "designs.jsonl")
    if not journal.read().records:
        with open_job(folder, progress(), recipe) as job:
            pipeline.profile(job)
            pipeline.train_master(job)
            pipeline.distill(job, lambda device: open_runner(device, "processes", workers=2))
            pipeline.fit_trials(job)
            pipeline.select(job)
            for design in list(designs(job)):
                journal.append(design.model_dump(mode="json"))
    return [Design.model_validate(record) for record in journal.read().records]


def train_all(recipe: Recipe, found: list[Design]) -> dict[tuple[str, int], dict[str, float]]:
    """Every design with every seed; of the random ones with the first alone, and the best of those with the others too."""
    journal = Journal(RESULTS / "trained.jsonl")
    for seed in SEEDS:
        known = {(record["network"], record["seed"]): record for record in journal.read().records}
        wanted = [design.network for design in found if design.way != "random" or seed == SEEDS[0]]
        best = [best_random(found, known, budget) for budget in BUDGETS] if seed != SEEDS[0] else []
        wanted += [network for network in best if network]
        missing = [network for network in dict.fromkeys(wanted) if (network, seed) not in known]
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            for done in as_completed([pool.submit(train_one, recipe, network, seed) for network in missing]):
                record = done.result()
                journal.append(record)
                print(record, flush=True)
    return {(record["network"], record["seed"]): record for record in journal.read().records}


def best_random(found: list[Design], known: dict[tuple[str, int], dict[str, float]], budget: str) -> str | None:
    """Of the random networks at a budget, the best on the images held out for the search; None where there is none."""
    own = [design.network for design in found if design.way == "random" and design.budget == budget]
    return max(own, key=lambda network: known[network, SEEDS[0]]["held_out"], default=None)


def table(recipe: Recipe, found: list[Design], known: dict[tuple[str, int], dict[str, float]]) -> str:
    """Accuracy of every way at every budget."""
    lines = [
        "# The same latency, spent in other ways",
        "",
        f"CIFAR-10, 5,000 training images, {recipe.train.epochs} epochs, {len(SEEDS)} seeds; accuracy on the test images, with",
        f"the standard deviation over seeds. The random network is the best of {RANDOM}, by the images held out for the search.",
        "[What it shows](notes.md).",
        "",
        "| budget | way | measured, of the MasterNet's latency | test accuracy | network |",
        "|---" * 5 + "|",
    ]
    for budget in BUDGETS:
        best = best_random(found, known, budget)
        own = [design for design in found if design.budget == budget]
        for design in (d for d in own if d.way != "random" or d.network == best):
            reached = [known[design.network, seed]["test"] for seed in SEEDS]
            score = f"{100 * fmean(reached):.1f} ± {100 * stdev(reached):.1f} %"
            notation = design.network.replace("|", "\\|")  # a bar would end the cell
            lines.append(f"| {budget} | {design.way} | {design.share:.3f} | {score} | `{notation}` |")
        lacking = [way for way in ("random", "MasterNet scaled", *SHAPES) if way not in {design.way for design in own}]
        lines += [f"| {budget} | {way} | none is as fast | | |" for way in lacking]
    return "\n".join([*lines, ""])


def main() -> None:
    """Search, train, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/budgets-benchmark"), help="where the images' links and the run go"
    )
    arguments = parser.parse_args()
    recipe = STUDIES["fidelity"].recipe()
    root = few_images(arguments.data, arguments.work / "images")
    images = recipe.data.model_copy(update={"root": str(root.absolute())})
    recipe = recipe.model_copy(update={"name": "budgets", "data": images, "select": Select(budgets=BUDGETS)})
    found = search(recipe, arguments.work / "run")
    text = table(recipe, found, train_all(recipe, found))
    print(text)
    write_atomic(RESULTS / "table.md", text.encode())


if __name__ == "__main__":
    main()
