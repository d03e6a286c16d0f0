"""Intrinsic rank: of matrices whose rank is known, and of the stages that the paper looks at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from genet.arch.network import Network
from genet.errors import EvidenceError
from genet.latency.workload import timm_workload
from genet.models.build import build
from genet.studies.rank import stage_ranks

OURS = Network.parse("@16x3 | Conv k3 c16 s1 | XX k3 c32 s2 d2 | BL k3 c64 s1 d1 r0.25 | DW k3 c48 s2 d2 r3 | Conv k1 c64 | 10")


def stem_and(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, conv.in_channels, 1), conv)


def bottlenecks() -> nn.Module:
    def block(stride: int) -> nn.Sequential:
        part = nn.Sequential()
        part.add_module("conv1", nn.Conv2d(16, 8, 1))
        part.add_module("conv2", nn.Conv2d(8, 8, 3, stride, 1))
        part.add_module("conv3", nn.Conv2d(8, 16, 1))
        return part

    found = nn.Sequential()
    found.add_module("stem", nn.Conv2d(3, 16, 3, padding=1))
    found.add_module("blocks", nn.Sequential(block(1), block(1), block(2)))
    return found


@given(st.integers(1, 12), st.integers(0, 10**6))
def test_as_many_equal_directions_have_nine_tenths_of_their_number_as_rank(rank: int, seed: int) -> None:
    """A projection onto so many directions has that many singular values of 1, and none else."""
    conv = nn.Conv2d(8, 16, 3, padding=1, bias=False)
    draw = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(16, 16, generator=draw))
    right, _ = torch.linalg.qr(torch.randn(72, 72, generator=draw))
    with torch.no_grad():
        conv.weight.copy_((left[:, :rank] @ right[:rank]).reshape(16, 8, 3, 3))
    (found,) = stage_ranks(stem_and(conv), (3, 4, 4))
    assert found.shape == (16, 72)
    assert found.singular_values[0] == 1
    assert list(found.singular_values) == sorted(found.singular_values, reverse=True)
    assert found.rank in (-(-9 * rank // 10), 9 * rank // 10 + 1)
    assert found.share == found.rank / 16
    assert found.advice == ("full convolution" if found.share >= 0.5 else "bottleneck or depthwise")


def test_fresh_weights_have_the_rank_that_is_told_of_noise() -> None:
    for one in stage_ranks(build(OURS, 0), (3, 16, 16)):
        assert one.rank == pytest.approx(one.noise_rank, rel=0.1)


def test_a_layer_that_reads_fewer_values_than_it_writes_channels_gets_no_advice() -> None:
    conv = nn.Conv2d(8, 32, 1)
    (found,) = stage_ranks(stem_and(conv), (3, 4, 4))
    assert found.rank <= 8
    assert found.advice is None


def test_resnets_stages_are_the_papers_four() -> None:
    """GENet paper, section 3.3: the last layer of each stage, the stem left out."""
    part = timm_workload("resnet18", 64)
    found = stage_ranks(part.build(), part.image)
    assert [one.layer for one in found] == [f"layer{stage}.1.conv2" for stage in (1, 2, 3, 4)]
    assert [one.shape for one in found] == [(width, 9 * width) for width in (64, 128, 256, 512)]


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet50", ["layer1.2.conv3", "layer2.3.conv3", "layer3.5.conv3", "layer4.2.conv3"]),
        ("resnet50d", ["layer1.2.conv3", "layer2.3.conv3", "layer3.5.conv3", "layer4.2.conv3"]),
        ("regnetx_002", ["s1.b1.conv3.conv", "s2.b1.conv3.conv", "s3.b4.conv3.conv", "s4.b7.conv3.conv"]),
    ],
)
def test_a_stage_ends_where_timm_ends_it_and_not_in_the_next_ones_first_convolution(name: str, last: list[str]) -> None:
    part = timm_workload(name, 64)
    assert [one.layer for one in stage_ranks(part.build(), part.image)] == last


def test_stages_of_a_function_end_in_the_last_block_of_each_size() -> None:
    """A bottleneck that halves the size in its second convolution belongs to the size it writes."""
    found = stage_ranks(bottlenecks(), (3, 16, 16))
    assert [one.layer for one in found] == ["blocks.1.conv3", "blocks.2.conv3"]


def test_stages_of_a_network_of_ours_are_its_super_blocks() -> None:
    found = stage_ranks(build(OURS), (3, 16, 16))
    assert [one.shape for one in found] == [(32, 288), (64, 16), (48, 144)]
    assert all(one.layer.startswith(f"stages.{one.stage - 1}.") for one in found)


def test_layers_that_narrow_to_one_pixel_or_stand_beside_a_stage_end_none() -> None:
    part = timm_workload("test_efficientnet", 64)
    found = stage_ranks(part.build(), part.image)
    assert not any("se." in one.layer or "conv_head" in one.layer for one in found)


def test_a_network_without_convolutions_after_its_stem_is_refused() -> None:
    with pytest.raises(EvidenceError, match="needs convolutions after its stem"):
        stage_ranks(nn.Sequential(nn.Flatten(), nn.Linear(48, 10)), (3, 4, 4))


def test_weights_that_are_all_zero_have_no_rank() -> None:
    conv = nn.Conv2d(8, 8, 3)
    nn.init.zeros_(conv.weight)
    with pytest.raises(EvidenceError, match="all zero"):
        stage_ranks(stem_and(conv), (3, 8, 8))
