"""Pruned to one measured latency in four ways, then trained on alike: who keeps the most accuracy.

    python benchmarks/pruning.py --data CIFAR10           ResNet-56 at 0.8 and 0.65 of its latency, 3 seeds: hours on two cores
    python benchmarks/pruning.py --data CIFAR10 --per-class 5000 --epochs 100 --tuning 40 --batch 256        on a GPU
    python benchmarks/pruning.py --data CIFAR10 --smoke   ResNet-20, few images, two epochs: whether all of it runs, no more

The ways: `genet align --objective importance`; the tail-effect paper's objective, solved exactly, with the least tolerance of the
parameters that reaches the latency; all widths narrowed by one factor, channels by L1 norm; Torch-Pruning's magnitudes over the
whole network, by its pruning ratio. Each knob is turned until the network is as fast as wanted, timed in turn with the dense one.
CIFAR10 holds train/CLASS/*.jpg and test/CLASS/*.jpg. What is done lies in a journal and in runs/align-benchmark; the same command
goes on where it was. The table is benchmarks/results/align/pruning.md.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from align import EVIDENCE, RESULTS, WORK, aligned, genet, trained
from torch import nn

from genet.arch.external import ExternalModel
from genet.config.options import checked_measure
from genet.config.reader import read_structure, to_yaml
from genet.config.recipe import Data
from genet.errors import EvidenceError
from genet.latency.table import LatencyTable
from genet.latency.timing.meter import Meter, meter_of
from genet.latency.workload import read_workload, traced_workload
from genet.models.weights import NETWORK_FILE, WEIGHTS_FILE, load, save_weights
from genet.storage import Journal, write_atomic
from genet.studies.align.criteria import kept_channels, norms
from genet.studies.align.importance import IMAGES
from genet.studies.align.kept import with_new_statistics
from genet.studies.align.module_subject import ModuleSubject
from genet.studies.align.place import Place
from genet.studies.align.study import Goal, Ratio, choose_widths, find_places, ratio_of
from genet.training.image_sets import FirstImages, ImageSet
from genet.training.splits import load_data

RATE, TUNING_RATE = 0.1, 0.02
STEPS, NEAR = 9, 0.01  # of a knob; below the target, and near enough
BEYOND = "expected a ratio that the smallest network on offer reaches with certainty"  # an error of `genet align`
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Plan:
    """What is pruned, and how long it is trained; `results` is the folder of the journal and the table."""

    network: str
    targets: tuple[float, ...]
    seeds: tuple[int, ...]
    per_class: int
    epochs: int
    tuning: int
    batch: int
    results: Path = RESULTS

    @property
    def place(self) -> str:
        """The names of the networks begin so."""
        return f"{self.network}-{self.per_class}-{self.epochs}-{self.tuning}"


SMOKE = Plan("resnet20", (0.65,), (0,), per_class=20, epochs=2, tuning=2, batch=8, results=WORK / "smoke")


def some_images(source: Path, folder: Path, per_class: int) -> Path:
    """The first images of each class as an image folder of links; of those to test on more, as they cost less."""
    for split, count in (("train", per_class), ("test", 10 * per_class)):
        for label in sorted(path for path in (source / split).iterdir() if path.is_dir()):
            (folder / split / label.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(label.iterdir())[:count]:
                link = folder / split / label.name / image.name
                if not link.is_symlink():
                    link.symlink_to(image.absolute())
    return folder


@dataclass(frozen=True)
class Bench:
    """One dense network with its widths and layers, the clock, and the images; a cut is a module with its weights."""

    dense: Path
    data: Data
    meter: Meter

    @cached_property
    def subject(self) -> ModuleSubject:
        """The network, whose widths may move."""
        structure = read_structure(self.dense)
        assert isinstance(structure, ExternalModel)
        return ModuleSubject(structure, load(self.dense))

    @cached_property
    def images(self) -> ImageSet:
        """Training images for the statistics of normalisations."""
        splits = load_data(self.data, self.subject.network.input, 0)
        return FirstImages(splits.train.shuffled(0), min(IMAGES, splits.train.size))

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The edges beside all widths, from the journal of latencies if they are in it."""
        table = LatencyTable(Journal(Path(EVIDENCE[1])), self.meter.setting)
        return find_places(self.subject, table, self.meter)

    def paper(self, amount: float) -> nn.Module:
        """By the paper's objective, with a tolerance of the parameters."""
        found = choose_widths(self.subject, self.places, self.meter, Goal("latency", None, amount, "exact"))
        return self._cut(found.widths)

    def uniform(self, amount: float) -> nn.Module:
        """All widths times one minus the amount."""
        return self._cut({each.name: max(1, round((1 - amount) * each.width)) for each in self.subject.movable})

    def _cut(self, widths: dict[str, int]) -> nn.Module:
        kept = kept_channels(self.subject.tied, widths, norms(self.subject.source, 1))
        return self.subject.build(widths, kept)

    def magnitude(self, amount: float) -> nn.Module:
        """By Torch-Pruning: the smallest magnitudes of all groups, as in its own command for CIFAR-10."""
        import torch_pruning as tp

        input_, module = self.subject.network.input, copy.deepcopy(self.subject.source)
        pruner = tp.pruner.MetaPruner(
            module,
            torch.zeros(1, *input_.image),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=amount,
            max_pruning_ratio=0.95,  # of one layer, as some would vanish
            ignored_layers=[part for part in module.modules() if isinstance(part, nn.Linear)],
        )
        with torch.enable_grad():
            pruner.step()
        return module

    def ratio(self, module: nn.Module) -> Ratio:
        """Its latency over the dense network's."""
        image = self.subject.network.input.image
        return ratio_of(traced_workload("pruned", image, lambda: copy.deepcopy(module)), self.subject.workload({}), self.meter)

    def brought_to(self, target: float, cut: Callable[[float], nn.Module], most: float) -> tuple[nn.Module, Ratio] | None:
        """Turn a knob, of which more is faster, until the network is surely as fast as wanted, and nearly so.

        None if it never is.
        """
        low, high = 0.0, most
        best: tuple[nn.Module, Ratio] | None = None
        for step in range(STEPS):
            amount = high if step == 0 else (low + high) / 2
            module = cut(amount)
            ratio = self.ratio(module)
            print(f"    {amount:.3f}: {ratio.mean:.3f} of the latency", flush=True)
            if ratio.above > target:
                if step == 0:
                    return None
                low = amount
                continue
            best, high = (module, ratio), amount
            if ratio.above > target - max(NEAR, ratio.margin):
                break
        return best

    def write(self, module: nn.Module, folder: Path) -> None:
        """A cut network as one that `genet train` goes on with."""
        found = with_new_statistics(module, self.images, self.subject.resolution, CPU)
        save_weights(found, folder / WEIGHTS_FILE)
        write_atomic(folder / NETWORK_FILE, to_yaml(self.subject.described(found, "pruned")).encode())


