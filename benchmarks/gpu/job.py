"""A whole search on CIFAR-10, and its race against known designs at the same measured latency."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from genet.config.reader import read_recipe, to_yaml
from genet.config.recipe import Recipe
from genet.errors import DataError
from genet.storage import digest, write_atomic
from gpu.archive import DamagedArchiveError, unpack
from gpu.bench import Bench, command
from gpu.steps import smallest

IMAGES = "cifar10.tar.xz"
SEARCHED = "cifar10"
FEW = 8  # images of a class, with the smallest settings


def search(bench: Bench) -> None:
    """Run the job of the recipe `cifar10` with short trainings, from measuring to exports."""
    options = ["--data", str(images(bench)), "--device", str(bench.device), "--run", str(bench.folder / "run")]
    recipe, file = read_recipe(SEARCHED), bench.folder / "job.yaml"
    recipe = _small(recipe, bench.cuda) if bench.small else _short(recipe)
    write_atomic(file, to_yaml(recipe).encode())
    command("run", str(file), *options, *(["--any-master"] if bench.small else []))  # a step or two teach it nothing


def _short(recipe: Recipe) -> Recipe:
    """Return the recipe with a quarter of its final epochs, and a quick race: what fits into some minutes of one GPU."""

    update = {"epochs": max(2, recipe.train.epochs // 4), "warmup_epochs": 1}
    race = recipe.race.model_copy(update={"effort": "quick"})
    master, train = (part.model_copy(update=update) for part in (recipe.master, recipe.train))
    return recipe.model_copy(update={"master": master, "train": train, "race": race})


def images(bench: Bench) -> Path:
    """Return the folder of CIFAR-10, unpacked if it is not yet; DataError if its archive was not given.

    The smallest settings do without the archive, by noise. The folder's name follows from the archive alone, for it is a part of
    what a run is known by. The command removes it at its end.
    """
    archive = bench.supplies / IMAGES if bench.supplies else None
    if archive is None or not archive.exists():
        if bench.small:
            return _noise(bench.scratch / "images")
        raise DataError(f"taking CIFAR-10 failed: got no {IMAGES}, expected it in the folder on the command line; put it there")
    size = "-small" if bench.small else ""
    folder = Path(tempfile.gettempdir()) / f"genet-gpu-images-{digest(archive.read_bytes())[:12]}{size}"
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
    for each in unpacking.glob("*/*") if bench.small else ():  # a processor would train for minutes on all of them
        for image in sorted(each.iterdir())[FEW:]:
            image.unlink()
    unpacking.replace(folder)
    return folder


def _noise(folder: Path) -> Path:
    """Write images of noise as CIFAR-10 lies, `FEW` per class; return their folder."""
    draw = np.random.default_rng(0)
    for split, label in itertools.product(("train", "test"), range(10)):
        place = folder / split / f"class{label}"
        place.mkdir(parents=True)
        for index in range(FEW):
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{index}.png")
    return folder


def _small(recipe: Recipe, cuda: bool) -> Recipe:
    """Return the recipe with everything as small as it goes; a processor measures in fp32."""
    size = min(recipe.space.input.resolutions)
    perturb = recipe.space.perturb.model_copy(update={"width": (1.0, 1.0), "depth": (0, 1), "types": None, "trials_per_type": 1})
    network = smallest(recipe.space.masternet(size))
    reads = recipe.space.input.model_copy(update={"resolutions": (size,)})
    parts = {"stem": network.stem, "superblocks": network.superblocks, "head": network.head}
    space = recipe.space.model_copy(update={"input": reads, "perturb": perturb, **parts})
    measure = recipe.measure.model_copy(update={"batch": 2, "calibration_networks": 3} | ({} if cuda else {"dtype": "fp32"}))
    short = {"epochs": 1, "warmup_epochs": 0, "batch": 16}
    master, distill, train = (part.model_copy(update=short) for part in (recipe.master, recipe.distill, recipe.train))
    select = recipe.select.model_copy(update={"budgets": ("1.5x",), "measure_top_k": 1})
    return recipe.model_copy(
        update={
            "space": space,
            "data": recipe.data.model_copy(update={"workers": 0}),
            "resolution": size,
            "measure": measure,
            "master": master,
            "distill": distill,
            "select": select,
            "search": recipe.search.model_copy(update={"joint_trials": 2}),
            "race": recipe.race.model_copy(update={"effort": "quick"}),
            "train": train.model_copy(update={"epochs": 2}),  # joint trials are shorter
        }
    )
