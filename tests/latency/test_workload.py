"""What can be named to be timed: blocks, super-blocks, networks of ours and timm's; and what a wrong name is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from genet.arch.external import ExternalModel
from genet.arch.network import Block, Input, Network
from genet.config.reader import read_network, to_yaml
from genet.config.recipe import Measure
from genet.device import read_card
from genet.errors import GenetError, SpecError
from genet.latency.ops import block_ops, by_block, network_ops
from genet.latency.timing.meter import open_meter
from genet.latency.workload import (
    Workload,
    block_chain,
    external_workload,
    network_workload,
    read_blocks,
    read_workload,
    with_width,
)
from genet.models.build import GENet
from tests.fixtures.tiny import tiny_recipe

CURIOUS = ExternalModel(source="tests.fixtures.align_networks:curious", input=Input(channels=3, classes=5, resolution=16))
EIGHTS = st.integers(1, 64).map(lambda number: 8 * number)


@st.composite
def any_block(draw: st.DrawFn) -> Block:
    """A block or a single layer that a user may write."""
    kind = draw(st.sampled_from(["XX", "BL", "DW", "Conv", "Depthwise"]))
    width, in_width, size = draw(EIGHTS), draw(EIGHTS), draw(st.integers(2, 128))
    ratio = {"BL": draw(st.sampled_from([0.125, 0.25, 0.5, 1.0])), "DW": draw(st.sampled_from([1.0, 2.0, 6.0]))}.get(kind)
    if kind == "BL":
        width *= 8
    if kind == "Depthwise":
        in_width = width
    groups = draw(st.sampled_from([1, 2, 8])) if kind == "Conv" else 1
    kernel, stride = draw(st.sampled_from([3, 5, 7])), draw(st.sampled_from([1, 2]))
    return Block(kind, kernel, ratio, in_width, width, stride, size, groups=groups)  # type: ignore[arg-type]


@given(any_block())
def test_every_block_reads_back_from_its_own_notation(block: Block) -> None:
    assert read_blocks(str(block)) == (block,)
    assert read_workload(str(block)).name == str(block)


@given(any_block(), st.integers(2, 64))
def test_a_size_from_outside_takes_the_place_of_the_blocks_own(block: Block, size: int) -> None:
    assert read_blocks(str(block), size) == (dataclasses.replace(block, size=size),)


def test_short_notations_mean_depth_and_stride_one_and_an_equal_input() -> None:
    assert read_blocks("BL k3 c64 r0.25 @14") == (Block("BL", 3, 0.25, 64, 64, 1, 14),)
    assert read_blocks("XX k3 c64", 28) == (Block("XX", 3, None, 64, 64, 1, 28),)
    assert read_blocks("Conv k3 c64>128 s2 @56") == (Block("Conv", 3, None, 64, 128, 2, 56),)
    assert read_blocks("Depthwise k5 c32 @8") == (Block("Depthwise", 5, None, 32, 32, 1, 8),)
    assert read_blocks("Conv k3 c64>128 g8 @56") == (Block("Conv", 3, None, 64, 128, 1, 56, groups=8),)


def test_a_superblock_is_its_first_block_and_the_repeated_ones_behind_it() -> None:
    first, *rest = read_blocks("DW k5 c32>96 s2 d4 r6 @28")
    assert first == Block("DW", 5, 6.0, 32, 96, 2, 28)
    assert rest == [Block("DW", 5, 6.0, 96, 96, 1, 14)] * 3


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("XX k3 c64", "must have size, as in"),
        ("XX c64 @14", "must have kernel, as in"),
        ("XX k3 @14", "must have width, as in"),
        ("XX", "must have kernel, width, size"),
        ("Conv k3 c64>100 g8 @56", "the channels must divide evenly among the 8 groups"),
        ("Depthwise k3 c64 g8 @56", "only Conv may have groups, got Depthwise"),
        ("XX k3 c64 @14 k5", "must look like .* got 'k5'"),
        ("XX k3 c64 z9 @14", "must look like .* got 'z9'"),
        ("XX k3 c64>x @14", "must look like .* got 'c64>x'"),
        ("XX k3 c-64 @14", "must look like"),
        ("XX k c64 @14", "must look like"),
        ("XX k3>5 c64 @14", "must look like"),
        ("XX k3 c64 @0", "must be at least 1"),
        ("XX k3 c0>64 @14", "must be at least 1"),
        ("XX k3 c64 d0 @14", "must be at least 1"),
        ("XX k3 c64 s0 @14", "must be at least 1"),
        ("XX k3 c65 @14", "must be a multiple of 8"),
        ("XX k4 c64 @14", "kernel"),
        ("XX k3 c64 s3 @14", "stride"),
        ("XX k3 c64 r0.5 @14", "must be absent for XX"),
        ("BL k3 c64 @14", "must be given and at most 1 for BL"),
        ("BL k3 c64 r2 @14", "at most 1 for BL"),
        ("DW k3 c64 r0.5 @14", "at least 1 for DW"),
        ("BL k3 c64 r0.1 @14", "inner width"),
        ("ZZ k3 c64 @14", "type"),
        ("Conv k3 c64 r0.5 @14", "neither ratio nor depth"),
        ("Conv k3 c64 d2 @14", "neither ratio nor depth"),
        ("Conv k2 c64 @14", "the kernel must be odd"),
        ("Conv k3 c64 s4 @2", "the stride at most the size"),
        ("Depthwise k3 c64>128 @14", "must write as many channels as it reads, got 64"),
    ],
)
def test_a_block_that_breaks_a_law_is_told_which_and_in_what(text: str, law: str) -> None:
    with pytest.raises(SpecError, match=law) as caught:
        read_blocks(text)
    assert text.split()[0] in str(caught.value)


@pytest.mark.parametrize("text", ["BL k3 c64 r1.2.3 @14", "XX k3.5 c64 @14", "XX k3 c64 d. @14", "XX k3 c64 @14.5"])
def test_a_number_that_is_none_is_a_fault_and_no_traceback(text: str) -> None:
    with pytest.raises(SpecError, match="must look like"):
        read_blocks(text)


@pytest.mark.parametrize(
    ("text", "wider"),
    [
        ("BL k3 c64 r0.25 @14", "BL k3 c128 r0.25 @14"),
        ("Conv k3 c64>96 s2 @56", "Conv k3 c64>128 s2 @56"),
        ("DW k5 c32>96 s2 d4 r6 @28", "DW k5 c32>128 s2 d4 r6 @28"),
        ("Depthwise k3 c64 @8", "Depthwise k3 c128 @8"),
    ],
)
def test_another_width_leaves_what_a_block_reads_where_it_is_given(text: str, wider: str) -> None:
    assert with_width(text, 128) == wider


@pytest.mark.parametrize("text", ["timm:resnet50", "@16x1 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | Conv k1 c32 | 10", "XX k3"])
def test_what_has_no_single_width_cannot_be_swept_over_widths(text: str) -> None:
    with pytest.raises(SpecError, match="a sweep over widths needs a block such as"):
        with_width(text, 64)


def test_a_chain_is_built_in_order_and_its_kernels_are_grouped_by_block() -> None:
    found = read_blocks("BL k3 c8>16 s2 d3 r0.5 @8")
    part = block_chain(found)
    assert part.name == f"{found[0]} and 2 more"
    assert part.image == (8, 8, 8)
    assert part.groups() == tuple(map(block_ops, found))
    assert part.ops() == tuple(op for block in found for op in block_ops(block))
    assert not part.whole
    assert part.build().eval()(torch.randn(2, *part.image)).shape == (2, 16, 4, 4)


@pytest.mark.parametrize("text", ["Conv k3 c8>16 s2 @8", "Depthwise k3 c8 @8", "XX k3 c8>16 @8", "DW k3 c8 r2 @8"])
def test_every_kind_of_part_runs(text: str) -> None:
    part = read_workload(text)
    (block,) = read_blocks(text)
    assert part.build().eval()(torch.randn(1, *part.image)).shape == (1, block.width, block.out_size, block.out_size)


def test_a_network_is_named_by_file_by_name_and_by_notation(tmp_path: Path) -> None:
    network = tiny_recipe(tmp_path).space.masternet(16)
    path = tmp_path / "net.yaml"
    path.write_text(to_yaml(network))
    by_file, by_notation, itself = read_workload(str(path)), read_workload(str(network)), network_workload(network)
    assert by_file.ops() == by_notation.ops() == itself.ops() == network_ops(network)
    assert by_file.groups() == by_block(network)
    assert by_file.image == by_notation.image == (1, 16, 16)
    assert (by_file.name, by_notation.name) == ("tiny", str(network))
    assert by_file.whole
    assert isinstance(by_file.build(), GENet)


def test_a_network_that_comes_with_the_project_is_named_by_its_name() -> None:
    shipped = read_network("genet-light")
    assert read_workload("genet-light").ops() == network_ops(shipped)


def test_a_network_may_be_timed_at_another_resolution(tmp_path: Path) -> None:
    network = tiny_recipe(tmp_path).space.masternet(16)
    part = read_workload(str(network), 32)
    assert part.image == (1, 32, 32)
    assert part.ops() == network_ops(Network.parse(str(network).replace("@16x", "@32x")))
    assert read_workload("genet-light", 96).image == (3, 96, 96)


def test_a_resolution_that_a_network_cannot_read_is_refused(tmp_path: Path) -> None:
    network = tiny_recipe(tmp_path).space.masternet(16)
    with pytest.raises(SpecError, match="total stride of at most the resolution 4"):
        read_workload(str(network), 4)


@pytest.mark.parametrize("text", ["no-such-network", "@16x1 | Conv k3 c8 s2", "", "timm:"])
def test_what_is_nothing_of_all_this_is_a_fault_in_words(text: str) -> None:
    with pytest.raises(GenetError):
        read_workload(text)


def test_a_timm_model_is_read_with_its_own_resolution_or_another() -> None:
    part = read_workload("timm:resnet10t")
    assert (part.name, part.image, part.whole) == ("timm:resnet10t", (3, 176, 176), True)
    assert read_workload("timm:resnet10t", 64).image == (3, 64, 64)


def test_the_kernels_of_a_timm_model_are_grouped_by_convolution() -> None:
    part = read_workload("timm:resnet10t", 64)
    assert sum(op.kind == "linear" for op in part.ops()) == 1
    assert len(part.groups()) == sum(op.kind in ("conv", "linear") for op in part.ops())
    assert all(sum(op.kind in ("conv", "linear") for op in group) == 1 for group in part.groups())
    small, large = (sum(op.macs for op in read_workload("timm:resnet10t", size).ops()) for size in (64, 128))
    assert 3.5 < large / small < 4.5


@pytest.mark.parametrize(
    "part", [external_workload(CURIOUS), read_workload("timm:vit_tiny_patch16_224", 100)], ids=["values", "size"]
)
def test_a_network_that_cannot_be_seen_running_is_refused_in_one_line(part: Workload) -> None:
    with pytest.raises(SpecError, match=r"failed to run on images of 3 x \d+ x \d+ that have a shape but no values \("):
        part.ops()


def test_a_timm_model_may_look_at_the_values_of_tensors_while_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def looking(name: str, pretrained: bool) -> nn.Module:
        """As timm's RegNets do, which the meta device of torch 2.11 could not follow."""
        return nn.Conv2d(3, int(torch.linspace(1, 8, 8).sum()), 3)

    monkeypatch.setattr(timm, "create_model", looking)
    cpu = torch.device("cpu")
    part = read_workload("timm:resnet10t", 8)
    (timing,) = open_meter(Measure(device="cpu", dtype="fp32", batch=2), read_card(cpu), cpu).prepare([part])()
    assert timing.ms > 0


def test_an_unknown_timm_model_is_told_the_nearest_names() -> None:
    with pytest.raises(SpecError, match=r"timm:resnet55 is not the name of a timm model; nearest: .*resnet5"):
        read_workload("timm:resnet55")
    with pytest.raises(SpecError, match=r"is not the name of a timm model$"):
        read_workload("timm:qqqqqqqqqqqqqqqq")
