"""The parts around the residual blocks, and where each kind of block puts its stride and its groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genet.arch.cost import block_cost
from genet.arch.layers import body
from genet.arch.network import Block
from genet.models.blocks import Classifier, ConvNorm, HeadBlock, build_block

STEM = Block("Conv", 3, None, 3, 13, 2, 17)
HEAD = Block("Head", 1, None, 16, 24, 1, 5, classes=7)
CLASSIFIER = Block("Classifier", 1, None, 16, 7, 1, 5, classes=7)
RATIOS = {"XX": None, "BL": 0.5, "DW": 2.0}


def images_for(block: Block, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, block.in_width, block.size, block.size, generator=torch.Generator().manual_seed(0))


def test_the_stem_is_one_convolution_whose_output_is_never_negative() -> None:
    module = build_block(STEM)
    result = module(images_for(STEM))
    assert isinstance(module, ConvNorm)
    assert result.shape == (2, 13, 9, 9)
    assert result.min() == 0 < result.max()


def test_the_head_gives_one_logit_per_class() -> None:
    module = build_block(HEAD)
    assert isinstance(module, HeadBlock)
    assert module(images_for(HEAD)).shape == (2, 7)


def test_a_classifier_alone_is_pooling_and_a_linear_layer() -> None:
    module, images = build_block(CLASSIFIER), images_for(CLASSIFIER)
    assert isinstance(module, Classifier)
    torch.testing.assert_close(module(images), images.mean((2, 3)) @ module.fc.weight.T + module.fc.bias)


@pytest.mark.parametrize("block", [STEM, HEAD, CLASSIFIER], ids=["stem", "head", "classifier"])
def test_stem_and_head_have_as_many_parameters_as_their_cost_says(block: Block) -> None:
    assert sum(parameter.numel() for parameter in build_block(block).parameters()) == block_cost(block).parameters


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_padding_keeps_the_size_and_the_stride_divides_it_rounding_up(kernel: int, stride: int, size: int) -> None:
    stem = Block("Conv", kernel, None, 3, 8, stride, size)
    assert build_block(stem).eval()(images_for(stem)).shape[2:] == (-(-size // stride),) * 2


def test_the_classifier_reads_the_mean_over_all_pixels() -> None:
    classifier = Classifier(4, 3)
    images = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    means = torch.stack([torch.stack([channel.mean() for channel in image]) for image in images])
    torch.testing.assert_close(classifier(images), classifier.fc(means))


@pytest.mark.parametrize("kind", ["XX", "BL", "DW"])
def test_the_stride_sits_at_the_first_kxk_convolution(kind: str) -> None:
    block = Block(kind, 5, RATIOS[kind], 16, 16, 2, 8)  # type: ignore[arg-type]
    strides = {conv.name: module.conv.stride[0] for conv, module in zip(body(block), build_block(block).convs, strict=True)}
    first_kxk = "conv1_kxk" if kind == "XX" else "conv2_kxk"
    assert strides == {name: 2 if name == first_kxk else 1 for name in strides}


def test_only_the_kxk_convolution_of_dw_works_channel_by_channel() -> None:
    groups = {}
    for kind, ratio in RATIOS.items():
        module = build_block(Block(kind, 3, ratio, 16, 16, 1, 8))  # type: ignore[arg-type]
        groups[kind] = [conv.conv.groups for conv in module.convs]
    assert groups == {"XX": [1, 1], "BL": [1, 1, 1], "DW": [1, 32, 1]}


@pytest.mark.parametrize(("kind", "inner"), [("XX", 16), ("BL", 8), ("DW", 32)])
def test_the_ratio_sets_the_inner_width(kind: str, inner: int) -> None:
    module = build_block(Block(kind, 3, RATIOS[kind], 16, 16, 1, 8))  # type: ignore[arg-type]
    assert [conv.conv.out_channels for conv in module.convs] == [inner] * (len(module.convs) - 1) + [16]


@pytest.mark.parametrize("kind", ["XX", "BL", "DW"])
def test_every_convolution_but_the_last_of_a_body_is_followed_by_relu(kind: str) -> None:
    module = build_block(Block(kind, 3, RATIOS[kind], 16, 16, 1, 8))  # type: ignore[arg-type]
    with_relu = [any(isinstance(part, nn.ReLU) for part in conv) for conv in module.convs]
    assert with_relu == [True] * (len(module.convs) - 1) + [False]
