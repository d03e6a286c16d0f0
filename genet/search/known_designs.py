"""Known designs that a search must beat or begin with: published shapes whose widths are scaled together.

They were made for 224 pixels, which they shrink to 7. For smaller images the first strides are removed, until the
last feature map is as large as the MasterNet's.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from genet.arch.cost import network_cost
from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import (
    MULTIPLE,
    BlockType,
    Head,
    Input,
    Network,
    Stem,
    SuperBlock,
    SuperBlockKind,
    inner_width_is_exportable,
)
from genet.arch.space import SearchSpace, superblock_of
from genet.config.reader import read_structure
from genet.config.recipe import Recipe
from genet.errors import SpecError
from genet.storage import Record

SHAPES = {
    "resnet18": "Conv k3 c64 s2 | XX k3 c64 s2 d2 | XX k3 c128 s2 d2 | XX k3 c256 s2 d2 | XX k3 c512 s2 d2",
    # RegNetX-200MF without its groups of eight channels
    "regnet": "Conv k3 c32 s2 | BL k3 c24 s2 d1 r1 | BL k3 c56 s2 d1 r1 | BL k3 c152 s2 d4 r1 | BL k3 c368 s2 d7 r1",
    "mobilenetv2": "Conv k3 c32 s2 | DW k3 c16 s1 d1 r1 | DW k3 c24 s2 d2 r6 | DW k3 c32 s2 d3 r6 | DW k3 c64 s2 d4 r6 "
    "| DW k3 c96 s1 d3 r6 | DW k3 c160 s2 d3 r6 | DW k3 c320 s1 d1 r6 | Conv k1 c1280",
    "genet": "Conv k3 c32 s2 | XX k3 c128 s2 d1 | XX k3 c192 s2 d2 | BL k3 c640 s2 d6 r0.25 | DW k3 c640 s2 d4 r3 "
    "| DW k3 c640 s1 d1 r3 | Conv k1 c2560",
}
MASTERNET = "masternet"
# GENet paper, table 6: depth and stride of the super-blocks of each stage, and block type and width of each stage.
LAYOUTS = {
    "8-4-2": (((1, 2),), ((4, 2),), ((8, 2),), ((4, 2), (2, 1))),
    "8-6": (((1, 2),), ((4, 2),), ((8, 2),), ((6, 2),)),
    "4-4-4": (((1, 2),), ((4, 2),), ((4, 2), (4, 1)), ((4, 2),)),
    "6-2-4": (((1, 2),), ((4, 2),), ((6, 2), (2, 1)), ((4, 2),)),
}
PATTERNS: tuple[tuple[tuple[SuperBlockKind, int], ...], ...] = (
    (("XX", 64), ("XX", 96), ("BL", 512), ("DW", 320)),
    (("XX", 48), ("XX", 64), ("DW", 160), ("DW", 320)),
    (("XX", 32), ("BL", 256), ("DW", 144), ("DW", 288)),
    (("DW", 24), ("DW", 64), ("DW", 128), ("DW", 256)),
    (("XX", 64), ("XX", 96), ("BL", 512), ("BL", 1024)),
)
KERNEL, RATIOS = 5, {"XX": None, "BL": 0.25, "DW": 6.0}  # the same
STEPS_PER_DOUBLING = 24  # factor of the widths: 3 % from one scale to the next
EDGE = 32  # channels: steps of staircases end at multiples of it, if anywhere
NARROWEST, WIDEST = 1 / 16, 4.0


class Design(Record):
    """A shape and its name. Networks of the family are scaled; a network that other code builds is taken as it is."""

    name: str
    network: ModelSpec

    @property
    def depths(self) -> tuple[ModelSpec, ...]:
        """The design at its own depths, at half of them, and so on down to one block each."""
        found: list[ModelSpec] = [self.network]
        while isinstance(last := found[-1], Network) and any(superblock.depth > 1 for superblock in last.superblocks):
            superblocks = (each.model_copy(update={"depth": math.ceil(each.depth / 2)}) for each in last.superblocks)
            found.append(last.model_copy(update={"superblocks": tuple(superblocks)}))
        return tuple(found)

    def forms(self, resolution: int) -> tuple[tuple[ModelSpec, ...], ...]:
        """Return the design at every depth and width; a form holds all scales of one depth, in the order of their MACs.

        If the number of kernels determines latency, as on a large GPU with small images, shallow networks are faster, narrow ones
        are not.
        """
        return tuple(_every_width(network.at(resolution)) for network in self.depths)


def known_designs(space: SearchSpace) -> tuple[Design, ...]:
    """Return the known designs for the images and classes of a space, its MasterNet first."""
    shapes = (Network.parse(f"@224x3 | {shape} | 1000", name) for name, shape in SHAPES.items())
    return (_as_written(space), *(_for_images(shape, space) for shape in shapes))


def pattern_designs(space: SearchSpace) -> tuple[Design, ...]:
    """Return the block types and layouts of the GENet paper's table 6, for the images and classes of a space.

    Kernels and ratios are the paper's, or the nearest to them that the space offers.
    """
    kernel = min(space.perturb.kernel, key=lambda each: abs(each - KERNEL))
    found = []
    for pattern in PATTERNS:
        ratios = {kind: _ratio(space, kind, [width for own, width in pattern if own == kind]) for kind, _ in pattern}
        for layout, stages in LAYOUTS.items():
            superblocks = [
                superblock_of(BlockType(kind, kernel, ratios[kind]), width, depth, stride)
                for (kind, width), stage in zip(pattern, stages, strict=True)
                for depth, stride in stage
            ]
            network = Network(
                name=f"{''.join(each.type[0] for each in superblocks)}-{layout}",
                input=Input(channels=3, classes=1000, resolution=224),
                stem=Stem(kernel=3, width=32, stride=2),
                superblocks=tuple(superblocks),
                head=Head(width=1280),
            )
            found.append(_for_images(network, space))
    return tuple(found)


def portfolio_of(space: SearchSpace) -> tuple[Design, ...]:
    """Return the designs that compete to be the MasterNet, that of the space first; without a tournament it is alone.

    Of designs that have the same blocks in the same order, however super-blocks divide them, the first competes.
    """
    found: dict[str, Design] = {}
    for design in _listed(space):
        found.setdefault(_undivided(design.network), design)
    return tuple(found.values())


def check_portfolio(space: SearchSpace) -> None:
    """Raise SpecError if two designs that compete to be the MasterNet have one name, or if the space's own is alone."""
    twice = [name for name, count in Counter(design.name for design in _listed(space)).items() if count > 1]
    if twice:
        raise SpecError([f"masternets: got two designs called {twice[0]}, expected names that differ; rename or leave out one"])
    if space.masternets and len(portfolio_of(space)) == 1:
        raise SpecError(
            [
                "masternets: got no design but the space's own MasterNet, expected another to compete with it; name known, "
                "patterns or a network of your own, or leave masternets out"
            ]
        )


