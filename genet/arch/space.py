"""A search space: the MasterNet and how far each of its super-blocks may be perturbed (GENet paper, section 5).

Depths, widths, kernels, ratios and types are offered per super-block; every combination of one choice per
super-block is a network of the space. Depths never fall below 1, or 0 for a super-block of stride 1, which may vanish; the
MasterNet's own choices are always there.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from genet.arch.cost import block_cost
from genet.arch.external import ModelSpec
from genet.arch.network import (
    MULTIPLE,
    Block,
    BlockType,
    Count,
    Head,
    Input,
    Kernel,
    Name,
    Network,
    NonEmpty,
    Stem,
    SuperBlock,
    SuperBlockKind,
    SuperBlocks,
    blocks,
    broken_rule,
    inner_width_is_exportable,
    out_size,
    superblock_blocks,
    superblocks_that_fit,
)
from genet.storage import Described


class SpaceInput(Described):
    """The input and output of all networks of the space. The resolution is searched too."""

    channels: Count
    """Channels of an image: 1 or 3."""
    classes: Annotated[int, Field(ge=2)]
    """Classes of the images."""
    resolutions: Annotated[tuple[Count, ...], NonEmpty]
    """Resolutions to choose from: height and width in pixels."""

    @field_validator("resolutions")
    @classmethod
    def _resolutions_differ(cls, resolutions: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(resolutions)) < len(resolutions):
            raise broken_rule("must all differ")
        return resolutions


class Ratios(Described):
    """Inner widths to choose from, as shares of the width. XX has none."""

    BL: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], NonEmpty] = (0.25,)
    """For bottlenecks."""
    DW: Annotated[tuple[Annotated[float, Field(ge=1)], ...], NonEmpty] = (6.0,)
    """For depthwise blocks."""


class Perturb(Described):
    """How far a super-block may differ from the MasterNet's."""

    width: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(ge=1)]]
    """Smallest and largest width, as factors of the MasterNet's width."""
    depth: tuple[Annotated[int, Field(le=0)], Annotated[int, Field(ge=0)]]
    """Smallest and largest change of the MasterNet's depth. Depth stays at least 1, or 0 with stride 1."""
    kernel: Annotated[tuple[Kernel, ...], NonEmpty]
    """Kernel sizes to choose from."""
    ratio: Ratios = Ratios()
    """Inner widths to choose from."""
    types: Annotated[tuple[SuperBlockKind, ...], NonEmpty] | None = None
    """Block types to choose from in every super-block. By default each keeps its own."""
    trials_per_type: Count
    """Number of trials per super-block and block type."""


class MultipleOf(Described):
    """A plain grid of widths, instead of the measured staircase edges."""

    multiple_of: Annotated[int, Field(ge=MULTIPLE, multiple_of=MULTIPLE)]
    """Step of the grid, in channels."""


WidthRule = Annotated[
    Annotated[Literal["wave-aligned"], Tag("aligned")] | Annotated[MultipleOf, Tag("grid")],
    Discriminator(lambda value: "grid" if isinstance(value, dict | MultipleOf) else "aligned"),
]


def _group(name: Any) -> str:
    if name not in get_args(DesignGroup):
        near = difflib.get_close_matches(str(name), get_args(DesignGroup), n=1)
        raise broken_rule(f"must be {', '.join(get_args(DesignGroup))}, a notation, or the file or folder of a network", *near)
    return str(name)


def _for_the_images(own: Network, info: ValidationInfo) -> Network:
    """Refuse a network that cannot be the MasterNet for the images of the space."""
    input_: SpaceInput | None = info.data.get("input")
    if input_ is None:
        return own
    stride, smallest = own.stem.stride * math.prod(each.stride for each in own.superblocks), min(input_.resolutions)
    broken = []
    if (own.input.channels, own.input.classes) != (input_.channels, input_.classes):
        broken.append(
            broken_rule(
                f"must have {input_.channels} channels and {input_.classes} classes like the space, not {own.input.channels} "
                f"and {own.input.classes}"
            )
        )
    if stride > smallest:
        broken.append(broken_rule(f"must have a total stride of at most {smallest} pixels, not {stride}"))
    if broken:  # told by its name, for its keys are many
        raise ValidationError.from_exception_data("network", [{"type": each, "loc": (), "input": own.name} for each in broken])
    return own