WAYS = ("importance", "paper", "uniform", "magnitude")
MOST = {"paper": 1.5, "uniform": 0.9, "magnitude": 0.9}


def pruned(bench: Bench, way: str, target: float, batch: int, folder: Path) -> bool:
    """Write a cut network; return whether the way reaches the target."""
    if (folder / NETWORK_FILE).exists():
        return True
    if way == "importance":
        images = bench.data.root or bench.data.name
        asked = (str(bench.dense), "--objective", "importance", "--data", images, "--target-ratio", str(target))
        device = bench.meter.setting.device.kind
        answer = aligned((*asked, "--device", device, "--batch", str(batch), *EVIDENCE, "--into", str(folder)))
        if isinstance(answer, str):
            if BEYOND not in answer:
                raise EvidenceError(answer)
            print(f"    {answer}", flush=True)
        return not isinstance(answer, str)
    found = bench.brought_to(target, getattr(bench, way), MOST[way])
    if found:
        bench.write(found[0], folder)
    return found is not None


def study(plan: Plan, data: Path) -> list[str]:
    """Everything there is not yet in the journal, and the table of it."""
    root = some_images(data, WORK / f"images-{plan.per_class}", plan.per_class).absolute()
    meter = meter_of(checked_measure({"device": "auto", "batch": plan.batch}))
    source = WORK / plan.network
    if not (source / NETWORK_FILE).exists():
        name = f"genet.models.cifar:{plan.network}"
        genet("import", name, "--size", "32", "--into", str(source), "--classes", "10")
    journal = Journal(plan.results / "pruning.jsonl")
    rows = [row for row in journal.read().records if row["place"] == plan.place]
    for seed in plan.seeds:
        dense = trained(root, source, f"{plan.place}-dense-{seed}", plan.epochs, RATE, seed)
        bench = Bench(dense, Data(name="folder", root=str(root), nas_validation=0.1), meter)
        for target, way in [(1.0, "dense"), *((target, way) for target in plan.targets for way in WAYS)]:
            key = {"place": plan.place, "seed": seed, "target": target, "way": way}
            if any(row.items() >= key.items() for row in rows):
                continue
            print(f"  seed {seed}, {target} of the latency, {way}", flush=True)
            folder = WORK / f"{plan.place}-{way}-{target}-{seed}"
            row: dict[str, Any] = {**key, "folder": None, "accuracy": None}
            if way == "dense" or pruned(bench, way, target, plan.batch, folder):
                start = dense if way == "dense" else folder
                name = f"{plan.place}-{way}-{target}-{seed}-tuned"
                tuned = trained(root, start, name, plan.tuning, TUNING_RATE, seed, start)
                accuracy = json.loads((tuned / "model.json").read_text())["test_accuracy"]
                row |= {"folder": str(tuned), "accuracy": accuracy}
            journal.append(row)
            rows.append(row)
    return table(plan, rows, meter)


