"""Arithmetic intensity: the work of a layer over the bytes it moves (utilization paper, section 2).

Only convolutions and linear layers count. The operations between them are taken to be fused into them, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable

from genet.config.recipe import Dtype
from genet.latency.ops import Op
from genet.storage import Record

BYTES: dict[Dtype, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}  # of a value


class LayerIntensity(Record):
    """One convolution or linear layer: floating-point operations and bytes moved, both of a batch."""

    name: str
    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """FLOP per byte (equation 2)."""
        return self.flops / self.bytes


def layers_of(ops: Iterable[Op], batch: int, dtype: Dtype) -> tuple[LayerIntensity, ...]:
    """Return the layers of a network in running order, on a batch; a multiplication and an addition are two operations."""
    return tuple(
        LayerIntensity(name=op.name, flops=2 * op.macs * batch, bytes=op.bytes(batch, BYTES[dtype])) for op in ops if op.macs > 0
    )


def flops_of(layers: Iterable[LayerIntensity]) -> int:
    """Return the operations of all layers."""
    return sum(layer.flops for layer in layers)


def intensity_of(layers: Iterable[LayerIntensity]) -> float:
    """Return the aggregate arithmetic intensity of a network: the operations of all layers over the bytes of all."""
    every = tuple(layers)
    return flops_of(every) / sum(layer.bytes for layer in every)
