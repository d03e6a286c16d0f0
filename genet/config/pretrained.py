"""A check that the weights which a MasterNet is taken from, or begins with, are there and fit it."""

from __future__ import annotations

from pathlib import Path

from genet.arch.space import may_inherit
from genet.config.reader import read_network
from genet.config.recipe import PretrainedMaster, Recipe, TunedMaster
from genet.errors import SpecError


def check_pretrained(recipe: Recipe) -> None:
    """Raise SpecError if the MasterNet is to come from a folder that does not hold it, or one like it, with weights."""
    if not isinstance(recipe.master, PretrainedMaster | TunedMaster):
        return
    folder, ours = Path(recipe.master.folder), recipe.space.masternet(recipe.search_resolution)
    missing = [name for name in ("network.yaml", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise SpecError(
            [
                f"master.from: got {folder} without {missing[0]}, expected the space's MasterNet with trained weights; "
                "`genet import` and `genet train --into` write such a folder"
            ]
        )
    theirs = read_network(folder / "network.yaml").at(ours.input.resolution)
    if isinstance(recipe.master, TunedMaster):
        if not may_inherit(ours, theirs):
            raise SpecError(
                [
                    f"master.from: got {theirs} in {folder}, expected the channels, stem, head and number of super-blocks of the "
                    f"space's MasterNet, {ours}; change one of them"
                ]
            )
    elif theirs != ours:
        raise SpecError(
            [
                f"master.from: got {theirs} in {folder}, expected the space's MasterNet, {ours}; change one of them, or add a "
                "training (epochs, learning_rate) to begin with its weights"
            ]
        )
