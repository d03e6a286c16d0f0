"""Trials of many kinds against networks trained from scratch, in two studies.

    python benchmarks/trials.py --data CIFAR10                      CIFAR10 holds train/CLASS/*.jpg and test/CLASS/*.jpg
    python benchmarks/trials.py --data CIFAR10 --study fidelity

`trials` decides what a trial trains and for how long: depth and width alone are perturbed. `fidelity` asks how far the
regression's predictions hold where block types change too. Everything is kept under benchmarks/results/STUDY as it is found,
so a run that is stopped goes on where it was; hours on two cores. `--help` names the parts. `python benchmarks/trials_table.py`
and `python benchmarks/fidelity.py` make the tables of what is there.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import operator
import random
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.config.reader import read_recipe, to_yaml
from genet.config.recipe import DistillMode, Recipe, Schedule
from genet.device import keep_memory, read_card
from genet.errors import EvidenceError
from genet.models.build import GENet, build
from genet.models.weights import load_weights, save_weights
from genet.storage import Journal, Record, digest, write_atomic
from genet.training.accuracy import accuracy
from genet.training.image_sets import FirstImages
from genet.training.loop import Execution, TrainingInputs, train
from genet.training.splits import Splits, load_data
from genet.trials.context import TrialContext
from genet.trials.finetune import NORM_IMAGES
from genet.trials.plan import Trial, groups, plan_trials
from genet.trials.results import Seconds, TrialResult, read_results
from genet.trials.runners.processes import Processes
from genet.trials.runners.runner import run_trials
from genet.trials.work import FineTune

HERE = Path(__file__).parent
PER_CLASS = 900
TRUTH_SEEDS = (0, 1, 2)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Study:
    """A recipe, NAME.yaml, with the networks trained from scratch and the trials held against them."""

    name: str
    networks: int
    spread: bool  # evenly from the fewest parameters to the most, else as they are drawn
    modes: tuple[DistillMode, ...]
    lengths: tuple[int, ...]
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def results(self) -> Path:
        """Where what is found is kept."""
        return HERE / "results" / self.name

    def recipe(self) -> Recipe:
        """The recipe, without the images' folder."""
        return read_recipe(HERE / f"{self.name}.yaml")

    @property
    def cells(self) -> list[tuple[DistillMode, int, int]]:
        """Mode, epochs and seed of all trials: one seed of each before the others, and the short ones first."""
        return [(mode, epochs, seed) for seed in self.seeds for epochs in self.lengths for mode in self.modes]

    def evidence(self, mode: DistillMode, epochs: int, seed: int) -> Journal:
        """The trials of one cell."""
        return Journal(self.results / f"{mode}-{epochs}-{seed}.jsonl")


STUDIES = {
    study.name: study
    for study in (
        Study("trials", networks=20, spread=True, modes=("local", "features", "whole"), lengths=(1, 2, 4, 8)),
        Study("fidelity", networks=20, spread=False, modes=("local", "features"), lengths=(1, 2)),
    )
}
WAYS: dict[str, tuple[DistillMode, bool]] = {  # mode, and whether every trial runs alone
    "whole": ("whole", False),
    "superblock": ("superblock", False),
    "superblock, each alone": ("superblock", True),
    "local": ("local", False),
    "local, each alone": ("local", True),
    "features": ("features", False),
}
PART = 1024  # images on which costs are timed: whole batches of training and of validation


def keep_to(study: Study, recipe: Recipe) -> None:
    """What was found with another recipe must not be mixed with what this one finds."""
    file, ours = study.results / "recipe.yaml", to_yaml(recipe)
    if file.exists() and file.read_text() != ours:
        raise SystemExit(
            f"{study.results} must hold results of this recipe, and holds another's; move it away or undo the change"
        )
    write_atomic(file, ours.encode())


