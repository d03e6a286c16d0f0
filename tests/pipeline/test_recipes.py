"""The recipes that come along do what they say: the paper's search at a tiny size, and CIFAR-10 wherever its images are."""

from __future__ import annotations

from pathlib import Path

import pytest

from genet.arch.space import Ratios
from genet.config.reader import read_recipe
from genet.config.recipe import Data, Recipe
from genet.errors import DataError
from genet.pipeline.context import open_run
from genet.pipeline.run import run_job
from genet.progress import Progress
from genet.search.certificate import Selection
from genet.search.regression import Regression
from genet.training.inventory import images_in
from genet.training.splits import load_data

RESOLUTIONS = (16, 24, 32)


def shrunk(recipe: Recipe) -> Recipe:
    """The same settings with few narrow blocks, digits for images, and an epoch for each training."""
    space = recipe.space
    input_ = space.input.model_copy(update={"channels": 1, "classes": 10, "resolutions": RESOLUTIONS})
    blocks = tuple(
        block.model_copy(update={"width": 32 if block.type == "BL" else 16, "depth": 1 + number % 2, "stride": 1 + (number < 2)})
        for number, block in enumerate(space.superblocks)
    )
    perturb = space.perturb.model_copy(
        update={"trials_per_type": 2, "kernel": (3,), "ratio": Ratios(BL=(0.5,), DW=(3,)), "width": (0.5, 1.5)}
    )
    small = {"superblocks": blocks, "stem": space.stem.model_copy(update={"width": 8}), "perturb": perturb}
    space = space.model_copy(update={"input": input_, "head": space.head.model_copy(update={"width": 32}), **small})
    brief = {"epochs": 1, "warmup_epochs": 0, "batch": 64}
    schedules = {name: getattr(recipe, name).model_copy(update=brief) for name in ("master", "distill", "train")}
    measure = recipe.measure.model_copy(update={"device": "estimate:v100", "calibration_networks": 3})
    select = recipe.select.model_copy(update={"random_samples": 2000})
    return recipe.model_copy(
        update={"space": space, "data": Data(), "measure": measure, "resolution": 32, "select": select, **schedules}
    )


@pytest.mark.slow
def test_the_papers_search_runs_whole_at_a_tiny_size(tmp_path: Path) -> None:
    recipe = shrunk(read_recipe("genet-imagenet"))
    assert (recipe.distill.mode, recipe.distill.sampling, recipe.fit.model) == ("superblock", "random", "paper")
    with open_run(tmp_path / "run", Progress(), recipe) as job:
        outcomes = run_job(job, any_master=True)
        selection, regression = (
            job.folder.read(job.folder.selection, Selection),
            job.folder.read(job.folder.regression, Regression),
        )
    assert regression.model == "paper"
    assert {answer.resolution for frontier in [selection] for answer in frontier.answers} <= set(RESOLUTIONS)
    assert [str(outcome.budget) for outcome in outcomes.outcomes][:1] == ["1x"]


def test_cifar10_is_taken_from_image_folders_from_torchvisions_files_or_from_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_recipe("cifar10").data
    assert data.name == "torch/cifar10"
    (tmp_path / "images" / "train").mkdir(parents=True)
    assert images_in(data, str(tmp_path / "images")).name == "folder"
    assert images_in(data, str(tmp_path)).name == "torch/cifar10"
    assert images_in(data, str(tmp_path)).root == str(tmp_path)

    def offline(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError, match=r"torch/cifar10: got no images in .*cache/genet/cifar10 and no download .*--data FOLDER"):
        load_data(data, read_recipe("cifar10").space.input, 0)