DesignGroup = Literal["known", "patterns"]
OwnDesign = Annotated[Network, AfterValidator(_for_the_images)]
MasterNets = Annotated[
    tuple[
        Annotated[
            Annotated[DesignGroup, BeforeValidator(_group), Tag("group")] | Annotated[OwnDesign, Tag("own")],
            Discriminator(lambda value: "own" if isinstance(value, dict | Network) else "group"),
        ],
        ...,
    ],
    NonEmpty,
]
WidthsOnOffer = dict[tuple[int, BlockType], tuple[int, ...]]  # (super-block, block type) -> widths on offer, ascending


class SearchSpace(Described):
    """A MasterNet with the ranges of its perturbations."""

    name: Name
    """Name of the networks of the space."""
    input: SpaceInput
    """Their input and output."""
    stem: Stem
    """Their first convolution."""
    superblocks: SuperBlocks
    """The MasterNet's super-blocks."""
    head: Head | None = None
    """Their 1x1 convolution before the classifier. Without this key, no network has one."""
    masternets: MasterNets | None = None
    """Designs that compete with the MasterNet in this file, each scaled to its latency. The best becomes the MasterNet. `known`:
    plain ResNet, RegNet, MobileNetV2 and GENet. `patterns`: the block types and layouts of the GENet paper's table 6. Also
    networks of your own: files, folders or notations. Without this key there is no tournament."""
    perturb: Perturb
    """How far a super-block may differ from the MasterNet's."""
    widths: WidthRule
    """`wave-aligned`: the edges of the device's latency staircase. `{multiple_of: N}`: a plain grid."""

    @field_validator("superblocks", mode="wrap")
    @classmethod
    def _total_stride_fits(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        smallest = min(info.data["input"].resolutions) if "input" in info.data else None
        return superblocks_that_fit(value, handler, info.data.get("stem"), smallest)

    def around(self, masternet: Network) -> SearchSpace:
        """Return the same space around another MasterNet."""
        parts = {"stem": masternet.stem, "superblocks": masternet.superblocks, "head": masternet.head}
        return self.model_copy(update=parts)

    def network(self, superblocks: tuple[SuperBlock, ...], resolution: int, name: str = "network") -> Network:
        """Return the space's stem and head around the given super-blocks."""
        input_ = Input(channels=self.input.channels, classes=self.input.classes, resolution=resolution)
        return Network(name=name, input=input_, stem=self.stem, superblocks=superblocks, head=self.head)

    def masternet(self, resolution: int) -> Network:
        """Return the unperturbed network."""
        return self.network(self.superblocks, resolution, name=self.name)

    def block_types(self, index: int) -> tuple[BlockType, ...]:
        """Return the block types on offer for super-block `index`, the MasterNet's first; none if no depth has a block."""
        if not max(self.depths(index)):
            return ()
        own = self.superblocks[index].block_type
        offered = {own: None}
        for kind in self.perturb.types or (own.kind,):
            ratios: tuple[float | None, ...] = (None,) if kind == "XX" else getattr(self.perturb.ratio, kind)
            offered |= {BlockType(kind, kernel, ratio): None for kernel in self.perturb.kernel for ratio in ratios}
        return tuple(block_type for block_type in offered if self._grid(index, block_type))

    def depths(self, index: int) -> tuple[int, ...]:
        """Return the depths on offer for super-block `index`, at least 1, or 0 if it does not stride."""
        low, high = self.perturb.depth
        own = self.superblocks[index]
        least = 0 if own.stride == 1 else 1
        return tuple(range(max(least, own.depth + low), own.depth + high + 1))

    def widths_on_offer(self) -> WidthsOnOffer:
        """Return every width that could be offered, before any is dropped for lying inside a step of the staircase."""
        return {
            (index, block_type): self._grid(index, block_type)
            for index in range(len(self.superblocks))
            for block_type in self.block_types(index)
        }

    def _grid(self, index: int, block_type: BlockType) -> tuple[int, ...]:
        """Return the multiples inside the range whose inner width is exportable too, and the MasterNet's own width if its is."""
        own = self.superblocks[index].width
        low, high = (round(own * factor, 6) for factor in self.perturb.width)  # 200 * 0.28 is a hair above 56
        step = self.widths.multiple_of if isinstance(self.widths, MultipleOf) else MULTIPLE
        grid = set(range(math.ceil(low / step) * step, math.floor(high) + 1, step)) | {own}
        return tuple(sorted(width for width in grid if width > 0 and inner_width_is_exportable(width, block_type.ratio or 1.0)))

    def sizes(self, resolution: int) -> tuple[int, ...]:
        """Return the height and width in pixels that each super-block reads, and last those of the head or classifier."""
        strides = (superblock.stride for superblock in self.superblocks)
        return tuple(itertools.accumulate(strides, out_size, initial=out_size(resolution, self.stem.stride)))

    def repeated_blocks(self, index: int, block_type: BlockType, widths: WidthsOnOffer, resolution: int) -> list[Block]:
        """Return the block that a super-block repeats, once per width: a sweep over the widths on offer."""
        size = self.sizes(resolution)[index + 1]
        return [
            Block(block_type.kind, block_type.kernel, block_type.ratio, width, width, 1, size)
            for width in widths[index, block_type]
        ]

    def blocks(self, widths: WidthsOnOffer, resolution: int) -> list[Block]:
        """Return every block that some network of the space contains, each once, stem and heads included."""
        stem, *_, head = blocks(self.masternet(resolution))
        found = {stem: None}
        incoming: tuple[int, ...] = (self.stem.width,)
        for index, size in enumerate(self.sizes(resolution)[:-1]):
            for block_type in self.block_types(index):
                depth = min(2, max(self.depths(index)))  # all blocks after the first are alike
                for width in widths[index, block_type]:
                    whole = superblock_of(block_type, width, depth, self.superblocks[index].stride)
                    found |= {block: None for each in incoming for block in superblock_blocks(whole, each, size)}
            passing = incoming if 0 in self.depths(index) else ()
            incoming = tuple(sorted({*passing, *(w for kind in self.block_types(index) for w in widths[index, kind])}))
        found |= {dataclasses.replace(head, in_width=width): None for width in incoming}
        return list(found)

    def smallest(self, resolution: int) -> Network:
        """Return the network with the fewest MACs, to find budgets that are out of reach early."""
        widths = self.widths_on_offer()
        *_, head = blocks(self.masternet(resolution))
        best: dict[int, tuple[int, tuple[SuperBlock, ...]]] = {self.stem.width: (0, ())}  # by outgoing width
        for index, size in enumerate(self.sizes(resolution)[:-1]):
            longer: dict[int, tuple[int, tuple[SuperBlock, ...]]] = {}
            least = max(1, min(self.depths(index)))  # none may cost more: a narrower one makes the next one cheaper
            for superblock in (choice for choice in self.choices(index, widths) if choice.depth <= least):
                for in_width, (macs, before) in best.items():
                    total = macs + sum(block_cost(block).macs for block in superblock_blocks(superblock, in_width, size))
                    width = superblock.writes(in_width)
                    if width not in longer or total < longer[width][0]:
                        longer[width] = (total, (*before, superblock))
            best = longer
        cost = {width: macs + block_cost(dataclasses.replace(head, in_width=width)).macs for width, (macs, _) in best.items()}
        return self.network(best[min(cost, key=lambda width: cost[width])][1], resolution)

    def choices(self, index: int, widths: WidthsOnOffer) -> Iterator[SuperBlock]:
        """Yield every super-block that may stand at `index`, given the widths kept; without blocks it is `vanished(index)`."""
        stride = self.superblocks[index].stride
        if 0 in self.depths(index):
            yield self.vanished(index)
        for block_type in self.block_types(index):
            for width in widths[index, block_type]:
                for depth in filter(None, self.depths(index)):
                    yield superblock_of(block_type, width, depth, stride)

    def vanished(self, index: int) -> SuperBlock:
        """Return super-block `index` without blocks: one choice, written with the MasterNet's type and width."""
        return self.superblocks[index].model_copy(update={"depth": 0})

    def size(self, widths: WidthsOnOffer) -> int:
        """Return the number of networks in the space, all resolutions counted."""

        def choices(index: int) -> int:
            depths = self.depths(index)
            some = len(depths) - depths.count(0)
            return depths.count(0) + some * sum(len(widths[index, kind]) for kind in self.block_types(index))

        per_superblock = map(choices, range(len(self.superblocks)))
        return math.prod(per_superblock) * len(self.input.resolutions)


def may_inherit(network: ModelSpec, parent: Network) -> bool:
    """Return whether a network can begin with another's weights: it has its channels, stem, head and number of super-blocks."""
    if not isinstance(network, Network):
        return False
    ours, theirs = ((n.input.channels, n.stem, n.head, len(n.superblocks)) for n in (network, parent))
    return ours == theirs


def superblock_of(block_type: BlockType, width: int, depth: int, stride: int) -> SuperBlock:
    """Return a super-block of the given block type."""
    return SuperBlock.model_validate(
        {
            "type": block_type.kind,
            "depth": depth,
            "width": width,
            "stride": stride,
            "kernel": block_type.kernel,
            "ratio": block_type.ratio,
        }
    )
