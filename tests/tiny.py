"""A search space and a recipe small enough for a test: two super-blocks, 16 pixels, one epoch each."""

from __future__ import annotations

from pathlib import Path

from genet.spec.reader import read_recipe
from genet.spec.recipe import Recipe

SPACE = """
name: tiny
input: {channels: 1, classes: 10, resolutions: [16]}
stem: {kernel: 3, width: 8, stride: 2}
superblocks:
  - {type: XX, depth: 1, width: 16, stride: 2, kernel: 3}
  - {type: DW, depth: 2, width: 16, stride: 2, kernel: 3, ratio: 2}
head: {width: 32}
perturb: {width: [0.5, 1.5], depth: [-1, 1], kernel: [3], ratio: {BL: [0.5], DW: [2]}, types: [XX, DW], samples: 2}
widths: wave-aligned
"""

RECIPE = """
name: tiny
space: tiny-space.yaml
data: {name: digits, nas_validation: 0.25}
measure: {device: cpu, networks: 3}
master: {epochs: 3, batch: 64, learning_rate: 0.4}
distill: {epochs: 1, batch: 128, learning_rate: 0.1}
select: {budgets: [3.0x, 0.000001], candidates: 2}   # one that any network meets, however the machine is disturbed
race: {effort: quick}
train: {epochs: 2, batch: 64, learning_rate: 0.4}
"""


def write_recipe(folder: Path, recipe: str = RECIPE, space: str = SPACE) -> Path:
    """Write the tiny recipe and its space into a folder; returns the recipe's path."""
    (folder / "tiny-space.yaml").write_text(space)
    (folder / "tiny.yaml").write_text(recipe)
    return folder / "tiny.yaml"


def tiny_recipe(folder: Path) -> Recipe:
    """The tiny recipe as a record."""
    return read_recipe(write_recipe(folder))
