"""What trials cost on this device: by mode, and with several workers side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from scaling import report
from trials import Costs, costs_of_all_ways
from trials_table import costs_table

from genet.config.reader import read_recipe
from genet.config.recipe import Recipe
from genet.models.build import build
from genet.storage import write_atomic
from genet.training.image_sets import TensorImages
from genet.training.splits import Splits
from gpu.bench import Bench

LITTLE = Path(__file__).parents[1] / "trials.yaml"


def trials(bench: Bench) -> None:
    """Time a trial of every mode, for 32x32 images and for the paper's MasterNet at 224 pixels, with images in memory."""
    lines = [f"# Cost of a trial, images in memory\n\n{bench.card.name}"]
    little, paper = read_recipe(str(LITTLE)), read_recipe("genet-imagenet")
    asked = [("32x32", little, 256, 2048), ("the paper's MasterNet, 224 pixels", paper, 64, 256)]
    for name, recipe, batch, images in [("32x32", little, 8, 16)] if bench.small else asked:
        few = recipe.space.perturb.model_copy(update={"trials_per_type": 1})
        space = recipe.space.model_copy(update={"perturb": few})
        if bench.small:
            superblocks = tuple(block.model_copy(update={"depth": 1}) for block in space.superblocks[:2])
            space = space.model_copy(update={"superblocks": superblocks})
        distill = recipe.distill.model_copy(update={"batch": batch})
        recipe = recipe.model_copy(update={"space": space, "distill": distill})
        kept = bench.folder / f"costs-{recipe.search_resolution}.json"
        if not kept.exists():
            parent = build(space.masternet(recipe.search_resolution))
            seconds = costs_of_all_ways(recipe, parent, _random_images(recipe, images), images, bench.device)
            Costs(device=bench.card.name, seconds=seconds).save(kept)
        lines += [f"\n{name}, batch {batch}, {images} images an epoch\n", costs_table(Costs.load(kept).seconds)]
        write_atomic(bench.folder / "trials.md", "\n".join(lines).encode())


def _random_images(recipe: Recipe, count: int) -> Splits:
    """Costs do not depend on what is seen."""
    size, reads = recipe.search_resolution, recipe.space.input
    images = TensorImages(torch.randn(count, reads.channels, size, size), torch.randint(0, reads.classes, (count,)))
    return Splits(images, images, images)


def workers(bench: Bench) -> None:
    """Time the trials of digits with 1, 2 and 4 workers on the one device."""
    text = report(str(bench.device), (1,), most=2) if bench.small else report(str(bench.device), (1, 2, 4))
    write_atomic(bench.folder / "workers.md", text.encode())
