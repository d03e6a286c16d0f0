"""genet designs convolutional networks for your device and your latency budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__version__ = "0.1.0"
__all__ = ["load"]


def load(folder: str | Path) -> nn.Module:
    """Return the trained network in an export folder, as a torch module in eval mode."""
    from genet.models.weights import load as load_network  # torch is imported only when a network is asked for

    return load_network(folder)
