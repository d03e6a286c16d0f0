"""What every residual block promises, whatever its kind, kernel, stride and widths."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from timm.models.byobnet import BasicBlock, BottleneckBlock, LayerFn
from torch import nn

from genet.arch.cost import block_cost
from genet.arch.network import Block, SuperBlockKind
from genet.models.blocks import ResidualBlock, build_block
from genet.models.build import initialise

RATIOS = {"XX": None, "BL": 0.5, "DW": 2.0}
WIDTH, OTHER_WIDTH = 16, 32
SIZE = 9  # odd, so that a stride of 2 has to round

BLOCKS = [
    Block(kind, kernel, RATIOS[kind], in_width, WIDTH, stride, SIZE)
    for kind in get_args(SuperBlockKind)
    for kernel in (3, 5, 7)
    for stride in (1, 2)
    for in_width in (WIDTH, OTHER_WIDTH)
]


def module_of(block: Block, seed: int = 0) -> ResidualBlock:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_block(block)
        initialise(module)
    assert isinstance(module, ResidualBlock)
    return module


def with_own_statistics(module: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                for tensor in (part.weight, part.bias, part.running_mean):
                    tensor.copy_(torch.rand(tensor.shape, generator=draw) - 0.3)
                part.running_var.copy_(torch.rand(part.running_var.shape, generator=draw) + 0.5)
    return module


def images_for(block: Block, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, block.in_width, block.size, block.size, generator=torch.Generator().manual_seed(2))


def timm_block(block: Block) -> nn.Module:
    layers = LayerFn()
    shared = {"kernel_size": block.kernel, "stride": block.stride, "downsample": "conv1x1", "layers": layers}
    if block.kind == "XX":
        return BasicBlock(block.in_width, block.width, **shared)
    group = 1 if block.kind == "DW" else None
    return BottleneckBlock(block.in_width, block.width, bottle_ratio=block.ratio, group_size=group, **shared)


def test_the_output_has_the_blocks_width_and_its_out_size() -> None:
    for block in BLOCKS:
        assert module_of(block)(images_for(block)).shape == (3, block.width, block.out_size, block.out_size), str(block)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_fresh_block_is_its_shortcut_followed_by_relu(training: bool) -> None:
    for block in BLOCKS:
        module = module_of(block).train(training)
        images = images_for(block)
        shortcut = images if module.shortcut is None else module.shortcut(images)
        assert torch.equal(module(images), shortcut.clamp(min=0)), str(block)
        assert module(images).any(), str(block)


def test_the_shortcut_is_an_identity_exactly_where_the_shapes_agree() -> None:
    for block in BLOCKS:
        module = module_of(block)
        agree = block.stride == 1 and block.in_width == block.width
        assert (module.shortcut is None) == agree, str(block)


def test_gradients_reach_every_parameter() -> None:
    for block in BLOCKS:
        module = with_own_statistics(module_of(block)).train()
        weights = torch.randn(3, block.width, block.out_size, block.out_size, generator=torch.Generator().manual_seed(3))
        (module(images_for(block)) * weights).sum().backward()
        untouched = [name for name, parameter in module.named_parameters() if parameter.grad is None or not parameter.grad.any()]
        assert untouched == [], str(block)


def test_the_gradient_reaches_the_zero_scale_that_lets_a_fresh_block_start_to_learn() -> None:
    for block in BLOCKS:
        module = module_of(block).train()
        weights = torch.randn(3, block.width, block.out_size, block.out_size, generator=torch.Generator().manual_seed(3))
        (module(images_for(block)) * weights).sum().backward()
        assert module.convs[-1].bn.weight.grad.any(), str(block)


@pytest.mark.parametrize(("body", "shortcut"), [(5.0, -1.0), (-1.0, 5.0), (-5.0, 1.0), (1.0, -5.0)])
def test_neither_summand_passes_a_relu_before_the_sum(body: float, shortcut: float) -> None:
    for block in BLOCKS:
        module = module_of(block).eval()
        images = torch.full((2, block.in_width, block.size, block.size), shortcut)
        with torch.no_grad():
            nn.init.constant_(module.convs[-1].bn.bias, body)  # its scale is zero, so the body is this constant
            if module.shortcut is not None:
                nn.init.zeros_(module.shortcut.bn.weight)
                nn.init.constant_(module.shortcut.bn.bias, shortcut)
            result = module(images)
        assert torch.equal(result, torch.full_like(result, max(0.0, body + shortcut))), str(block)


def test_the_state_has_the_keys_and_shapes_of_timms_byobnet() -> None:
    for block in BLOCKS:
        modules = module_of(block), timm_block(block)
        ours, theirs = ({key: value.shape for key, value in each.state_dict().items()} for each in modules)
        assert ours == theirs, str(block)


def test_the_block_computes_what_timms_block_computes_with_the_same_weights() -> None:
    for block in BLOCKS:
        ours = with_own_statistics(module_of(block)).eval()
        theirs = timm_block(block).eval()
        theirs.load_state_dict(ours.state_dict())
        images = images_for(block)
        with torch.no_grad():
            torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-6, msg=str(block))


def test_the_block_has_as_many_parameters_as_its_cost_says() -> None:
    for block in BLOCKS:
        assert sum(parameter.numel() for parameter in module_of(block).parameters()) == block_cost(block).parameters, str(block)


def test_the_block_leaves_its_input_as_it_was() -> None:
    for block in BLOCKS:
        images = images_for(block)
        before = images.clone()
        with torch.no_grad():
            module_of(block)(images)
        assert torch.equal(images, before), str(block)


def test_one_image_gives_what_it_gives_in_a_batch() -> None:
    for block in BLOCKS:
        module = with_own_statistics(module_of(block)).eval()
        images = images_for(block)
        with torch.no_grad():
            torch.testing.assert_close(module(images)[1:2], module(images[1:2]), rtol=1e-5, atol=1e-6, msg=str(block))
