"""Which augmentation trains best: the defaults of small images come from here.

    python benchmarks/augmentation.py --data CIFAR10     hours on two cores; stopped, it goes on where it was

CIFAR10 holds train/CLASS/*.png and test/CLASS/*.png. Digits, 5,000 and 50,000 images of CIFAR-10. All augmentations train the
same networks from the same seeds, and are told beside the first by paired differences. Writes benchmarks/results/augmentation/.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import torch

from genet.arch.network import Network
from genet.config.augment import Augment
from genet.config.reader import read_recipe
from genet.config.recipe import Data, Schedule
from genet.device import keep_memory
from genet.models.build import build
from genet.storage import Journal, write_atomic
from genet.training.accuracy import accuracy
from genet.training.image_sets import View
from genet.training.loop import TrainingInputs, train
from genet.training.splits import load_data

RESULTS = Path(__file__).parent / "results" / "augmentation"
SEEDS = (0, 1, 2)
CPU = torch.device("cpu")
MIXED = Network.parse(
    "@32x3 | Conv k3 c16 s2 | XX k3 c48 s1 d1 | XX k3 c64 s2 d1 | BL k3 c128 s1 d2 r0.5 | DW k3 c96 s2 d1 r3 | Conv k1 c256 | 10"
)
PLAIN = Network.parse("@32x3 | Conv k3 c16 s2 | XX k3 c24 s1 d2 | XX k3 c48 s2 d2 | XX k3 c96 s2 d2 | Conv k1 c256 | 10")
DIGITS = read_recipe("digits").space.masternet(32)

CROP, BOTH = Augment(crop=4), Augment(crop=4, flip=True)
SCALED = Augment(scale=(0.5, 1.0), flip=True)
JITTERED = SCALED.model_copy(update={"color_jitter": 0.4})
CUTOUT = BOTH.model_copy(update={"cutout": 8})
LOOKS = {
    "digits": (Augment(), Augment(crop=1), Augment(crop=2), CROP),
    "cifar-5000": (BOTH, Augment(), SCALED, JITTERED, BOTH.model_copy(update={"color_jitter": 0.4}), CUTOUT),
    "cifar-50000": (BOTH, JITTERED),
}
NETWORKS = {"digits": (DIGITS,), "cifar-5000": (PLAIN, MIXED), "cifar-50000": (PLAIN,)}
SCHEDULES = {
    "digits": Schedule(epochs=10, batch=64, learning_rate=0.4, warmup_epochs=2),
    "cifar-5000": Schedule(epochs=20, batch=32, learning_rate=0.8, warmup_epochs=2),
    "cifar-50000": Schedule(epochs=6, batch=64, learning_rate=0.4, warmup_epochs=1),
}
HELD_OUT = {"cifar-5000": 0.9, "cifar-50000": 0.02}  # of the 50,000 training images


def one(name: str, network: str, look: str, seed: int, root: str | None) -> dict[str, object]:
    """One training in a process of its own with one thread; returns its test accuracy, 0 to 1."""
    torch.set_num_threads(1)
    keep_memory()
    chosen = Network.parse(network)
    data = Data(nas_validation=0.25) if name == "digits" else Data(name="folder", root=root, nas_validation=HELD_OUT[name])
    augment = Augment.model_validate_json(look)
    splits = load_data(data, chosen.input, 0, View(augment=augment))
    module = build(chosen, seed)
    train(module, TrainingInputs(splits.train, SCHEDULES[name], 32, seed))
    return {"set": name, "network": network, "augment": look, "seed": seed, "test": accuracy(module, splits.test, 32, CPU)}


def main() -> None:
    """Train what the journal lacks, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder of CIFAR-10's images")
    parser.add_argument("--sets", nargs="+", choices=LOOKS, default=list(LOOKS))
    arguments = parser.parse_args()
    journal = Journal(RESULTS / "trainings.jsonl")
    done = {(r["set"], r["network"], r["augment"], r["seed"]) for r in journal.read().records}
    wanted = [
        (name, str(network), look.model_dump_json(), seed)
        for rank in range(2)  # the first network of every set comes first
        for name in arguments.sets
        for seed in SEEDS
        for network in NETWORKS[name][rank : rank + 1]
        for look in LOOKS[name]
    ]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawned) as pool:
        root = str(Path(arguments.data).absolute())
        for finished in as_completed([pool.submit(one, *each, root) for each in wanted if each not in done]):
            journal.append(finished.result())
            write_atomic(RESULTS / "table.md", table(journal).encode())
    write_atomic(RESULTS / "table.md", table(journal).encode())


def table(journal: Journal) -> str:
    """Test accuracy per augmentation, and how far it is ahead of the set's first over pairs of equal network and seed."""
    found = {(r["set"], r["augment"], r["network"], r["seed"]): 100 * r["test"] for r in journal.read().records}
    lines = ["# Test accuracy by augmentation, in percent, and against the first of its set over pairs of one network and seed"]
    for name, looks in LOOKS.items():
        schedule = SCHEDULES[name]
        lines += [
            "",
            f"{name}: {schedule.epochs} epochs, batch {schedule.batch}",
            "",
            "| augmentation | accuracy | against the first | n |",
        ]
        lines += ["|---|---|---|---|"]
        pairs = {look: _of(found, name, look) for look in looks}
        for look, reached in pairs.items():
            if reached:
                gaps = [value - pairs[looks[0]][key] for key, value in reached.items() if key in pairs[looks[0]]]
                ahead = "" if look == looks[0] else _with_error(gaps)
                lines.append(f"| {look} | {fmean(reached.values()):.2f} | {ahead} | {len(reached)} |")
    return "\n".join(lines) + "\n"


def _of(found: dict[tuple[str, str, str, int], float], name: str, look: Augment) -> dict[tuple[str, int], float]:
    wanted = (name, look.model_dump_json())
    return {(network, seed): value for (where, augment, network, seed), value in found.items() if (where, augment) == wanted}


def _with_error(gaps: list[float]) -> str:
    if len(gaps) < 2:
        return "n/a"
    return f"{fmean(gaps):+.2f} ± {stdev(gaps) / sqrt(len(gaps)):.2f}"


if __name__ == "__main__":
    main()
