"""A network trained here against plain timm training of the same network: same recipe, epochs and images; and what INT8 costs it.

    python benchmarks/training.py --data CIFAR10     minutes on two cores; stopped, it goes on where it was

CIFAR10 holds train/CLASS/*.png and test/CLASS/*.png. timm's side is timm's own: model, loader, optimizer, schedule and loss in
the order of its training script, and none of this project's code. Writes benchmarks/results/training/.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import fmean, stdev
from typing import cast

import torch

from genet.arch.network import Network
from genet.config.recipe import Data, Training
from genet.device import keep_memory
from genet.export.exports import export
from genet.export.format import TrainedModel
from genet.export.timm_form import to_timm
from genet.models.build import build
from genet.storage import Journal, write_atomic
from genet.training.accuracy import accuracy
from genet.training.image_sets import FileImages
from genet.training.loop import TrainingInputs, train
from genet.training.splits import load_data, load_test

RESULTS = Path(__file__).parent / "results" / "training"
NETWORK = Network.parse(
    "@32x3 | Conv k3 c16 s2 | XX k3 c48 s1 d1 | XX k3 c64 s2 d1 | BL k3 c128 s1 d2 r0.5 | DW k3 c96 s2 d1 r3 | Conv k1 c256 | 10",
    name="small",
)
RECIPE = Training(epochs=15, batch=64, learning_rate=0.4, warmup_epochs=1, label_smoothing=0.1)
HELD_OUT = 0.8  # of the training images: 10,000 of CIFAR-10's 50,000 are trained on
SEEDS = (0, 1, 2)
CPU = torch.device("cpu")
SIZE = NETWORK.input.resolution


def with_genet(data: Data, seed: int, into: Path) -> dict[str, float]:
    """This project's training; exported, with the accuracy of the ONNX files before and after INT8."""
    splits = load_data(data, NETWORK.input, 0)
    module = build(NETWORK, seed)
    train(module, TrainingInputs(splits.train, RECIPE, SIZE, seed))
    reached = accuracy(module, splits.test, SIZE, CPU)
    exports = export(TrainedModel(module, splits, data.identity(splits.name)), into, ("onnx", "onnx-int8"))
    return {"test": reached} | {each.format: each.accuracy for each in exports.exported if each.accuracy is not None}


def with_timm(data: Data, seed: int, into: Path) -> dict[str, float]:
    """timm's training as its own script does it: loader, SGD, cosine schedule by step with a warm-up, label smoothing."""
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    torch.manual_seed(seed)
    splits = load_data(data, NETWORK.input, 0)
    dataset = create_dataset("", f"{data.root}/train")
    dataset.reader.samples = [dataset.reader.samples[position] for position in cast("FileImages", splits.train).positions]
    model = to_timm(NETWORK).to(memory_format=torch.channels_last).train()
    loader = create_loader(
        dataset,
        (NETWORK.input.channels, SIZE, SIZE),
        RECIPE.batch,
        is_training=True,
        use_prefetcher=False,
        scale=(0.5, 1.0),
        interpolation="bilinear",
        num_workers=0,
        persistent_workers=False,
    )
    rate = RECIPE.learning_rate * RECIPE.batch / 256
    optimizer = create_optimizer_v2(model, opt="sgd", lr=rate, weight_decay=RECIPE.weight_decay, momentum=RECIPE.momentum)
    schedule, epochs = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=RECIPE.epochs,
        warmup_epochs=RECIPE.warmup_epochs,
        warmup_lr=0.0,
        warmup_prefix=False,
        step_on_epochs=False,
        updates_per_epoch=len(loader),
    )
    loss_of, updates = LabelSmoothingCrossEntropy(RECIPE.label_smoothing), 0
    for _ in range(epochs):
        for pixels, labels in loader:
            loss = loss_of(model(pixels.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            schedule.step_update(updates)
    return {"test": accuracy(model, load_test(data, NETWORK.input), SIZE, CPU)}


SIDES: dict[str, Callable[[Data, int, Path], dict[str, float]]] = {"genet": with_genet, "timm": with_timm}


def one(side: str, data: Data, seed: int, work: Path) -> dict[str, object]:
    """One training, in a process of its own with one thread."""
    torch.set_num_threads(1)
    keep_memory()
    return {"side": side, "seed": seed, **SIDES[side](data, seed, work / f"{side}-{seed}")}


def keep_to(study: str) -> None:
    """What was found with another network or recipe must not be mixed with what this one finds."""
    file = RESULTS / "study.txt"
    if file.exists() and file.read_text() != study:
        raise SystemExit(f"{RESULTS} must hold results of this study, and holds another's; move it away or undo the change")
    write_atomic(file, study.encode())


def table(known: dict[tuple[str, int], dict[str, float]]) -> str:
    """Accuracies of both sides with their spread, and of the ONNX files."""
    lines = [
        "# The same network, recipe and epochs, here and in plain timm",
        "",
        f"`{NETWORK}`",
        "",
        f"CIFAR-10, 10,000 training images, {RECIPE.epochs} epochs, batch {RECIPE.batch}, rate {RECIPE.learning_rate} per 256",
        f"images, one thread; accuracy on the 10,000 test images, seeds {', '.join(map(str, SEEDS))}.",
        "",
        "| trained by | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean | standard deviation |",
        "|---" * (3 + len(SEEDS)) + "|",
    ]
    reached = {side: [known[side, seed]["test"] for seed in SEEDS] for side in SIDES}
    for side, shares in reached.items():
        cells = [f"{share:.2%}" for share in (*shares, fmean(shares))]
        lines.append(f"| {side} | {' | '.join(cells)} | {100 * stdev(shares):.2f} points |")
    ours, theirs = reached["genet"], reached["timm"]
    error = (stdev(ours) ** 2 / len(ours) + stdev(theirs) ** 2 / len(theirs)) ** 0.5
    lines += [
        "",
        f"The difference is {100 * (fmean(ours) - fmean(theirs)):+.2f} points, its standard error {100 * error:.2f}.",
        "",
        "| exported, in ONNX Runtime | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " |",
        "|---" * (1 + len(SEEDS)) + "|",
    ]
    for name in ("onnx", "onnx-int8"):
        lines.append(f"| {name} | " + " | ".join(f"{known['genet', seed][name]:.2%}" for seed in SEEDS) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Train what is missing, two at a time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/training-benchmark"), help="where the exports go")
    arguments = parser.parse_args()
    data = Data(name="folder", root=str(arguments.data.absolute()), nas_validation=HELD_OUT)
    keep_to(f"{NETWORK}\n{RECIPE.model_dump_json()}\n{HELD_OUT}\n")
    journal = Journal(RESULTS / "trained.jsonl")
    known = {(record["side"], record["seed"]) for record in journal.read().records}
    missing = [(side, seed) for seed in SEEDS for side in SIDES if (side, seed) not in known]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(one, side, data, seed, arguments.work) for side, seed in missing]):
            journal.append(done.result())
            print(done.result(), flush=True)
    text = table({(record["side"], record["seed"]): record for record in journal.read().records})
    print(text)
    write_atomic(RESULTS / "table.md", text.encode())


if __name__ == "__main__":
    main()
