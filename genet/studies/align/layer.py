"""A layer of any network, as far as its cost depends on widths: a convolution, a linear layer or a normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from genet.arch.network import Block


@dataclass(frozen=True)
class Axis:
    """The channels that a layer writes or reads.

    `tied` says how many of them belong to one unit of a group: several if a map is flattened, or if a convolution has its
    channels in groups. The others stay.
    """

    size: int
    tied: Mapping[str, int] = field(default_factory=dict)

    def at(self, changes: Mapping[str, int]) -> int:
        """Return the number of channels once groups have so many more units."""
        return self.size + sum(each * changes.get(group, 0) for group, each in self.tied.items())


@dataclass(frozen=True)
class Layer:
    """One layer; `calls` is the number of its runs in a pass, `size` is the height and width of its input in pixels."""

    name: str
    kind: Literal["conv", "depthwise", "linear", "norm"]
    writes: Axis
    reads: Axis
    kernel: int = 1
    stride: int = 1
    size: int = 1
    bias: bool = False
    calls: int = 1
    vectors: int = 2  # of a normalisation: scale and shift, if it learns them
    together: int | None = None  # channels read by each group of a convolution that has several

    def touches(self, group: str) -> bool:
        """Return whether a group's width changes it."""
        return group in self.writes.tied or group in self.reads.tied

    def blocks(self, changes: Mapping[str, int]) -> tuple[Block, ...]:
        """Return the blocks to time for it: none for a normalisation, which is timed with its convolution."""
        if self.kind == "norm":
            return ()
        written = self.writes.at(changes)
        read = written if self.kind == "depthwise" else self.reads.at(changes)
        kind: Literal["Depthwise", "Conv"] = "Depthwise" if self.kind == "depthwise" else "Conv"
        groups = read // self.together if self.together else 1
        return (Block(kind, self.kernel, None, read, written, self.stride, self.size, groups=groups),) * self.calls

    def parameters(self, changes: Mapping[str, int]) -> int:
        """Return its weights and biases; scale and shift of a normalisation."""
        written = self.writes.at(changes)
        if self.kind == "norm":
            return self.vectors * written
        read = 1 if self.kind == "depthwise" else self.together or self.reads.at(changes)
        return written * (read * self.kernel**2 + self.bias)