def table(plan: Plan, rows: list[dict[str, Any]], meter: Meter) -> list[str]:
    """Accuracies over all seeds, beside those by importance; latencies and parameters of the first seed's networks."""
    found = {(row["target"], row["way"], row["seed"]): row for row in rows}
    dense = found[1.0, "dense", plan.seeds[0]]
    lines = [
        f"# {plan.network} on CIFAR-10, pruned to one measured latency",
        "",
        f"{plan.per_class} training images a class, {plan.epochs} epochs dense and {plan.tuning} more of each network, "
        f"{len(plan.seeds)} seeds (± one standard deviation).",
        f"Latency at batch {plan.batch} on {meter.setting.device.name}, each timed in turn with the dense network.",
        "",
        "| latency wanted | way | test accuracy | importance is ahead by | latency | parameters |",
        "|---|---|---|---|---|---|",
    ]
    before = read_workload(f"{dense['folder']}/{NETWORK_FILE}")
    for target, way in [(1.0, "dense"), *((target, way) for target in plan.targets for way in WAYS)]:
        row = found[target, way, plan.seeds[0]]
        if row["folder"] is None:
            lines.append(f"| {target} | {way} | out of reach | | | |")
            continue
        ours = [found[target, "importance", seed]["accuracy"] for seed in plan.seeds] if way in WAYS else []
        reached = [found[target, way, seed]["accuracy"] for seed in plan.seeds]
        ahead = [a - b for a, b in zip(ours, reached, strict=True) if None not in (a, b)] if way in WAYS[1:] else []
        ratio = ratio_of(read_workload(f"{row['folder']}/{NETWORK_FILE}"), before, meter)
        count = sum(parameter.numel() for parameter in load(row["folder"]).parameters())
        cells = [_points(reached), _points(ahead, "+"), f"{ratio.mean:.3f} ± {ratio.error:.3f}", f"{count:,}"]
        lines.append(f"| {target} | {way} | {' | '.join(cells)} |")
    return [*lines, ""]


def _points(shares: list[Any], sign: str = "") -> str:
    """Mean and deviation in percent of those that are known."""
    known = [100 * share for share in shares if share is not None]
    if not known:
        return ""
    return f"{fmean(known):{sign}.2f}" + (f" ± {stdev(known):.2f}" if len(known) > 1 else "")


def main() -> None:
    """Run the study, or the smallest one there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", required=True)
    parser.add_argument("--per-class", type=int, default=900, help="training images of each class (default: 900)")
    parser.add_argument("--epochs", type=int, default=10, help="of the dense network (default: 10)")
    parser.add_argument("--tuning", type=int, default=5, help="more epochs of every network (default: 5)")
    parser.add_argument("--batch", type=int, default=32, help="images timed at once (default: 32)")
    parser.add_argument("--smoke", action="store_true", help="the smallest study there is, to see whether it runs")
    given = parser.parse_args()
    plan = Plan("resnet56", (0.8, 0.65), (0, 1, 2), given.per_class, given.epochs, given.tuning, given.batch)
    plan = SMOKE if given.smoke else plan
    text = "\n".join(study(plan, given.data))
    print(text)
    write_atomic(plan.results / "pruning.md", text.encode())


if __name__ == "__main__":
    main()
