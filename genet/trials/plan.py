"""The plan of perturbed networks to fine-tune: the distillation step's blocks (GENet paper, section 4.2).

The paper draws them at random. `designed` spreads them instead: first the corners of depth and width, where a slope shows most,
then always the perturbation farthest from all earlier ones. Every super-block has a control trial, the MasterNet itself
fine-tuned like the others, so that more training is not mistaken for a better structure; and if its type may change, a second one
with fresh weights, so that learning from scratch is not mistaken for a worse type. A super-block that cannot have a block has no
trials.
"""

from __future__ import annotations

import itertools
import math
import operator
import random
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from genet.arch.network import BlockType, Network, SuperBlock
from genet.arch.space import SearchSpace, WidthsOnOffer, superblock_of
from genet.config.recipe import Distill
from genet.storage import Record, digest

FRESH = "/fresh"  # suffix of the network in the names of controls with fresh weights


class Change(Record):
    """Super-block `index` (from 0) of the MasterNet becomes `superblock`."""

    index: int
    superblock: SuperBlock


class Trial(Change):
    """One perturbed fine-tune, or a `control`: the MasterNet itself, inherited or with `fresh` weights in the super-block.

    `also` holds a second perturbation if the trial checks that effects add up.
    """

    also: tuple[Change, ...] = ()
    control: bool = False
    fresh: bool = False
    network: str  # the child's notation
    seed: int

    @property
    def id(self) -> str:
        """Names the trial in the journal: by its place and the child."""
        return digest(f"{self.index}/{self.network}{FRESH * self.fresh}")[:12]

    @property
    def reference(self) -> bool:
        """The control that changes of accuracy are relative to."""
        return self.control and not self.fresh

    @property
    def last(self) -> int:
        """The last super-block that is perturbed."""
        return max(change.index for change in (self, *self.also))


def plan_trials(space: SearchSpace, widths: WidthsOnOffer, resolution: int, seed: int, distill: Distill) -> tuple[Trial, ...]:
    """Plan controls per super-block, `perturb.trials_per_type` perturbations per super-block and block type, and paired ones.

    No perturbation is repeated; if fewer exist, all are tried. The plan depends on the arguments alone.
    """

    make = partial(_trial, space, resolution, seed)
    own = space.superblocks
    controls = [make(index, own[index], control=True) for index in range(len(own)) if space.block_types(index)]
    retyped = dict.fromkeys(index for index, kind in widths if kind.kind != own[index].type and own[index].depth)
    controls += [make(index, own[index], control=True, fresh=True) for index in retyped]
    perturbed = []
    for (index, block_type), kept in widths.items():
        possible = [each for each in _superblocks(space, index, block_type, kept) if each != own[index]]
        rng = random.Random(f"{seed}/{index}/{block_type}")
        count = min(space.perturb.trials_per_type, len(possible))
        chosen = rng.sample(possible, count) if distill.sampling == "random" else _spread(possible, count, rng)
        perturbed += [make(index, superblock) for superblock in chosen]
    pairs = _pairs(perturbed, round(distill.paired_fraction * len(perturbed)), random.Random(f"{seed}/joint"))
    paired = [make(one.index, one.superblock, also=(Change(index=o.index, superblock=o.superblock),)) for one, o in pairs]
    return (*controls, *perturbed, *paired)


def possible_trials(space: SearchSpace, widths: WidthsOnOffer, resolution: int, seed: int) -> tuple[Trial, ...]:
    """Return every trial of one perturbation, whether planned or not."""
    make = partial(_trial, space, resolution, seed)
    own = space.superblocks
    return tuple(
        make(index, superblock)
        for (index, block_type), kept in widths.items()
        for superblock in _superblocks(space, index, block_type, kept)
        if superblock != own[index]
    )


def _trial(space: SearchSpace, resolution: int, seed: int, index: int, superblock: SuperBlock, **more: Any) -> Trial:
    also = more.get("also", ())
    network = str(_child(space, (Change(index=index, superblock=superblock), *also), resolution))
    trial_seed = int(digest(f"{seed}/{index}/{network}{FRESH * more.get('fresh', False)}")[:12], 16)
    return Trial(index=index, superblock=superblock, network=network, seed=trial_seed, **more)


def groups(trials: Iterable[Trial], workers: int) -> list[tuple[Trial, ...]]:
    """Return trials by their super-block, whose frozen part they share; the most expensive first, and no worker idle.

    A group of every super-block is enough for one worker; several get about two groups each.
    """
    place = operator.attrgetter("index")
    by_index = {index: tuple(group) for index, group in itertools.groupby(sorted(trials, key=place), key=place)}
    largest = max(map(len, by_index.values()), default=1)
    if workers > 1:
        largest = min(largest, math.ceil(sum(map(len, by_index.values())) / (2 * workers)))
    return [group[k : k + largest] for group in by_index.values() for k in range(0, len(group), largest)]


def _child(space: SearchSpace, changes: Iterable[Change], resolution: int) -> Network:
    """Return the MasterNet with some super-blocks replaced."""
    superblocks = list(space.superblocks)
    for change in changes:
        superblocks[change.index] = change.superblock
    return space.network(tuple(superblocks), resolution)


def _superblocks(space: SearchSpace, index: int, block_type: BlockType, kept: tuple[int, ...]) -> list[SuperBlock]:
    """Return the super-blocks of a block type; the single one without blocks belongs to the MasterNet's own type."""
    own, depths = space.superblocks[index], space.depths(index)
    none = [space.vanished(index)] if 0 in depths and block_type == own.block_type else []
    some = [superblock_of(block_type, width, depth, own.stride) for depth in filter(None, depths) for width in kept]
    return none + some


def _spread(possible: Sequence[SuperBlock], count: int, rng: random.Random) -> list[SuperBlock]:
    """Return `count` super-blocks: corners of depth and log-width first, then always the farthest from all taken; ties are drawn.

    The one without blocks is a corner too.
    """
    if not possible:
        return []
    places = _places(possible)
    order = rng.sample(list(possible), len(possible))  # ties fall to the first of a drawn order
    corners = [each for each in order if set(places[each]) <= {0.0, 1.0} or not each.depth]
    chosen: list[SuperBlock] = []
    while len(chosen) < count:
        left = [each for each in corners if each not in chosen] or [each for each in order if each not in chosen]
        chosen.append(max(left, key=lambda each: min((math.dist(places[each], places[one]) for one in chosen), default=0.0)))
    return chosen


def _places(possible: Sequence[SuperBlock]) -> dict[SuperBlock, tuple[float, float]]:
    """Return the depth and log-width of each, from 0 (least of all that have blocks) to 1 (most)."""
    depths = [each.depth for each in possible if each.depth] or [0]
    widths = [math.log2(each.width) for each in possible]

    def share(value: float, values: Sequence[float]) -> float:
        return (value - min(values)) / ((max(values) - min(values)) or 1.0)

    return {each: (share(each.depth, depths), share(math.log2(each.width), widths)) for each in possible}


def _pairs(trials: Sequence[Trial], count: int, rng: random.Random) -> list[tuple[Trial, Trial]]:
    """Return distinct pairs of trials of different super-blocks; each pair in the order of the network."""
    possible = [(one, other) for one, other in itertools.combinations(trials, 2) if one.index != other.index]
    chosen = rng.sample(possible, min(count, len(possible)))
    return [(one, other) if one.index < other.index else (other, one) for one, other in chosen]
