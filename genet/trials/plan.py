"""Which perturbed networks to fine-tune: the distillation step's random blocks (GENet paper, section 4.2)."""

from __future__ import annotations

import random

from genet.files import Record, digest
from genet.spec.network import BlockType, Network, SuperBlock
from genet.spec.space import SearchSpace, Widths, superblock_of


class Trial(Record):
    """One perturbed fine-tune: super-block `index` of the MasterNet becomes `superblock`."""

    index: int
    superblock: SuperBlock
    network: str  # the child's notation
    seed: int

    @property
    def id(self) -> str:
        """Names the trial in the journal: the child's digest."""
        return digest(self.network)[:12]


class TrialResult(Record):
    """What a trial found: NAS validation accuracy (0 to 1), or why it failed."""

    trial: str
    index: int
    superblock: SuperBlock
    accuracy: float | None
    failure: str | None
    seconds: float


def child_of(space: SearchSpace, index: int, superblock: SuperBlock, resolution: int) -> Network:
    """The MasterNet with one super-block replaced."""
    superblocks = (*space.superblocks[:index], superblock, *space.superblocks[index + 1 :])
    return space.network(superblocks, resolution)


def plan_trials(space: SearchSpace, widths: Widths, resolution: int, seed: int) -> tuple[Trial, ...]:
    """`perturb.samples` different perturbations per super-block and block type, uniform over depth and width.

    Where fewer exist, all of them. The MasterNet itself is not among them. The draw depends on the seed alone.
    """
    trials = []
    for (index, block_type), kept in widths.items():
        own = space.superblocks[index]
        possible = [superblock for superblock in _superblocks(space, index, block_type, kept) if superblock != own]
        draw = random.Random(f"{seed}/{index}/{block_type}")
        for superblock in draw.sample(possible, min(space.perturb.samples, len(possible))):
            notation = str(child_of(space, index, superblock, resolution))
            trial_seed = int(digest(f"{seed}/{notation}")[:12], 16)
            trials.append(Trial(index=index, superblock=superblock, network=notation, seed=trial_seed))
    return tuple(trials)


def _superblocks(space: SearchSpace, index: int, block_type: BlockType, kept: tuple[int, ...]) -> list[SuperBlock]:
    stride = space.superblocks[index].stride
    return [superblock_of(block_type, width, depth, stride) for depth in space.depths(index) for width in kept]
