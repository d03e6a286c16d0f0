"""Decides by measurement what a trial trains and for how long: modes x epochs against networks trained from scratch.

    python benchmarks/trials.py --data CIFAR10       CIFAR10 holds train/CLASS/*.jpg and test/CLASS/*.jpg

Everything is kept under benchmarks/results/trials as it is found, so a run that is stopped goes on where it was; hours on two
cores. Parts can be asked for by name: `truth`.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from genet.files import Journal, digest
from genet.nets.build import build
from genet.nets.data import load_data
from genet.nets.training import accuracy, train
from genet.spec.cost import network_cost
from genet.spec.network import Network
from genet.spec.reader import read_recipe
from genet.spec.recipe import Recipe

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "trials"
PER_CLASS = 900
TRUTH_NETWORKS, TRUTH_SEEDS = 20, (0, 1, 2)
CPU = torch.device("cpu")


def few_images(source: Path, folder: Path) -> Path:
    """The first images of every class as an image folder of links: what two cores can train on in hours."""
    for split in ("train", "test"):
        for label in sorted(path for path in (source / split).iterdir() if path.is_dir()):
            (folder / split / label.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(label.iterdir())[:PER_CLASS]:
                link = folder / split / label.name / image.name
                if not link.is_symlink():
                    link.symlink_to(image.absolute())
    return folder


def truth_networks(recipe: Recipe) -> list[Network]:
    """Random networks of the space, spread evenly from the fewest parameters drawn to the most."""
    space, draw = recipe.space, random.Random(0)
    widths = space.widths_on_offer()
    choices = [list(space.choices(index, widths)) for index in range(len(space.superblocks))]
    pool = [space.network(tuple(map(draw.choice, choices)), recipe.search_resolution) for _ in range(2000)]
    size = {network: math.log(network_cost(network).parameters) for network in pool}
    low, high = min(size.values()), max(size.values())
    targets = (low + (high - low) * k / (TRUTH_NETWORKS - 1) for k in range(TRUTH_NETWORKS))
    return [min(pool, key=lambda network: abs(size[network] - target)) for target in targets]


def train_truth(recipe: Recipe, notation: str, seed: int) -> dict[str, object]:
    """One network trained from scratch; its accuracy on the images held out."""
    torch.set_num_threads(1)
    start, network = time.perf_counter(), Network.parse(notation)
    splits = load_data(recipe.data, recipe.space.input, recipe.seed)
    module = build(network, int(digest(f"{seed}/{network}")[:12], 16))
    train(module, splits.train, recipe.train, recipe.search_resolution, CPU, int(digest(f"truth/{seed}/{network}")[:12], 16))
    reached = accuracy(module, splits.nas_validation, recipe.search_resolution, CPU)
    return {"network": notation, "seed": seed, "accuracy": reached, "seconds": round(time.perf_counter() - start, 1)}


def run_truth(recipe: Recipe) -> None:
    """Train what the journal lacks, two networks at a time; a seed is finished for all networks before the next begins."""
    journal = Journal(RESULTS / "truth.jsonl")
    known = {(record["network"], record["seed"]) for record in journal.read().records}
    wanted = [(str(network), seed) for seed in TRUTH_SEEDS for network in truth_networks(recipe)]
    missing = [each for each in wanted if each not in known]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for number, done in enumerate(as_completed([pool.submit(train_truth, recipe, *each) for each in missing]), start=1):
            record = done.result()
            journal.append(record)
            print(f"{number}/{len(missing)} {record['accuracy']:.4f} {record['seconds']} s {record['network']}", flush=True)


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["truth"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/trials-benchmark"), help="where the images' links and weights go")
    arguments = parser.parse_args()
    recipe = read_recipe(HERE / "trials.yaml")
    root = few_images(arguments.data, arguments.work / "images")
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": str(root.absolute())})})
    for part in arguments.parts:
        {"truth": run_truth}[part](recipe)


if __name__ == "__main__":
    main()
