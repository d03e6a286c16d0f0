"""The inference form: the same logits without batch normalisation."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from torch import nn

from genet.arch.network import Network
from genet.models.blocks import fused
from genet.models.build import build
from tests.fixtures.strategies import networks
from tests.models.conftest import Randomise


@settings(max_examples=15)
@given(network=networks())
def test_a_fused_network_has_no_batch_normalisation_and_the_same_logits(randomise: Randomise, network: Network) -> None:
    module = randomise(build(network))
    form = fused(module)
    assert not [part for part in form.modules() if isinstance(part, nn.BatchNorm2d)]
    assert [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)], "the module itself is left as it is"
    size = network.input.resolution
    images = torch.randn(2, network.input.channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, found = module(images), form(images)
    assert float((wanted - found).abs().max() / wanted.abs().max()) < 1e-4
