"""MasterNets of the benchmarks' recipes as functions, for tools that begin with a network that code builds."""

from __future__ import annotations

from pathlib import Path

from genet.config.reader import read_recipe
from genet.models.build import GENet, build

HERE = Path(__file__).parent


def digits() -> GENet:
    """Return the MasterNet of `genet run digits`."""
    return _masternet("digits")


def fidelity() -> GENet:
    """Return the MasterNet of fidelity.yaml, at which budgets.py searches too."""
    return _masternet(HERE / "fidelity.yaml")


def _masternet(recipe: str | Path) -> GENet:
    read = read_recipe(recipe)
    return build(read.space.masternet(read.search_resolution))
