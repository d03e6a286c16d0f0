"""Can utilization stand for accuracy? A whole space of five widths, trained and timed here, and searched in every way.

    python benchmarks/filtering.py                            digits; half an hour on two cores
    python benchmarks/filtering.py --data CIFAR10 --device cuda

The space has the shape of NATS-Bench's size space: five widths of 8 to 64, of which four each are taken, 1,024 networks. What is
found is kept under benchmarks/results/filtering/ (space.csv is the table, as `genet filter` reads it); stopped, it goes on.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.cli import main as cli
from genet.config.options import checked_measure
from genet.config.recipe import Data, Training
from genet.device import open_device, read_card
from genet.latency.timing.meter import Meter, meter_of
from genet.latency.timing.ratio import ROUND_REPEATS
from genet.latency.workload import network_workload
from genet.models.build import build
from genet.storage import Journal, digest, write_atomic
from genet.studies.filter.bench import BenchRow
from genet.studies.tables import as_csv
from genet.training.accuracy import accuracy
from genet.training.loop import Execution, TrainingInputs, train
from genet.training.splits import load_data

RESULTS = Path(__file__).parent / "results"
WIDTHS = (8, 16, 32, 64)
FORM = "@{size} | Conv k3 c{} s1 | XX k3 c{} s1 d1 | XX k3 c{} s2 d1 | XX k3 c{} s2 d1 | Conv k1 c{} | 10"
SCHEDULE = Training(epochs=4, batch=64, learning_rate=0.4, warmup_epochs=1)
IN_TURN = 16  # networks that are timed in turn, the first network of all among them


def networks(size: str) -> dict[str, Network]:
    """All of them, by their widths."""
    every = itertools.product(WIDTHS, repeat=5)
    return {":".join(map(str, widths)): Network.parse(FORM.format(*widths, size=size)) for widths in every}


def train_one(name: str, network: Network, data: Data, device: str) -> dict[str, object]:
    """One network from scratch; its accuracy on the test images, and the seconds that took."""
    torch.set_num_threads(1)
    start, reads = time.perf_counter(), network.input
    splits = load_data(data, reads, 0)
    seed = int(digest(name)[:12], 16)
    module = build(network, seed)
    train(module, TrainingInputs(splits.train, SCHEDULE, reads.resolution, seed), Execution(open_device(device)))
    found = accuracy(module, splits.test, reads.resolution, open_device(device))
    return {"network": name, "top1_percent": 100 * found, "train_sec": time.perf_counter() - start}


def results(data: Data, device: str) -> Path:
    """What was trained on other images or timed on another device is never mixed with it."""
    card = read_card(open_device(device))
    return RESULTS / (
        "filtering" if card.kind == "cpu" and data.name == "digits" else f"filtering-{data.name}-{digest(card.name)[:6]}"
    )


def train_all(folder: Path, every: dict[str, Network], data: Data, device: str, workers: int) -> dict[str, dict[str, float]]:
    """What the journal lacks, some at a time."""
    journal = Journal(folder / "trained.jsonl")
    known = {record["network"] for record in journal.read().records}
    missing = [(name, network, data, device) for name, network in every.items() if name not in known]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for number, done in enumerate(as_completed([pool.submit(train_one, *each) for each in missing]), start=1):
            journal.append(done.result())
            if number % 50 == 0:
                print(f"{number}/{len(missing)} trained", flush=True)
    return {record["network"]: record for record in journal.read().records}


def time_all(folder: Path, every: dict[str, Network], meter: Meter) -> dict[str, dict[str, float]]:
    """Milliseconds per batch of what the journal lacks, a few in turn with the first of all, whose drift is divided out."""
    journal = Journal(folder / "timed.jsonl")
    known = {record["network"]: record for record in journal.read().records}
    first = next(iter(every))
    missing = [name for name in every if name not in known]
    for batch in _batched(missing, IN_TURN):
        start = time.perf_counter()
        timings = meter.prepare([network_workload(every[name]) for name in (first, *batch)])(ROUND_REPEATS)
        seconds = (time.perf_counter() - start) / (len(batch) + 1)
        reference = timings[0].ms
        for name, timing in zip(batch, timings[1:], strict=True):
            journal.append({"network": name, "ms": timing.ms, "reference_ms": reference, "seconds": seconds})
    records = journal.read().records
    usual = sorted(record["reference_ms"] for record in records)[len(records) // 2]
    return {record["network"]: {**record, "ms": record["ms"] / record["reference_ms"] * usual} for record in records}


def _batched(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]


def main() -> None:
    """Train, time, write the table, and run the study on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", help="images of ten classes (default: digits)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side")
    arguments = parser.parse_args()
    data = Data(name="folder", root=arguments.data) if arguments.data else Data(name="digits")
    every = networks("32x3" if arguments.data else "16x1")
    folder = results(data, arguments.device)
    trained = train_all(folder, every, data, arguments.device, arguments.workers)
    meter = meter_of(checked_measure({"device": arguments.device, "batch": 64}))
    timed = time_all(folder, every, meter)
    rows = [
        BenchRow(
            network=name,
            top1_percent=trained[name]["top1_percent"],
            images_per_sec=64e3 / timed[name]["ms"],
            macs=network_cost(network).macs,
            train_sec=trained[name]["train_sec"],
            time_sec=timed[name]["seconds"],
        )
        for name, network in every.items()
    ]
    write_atomic(folder / "space.csv", as_csv(rows).encode())
    for weight in ("0.5", "0.07"):  # the paper's last, whose picture is kept
        study = ["--seeds", "25", "--weight", weight, "--plot", str(folder / "found.svg")]
        cli.main(["filter", str(folder / "space.csv"), *study])


if __name__ == "__main__":
    main()
