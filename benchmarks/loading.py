"""Images kept on the device against images decoded anew in every epoch: images per CPU second, an epoch of training, accuracy.

    python benchmarks/loading.py --data CIFAR10     some ten minutes on two cores; stopped, it goes on where it was

CIFAR10 holds train/CLASS/*.png and test/CLASS/*.png; 5,000 images are trained on, cropped by 4 pixels and flipped, in one thread.
Seconds are the processor's, of this process alone. Writes benchmarks/results/loading/.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev

import torch
from augmentation import BOTH, CPU, PLAIN, SEEDS

from genet.config.recipe import Data, Schedule
from genet.device import keep_memory
from genet.models.build import build
from genet.storage import Journal, write_atomic
from genet.training.accuracy import accuracy
from genet.training.image_sets import View
from genet.training.loop import TrainingInputs, train
from genet.training.splits import Splits, load_data

RESULTS = Path(__file__).parent / "results" / "loading"
WAYS = ("stream", "device")
HELD_OUT, BATCH, PASSES = 0.9, 64, 5
SCHEDULE = Schedule(epochs=10, batch=BATCH, learning_rate=0.4, warmup_epochs=1)


def opened(root: str, way: str) -> Splits:
    """The images in one of the two ways."""
    data = Data.model_validate({"name": "folder", "root": root, "nas_validation": HELD_OUT, "loading": way})
    return load_data(data, PLAIN.input, 0, View(augment=BOTH))


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def costs(root: str, way: str) -> dict[str, float]:
    """CPU seconds to decode, per pass over the training images, and per epoch of a training."""
    splits, size = opened(root, way), PLAIN.input.resolution
    first = seconds(lambda: list(splits.train.batches(BATCH, size, 0)))
    passes = [seconds(lambda seed=seed: list(splits.train.batches(BATCH, size, seed))) for seed in range(PASSES)]  # type: ignore[misc]
    epoch = SCHEDULE.model_copy(update={"epochs": 1, "warmup_epochs": 0})
    trained = [seconds(lambda: train(build(PLAIN, 0), TrainingInputs(splits.train, epoch, size, 0))) for _ in range(3)]
    shown = splits.train.size // BATCH * BATCH
    return {"first_s": first, "images_per_s": shown / median(passes), "epoch_s": min(trained)}


def reached(root: str, way: str, seed: int) -> float:
    """Test accuracy, 0 to 1."""
    splits, module = opened(root, way), build(PLAIN, seed)
    train(module, TrainingInputs(splits.train, SCHEDULE, PLAIN.input.resolution, seed))
    return accuracy(module, splits.test, PLAIN.input.resolution, CPU)


def main() -> None:
    """Measure what the journal lacks, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder of CIFAR-10's images")
    root = str(Path(parser.parse_args().data).absolute())
    torch.set_num_threads(1)
    keep_memory()
    journal = Journal(RESULTS / "loading.jsonl")
    done = {(record["way"], record.get("seed")) for record in journal.read().records}
    for way in WAYS:
        if (way, None) not in done:
            journal.append({"way": way, **costs(root, way)})
    for seed in SEEDS:
        for way in WAYS:
            if (way, seed) not in done:
                journal.append({"way": way, "seed": seed, "test": reached(root, way, seed)})
    write_atomic(RESULTS / "table.md", table(journal).encode())


def table(journal: Journal) -> str:
    """Both ways side by side."""
    records = journal.read().records
    lines = [
        "| images | first pass, s | images per CPU second | epoch of training, CPU s | test accuracy, % |",
        "|---|---|---|---|---|",
    ]
    for way, title in zip(WAYS, ("decoded in every epoch", "kept in memory"), strict=True):
        cost = next(record for record in records if record["way"] == way and "seed" not in record)
        tests = [100 * record["test"] for record in records if record["way"] == way and "seed" in record]
        spread = f" ± {stdev(tests) / sqrt(len(tests)):.2f}" if len(tests) > 1 else ""
        figures = f"{cost['first_s']:.1f} | {cost['images_per_s']:,.0f} | {cost['epoch_s']:.2f}"
        lines.append(f"| {title} | {figures} | {fmean(tests):.2f}{spread} ({len(tests)} seeds) |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
