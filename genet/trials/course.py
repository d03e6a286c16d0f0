"""What all trials of a search have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genet.nets.build import GENet
from genet.nets.data import Splits
from genet.spec.recipe import Distill


@dataclass(frozen=True)
class Course:
    """What all trials of a search have in common. `seed` decides batches and augmentation.

    In `folder` trials that take long leave checkpoints every so often, and go on from them.
    """

    parent: GENet
    splits: Splits
    distill: Distill
    resolution: int
    seed: int
    folder: Path | None = None
    checkpoint_every_s: float = 600.0
