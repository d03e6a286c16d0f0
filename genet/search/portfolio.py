"""Known designs that a search must beat: published shapes whose widths are scaled together.

They were made for 224 pixels, which they shrink to 7. For smaller images the first strides are removed, until the
last feature map is as large as the MasterNet's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from genet.arch.cost import network_cost
from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import MULTIPLE, Input, Network, SuperBlock, inner_width_is_exportable
from genet.arch.space import SearchSpace
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
    masternet = space.masternet(max(space.input.resolutions))
    stride = _total_stride([masternet.stem.stride, *(each.stride for each in masternet.superblocks)])
    designs = [Design(name=MASTERNET, network=masternet)]
    for name, shape in SHAPES.items():
        network = Network.parse(f"@224x3 | {shape} | 1000", name)
        designs.append(Design(name=name, network=_fitted(network, masternet.input, stride)))
    return tuple(designs)


def designs_of(recipe: Recipe) -> tuple[Design, ...]:
    """Return the designs that a recipe's race holds the search against: the known ones, and the recipe's own.

    SpecError for a design that cannot be read, has the name of another, or is for other images or classes.
    """
    space = recipe.space
    reads = space.masternet(recipe.search_resolution).input
    designs = list(known_designs(space))
    for text in recipe.race.designs:
        if text.startswith("timm:"):
            network: ModelSpec = ExternalModel(name=re.sub(r"[^\w.-]", "-", text), source=text, input=reads)
        else:
            network = Network.parse(text) if "|" in text else read_structure(text)
        asked, found = ((each.channels, each.classes) for each in (reads, network.input))
        if found != asked:
            raise SpecError(
                [
                    f"race.designs: got {text}, which reads {found[0]} channels and tells {found[1]} classes, expected "
                    f"{asked[0]} and {asked[1]}; change its input, or leave it out"
                ]
            )
        name = f"design-{network.digest[:6]}" if "|" in text else network.name
        if name in {design.name for design in designs}:
            raise SpecError([f"race.designs: got two designs called {name}, expected names that differ; rename one"])
        designs.append(Design(name=name, network=network))
    return tuple(designs)


def _every_width(network: ModelSpec) -> tuple[ModelSpec, ...]:
    """Return each scale that gives another network; one that other code builds is taken as it is."""
    if isinstance(network, ExternalModel):
        return (network,)
    count = round(STEPS_PER_DOUBLING * math.log2(WIDEST / NARROWEST))
    factors = (NARROWEST * 2 ** (step / STEPS_PER_DOUBLING) for step in range(count + 1))
    found = {str(each): each for each in (scaled(network, factor) for factor in factors)}
    return tuple(sorted(found.values(), key=lambda each: network_cost(each).macs))


def scaled(network: Network, factor: float) -> Network:
    """Return a network with all its widths scaled, each to the nearest that can be exported."""
    if factor == 1:
        return network  # the stem's width is free, and may be none of these

    def width(own: int, ratio: float | None = None) -> int:
        step = math.ceil(MULTIPLE / min(1.0, ratio or 1.0))  # least distance between legal widths
        most = math.ceil(own * max(1.0, factor)) + step + MULTIPLE
        legal = (each for each in range(MULTIPLE, most, MULTIPLE) if inner_width_is_exportable(each, ratio or 1.0))
        return min(legal, key=lambda each: abs(each - own * factor), default=own)

    def superblock(own: SuperBlock) -> SuperBlock:
        return own.model_copy(update={"width": width(own.width, own.ratio)})

    return network.model_copy(
        update={
            "stem": network.stem.model_copy(update={"width": width(network.stem.width)}),
            "superblocks": tuple(map(superblock, network.superblocks)),
            "head": network.head and network.head.model_copy(update={"width": width(network.head.width)}),
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
        if _total_stride(strides) > total_stride:
            strides[place] = 1
    superblocks = zip(network.superblocks, strides[1:], strict=True)
    return network.model_copy(
        update={
            "input": reads,
            "stem": network.stem.model_copy(update={"stride": strides[0]}),
            "superblocks": tuple(each.model_copy(update={"stride": stride}) for each, stride in superblocks),
        }
    )


def _total_stride(strides: Sequence[int]) -> int:
    return math.prod(strides)
