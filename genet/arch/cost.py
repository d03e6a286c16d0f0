"""The cost of a network in closed form, from its convolutions: parameters, MACs and bytes.

The modules in `genet.models` are built from the same convolutions, and the tests hold the sums against
torch's own FLOP counter, so the two cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from genet.arch.layers import convolutions
from genet.arch.network import Block, Network, blocks


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters; MACs of one image; values read and written as activations by the layers of one image."""

    parameters: int = 0
    macs: int = 0
    activations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.macs + other.macs, self.activations + other.activations)

    def bytes(self, batch: int = 1, bytes_per_value: int = 4) -> int:
        """Return the memory traffic of a batch: each layer's inputs, weights and outputs once (utilization paper, equation 2)."""
        return bytes_per_value * (self.parameters + batch * self.activations)


@lru_cache(maxsize=100_000)  # a design scaled to hundreds of widths, or a searched space, repeats its blocks
def block_cost(block: Block) -> Cost:
    """Return the cost of one block: its convolutions with their batch normalisations, and the classifier of the last one."""
    total = Cost()
    for conv in convolutions(block):
        read, written = conv.in_width * conv.size**2, conv.width * conv.out_size**2
        macs = conv.weights * conv.out_size**2
        total += Cost(conv.weights + 2 * conv.width, macs, read + written)
    if block.classes:
        pooled = block.pooled_width
        total += Cost((pooled + 1) * block.classes, pooled * block.classes, pooled + block.classes)
    return total


def network_cost(network: Network) -> Cost:
    """Return the cost of the whole network."""
    return sum(map(block_cost, blocks(network)), Cost())