def few_images(source: Path, folder: Path, classes: int = 10) -> Path:
    """The first images of the first classes as an image folder of links: what two cores can train on in hours."""
    for split in ("train", "test"):
        for label in sorted(path for path in (source / split).iterdir() if path.is_dir())[:classes]:
            (folder / split / label.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(label.iterdir())[:PER_CLASS]:
                link = folder / split / label.name / image.name
                if not link.is_symlink():
                    link.symlink_to(image.absolute())
    return folder


def truth_networks(study: Study) -> list[Network]:
    """Random networks of the space; none is a single perturbation."""
    recipe, draw = study.recipe(), random.Random(0)
    space = recipe.space
    widths = space.widths_on_offer()
    choices = [list(space.choices(index, widths)) for index in range(len(space.superblocks))]
    drawn = [space.network(tuple(map(draw.choice, choices)), recipe.search_resolution) for _ in range(2000)]
    drawn = [network for network in drawn if sum(map(operator.ne, network.superblocks, space.superblocks)) > 1]
    if not study.spread:
        return list(dict.fromkeys(drawn))[: study.networks]
    size = {network: math.log(network_cost(network).parameters) for network in drawn}
    low, high = min(size.values()), max(size.values())
    targets = (low + (high - low) * k / (study.networks - 1) for k in range(study.networks))
    return [min(drawn, key=lambda network: abs(size[network] - target)) for target in targets]


def train_truth(recipe: Recipe, notation: str, seed: int) -> dict[str, object]:
    """One network trained from scratch; its accuracy on the images held out."""
    torch.set_num_threads(1)
    keep_memory()
    start, network = time.perf_counter(), Network.parse(notation)
    splits = load_data(recipe.data, recipe.space.input, recipe.seed)
    module = build(network, int(digest(f"{seed}/{network}")[:12], 16))
    train(
        module,
        TrainingInputs(splits.train, recipe.train, recipe.search_resolution, int(digest(f"truth/{seed}/{network}")[:12], 16)),
    )
    reached = accuracy(module, splits.nas_validation, recipe.search_resolution, CPU)
    return {"network": notation, "seed": seed, "accuracy": reached, "seconds": round(time.perf_counter() - start, 1)}


def run_truth(study: Study, recipe: Recipe, _: Path) -> None:
    """Train what the journal lacks, two networks at a time; a seed is finished for all networks before the next begins."""
    journal = Journal(study.results / "truth.jsonl")
    known = {(record["network"], record["seed"]) for record in journal.read().records}
    wanted = [(str(network), seed) for seed in TRUTH_SEEDS for network in truth_networks(study)]
    missing = [each for each in wanted if each not in known]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for number, done in enumerate(as_completed([pool.submit(train_truth, recipe, *each) for each in missing]), start=1):
            record = done.result()
            journal.append(record)
            print(f"{number}/{len(missing)} {record['accuracy']:.4f} {record['seconds']} s {record['network']}", flush=True)


class Parent(Record):
    """The MasterNet and its accuracy on the images held out."""

    network: str
    accuracy: float


def masternet(study: Study, recipe: Recipe, work: Path) -> GENet:
    """The parent of all trials, trained once; the same weights wherever it is trained on this machine."""
    weights = work / "master.safetensors"
    network = recipe.space.masternet(recipe.search_resolution)
    if not weights.exists():
        assert isinstance(recipe.master, Schedule)  # the studies' recipes train their MasterNet
        splits, module = load_data(recipe.data, recipe.space.input, recipe.seed), build(network)
        train(
            module,
            TrainingInputs(splits.train, recipe.master, recipe.search_resolution, recipe.seed),
            Execution(checkpoint=work / "master.checkpoint"),
        )
        reached = accuracy(module, splits.nas_validation, recipe.search_resolution, CPU)
        Parent(network=str(network), accuracy=reached).save(study.results / "masternet.json")
        save_weights(module, weights)
    return load_weights(network, weights)


def course_of(recipe: Recipe, parent: GENet, mode: DistillMode, epochs: int, seed: int) -> TrialContext:
    """Trials of this mode and length; the seed decides batches, augmentation and new weights, not which trials there are."""
    distill = recipe.distill.model_copy(update={"mode": mode, "epochs": epochs, "patience": 0})
    return TrialContext(parent, load_data(recipe.data, recipe.space.input, recipe.seed), distill, recipe.search_resolution, seed)


def planned(recipe: Recipe, seed: int) -> list[Trial]:
    """The same perturbations for every seed, with new weights of their own."""
    space = recipe.space
    trials = plan_trials(space, space.widths_on_offer(), recipe.search_resolution, recipe.seed, recipe.distill)
    return [trial.model_copy(update={"seed": int(digest(f"{seed}/{trial.id}")[:12], 16)}) for trial in trials]


def run_trials_of_all_cells(study: Study, recipe: Recipe, work: Path) -> None:
    """Every mode and length, with every seed."""
    parent = masternet(study, recipe, work)
    for mode, epochs, seed in study.cells:
        journal = study.evidence(mode, epochs, seed)
        known, start = read_results(journal), time.perf_counter()
        missing = [trial for trial in planned(recipe, seed) if trial.id not in known]
        runner = Processes(["cpu", "cpu"])
        work_of_cell = FineTune(course_of(recipe, parent, mode, epochs, seed), "cpu")
        run_trials(groups(missing, runner.workers), journal, runner, work_of_cell, lambda _: None)
        print(f"{mode}, {epochs} epochs, seed {seed}: {len(missing)} trials in {time.perf_counter() - start:.0f} s", flush=True)


def measure_costs(study: Study, recipe: Recipe, work: Path) -> None:
    """Seconds per trial and epoch of every way, and where they go."""
    parent, splits = masternet(study, recipe, work), load_data(recipe.data, recipe.space.input, recipe.seed)
    seconds = costs_of_all_ways(recipe, parent, splits, PART, CPU)
    Costs(device=read_card(CPU).name, seconds=seconds).save(study.results / "costs-cpu.json")


def costs_of_all_ways(
    recipe: Recipe, parent: GENet, splits: Splits, part: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Seconds per trial of one epoch by way and kind, timed in turn on `part` images; the faster of two rounds."""
    found: dict[str, dict[str, float]] = {}
    few = Splits(FirstImages(splits.train, part), FirstImages(splits.nas_validation, part), splits.test)
    read = min(NORM_IMAGES, splits.train.size) / min(NORM_IMAGES, part)  # for statistics
    scale = dict.fromkeys(Seconds.model_fields, splits.train.size / part)
    scale |= {"validation": splits.nas_validation.size / part, "statistics": read}
    for _ in range(2):
        for way, (mode, alone) in WAYS.items():
            distill = recipe.distill.model_copy(update={"mode": mode, "epochs": 1})
            fine_tune = FineTune(TrialContext(parent, few, distill, recipe.search_resolution, 0), str(device))
            together = groups(planned(recipe, 0), workers=1)
            each = [[trial] for group in together for trial in group] if alone else together
            results = [event for group in each for event in fine_tune(group) if isinstance(event, TrialResult)]
            check_all_ended_well(results)
            seconds = {kind: scale[kind] * fmean(getattr(r.seconds, kind) for r in results) for kind in scale}
            if way not in found or sum(seconds.values()) < sum(found[way].values()):
                found[way] = seconds
            print(way, {kind: round(value, 2) for kind, value in seconds.items()}, flush=True)
    return found


def check_all_ended_well(results: Iterable[TrialResult]) -> None:
    """EvidenceError if one failed: what it took tells nothing."""
    failed = next((result for result in results if result.failure), None)
    if failed:
        raise EvidenceError(f"timing trials failed: got {failed.failure!r} of {failed.network}, expected all to end well")


class Costs(Record):
    """Per way of running trials: seconds per trial, of one epoch and (statistics) at its end."""

    device: str
    seconds: dict[str, dict[str, float]]

    def of(self, way: str, epochs: int) -> float:
        """Seconds of a trial of so many epochs."""
        parts = self.seconds[way]
        return parts["statistics"] + epochs * sum(value for kind, value in parts.items() if kind != "statistics")


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}; all in this order")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--study", choices=STUDIES, default="trials")
    parser.add_argument("--work", type=Path, help="where the images' links and weights go (default: runs/STUDY-benchmark)")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    recipe, work = study.recipe(), arguments.work or Path(f"runs/{study.name}-benchmark")
    keep_to(study, recipe)
    root = few_images(arguments.data, work / "images")
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": str(root.absolute())})})
    for part in arguments.parts:
        PARTS[part](study, recipe, work)


PARTS = {"truth": run_truth, "costs": measure_costs, "trials": run_trials_of_all_cells}

if __name__ == "__main__":
    main()
