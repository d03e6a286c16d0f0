"""Folded networks: what changes, what stays, and whose answer is whose."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from genet.arch.cost import network_cost
from genet.arch.external import ExternalModel
from genet.arch.network import Input, Network
from genet.config.recipe import Data, Measure
from genet.errors import GenetError, SpecError
from genet.latency.estimate.gpus import find_gpu
from genet.latency.estimate.roofline import measure_roof
from genet.latency.timing.meter import EstimateMeter
from genet.models.build import build
from genet.models.external import build_structure
from genet.models.folded import Folded, unfolded
from genet.studies.fold import compare, fold
from genet.training.splits import load_data

OURS = Network.parse("@32x3 | Conv k3 c16 s2 | XX k3 c32 s2 d2 | BL k3 c64 s2 d2 r0.25 | DW k3 c48 s1 d1 r3 | Conv k1 c128 | 10")


def vgg_like() -> nn.Sequential:
    """Six 3x3 convolutions at large sizes, and pooling in place of large linear layers."""
    layers: list[nn.Module] = []
    read = 3
    for width in (32, 32, 64, 64, 128, 128):
        layers += [nn.Conv2d(read, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)] if width == read else []
        read = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(read, 10))


VGG_LIKE = ExternalModel(
    name="vgg", source="tests.studies.test_fold:vgg_like", input=Input(channels=3, classes=10, resolution=112)
)


def timms(name: str, size: int) -> ExternalModel:
    return ExternalModel(name=name, source=f"timm:{name}", input=Input(channels=3, classes=1000, resolution=size))


@pytest.mark.parametrize("f", [4, 9, 16])
def test_of_a_square_every_layer_is_the_root_as_wide_and_the_arithmetic_for_f_images_nearly_the_same(f: int) -> None:
    found = fold(OURS, f)
    assert isinstance(found, Network)
    root = math.isqrt(f)
    assert [block.width for block in found.superblocks] == [root * block.width for block in OURS.superblocks]
    assert (found.stem.width, found.head.width) == (root * 16, root * 128)
    assert (found.input.channels, found.input.classes) == (3 * f, 10 * f)
    assert unfolded(found.input, f) == OURS.input
    assert network_cost(found).macs / f == pytest.approx(network_cost(OURS).macs, rel=0.2)
    assert build(found)(torch.zeros(2, 3 * f, 32, 32)).shape == (2, 10 * f)


def test_a_network_without_a_head_is_folded_to_one() -> None:
    found = fold(OURS.model_copy(update={"head": None}), 4)
    assert found.head is None
    assert build(found)(torch.zeros(1, 12, 32, 32)).shape == (1, 40)


@given(st.integers(2, 12))
def test_of_any_f_a_network_of_ours_keeps_its_laws(f: int) -> None:
    found = fold(OURS, f)
    assert Network.parse(str(found)) == found.model_copy(update={"name": "network"})


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet"])
def test_timms_networks_are_folded_by_their_layers(name: str) -> None:
    found = fold(timms(name, 64), 4)
    assert isinstance(found, ExternalModel)
    before, after = build_structure(timms(name, 64)), build_structure(found)
    assert after.eval()(torch.zeros(1, 12, 64, 64)).shape == (1, 4000)
    for part, wider in zip(before.modules(), after.modules(), strict=True):
        if isinstance(part, nn.Conv2d) and part.in_channels != 3:
            assert (wider.in_channels, wider.out_channels) == (2 * part.in_channels, 2 * part.out_channels)


@pytest.mark.parametrize("f", [4, 9])
def test_on_a_vgg_style_network_traffic_falls_by_nearly_the_root(f: int) -> None:
    """Utilization paper, section 3.3: by sqrt(f), as intensity rises. Images themselves stay, so large f fall short."""
    measure = Measure(device="estimate:v100", dtype="fp16", runtime="tensorrt", batch=72)
    meter = EstimateMeter(measure, find_gpu("v100"))
    roof, product = measure_roof(meter)
    found = compare(VGG_LIKE, f, meter, product, roof.ratio)
    assert 1 / found.traffic == pytest.approx(math.sqrt(f), rel=0.1)
    assert found.flops == pytest.approx(1, rel=0.1)
    assert (found.after.intensity or 0) / (found.before.intensity or 1) == pytest.approx(math.sqrt(f), rel=0.15)
    assert found.after.batch == 72 // f


class Marks(nn.Module):
    """Answers for every image of a stack with its mean and its maximum: nothing of its neighbours."""

    def forward(self, stacked: Tensor) -> Tensor:
        images = stacked.reshape(len(stacked), -1, 3, *stacked.shape[2:])
        return torch.stack([images.mean((2, 3, 4)), images.amax((2, 3, 4))], 2).reshape(len(stacked), -1)


@pytest.mark.parametrize("count", [1, 4, 7, 8])
def test_every_image_gets_its_own_answer_whatever_the_batch(count: int) -> None:
    images = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for layout in (torch.contiguous_format, torch.channels_last):
        found = Folded(Marks(), 4)(images.contiguous(memory_format=layout))
        assert torch.allclose(found, torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3))], 1))


def test_a_network_whose_channels_are_joined_needs_a_square() -> None:
    with pytest.raises(GenetError, match=r"1\.41 times as wide.*try a square, such as --images-per-fold 4"):
        fold(timms("densenet121", 64), 2)
    assert isinstance(fold(timms("densenet121", 64), 4), ExternalModel)


def test_one_image_is_no_stack() -> None:
    with pytest.raises(SpecError, match="expected at least 2"):
        fold(OURS, 1)


def test_shuffled_images_are_the_same_in_another_order() -> None:
    images = load_data(Data(name="digits"), Input(channels=1, classes=10, resolution=8), 0).test
    (plain,), (other,) = (list(each.batches(images.size, 8)) for each in (images, images.shuffled(3)))
    assert not torch.equal(plain[1], other[1])
    order = torch.randperm(images.size, generator=torch.Generator().manual_seed(3))
    assert torch.equal(plain[0][order], other[0])
    assert torch.equal(plain[1][order], other[1])
