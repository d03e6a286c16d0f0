"""Workloads to time: a chain of blocks, a whole network, or any timm model; and their names for users."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import Block, Network, SuperBlock, superblock_blocks
from genet.config.reader import read_structure
from genet.errors import GenetError, SpecError
from genet.latency.ops import Op, block_ops, by_block

if TYPE_CHECKING:
    from torch import nn

BLOCK = r"[A-Za-z]+ [kcsdrg@]\d"  # start of a block's notation
TOKENS = {"k": "kernel", "c": "width", "s": "stride", "d": "depth", "r": "ratio", "g": "groups", "@": "size"}
NUMBERS = {"width": r"\d+(>\d+)?", "ratio": r"\d+(\.\d+)?"}
EXAMPLES = "'BL k3 c64 r0.25 @14', 'Conv k3 c64>128 s2 @56' or 'DW k5 c32>96 s2 d4 r6 @28'"


@dataclass(frozen=True)
class Workload:
    """A workload that can be timed: its name, one image's shape (channels, height, width), its kernels, and its module.

    Kernels are grouped by block, or by the convolution that they follow. If it is not `whole`, its kernels alone are timed in
    eager mode too, as the rest of the network may hide the host's launches.
    """

    name: str
    image: tuple[int, int, int]
    groups: Callable[[], tuple[tuple[Op, ...], ...]]
    build: Callable[[], nn.Module]
    whole: bool = True

    def ops(self) -> tuple[Op, ...]:
        """Return all kernels in the order in which they run."""
        return tuple(op for group in self.groups() for op in group)


def block_chain(blocks: Sequence[Block]) -> Workload:
    """Return the workload of blocks in sequence, each reading the output of the one before."""
    first = blocks[0]

    def build() -> nn.Module:
        from torch import nn

        from genet.models.blocks import build_block

        return nn.Sequential(*map(build_block, blocks))

    name = str(first) if len(blocks) == 1 else f"{first} and {len(blocks) - 1} more"
    image = (first.in_width, first.size, first.size)
    return Workload(name, image, lambda: tuple(map(block_ops, blocks)), build, whole=False)


def network_workload(network: Network) -> Workload:
    """Return the workload of a network of super-blocks."""

    def build() -> nn.Module:
        from genet.models.build import GENet

        return GENet(network)

    return Workload(str(network), network.input.image, lambda: by_block(network), build)


def timm_workload(name: str, size: int | None) -> Workload:
    """Return a timm model with fresh weights at the given resolution, or at its own; SpecError with the nearest names."""
    import timm

    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        raise SpecError([f"timm:{name} is not the name of a timm model{hint}"])
    try:
        channels, height, width = timm.models.get_pretrained_cfg(name, allow_unregistered=True).input_size
    except (RuntimeError, AttributeError) as fault:
        raise SpecError(
            [f"timm:{name}: got a model without a configuration in timm ({fault}), expected one that has it; name another"]
        ) from None
    image = (channels, size or height, size or width)

    def build() -> nn.Module:
        import torch

        with torch.device("cpu"):  # as in `build_structure`: timm's RegNets compute their widths with tensors
            return cast("nn.Module", timm.create_model(name, pretrained=False))

    return traced_workload(f"timm:{name}", image, build)


def external_workload(network: ExternalModel) -> Workload:
    """Return a network that other code builds."""

    def build() -> nn.Module:
        from genet.models.external import build_structure

        return build_structure(network)

    return traced_workload(network.name, network.input.image, build)


def traced_workload(
    name: str, image: tuple[int, int, int], build: Callable[[], nn.Module], remedy: str = "give a size that it accepts"
) -> Workload:
    """Return a network that is only a module: its kernels are recorded while it runs, without arithmetic.

    Asking for them raises SpecError if it does not run on such images; `remedy` ends the message.
    """

    @cache
    def groups() -> tuple[tuple[Op, ...], ...]:
        from genet.latency.trace import external_ops

        return tuple(by_convolution(external_ops(name, build(), image, remedy)))

    return Workload(name, image, groups, build)


def workload_of(structure: ModelSpec) -> Workload:
    """Return the workload of a network of either kind."""
    return external_workload(structure) if isinstance(structure, ExternalModel) else network_workload(structure)


def example_shape(example: object, doing: str, square: bool = False) -> tuple[int, int, int, int]:
    """Return images, channels, height and width of the example batch of a module; GenetError if it has no such shape."""
    shape = tuple(getattr(example, "shape", ()))
    if len(shape) != 4 or (square and shape[2] != shape[3]):
        given = f"a tensor of {shape}" if hasattr(example, "shape") else f"a {type(example).__name__}"
        expected = f"(images, channels, {'size, size' if square else 'height, width'})"
        raise GenetError(
            f"{doing} failed: got {'none' if example is None else given} for an example, expected {expected}; give a tensor such "
            "as torch.zeros(1, 3, 224, 224)"
        )
    return shape[0], shape[1], shape[2], shape[3]


def by_convolution(ops: Sequence[Op]) -> Iterator[tuple[Op, ...]]:
    """Yield every convolution or linear layer with the passes that follow it."""
    group: list[Op] = []
    for op in ops:
        if op.kind in ("conv", "linear") and any(other.macs for other in group):
            yield tuple(group)
            group = []
        group.append(op)
    yield tuple(group)


def read_workload(text: str, size: int | None = None) -> Workload:
    """Return the named workload: `timm:resnet50`, a network file or its notation, or blocks such as `BL k3 c64 r0.25 @14`.

    `size` is the resolution to use instead of the workload's own. SpecError lists the valid forms.
    """
    if text.startswith("timm:"):
        return timm_workload(text.removeprefix("timm:"), size)
    if re.match(BLOCK, text):
        return block_chain(read_blocks(text, size))
    network = Network.parse(text) if "|" in text else read_structure(text)
    if size:
        network = network.at(size)
    return dataclasses.replace(workload_of(network), name=network.name if "|" not in text else text)


def read_blocks(text: str, size: int | None = None) -> tuple[Block, ...]:
    """Return the blocks of a super-block, or a single layer, in one line; missing depth and stride are 1.

    `XX k3 c64 @28` is one block of 64 channels on 28 x 28 pixels, `Conv k3 c64>128 s2 @56` a convolution that reads 64
    channels, `Conv k3 c64>128 g8 @56` one with its channels in 8 groups, `DW k5 c32>96 s2 d4 r6 @28` a super-block of depth 4.
    SpecError if a rule of blocks is broken.
    """
    kind, *tokens = text.split()
    fields: dict[str, str] = {}
    for token in tokens:
        name = TOKENS.get(token[0])
        if name is None or name in fields or not re.fullmatch(NUMBERS.get(name, r"\d+"), token[1:]):
            raise SpecError([f"a block must look like {EXAMPLES}, got {token!r} in {text!r}"])
        fields[name] = token[1:]
    missing = [name for name in ("kernel", "width", "size") if name not in fields and not (name == "size" and size)]
    if missing:
        raise SpecError([f"a block must have {', '.join(missing)}, as in {EXAMPLES}, got {text!r}"])
    read, _, written = fields.pop("width").partition(">")
    ratio = float(fields.pop("ratio")) if "ratio" in fields else None
    numbers = {"depth": 1, "stride": 1, "width": int(written or read)} | {name: int(value) for name, value in fields.items()}
    size = size or numbers["size"]
    numbers.pop("size", None)
    if min(int(read), size, *numbers.values()) < 1:
        raise SpecError([f"{text}: widths, depth, stride and size must be at least 1"])
    if kind in ("Conv", "Depthwise"):
        return (_layer(text, kind, int(read), ratio, size, numbers),)
    return tuple(superblock_blocks(_superblock(text, kind, ratio, numbers), int(read), size))


def with_width(text: str, width: int) -> str:
    """Return the same block, layer or super-block with another width; its input width stays if it is given as in `c64>128`."""
    changed, count = re.subn(r"( c(?:\d+>)?)\d+", rf"\g<1>{width}", text)
    if count != 1:
        raise SpecError([f"a sweep over widths needs a block such as {EXAMPLES}, got {text!r}"])
    return changed


def _layer(text: str, kind: str, in_width: int, ratio: float | None, size: int, numbers: dict[str, int]) -> Block:
    if ratio is not None or numbers["depth"] != 1:
        raise SpecError([f"{text}: a single layer must have neither ratio nor depth"])
    if kind == "Depthwise" and in_width != numbers["width"]:
        raise SpecError([f"{text}: a depthwise convolution must write as many channels as it reads, got {in_width}"])
    if numbers["stride"] > size or not numbers["kernel"] % 2:
        raise SpecError([f"{text}: the kernel must be odd, and the stride at most the size"])
    groups = numbers.get("groups", 1)
    if kind != "Conv" and groups > 1:
        raise SpecError([f"{text}: only Conv may have groups, got {kind}"])
    if in_width % groups or numbers["width"] % groups:
        raise SpecError([f"{text}: the channels must divide evenly among the {groups} groups"])
    return Block(cast(Any, kind), numbers["kernel"], None, in_width, numbers["width"], numbers["stride"], size, groups=groups)


def _superblock(text: str, kind: str, ratio: float | None, numbers: dict[str, int]) -> SuperBlock:
    try:
        return SuperBlock.model_validate({"type": kind, "ratio": ratio, **numbers})
    except ValidationError as fault:
        raise SpecError(f"{text}: {'.'.join(map(str, error['loc']))}: {error['msg']}" for error in fault.errors()) from None
