"""The notation of the GENet paper's own code: round trips, the paper's networks, and what is no such line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from genet.arch.network import Network
from genet.arch.paper_notation import from_genet_string, to_genet_string
from genet.config.reader import read_network
from genet.errors import SpecError
from tests.fixtures.strategies import networks

LARGE = (
    "ConvKX(3,32,3,2)BN(32)RELU(32)SuperResKXKX(32,128,3,2,1.0,1)SuperResKXKX(128,192,3,2,1.0,2)"
    "SuperResK1KXK1(192,640,3,2,0.25,6)SuperResK1DWK1(640,640,3,2,3.0,5)SuperResK1DWK1(640,640,3,1,3.0,4)"
    "ConvKX(640,2560,1,1)BN(2560)RELU(2560)AdaptiveAvgPool(2560,1)"
)


@given(networks().filter(lambda network: network.stages))
def test_a_network_that_is_written_is_read_back_but_for_super_blocks_without_blocks(network: Network) -> None:
    input_, kept = network.input, network.model_copy(update={"superblocks": network.stages})
    assert from_genet_string(to_genet_string(network), input_.resolution, input_.classes, network.name) == kept


def test_a_network_without_any_block_cannot_be_written() -> None:
    with pytest.raises(SpecError, match="a GENet string needs a super-block of depth 1 or more"):
        to_genet_string(Network.parse("@8x3 | Conv k3 c13 s2 | XX k3 c48 s1 d0 | 10"))


def test_genet_large_is_the_papers() -> None:
    assert from_genet_string(LARGE, 256) == read_network("genet-large")
    assert to_genet_string(read_network("genet-large")) == LARGE


def test_names_of_parts_and_a_line_break_at_the_end_are_left_out() -> None:
    named = re.sub(r"(KX|BN|RELU|KXK1|DWK1)\(", r"\1(uuid46ff2328|", LARGE) + "\n"
    assert from_genet_string(named, 256) == read_network("genet-large")


def test_without_a_head_the_pooling_follows_the_last_super_block() -> None:
    headless = LARGE.replace("ConvKX(640,2560,1,1)BN(2560)RELU(2560)AdaptiveAvgPool(2560,1)", "AdaptiveAvgPool(640,1)")
    network = read_network("genet-large").model_copy(update={"head": None})
    assert to_genet_string(network) == headless
    assert from_genet_string(headless, 256) == network


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("", "must be made of"),
        ("SuperResKXKX(3,8,3,1,1.0,1)", "must be ConvKX, BN, RELU, super-blocks"),
        ("ConvKX(3,8,3,1)BN(8)RELU(8)AdaptiveAvgPool(8,1)", "must be ConvKX, BN, RELU, super-blocks"),
        (LARGE.replace("AdaptiveAvgPool(2560,1)", ""), "must be ConvKX, BN, RELU, super-blocks"),
        (LARGE.replace("ConvKX(640,2560,1,1)BN(2560)RELU(2560)", "").replace("2560", "64"), "must read the width 640"),
        (LARGE.replace("ConvKX(640", "nonsense ConvKX(640"), "must be made of .* \\(got 'nonsense ConvKX\\(640"),
        (LARGE + "Linear(2560,1000)", "must be made of .* \\(got 'Linear"),
        (LARGE.replace("192,3,2,1.0,2", "192,3,2,2"), "SuperResKXKX must have 6 numbers \\(got SuperResKXKX\\(128,192,3,2,2"),
        (LARGE.replace("(128,192", "(64,192"), "SuperResKXKX must read the width 128 of the part before it \\(got 64\\)"),
        (LARGE.replace("BN(32)", "BN(16)"), "BN must read the width 32"),
        (LARGE.replace("2,1.0,1", "2,0.5,1"), "SuperResKXKX must have ratio 1"),
        (LARGE.replace("640,3,1,3.0,4", "640,3,1,3.0,0"), "SuperResK1DWK1 must have a depth of 1 or more \\(got 0\\)"),
        (LARGE.replace("2560,1,1", "2560,3,1"), "the last ConvKX must have kernel 1 and stride 1"),
        (LARGE.replace("192,640,3,2,0.25", "192,640,4,2,0.25"), "super-block 3|kernel|must"),
        (LARGE.replace("3,2,0.25,6", "3,2,0.25,six"), "must be made of"),
    ],
)
def test_what_is_no_such_line_is_told(text: str, law: str) -> None:
    with pytest.raises(SpecError, match=law):
        from_genet_string(text, 256)
