"""The closed form of a cost against torch's own counters on the modules that are really built."""

from __future__ import annotations

import torch
from hypothesis import given
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from genet.arch.cost import Cost, block_cost, network_cost
from genet.arch.network import Block, Network, blocks
from genet.models.blocks import build_block
from genet.models.build import build
from tests.fixtures.strategies import networks

META = torch.device("meta")


def measured(module: nn.Module, channels: int, size: int) -> tuple[int, int, torch.Size]:
    """Parameters, MACs and the output's shape of one image; torch counts a multiplication and an addition as two."""
    counter = FlopCounterMode(display=False)
    with counter:
        shape = module.eval()(torch.empty(1, channels, size, size, device=META)).shape
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return sum(parameter.numel() for parameter in module.parameters()), flops // 2, shape


RATIOS = {"XX": [None], "BL": [0.25, 0.5, 1.0], "DW": [1.0, 1.5, 3.0, 6.0]}
CASES = [
    Block(kind, kernel, ratio, in_width, 32, stride, size)
    for kind, ratios in RATIOS.items()
    for ratio in ratios
    for kernel in (3, 5, 7)
    for stride in (1, 2)
    for in_width, size in ((32, 9), (13, 8), (32, 1))
]
CASES += [Block("Conv", kernel, None, 3, 13, stride, size) for kernel in (3, 5, 7) for stride in (1, 2) for size in (8, 9)]
CASES += [Block("Head", 1, None, 24, width, 1, size, classes) for width in (1, 40) for size in (1, 7) for classes in (2, 10)]
CASES += [Block("Classifier", 1, None, 24, classes, 1, size, classes) for size in (1, 7) for classes in (2, 24)]


def test_the_cost_of_a_block_is_what_torch_counts() -> None:
    for block in CASES:
        with META:
            module = build_block(block)
        parameters, macs, shape = measured(module, block.in_width, block.size)
        cost = block_cost(block)
        assert (cost.parameters, cost.macs) == (parameters, macs), str(block)
        expected = (1, block.classes) if block.classes else (1, block.width, block.out_size, block.out_size)
        assert tuple(shape) == expected, str(block)


@given(networks())
def test_the_cost_of_a_network_is_what_torch_counts(network: Network) -> None:
    with META:
        module = build(network)
    parameters, macs, shape = measured(module, network.input.channels, network.input.resolution)
    cost = network_cost(network)
    assert (cost.parameters, cost.macs) == (parameters, macs)
    assert tuple(shape) == (1, network.input.classes)


@given(networks())
def test_the_cost_of_a_network_is_the_sum_over_its_blocks(network: Network) -> None:
    costs = [block_cost(block) for block in blocks(network)]
    assert network_cost(network) == Cost(
        sum(cost.parameters for cost in costs), sum(cost.macs for cost in costs), sum(cost.activations for cost in costs)
    )


class CountedActivations:
    """Values read and written by the convolutions and linear layers of a module, seen by hooks while it runs."""

    def __init__(self, module: nn.Module) -> None:
        self.values = 0
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.register_forward_hook(self._add)

    def _add(self, _: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.values += inputs[0].numel() + output.numel()


def test_the_activations_are_what_the_layers_read_and_write() -> None:
    for block in CASES:
        with META:
            module = build_block(block)
        counted = CountedActivations(module)
        module.eval()(torch.empty(1, block.in_width, block.size, block.size, device=META))
        assert block_cost(block).activations == counted.values, str(block)


def test_the_bytes_of_a_stem_are_those_computed_by_hand() -> None:
    cost = block_cost(Block("Conv", 3, None, 3, 8, 2, 5))  # reads 3x5x5, writes 8x3x3
    assert cost == Cost(parameters=8 * 3 * 9 + 2 * 8, macs=8 * 3 * 9 * 9, activations=75 + 72)
    assert cost.bytes() == 4 * (232 + 147)
    assert cost.bytes(batch=2, bytes_per_value=2) == 2 * (232 + 2 * 147)


def test_the_bytes_of_a_block_with_a_projection_are_those_computed_by_hand() -> None:
    cost = block_cost(Block("BL", 3, 0.5, 8, 16, 2, 3))
    first = Cost(8 * 8 + 16, 8 * 8 * 9, 8 * 9 + 8 * 9)
    middle = Cost(8 * 8 * 9 + 16, 8 * 8 * 9 * 4, 8 * 9 + 8 * 4)
    last = Cost(8 * 16 + 32, 8 * 16 * 4, 8 * 4 + 16 * 4)
    projection = Cost(8 * 16 + 32, 8 * 16 * 4, 8 * 9 + 16 * 4)
    assert cost == first + middle + last + projection
    assert cost.bytes(batch=3, bytes_per_value=2) == 2 * (80 + 592 + 160 + 160 + 3 * (144 + 104 + 96 + 136))


def test_the_cost_of_a_depthwise_block_is_the_one_computed_by_hand() -> None:
    cost = block_cost(Block("DW", 3, 2.0, 8, 8, 1, 5))  # 1x1 to 16 channels, one 3x3 kernel for each of them, 1x1 back to 8
    assert cost == Cost(
        parameters=8 * 16 + 16 * 9 + 16 * 8 + 2 * (16 + 16 + 8),
        macs=25 * (8 * 16 + 16 * 9 + 16 * 8),
        activations=25 * (8 + 16 + 16 + 16 + 16 + 8),
    )


def test_the_bytes_of_a_head_count_its_classifier_too() -> None:
    cost = block_cost(Block("Head", 1, None, 8, 16, 1, 2, 10))
    assert cost == Cost(parameters=8 * 16 + 32 + 17 * 10, macs=8 * 16 * 4 + 16 * 10, activations=32 + 64 + 16 + 10)
    assert cost.bytes(batch=1, bytes_per_value=4) == 4 * (330 + 122)


def test_a_batch_reads_the_weights_once() -> None:
    cost = Cost(parameters=100, macs=0, activations=7)
    assert cost.bytes(batch=64) - cost.bytes(batch=1) == 4 * 63 * 7
