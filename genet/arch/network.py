"""A network as the GENet paper draws it (section 3.1): stem, super-blocks of equal blocks, head; and its notation.

    @192x3 | Conv k3 c13 s2 | XX k3 c48 s2 d1 | ... | DW k3 c256 s1 d1 r3 | Conv k1 c1920 | 1000

reads: input resolution x channels, the stem, one entry per super-block, the 1x1 head, the classes. A network without the
head's convolution, such as a plain ResNet, lacks that entry: its classifier reads the last super-block. A super-block of depth 0
(`XX k3 c48 s1 d0`) has no block: its input passes through unchanged.
`Network.parse(str(network)) == network` always holds; a network *is* its notation, its name only labels it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from genet.errors import SpecError
from genet.storage import Described, Record, digest

SuperBlockKind = Literal["XX", "BL", "DW"]
BlockKind = Literal[SuperBlockKind, "Conv", "Depthwise", "Head", "Classifier"]
Kernel = Literal[3, 5, 7]
Stride = Literal[1, 2]
Count = Annotated[int, Field(ge=1)]

T = TypeVar("T")

MULTIPLE = 8  # timm's ByobNet silently rounds widths and inner widths to multiples of 8, so others could not be exported


def broken_rule(text: str, nearest: str = "") -> PydanticCustomError:
    """Return a broken rule for the reader to print with the value, and the nearest legal value if there is one."""
    return PydanticCustomError("rule", "{rule}", {"rule": text, "nearest": nearest})


def _not_empty(items: tuple[T, ...]) -> tuple[T, ...]:
    if not items:
        raise broken_rule("must have at least one entry")
    return items


NonEmpty = AfterValidator(_not_empty)


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise broken_rule("must consist of letters, digits, dots, dashes and underscores, as it names files")
    return name


Name = Annotated[str, AfterValidator(_file_name)]


def legal_name(text: str) -> str:
    """Return the legal name that is nearest to the name of a file or folder."""
    return re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", text)).lstrip(".-") or "unnamed"


def nearest_multiples(value: float) -> str:
    """Return the legal widths around `value`, for a message."""
    below = int(value // MULTIPLE) * MULTIPLE
    return f"{below} or {below + MULTIPLE}" if below > 0 else f"{MULTIPLE}"


@dataclass(frozen=True, slots=True, order=True)
class BlockType:
    """Kind, kernel and bottleneck ratio: the paper counts each combination as a block type of its own (section 4.2)."""

    kind: SuperBlockKind
    kernel: int
    ratio: float | None = None

    def __str__(self) -> str:
        return f"{self.kind} k{self.kernel}" + _ratio_notation(self.ratio)


def inner_width(width: int, ratio: float | None) -> int:
    """Return channels of the kxk convolution inside a block of `width` channels: c for XX, c*r for BL and DW."""
    return width if ratio is None else round(width * ratio)


def inner_width_is_exportable(width: int, ratio: float) -> bool:
    """Return whether c*r is a multiple of 8, up to the rounding of decimal ratios: 200 * 0.28 is a hair above 56."""
    inner = width * ratio
    return abs(inner - round(inner)) < 1e-6 and round(inner) % MULTIPLE == 0


def out_size(size: int, stride: int) -> int:
    """Return the height and width of a layer's output, in pixels: padding keeps the size, the stride divides it."""
    return -(-size // stride)


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """One block in its place: everything its latency and cost depend on, and nothing else.

    `kind` is a block kind, or "Conv" for the stem or any one convolution, "Depthwise" for a depthwise one, "Head" for
    1x1 convolution, pooling and classifier, or "Classifier" for pooling and classifier alone, whose width is its classes.
    `size` is the height and width of its input in pixels; `classes` is 0 except for the last two, `groups` 1 except for Conv.
    """

    kind: BlockKind
    kernel: int
    ratio: float | None
    in_width: int
    width: int
    stride: int
    size: int
    classes: int = 0
    groups: int = 1

    def __str__(self) -> str:
        tail = f" n{self.classes}" if self.classes else f" g{self.groups}" if self.groups > 1 else ""
        return (
            f"{self.kind} k{self.kernel}{_ratio_notation(self.ratio)} "
            f"c{self.in_width}>{self.width} s{self.stride} @{self.size}{tail}"
        )

    @property
    def out_size(self) -> int:
        """Height and width of the output, in pixels."""
        return out_size(self.size, self.stride)

    @property
    def pooled_width(self) -> int:
        """Channels that the classifier of a network's last block reads."""
        return self.width if self.kind == "Head" else self.in_width


class SuperBlock(Described):
    """A stack of `depth` equal blocks. The first has the stride, and a projection if the shapes differ.

    Without blocks the stride must be 1, and type and width have no meaning.
    """

    type: SuperBlockKind
    """`XX`: two full convolutions. `BL`: a bottleneck. `DW`: a depthwise convolution between two 1x1 convolutions."""
    depth: Annotated[int, Field(ge=0)]
    """Number of blocks. 0 is allowed with stride 1 only."""
    width: Annotated[int, Field(ge=MULTIPLE)]
    """Output channels of a block, a multiple of 8."""
    stride: Stride
    """Stride of the first block."""
    kernel: Kernel
    """Kernel size."""
    ratio: Annotated[float | None, Field(gt=0, validate_default=True)] = None
    """Inner width over outer width, for BL (at most 1) and DW (at least 1). XX has none."""

    @field_validator("width")
    @classmethod
    def _width_is_exportable(cls, width: int) -> int:
        if width % MULTIPLE:
            raise broken_rule(f"must be a multiple of {MULTIPLE}", nearest_multiples(width))
        return width

    @field_validator("stride")
    @classmethod
    def _only_a_block_strides(cls, stride: int, info: ValidationInfo) -> int:
        if stride > 1 and info.data.get("depth") == 0:
            raise broken_rule("must be 1 if the depth is 0, as there is no block to stride", "1, or a depth of 1")
        return stride

    @field_validator("ratio")
    @classmethod
    def _ratio_fits_the_type(cls, ratio: float | None, info: ValidationInfo) -> float | None:
        kind, width = info.data.get("type"), info.data.get("width")
        if kind == "XX" and ratio is not None:  # the rules of the paper's section 3.1
            raise broken_rule("must be absent for XX, which has no bottleneck")
        if kind == "BL" and (ratio is None or ratio > 1):
            raise broken_rule("must be given and at most 1 for BL, such as 0.25")
        if kind == "DW" and (ratio is None or ratio < 1):
            raise broken_rule("must be given and at least 1 for DW, such as 6")
        if ratio is not None and width is not None and not inner_width_is_exportable(width, ratio):
            inner = width * ratio
            raise broken_rule(
                f"must make the inner width a multiple of {MULTIPLE}, but {width} * {ratio:g} = {inner:g}",
                f"inner width {nearest_multiples(inner)}",
            )
        return ratio

    @property
    def block_type(self) -> BlockType:
        """Kind, kernel and ratio together."""
        return BlockType(self.type, self.kernel, self.ratio)

    def writes(self, in_width: int) -> int:
        """Return the number of output channels, given the number of input channels."""
        return self.width if self.depth else in_width

    def __str__(self) -> str:
        return f"{self.type} k{self.kernel} c{self.width} s{self.stride} d{self.depth}" + _ratio_notation(self.ratio)


SuperBlocks = Annotated[tuple[SuperBlock, ...], NonEmpty]


class Stem(Described):
    """The first convolution. Its width is free: no exporter rounds it."""

    kernel: Kernel
    """Kernel size."""
    width: Count
    """Output channels."""
    stride: Stride
    """Stride."""


class Head(Described):
    """The 1x1 convolution before average pooling and the classifier."""

    width: Count
    """Output channels."""


class Input(Record):
    """The network's input and output: channels, classes, and the height and width in pixels."""

    channels: Count
    classes: Annotated[int, Field(ge=2)]
    resolution: Count

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return self.channels, self.resolution, self.resolution


class Network(Record):
    """One network of the family. Equal networks have equal notations; the name is a label only."""

    name: Name = "network"
    input: Input
    stem: Stem
    superblocks: SuperBlocks
    head: Head | None = None  # None: the classifier reads the last super-block

    @field_validator("superblocks", mode="wrap")
    @classmethod
    def _total_stride_fits(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        resolution = info.data["input"].resolution if "input" in info.data else None
        return superblocks_that_fit(value, handler, info.data.get("stem"), resolution)

    def __str__(self) -> str:
        stem = f"Conv k{self.stem.kernel} c{self.stem.width} s{self.stem.stride}"
        entries = [f"@{self.input.resolution}x{self.input.channels}", stem]
        entries += [str(superblock) for superblock in self.superblocks]
        entries += [f"Conv k1 c{self.head.width}"] if self.head else []
        return " | ".join([*entries, f"{self.input.classes}"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def stages(self) -> tuple[SuperBlock, ...]:
        """The super-blocks that have blocks."""
        return tuple(superblock for superblock in self.superblocks if superblock.depth)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the structure in trials, tables and files."""
        return digest(str(self))[:12]

    def at(self, resolution: int) -> Self:
        """Return the same network for images of another resolution. SpecError if its strides do not fit."""
        return self.parse(re.sub(r"^@\d+x", f"@{resolution}x", str(self)), self.name)

    @classmethod
    def parse(cls, notation: str, name: str = "network") -> Self:
        """Read a notation; entries may be separated by `|` or by line breaks. SpecError names the entry at fault."""
        entries = [entry.strip() for entry in re.split(r"[|\n]", notation) if entry.strip()]
        closing = [_HEAD, _CLASSES] if entries[-2:-1] and entries[-2].lower().startswith("conv") else [_CLASSES]
        least = len(_OPENING_ENTRIES) + 1 + len(closing)
        if len(entries) < least:
            parts = f"input, stem, super-block, {'head, ' if _HEAD in closing else ''}classes"
            raise SpecError([f"a notation must have at least {least} entries ({parts}), got {len(entries)}"])
        middle = [_SUPERBLOCK] * (len(entries) - least + 1)
        forms = [*_OPENING_ENTRIES, *middle, *closing]
        found = [re.fullmatch(pattern, entry) for (pattern, _), entry in zip(forms, entries, strict=True)]
        if None in found:
            pairs = zip(found, forms, entries, strict=True)
            raise SpecError(
                f"a notation's entry must look like {example!r}, got {entry!r}"
                for match, (_, example), entry in pairs
                if not match
            )
        reads, stem, *superblocks, classes = (_numbers(match) for match in found if match)
        head = superblocks.pop() if _HEAD in closing else None
        fields = {"name": name, "input": reads | classes, "stem": stem, "superblocks": superblocks, "head": head}
        try:
            return cls.model_validate(fields)
        except ValidationError as fault:
            raise SpecError(_notation_fault(entries, error) for error in fault.errors()) from None


def superblocks_that_fit(value: Any, handler: ValidatorFunctionWrapHandler, stem: Stem | None, resolution: int | None) -> Any:
    """Validate super-blocks together with the limit on their total stride, so that both kinds of fault are reported at once."""
    faults: list[InitErrorDetails] = []
    result = None
    try:
        result = handler(tuple(value) if isinstance(value, list) else value)  # strict validation needs a tuple here
    except ValidationError as fault:
        for error in fault.errors():
            known, facts = error["type"], error.get("ctx", {})
            broken = broken_rule(facts["rule"], facts["nearest"]) if known == "rule" else known
            faults.append({"type": broken, "loc": error["loc"], "input": error["input"], "ctx": facts})
    items = value if isinstance(value, list | tuple) else ()
    strides: list[Any] = [item.get("stride") if isinstance(item, dict) else getattr(item, "stride", None) for item in items]
    if stem and resolution and all(stride in (1, 2) for stride in strides):
        total = stem.stride * math.prod(strides)
        if total > resolution:  # the last feature map would have less than one pixel
            broken = broken_rule(f"must have a total stride of at most the resolution {resolution}, but it is {total}")
            faults.append({"type": broken, "loc": (), "input": f"{len(strides)} super-blocks"})
    if faults:
        raise ValidationError.from_exception_data("superblocks", faults)
    return result


def blocks(network: Network) -> Iterator[Block]:
    """Yield every block of the network in order, stem and head or classifier included, with its real input width and size."""
    stem = network.stem
    block = Block("Conv", stem.kernel, None, network.input.channels, stem.width, stem.stride, network.input.resolution)
    yield block
    for superblock in network.superblocks:
        for part in superblock_blocks(superblock, block.width, block.out_size):
            block = part
            yield block
    classes = network.input.classes
    if network.head:
        yield Block("Head", 1, None, block.width, network.head.width, 1, block.out_size, classes)
    else:
        yield Block("Classifier", 1, None, block.width, classes, 1, block.out_size, classes)


def superblock_blocks(superblock: SuperBlock, in_width: int, size: int) -> Iterator[Block]:
    """Yield the blocks of one super-block that reads `in_width` channels of `size` x `size` pixels."""
    kind, width = superblock.block_type, superblock.width
    first = Block(kind.kind, kind.kernel, kind.ratio, in_width, width, superblock.stride, size)
    for place in range(superblock.depth):
        yield first if place == 0 else Block(kind.kind, kind.kernel, kind.ratio, width, width, 1, first.out_size)


_SUPERBLOCK = (
    r"(?P<type>[A-Z]+) k(?P<kernel>\d+) c(?P<width>\d+) s(?P<stride>\d+) d(?P<depth>\d+)( r(?P<ratio>[\d.e+-]+))?",
    "BL k3 c640 s2 d6 r0.25",
)
_OPENING_ENTRIES = (
    (r"@(?P<resolution>\d+)x(?P<channels>\d+)", "@192x3"),
    (r"Conv k(?P<kernel>\d+) c(?P<width>\d+) s(?P<stride>\d+)", "Conv k3 c32 s2"),
)
_HEAD, _CLASSES = (r"Conv k1 c(?P<width>\d+)", "Conv k1 c2560"), (r"(?P<classes>\d+)", "1000")


def _numbers(match: re.Match[str]) -> dict[str, Any]:
    return {key: _number(text) for key, text in match.groupdict().items() if text is not None}


def _number(text: str) -> int | float | str:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _notation_fault(entries: list[str], error: Any) -> str:
    """Return the entry that a validation error is about, or the whole notation for an error of the whole, and the broken rule."""
    place = error["loc"]
    match place:
        case ("superblocks", int(index), *_):
            entry = entries[2 + index]
        case ("input", "classes", *_):
            entry = entries[-1]
        case ("input" | "stem" | "head" as part, *_):
            entry = entries[{"input": 0, "stem": 1, "head": -2}[part]]
        case _:
            entry = " | ".join(entries)
    return f"{entry}: {'.'.join(map(str, place))}: {error['msg']}"


def _ratio_notation(ratio: float | None) -> str:
    return "" if ratio is None else f" r{repr(float(ratio)).removesuffix('.0')}"
