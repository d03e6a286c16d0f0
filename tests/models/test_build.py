"""Whole networks: the paper's three agree with timm's, and their fresh weights depend on the seed alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import timm
import torch
from torch import nn

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.config.reader import read_network
from genet.models.blocks import ResidualBlock
from genet.models.build import build

SMALL = Network.parse(
    "@16x3 | Conv k3 c8 s2 | XX k3 c16 s1 d2 | BL k5 c32 s2 d2 r0.25 | DW k3 c16 s1 d1 r2 | Conv k1 c24 | 10", name="small"
)
PAPER = [("genet-light", "gernet_s"), ("genet-normal", "gernet_m"), ("genet-large", "gernet_l")]


def images(network: Network, batch: int, resolution: int) -> torch.Tensor:
    return torch.randn(batch, network.input.channels, resolution, resolution, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("ours", "theirs"), PAPER)
def test_the_papers_network_gives_timms_logits_with_timms_weights(ours: str, theirs: str, randomise) -> None:
    reference = randomise(timm.create_model(theirs, pretrained=False))
    module = build(read_network(ours)).eval()
    module.load_state_dict(reference.state_dict())
    batch = images(module.network, 2, 96)
    with torch.inference_mode():
        wanted, got = reference(batch), module(batch)
    assert (wanted[0] - wanted[1]).abs().max() > 1e-3 * wanted.abs().max()  # the logits do depend on the image
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(("ours", "theirs"), PAPER)
def test_timm_reads_the_weights_of_the_papers_network(ours: str, theirs: str) -> None:
    reference = timm.create_model(theirs, pretrained=False)
    keys = reference.load_state_dict(build(read_network(ours)).state_dict())
    assert (keys.missing_keys, keys.unexpected_keys) == ([], [])


def test_the_network_has_as_many_parameters_as_its_cost_says() -> None:
    assert sum(parameter.numel() for parameter in build(SMALL).parameters()) == network_cost(SMALL).parameters


@pytest.mark.parametrize("resolution", [16, 17, 24])
def test_the_logits_are_one_per_class_at_any_resolution(resolution: int) -> None:
    assert build(SMALL).eval()(images(SMALL, 3, resolution)).shape == (3, 10)


def test_the_same_seed_gives_the_same_weights() -> None:
    ones, others = build(SMALL, seed=5).state_dict(), build(SMALL, seed=5).state_dict()
    assert [name for name in ones if not torch.equal(ones[name], others[name])] == []


def test_another_seed_gives_other_weights_in_every_convolution_and_the_classifier() -> None:
    ones, others = build(SMALL, seed=5).state_dict(), build(SMALL, seed=6).state_dict()
    drawn = [name for name in ones if name.endswith("conv.weight") or name == "head.fc.weight"]
    assert len(drawn) == 19
    assert [name for name in drawn if torch.equal(ones[name], others[name])] == []


def test_the_weights_do_not_depend_on_the_state_of_the_global_generator() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        one = build(SMALL, seed=5)
        torch.manual_seed(2)
        other = build(SMALL, seed=5)
    assert torch.equal(one.stem.conv.weight, other.stem.conv.weight)


def test_a_super_block_of_depth_0_is_no_module_and_the_others_have_the_names_that_they_have_without_it() -> None:
    notation = "@16x3 | Conv k3 c8 s2 | {}XX k3 c16 s1 d2 | {}BL k5 c32 s2 d2 r0.25 | {}Conv k1 c24 | 10"
    some, none = (Network.parse(notation.format(*[each] * 3)) for each in ("DW k3 c16 s1 d0 r2 | ", ""))
    module, batch = build(some).eval(), images(some, 2, 16)
    assert [len(stage.blocks) for stage in module.superblocks] == [0, 2, 0, 2, 0]
    other = build(none, seed=3).eval()
    other.load_state_dict(module.state_dict())
    with torch.inference_mode():
        assert torch.equal(module(batch), other(batch))
        for index in range(5):
            assert torch.equal(module.suffix(index)(module.prefix(index)(batch)), other(batch))
    readers = [module.reader(index) for index in range(5)]
    assert readers == [module.stages[0][0], *[module.stages[1][0]] * 2, *[module.final_conv] * 2]


def test_building_leaves_the_global_generators_untouched() -> None:
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    build(SMALL, seed=5)
    after = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_every_residual_block_of_a_fresh_network_starts_with_a_zero_scale_at_its_end_and_nowhere_else() -> None:
    module = build(SMALL)
    ends = [part.convs[-1].bn for part in module.modules() if isinstance(part, ResidualBlock)]
    zeros = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d) and not part.weight.any()]
    assert len(ends) == 5
    assert set(map(id, zeros)) == set(map(id, ends))


def test_a_fresh_convolution_has_the_spread_of_he_initialisation() -> None:
    network = Network.parse("@16x3 | Conv k3 c8 s2 | XX k3 c64 s1 d2 | Conv k1 c24 | 10")
    convolution = build(network).superblocks[0].blocks[1].convs[0].conv  # 64 x 64 x 3 x 3
    assert convolution.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert abs(convolution.weight.mean().item()) < 0.002


def test_a_stage_has_the_depth_of_its_super_block_and_only_its_first_block_has_the_stride() -> None:
    strides = [[max(conv.conv.stride[0] for conv in block.convs) for block in stage.blocks] for stage in build(SMALL).superblocks]
    assert strides == [[1, 1], [2, 1], [1]]
