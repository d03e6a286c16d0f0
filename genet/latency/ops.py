"""A network as the kernels of one forward pass, in closed form: the input of the analytic device model.

The convolutions come from `genet.arch.layers`; this module adds the passes between them, which eager PyTorch runs as separate
kernels: normalisation, activation, the residual addition, pooling. `genet.latency.trace` reads the same list off the modules that
are really built, and a test holds the two together.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from genet.arch.layers import Conv, body, shortcut
from genet.arch.network import Block, BlockKind, Network, superblock_blocks
from genet.arch.network import blocks as network_blocks

OpKind = Literal["conv", "linear", "norm", "activation", "swish", "add", "pool", "product", "other"]


@dataclass(frozen=True, slots=True)
class Op:
    """One kernel of one forward pass.

    `read` and `written` are values per image, `weights` values read once per batch. A convolution or a linear layer is
    the matrix product of its implicit GEMM: `rows` output positions per image (1 for a linear layer), `width` output
    and `in_width` input channels, the kernel's height and width, and groups. All other kinds leave these at their defaults.
    """

    name: str
    kind: OpKind
    read: int
    written: int
    weights: int = 0
    rows: int = 0
    width: int = 0
    in_width: int = 0
    kernel: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def macs(self) -> int:
        """Multiplications with accumulation for one image."""
        return self.rows * self.width * (self.in_width // self.groups) * self.kernel[0] * self.kernel[1]

    @property
    def depthwise(self) -> bool:
        """Return whether every input channel is a group of its own."""
        return self.kind == "conv" and self.groups > 1 and self.groups == self.in_width

    def bytes(self, batch: int, bytes_per_value: int) -> int:
        """Return the memory traffic of a batch: inputs and outputs per image, weights once (utilization paper, equation 2)."""
        return bytes_per_value * (self.weights + batch * (self.read + self.written))


def block_ops(block: Block) -> tuple[Op, ...]:
    """Return the kernels of one block in the order they run, named as in the modules of `genet.models`."""
    if block.kind in ("Conv", "Depthwise"):
        return tuple(_conv_norm(body(block)[0], "", relu=True))
    return tuple(_last(block) if block.classes else _residual(block))


def kernel_count(block: Block) -> int:
    """Return the number of kernels that a block launches, which depends on its kind and on a projection in its shortcut."""
    return _kernel_count(block.kind, shortcut(block) is not None)


@functools.cache
def _kernel_count(kind: BlockKind, projects: bool) -> int:
    classes = 1 if kind in ("Head", "Classifier") else 0
    return len(block_ops(Block(kind, 1, 1.0, 16 if projects else 8, 8, 1, 1, classes)))


def network_ops(network: Network) -> tuple[Op, ...]:
    """Return the kernels of a whole network in the order they run, with the qualified names of its modules."""
    return tuple(chain.from_iterable(by_block(network)))


def by_block(network: Network) -> tuple[tuple[Op, ...], ...]:
    """Return the same kernels, block by block."""
    stem, *_, last = network_blocks(network)
    parts = [_under("stem", block_ops(stem))]
    width, size = stem.width, stem.out_size
    for stage, superblock in enumerate(network.stages):
        for index, block in enumerate(superblock_blocks(superblock, width, size)):
            parts.append(_under(f"stages.{stage}.{index}", block_ops(block)))
            width, size = block.width, block.out_size
    return (*parts, block_ops(last))


def conv_op(conv: Conv, name: str) -> Op:
    """Return the kernel of one convolution without its normalisation."""
    positions, kernel = conv.out_size**2, (conv.kernel, conv.kernel)
    read, written = conv.in_width * conv.size**2, conv.width * positions
    return Op(name, "conv", read, written, conv.weights, positions, conv.width, conv.in_width, kernel, conv.groups)


def _conv_norm(conv: Conv, prefix: str, relu: bool) -> Iterator[Op]:
    """Yield convolution and batch normalisation, which reads four vectors: scale, shift, mean and variance."""
    op = conv_op(conv, f"{prefix}conv")
    yield op
    yield Op(f"{prefix}bn", "norm", op.written, op.written, 4 * conv.width)
    if relu:
        yield Op(f"{prefix}relu", "activation", op.written, op.written)


def _residual(block: Block) -> Iterator[Op]:
    """Yield body, projection, then the sum and the ReLU after it (GENet paper, figure 1)."""
    convs, projection = body(block), shortcut(block)
    for conv in convs:
        yield from _conv_norm(conv, f"{conv.name}.", relu=conv is not convs[-1])
    if projection is not None:
        yield from _conv_norm(projection, "shortcut.", relu=False)
    values = block.width * block.out_size**2
    yield Op("add", "add", 2 * values, values)
    yield Op("relu", "activation", values, values)


def _last(block: Block) -> Iterator[Op]:
    """Yield the head's convolution if there is one, average pooling and the classifier with its bias."""
    for conv in body(block):
        yield from _conv_norm(conv, "final_conv.", relu=True)
    width, classes = block.pooled_width, block.classes
    yield Op("head.mean", "pool", width * block.out_size**2, width)
    yield Op("head.fc", "linear", width, classes, (width + 1) * classes, 1, classes, width)


def _under(place: str, ops: tuple[Op, ...]) -> tuple[Op, ...]:
    return tuple(dataclasses.replace(op, name=f"{place}.{op.name}") for op in ops)
