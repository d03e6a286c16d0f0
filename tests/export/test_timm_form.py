"""timm's form of a network, and back: the same logits, and what either side does not have."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.byobnet import model_cfgs

from genet.arch.network import Network, Stem
from genet.config.reader import read_network
from genet.errors import GenetError, SpecError
from genet.export.timm_form import from_timm, timm_arguments, to_timm
from genet.models.build import build
from tests.fixtures.small import with_own_statistics
from tests.fixtures.strategies import networks, superblocks

DEEP = (
    "@128x3 | Conv k7 c13 s2 | XX k3 c16 s2 d1 | XX k3 c16 s2 d1 | XX k3 c16 s2 d2 | XX k3 c16 s2 d1 | "
    "DW k5 c24 s2 d1 r2 | BL k7 c32 s1 d2 r0.5 | Conv k1 c32 | 10"
)


SHORT = "@16x1 | Conv k3 c8 s2 | XX k3 c8 s1 d1 | DW k5 c24 s2 d1 r2 | Conv k1 c32 | 10"
HEADLESS = SHORT.replace(" | Conv k1 c32", "")
VANISHED = SHORT.replace("XX k3 c8 s1 d1", "BL k3 c16 s1 d0 r1 | XX k3 c8 s1 d1 | XX k3 c16 s1 d0")


@pytest.mark.parametrize("notation", ["genet-light", DEEP, SHORT, HEADLESS, VANISHED])
def test_timms_form_has_the_same_logits(notation: str) -> None:
    network = Network.parse(notation) if "|" in notation else read_network(notation)
    module, model = with_own_statistics(build(network)).eval(), to_timm(network).eval()
    model.load_state_dict(module.state_dict())
    input_ = network.input
    images = torch.randn(2, *input_.image, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, found = module(images), model(images)
    assert float((wanted - found).abs().max() / wanted.abs().max()) < 1e-6


STEMS = st.builds(Stem, kernel=st.sampled_from([3, 7]), width=st.integers(1, 20), stride=st.just(2))
STACKS = st.lists(superblocks(), min_size=2, max_size=4).map(tuple).filter(lambda stack: sum(s.depth > 0 for s in stack) > 1)


@given(network=networks(STEMS, STACKS))
def test_a_network_comes_back_from_timms_fields_but_for_super_blocks_without_blocks(network: Network) -> None:
    input_, kept = network.input, network.model_copy(update={"superblocks": network.stages})
    assert from_timm(timm_arguments(network), input_.resolution, input_.channels, input_.classes, network.name) == kept


@pytest.mark.parametrize(
    ("model", "name"), [("gernet_l", "genet-large"), ("gernet_m", "genet-normal"), ("gernet_s", "genet-light")]
)
def test_timms_gernets_are_the_papers_networks(model: str, name: str) -> None:
    network = read_network(name)
    found = from_timm(vars(model_cfgs[model]), network.input.resolution, 3, 1000, name)
    assert found.superblocks == network.superblocks
    assert found == network


def test_a_timm_model_without_features_of_its_own_is_a_network_without_a_head() -> None:
    found = from_timm(vars(dataclasses.replace(model_cfgs["gernet_l"], num_features=0)), 256, 3, 1000, "it")
    assert found == read_network("genet-large").model_copy(update={"head": None})


@pytest.mark.parametrize(
    ("middle", "got"),
    [
        ("Conv k3 c8 s1 | XX k3 c16 s2 d1 | XX k3 c16 s2 d1", "a stem of stride 1"),
        ("Conv k5 c8 s2 | XX k3 c16 s2 d1 | XX k3 c16 s2 d1", "a stem of kernel 5"),
        ("Conv k3 c8 s2 | XX k3 c16 s2 d1", "a single super-block"),
        (
            "Conv k5 c8 s1 | XX k3 c16 s2 d1 | XX k3 c16 s1 d0",
            "a stem of stride 1 and a stem of kernel 5 and a single super-block",
        ),
    ],
)
def test_what_timm_does_not_have_is_said(middle: str, got: str) -> None:
    rule = "a stem of stride 2 and kernel 3 or 7 and at least two super-blocks; the other formats hold the same network"
    with pytest.raises(GenetError, match=f"^plain timm cannot build this network: got {got}, expected {rule}$"):
        timm_arguments(Network.parse(f"@16x1 | {middle} | Conv k1 c32 | 10"))


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"act_layer": "silu"}, "act_layer of a timm model must be 'relu' .* \\(got 'silu'\\)"),
        ({"stem_pool": "maxpool"}, "stem_pool of a timm model must be None"),
        ({"stem_type": "deep"}, "stem_type of a timm model must be '3x3' or '7x7'"),
        ({"blocks": ()}, "must have blocks"),
    ],
)
def test_what_no_network_here_has_is_said(changes: dict[str, Any], law: str) -> None:
    fields = vars(dataclasses.replace(model_cfgs["gernet_l"], **changes))
    with pytest.raises(SpecError, match=law):
        from_timm(fields, 224, 3, 1000, "it")


def test_all_faults_of_a_timm_model_are_told_at_once() -> None:
    blocks = [
        {"type": "rep", "d": 1, "c": 8},
        {"type": "bottle", "d": 1, "c": 8, "gs": 4},
        {"type": "basic", "d": 1, "c": 8, "attn_layer": "se"},
        {"type": "basic", "d": 0, "c": 8, "s": 1},
    ]
    with pytest.raises(SpecError) as fault:
        from_timm({"blocks": blocks, "num_features": 8, "act_layer": "silu"}, 32, 3, 10, "it")
    assert len(fault.value.faults) == 5