def _listed(space: SearchSpace) -> list[Design]:
    """Return the MasterNet of a space, and all designs that its `masternets` name, in their order."""
    designs = [_as_written(space)]
    for listed in space.masternets or ():
        if isinstance(listed, Network):
            designs.append(Design(name=listed.name, network=listed.at(max(space.input.resolutions))))
        else:
            designs += known_designs(space)[1:] if listed == "known" else pattern_designs(space)
    return designs


def _undivided(network: ModelSpec) -> str:
    """Return the notation of a network, with super-blocks that continue the blocks of the one before merged into it."""
    if not isinstance(network, Network):
        return str(network)
    joined: list[SuperBlock] = []
    for each in network.superblocks:
        last = joined[-1] if joined else None
        alike = last and (each.block_type, each.width, each.stride) == (last.block_type, last.width, 1)
        if last and last.depth and alike:
            joined[-1] = last.model_copy(update={"depth": last.depth + each.depth})
        else:
            joined.append(each)
    return str(network.model_copy(update={"superblocks": tuple(joined)}))


def _as_written(space: SearchSpace) -> Design:
    return Design(name=MASTERNET, network=space.masternet(max(space.input.resolutions)))


def _for_images(network: Network, space: SearchSpace) -> Design:
    """Return a design for the images of a space, which it shrinks no more than the space's MasterNet does."""
    masternet = space.masternet(max(space.input.resolutions))
    stride = masternet.stem.stride * math.prod(each.stride for each in masternet.superblocks)
    return Design(name=network.name, network=_fitted(network, masternet.input, stride))


def _ratio(space: SearchSpace, kind: SuperBlockKind, widths: Sequence[int]) -> float | None:
    """Return the ratio on offer that is nearest to the paper's, of those that these widths allow; else the paper's."""
    paper = RATIOS[kind]
    if paper is None:
        return None
    offered = [each for each in getattr(space.perturb.ratio, kind) if all(inner_width_is_exportable(w, each) for w in widths)]
    return min(offered, key=lambda each: abs(each - paper), default=paper)


def designs_of(recipe: Recipe) -> tuple[Design, ...]:
    """Return the designs that a recipe's race holds the search against: the known ones, and the recipe's own.

    SpecError with every design that cannot be read, has the name of another, or is for other images or classes.
    """
    designs, faults = list(known_designs(recipe.space)), list[str]()
    reads = recipe.space.masternet(recipe.search_resolution).input
    for text in recipe.race.designs:
        try:
            network = _read_design(text, reads)
        except SpecError as fault:
            faults += [f"race.designs: {text}: {line}" for line in fault.faults]
            continue
        name = f"design-{network.digest[:6]}" if "|" in text else network.name
        faults += [f"race.designs: {text}: {line}" for line in _misfits(text, network, recipe)]
        if name in {design.name for design in designs}:
            faults.append(f"race.designs: got two designs called {name}, expected names that differ; rename one")
        designs.append(Design(name=name, network=network))
    if faults:
        raise SpecError(faults)
    return tuple(designs)


