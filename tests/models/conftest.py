"""What the tests of the networks share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

Randomise = Callable[..., nn.Module]


@pytest.fixture(scope="session")
def randomise() -> Randomise:
    """Gives a module the look of a trained one: every batch normalisation has scales, shifts and statistics of its own."""

    def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
        draw = torch.Generator().manual_seed(seed)

        def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
            return torch.rand(like.shape, generator=draw) * (high - low) + low

        with torch.no_grad():
            for part in module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    sign = torch.rand(part.weight.shape, generator=draw).sub(0.3).sign()
                    part.weight.copy_(uniform(part.weight, 0.3, 1.2) * sign)
                    part.bias.copy_(uniform(part.bias, -0.5, 0.5))
                    part.running_mean.copy_(uniform(part.running_mean, -0.5, 0.5))
                    part.running_var.copy_(uniform(part.running_var, 0.5, 2.0))
                elif isinstance(part, nn.Linear):
                    part.weight.copy_(uniform(part.weight, -1, 1))
                    part.bias.copy_(uniform(part.bias, -1, 1))
        return module.eval()

    return randomised


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> None:
    """For all tests of this folder."""
