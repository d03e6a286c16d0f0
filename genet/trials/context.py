"""What all trials of a search have in common."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from genet.config.recipe import Distill
from genet.models.build import GENet
from genet.storage import digest
from genet.training.splits import Splits


@dataclass(frozen=True)
class TrialContext:
    """The context of all trials of a search. `seed` decides batches and augmentation.

    Long trials leave checkpoints in `folder` every so often, and go on from them.
    """

    parent: GENet
    splits: Splits
    distill: Distill
    resolution: int
    seed: int
    folder: Path | None = None
    checkpoint_every_s: float = 60.0

    @cached_property
    def digest(self) -> str:
        """Names everything that its trials depend on, the MasterNet's weights among it, and the form of their checkpoints."""
        weights = hashlib.sha256()
        for tensor in self.parent.state_dict().values():
            weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        distill = self.distill.model_dump_json().replace('"paired_fraction"', '"joint_fraction"')  # as earlier versions call it
        return digest(f"2/{distill}/{self.resolution}/{self.seed}/{weights.hexdigest()}")
