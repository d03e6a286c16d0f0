"""The closed list of kernels against those that the modules really ask torch's dispatcher for."""

from __future__ import annotations

import pytest
import timm
import torch
from hypothesis import given, settings
from torch import nn

from genet.arch.cost import network_cost
from genet.arch.network import Block, Network
from genet.config.reader import read_network, shipped_files
from genet.latency.ops import Op, block_ops, network_ops
from genet.latency.trace import module_ops
from genet.models.build import build
from tests.fixtures.strategies import networks

PLACES = shipped_files("search_spaces/networks")


def traced(network: Network) -> tuple[Op, ...]:
    with torch.device("meta"):
        module = build(network)
    size = network.input.resolution
    return module_ops(module, (network.input.channels, size, size))


@pytest.mark.parametrize("name", ["genet-light", "genet-large", "net1", "net12"])
def test_the_closed_list_is_what_the_built_network_runs(name: str) -> None:
    network = read_network(PLACES[name])
    assert network_ops(network) == traced(network)


@settings(max_examples=10)
@given(networks())
def test_the_closed_list_of_any_network_is_what_it_runs(network: Network) -> None:
    assert network_ops(network) == traced(network)


@given(networks())
def test_the_kernels_compute_the_macs_of_the_cost(network: Network) -> None:
    assert sum(op.macs for op in network_ops(network)) == network_cost(network).macs


def test_the_kernels_of_a_block_with_projection_are_those_written_by_hand() -> None:
    ops = block_ops(Block("BL", 3, 0.5, 8, 16, 2, 4))
    assert [op.name for op in ops] == [
        *("conv1_1x1.conv", "conv1_1x1.bn", "conv1_1x1.relu", "conv2_kxk.conv", "conv2_kxk.bn", "conv2_kxk.relu"),
        *("conv3_1x1.conv", "conv3_1x1.bn", "shortcut.conv", "shortcut.bn", "add", "relu"),
    ]
    assert ops[3] == Op("conv2_kxk.conv", "conv", 8 * 16, 8 * 4, 8 * 8 * 9, 4, 8, 8, (3, 3))
    assert ops[-2] == Op("add", "add", 2 * 16 * 4, 16 * 4)


def test_a_batch_moves_the_weights_once_and_the_images_every_time() -> None:
    assert Op("x", "norm", 10, 20, 7).bytes(batch=3, bytes_per_value=2) == 2 * (7 + 3 * 30)


def test_tracing_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout()).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module_ops(module, (3, 8, 8))
    assert module.training
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_views_are_free_and_copies_are_not() -> None:
    class Shuffle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(1, 2, 2, 3, 3).transpose(1, 2).contiguous().view(1, 4, 3, 3)

    assert module_ops(Shuffle(), (4, 3, 3)) == (Op("clone", "other", 36, 36),)


def test_what_is_made_of_weights_alone_costs_once_per_batch() -> None:
    class Standardized(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.conv2d(x, self.weight * 2.0)

    scaled, conv = module_ops(Standardized(4, 8, 1, bias=False), (4, 5, 5))
    assert (scaled.kind, scaled.read, scaled.written, scaled.weights) == ("other", 0, 0, 2 * 32)
    assert (conv.kind, conv.read, conv.written, conv.weights, conv.macs) == ("conv", 100, 200, 32, 800)


@pytest.mark.parametrize(("name", "giga_macs"), [("resnet18", 1.81), ("mobilenetv2_100", 0.30), ("regnety_002", 0.20)])
def test_timm_models_have_the_macs_of_their_papers(name: str, giga_macs: float) -> None:
    with torch.device("meta"):
        module = timm.create_model(name)
    ops = module_ops(module, (3, 224, 224))
    assert sum(op.macs for op in ops) / 1e9 == pytest.approx(giga_macs, abs=0.015)
    assert ops[0].name in ("conv1", "conv_stem", "stem.conv")
