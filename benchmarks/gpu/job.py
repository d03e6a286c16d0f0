"""A whole search on CIFAR-10, and a ResNet-18 scaled to the latency of what it selects, trained by the same recipe."""

from __future__ import annotations

import math
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from budgets import scaled_masternet, share_of, widest_within

from genet import pipeline
from genet.choose.outcome import Outcome, Outcomes
from genet.commands.printing import progress
from genet.errors import DataError, EvidenceError
from genet.files import Journal, digest, write_atomic
from genet.job import Job, open_job
from genet.runfolder import RunFolder
from genet.spec.cost import network_cost
from genet.spec.network import MULTIPLE, Network
from genet.spec.reader import read_recipe, to_yaml
from genet.spec.recipe import Recipe, TrainingRecipe
from gpu.archive import DamagedArchiveError, unpack
from gpu.bench import Bench, command
from gpu.steps import RESNET18, smallest

IMAGES = "cifar10.tar.xz"
SEARCHED = "cifar10"


def search(bench: Bench) -> None:
    """Run the job of the recipe `cifar10`, from measuring to exports."""
    options = ["--data", str(images(bench)), "--device", str(bench.device), "--run", str(bench.folder / "run")]
    if not bench.small:
        command("run", SEARCHED, *options)
        return
    recipe = bench.folder / "small.yaml"
    write_atomic(recipe, to_yaml(_small(read_recipe(SEARCHED), bench.cuda)).encode())
    command("run", str(recipe), *options, "--any-master")  # a step or two teach it nothing


def images(bench: Bench) -> Path:
    """Return the folder of CIFAR-10, unpacked if it is not yet; DataError if its archive was not given.

    Where it lies is part of what a run is known by, so it follows from the archive alone. The command removes it at its end.
    """
    archive = bench.supplies / IMAGES if bench.supplies else None
    if archive is None or not archive.exists():
        raise DataError(f"taking CIFAR-10 failed: got no {IMAGES}, expected it in the folder on the command line; put it there")
    folder = Path(tempfile.gettempdir()) / f"genet-gpu-images-{digest(archive.read_bytes())[:12]}"
    (bench.scratch / "images.txt").write_text(str(folder))
    if folder.exists():
        return folder
    unpacking = Path(tempfile.mkdtemp(prefix="genet-gpu-images-", dir=bench.scratch))
    done = subprocess.run(["tar", "-xJf", str(archive), "-C", str(unpacking)], capture_output=True, text=True, check=False)
    if done.returncode:  # without xz on the machine tar cannot read it, and Python, which takes four times as long, can
        try:
            unpack(archive, unpacking)
        except DamagedArchiveError as fault:
            raise DataError(f"{fault}; fetch it again") from None
    unpacking.replace(folder)
    return folder


def _small(recipe: Recipe, cuda: bool) -> Recipe:
    """Return the recipe with everything as small as it goes; a processor measures in fp32."""
    size = min(recipe.space.input.resolutions)
    perturb = recipe.space.perturb.model_copy(update={"width": (1.0, 1.0), "depth": (0, 1), "types": None, "samples": 1})
    network = smallest(recipe.space.masternet(size))
    reads = recipe.space.input.model_copy(update={"resolutions": (size,)})
    parts = {"stem": network.stem, "superblocks": network.superblocks, "head": network.head}
    space = recipe.space.model_copy(update={"input": reads, "perturb": perturb, **parts})
    measure = recipe.measure.model_copy(update={"batch": 2, "networks": 3} | ({} if cuda else {"dtype": "fp32"}))
    short = {"epochs": 1, "warmup_epochs": 0, "batch": 16}
    master, distill, train = (part.model_copy(update=short) for part in (recipe.master, recipe.distill, recipe.train))
    select = recipe.select.model_copy(update={"budgets": ("3x",), "candidates": 1})
    return recipe.model_copy(
        update={
            "space": space,
            "data": recipe.data.model_copy(update={"workers": 0}),
            "resolution": size,
            "measure": measure,
            "master": master,
            "distill": distill,
            "select": select,
            "train": train,
        }
    )


def rival(bench: Bench) -> None:
    """Per budget: scale ResNet-18 to what was selected, measured in turn with the MasterNet, and train it by the same recipe.

    EvidenceError if the search has no selected network, or if no width is as fast.
    """
    run, journal = bench.beside("search") / "run", Journal(bench.folder / "rivals.jsonl")
    if not (run / "recipe.yaml").exists():
        raise EvidenceError(f"scaling ResNet-18 failed: got no search in {run}, expected its selected networks; run it first")
    with open_job(run, progress(), _with_images(RunFolder(run).recipe(), images(bench))) as job:
        results = job.folder.read(job.folder.results, Outcomes)
        known = {(record["budget"], record["selected"]) for record in journal.read().records}
        for outcome in results.outcomes:
            if (str(outcome.budget), outcome.network) not in known:
                journal.append(_raced(bench, job, outcome))


def _with_images(recipe: Recipe, root: Path) -> Recipe:
    """Return the recipe with the images where they are now: a run goes on in other folders than it began in."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": str(root)})})


def _scaled(network: Network, width: float) -> str:
    """Return a network with all its widths scaled, that of the stem too."""
    stem = network.stem.model_copy(update={"width": max(MULTIPLE, MULTIPLE * round(network.stem.width * width / MULTIPLE))})
    return scaled_masternet(network.model_copy(update={"stem": stem}), width)


def _raced(bench: Bench, job: Job, outcome: Outcome) -> dict[str, object]:
    """Return both networks with their latencies and accuracies."""
    start = Network.parse(RESNET18.format(outcome.resolution, job.recipe.space.input.classes))
    start = smallest(start) if bench.small else start
    share = share_of(job, outcome.network)
    notation, reached = widest_within(job, share, partial(_scaled, start))
    if not notation:
        raise EvidenceError(f"scaling ResNet-18 failed: got none as fast as {share:.2f} of the MasterNet; raise the budget")
    network = Network.parse(notation, name=f"resnet18-{outcome.budget}")
    recipe = TrainingRecipe(
        name=job.recipe.name, data=job.recipe.data, device=str(bench.device), train=job.recipe.train, seed=job.recipe.seed
    )
    folder = bench.folder / network.name
    trained = pipeline.train_network_into(folder, network, recipe, bench.device, job.progress)
    per_image = job.table.masternet_ms(job.masternet) / job.table.setting.batch
    spread = math.sqrt(trained.test_accuracy * (1 - trained.test_accuracy) / job.splits.test.size)
    return {
        "budget": str(outcome.budget),
        "setting": str(job.table.setting),
        "selected": outcome.network,
        "selected_ms_per_image": share * per_image,
        "selected_test_accuracy": outcome.test_accuracy,
        "selected_nas_accuracy": outcome.nas_accuracy,
        "selected_macs": outcome.macs,
        "rival": notation,
        "rival_ms_per_image": reached * per_image,
        "rival_test_accuracy": trained.test_accuracy,
        "rival_nas_accuracy": trained.nas_accuracy,
        "rival_macs": network_cost(network).macs,
        "standard_error": spread,
    }
