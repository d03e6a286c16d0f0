"""A check that a MasterNet taken from a folder is that of the recipe's space."""

from __future__ import annotations

from pathlib import Path

from genet.config.reader import read_network
from genet.config.recipe import PretrainedMaster, Recipe
from genet.errors import SpecError


def check_pretrained(recipe: Recipe) -> None:
    """Raise SpecError if the MasterNet is to be taken from a folder that does not hold it, with weights."""
    if not isinstance(recipe.master, PretrainedMaster):
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
    if theirs != ours:
        raise SpecError([f"master.from: got {theirs} in {folder}, expected the space's MasterNet, {ours}; change one of them"])
