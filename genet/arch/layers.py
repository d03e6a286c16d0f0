"""What every block is made of: its convolutions, from which modules are built, costs are summed and latencies estimated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genet.arch.network import Block, inner_width, out_size

SINGLE = ("Conv", "Depthwise", "Head", "Classifier")  # blocks of one convolution at most, without a shortcut


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with batch normalisation. `size` is the height and width of its input in pixels."""

    name: str
    in_width: int
    width: int
    kernel: int
    stride: int
    groups: int
    size: int

    @property
    def out_size(self) -> int:
        """Height and width of the output, in pixels."""
        return out_size(self.size, self.stride)

    @property
    def weights(self) -> int:
        """Weights of the convolution alone."""
        return self.width * (self.in_width // self.groups) * self.kernel**2


def body(block: Block) -> tuple[Conv, ...]:
    """Return the convolutions on the main path of a block (GENet paper, figure 1b); the stride sits at the first kxk."""
    kernel, stride, width, size = block.kernel, block.stride, block.width, block.size
    if block.kind == "Classifier":
        return ()
    if block.kind in SINGLE:
        groups = width if block.kind == "Depthwise" else block.groups
        return (Conv("conv", block.in_width, width, kernel, stride, groups, size),)
    if block.kind == "XX":
        first = Conv("conv1_kxk", block.in_width, width, kernel, stride, 1, size)
        return (first, Conv("conv2_kxk", width, width, kernel, 1, 1, first.out_size))
    inner = inner_width(width, block.ratio)
    groups = inner if block.kind == "DW" else 1
    middle = Conv("conv2_kxk", inner, inner, kernel, stride, groups, size)
    return (
        Conv("conv1_1x1", block.in_width, inner, 1, 1, 1, size),
        middle,
        Conv("conv3_1x1", inner, width, 1, 1, 1, middle.out_size),
    )


def shortcut(block: Block) -> Conv | None:
    """Return the 1x1 projection beside the body if the shapes differ (figure 1c), else None: an identity."""
    if block.kind in SINGLE or (block.stride == 1 and block.in_width == block.width):
        return None
    return Conv("shortcut", block.in_width, block.width, 1, block.stride, 1, block.size)


def is_repeated(block: Block) -> bool:
    """Return whether a block has an identity shortcut, and so cannot stand for one with a projection."""
    return block.kind not in SINGLE and shortcut(block) is None


def convolutions(block: Block) -> Iterator[Conv]:
    """Yield all convolutions of a block, those of its main path first."""
    yield from body(block)
    projection = shortcut(block)
    if projection is not None:
        yield projection