def _read_design(text: str, reads: Input) -> ModelSpec:
    if text.startswith("timm:"):
        return ExternalModel(name=re.sub(r"[^\w.-]", "-", text), source=text, input=reads)
    return Network.parse(text) if "|" in text else read_structure(text)


def _misfits(text: str, network: ModelSpec, recipe: Recipe) -> Iterator[str]:
    """Yield what is wrong with a design for the images, the classes or a resolution of a recipe, each with its own remedy."""
    asked, found, own, notation = recipe.space.input, network.input, isinstance(network, Network), "|" in text
    if found.channels != asked.channels:
        remedy = f"begin it with @{found.resolution}x{asked.channels}" if notation else f"set input.channels to {asked.channels}"
        failure = f"got a network that reads {found.channels} channels, expected {asked.channels}"
        yield f"{failure}; {remedy if own else 'leave it out'}"
    if found.classes != asked.classes:
        remedy = f"end it with | {asked.classes}" if notation else f"set input.classes to {asked.classes}"
        failure = f"got a network for {found.classes} classes, expected {asked.classes}"
        yield f"{failure}; {remedy if own else f'import it again, with --classes {asked.classes}'}"
    for resolution in asked.resolutions if own else ():
        try:
            network.at(resolution)
        except SpecError as fault:
            yield from (f"at {resolution} pixels: {line}" for line in fault.faults)


def _every_width(network: ModelSpec) -> tuple[ModelSpec, ...]:
    """Return each scale that gives another network; one that other code builds is taken as it is."""
    if isinstance(network, ExternalModel):
        return (network,)
    count = round(STEPS_PER_DOUBLING * math.log2(WIDEST / NARROWEST))
    factors = (NARROWEST * 2 ** (step / STEPS_PER_DOUBLING) for step in range(count + 1))
    found = {str(each): each for each in (scaled(network, factor) for factor in factors)}
    return tuple(sorted(found.values(), key=lambda each: network_cost(each).macs))


@lru_cache(maxsize=10_000)
def _nearest_width(own: int, ratio: float | None, factor: float) -> int:
    """Return the width nearest to the scaled one that can be exported; every depth and resolution of a design asks for it."""
    step = math.ceil(MULTIPLE / min(1.0, ratio or 1.0))  # least distance between legal widths
    most = math.ceil(own * max(1.0, factor)) + step + MULTIPLE
    legal = (each for each in range(MULTIPLE, most, MULTIPLE) if inner_width_is_exportable(each, ratio or 1.0))
    return min(legal, key=lambda each: abs(each - own * factor), default=own)


def scaled(network: Network, factor: float) -> Network:
    """Return a network with all its widths scaled, each to the nearest that can be exported."""
    if factor == 1:
        return network  # the stem's width is free, and may be none of these

    def superblock(own: SuperBlock) -> SuperBlock:
        return own.model_copy(update={"width": _nearest_width(own.width, own.ratio, factor)})

    return network.model_copy(
        update={
            "stem": network.stem.model_copy(update={"width": _nearest_width(network.stem.width, None, factor)}),
            "superblocks": tuple(map(superblock, network.superblocks)),
            "head": network.head and network.head.model_copy(update={"width": _nearest_width(network.head.width, None, factor)}),
        }
    )


def to_next_edge(network: Network, index: int) -> Network | None:
    """Return the network with super-block `index` widened to the next possible end of a step; None if it is at one."""
    superblock = network.superblocks[index]
    edges = (width for width in range(superblock.width + MULTIPLE, 2 * superblock.width, MULTIPLE) if width % EDGE == 0)
    width = next((each for each in edges if inner_width_is_exportable(each, superblock.ratio or 1.0)), None)
    if width is None or superblock.width % EDGE == 0 or superblock.depth == 0:  # a super-block without blocks has no width
        return None
    superblocks = list(network.superblocks)
    superblocks[index] = superblock.model_copy(update={"width": width})
    return network.model_copy(update={"superblocks": tuple(superblocks)})


def _fitted(network: Network, reads: Input, total_stride: int) -> Network:
    """Return a network for other images, without its first strides if it would shrink them more than so many times.

    The stride behind the stem's goes first, then the stem's, then those behind.
    """
    strides = [network.stem.stride, *(each.stride for each in network.superblocks)]
    places = [place for place, stride in enumerate(strides) if stride > 1]
    for place in [*places[1:2], *places[:1], *places[2:]]:
        if math.prod(strides) > total_stride:
            strides[place] = 1
    superblocks = zip(network.superblocks, strides[1:], strict=True)
    return network.model_copy(
        update={
            "input": reads,
            "stem": network.stem.model_copy(update={"stride": strides[0]}),
            "superblocks": tuple(each.model_copy(update={"stride": stride}) for each, stride in superblocks),
        }
    )
