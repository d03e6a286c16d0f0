"""The terms: what a super-block is described by, held against the whole network that it would make."""

from __future__ import annotations

import math
from functools import cache
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genet.choose.terms import SHARED, Scale, Terms
from genet.spec.cost import network_cost
from genet.spec.network import BlockType, SuperBlock
from genet.spec.reader import read_space
from genet.spec.space import SearchSpace, superblock_of

SPACES = ("digits", "cifar10", "masternet")
SCALES: tuple[Scale, ...] = get_args(Scale)
SCALED = pytest.mark.parametrize("scale", SCALES)
SHIPPED = pytest.mark.parametrize("name", SPACES)


@cache
def space_of(name: str) -> SearchSpace:
    return read_space(name)


@cache
def choices(name: str) -> list[tuple[int, SuperBlock]]:
    """Every super-block on offer, with its place."""
    space = space_of(name)
    widths = space.widths_on_offer()
    return [(index, each) for index in range(len(space.superblocks)) for each in space.choices(index, widths)]


@cache
def terms_of(name: str, width: Scale = "log2", depth: Scale = "log2", resolution: int = 0) -> Terms:
    space = space_of(name)
    return Terms(space.masternet(resolution or space.input.resolutions[0]), width, depth)


def parameters(name: str, index: int, superblock: SuperBlock) -> int:
    """Of the whole network with one super-block replaced, counted block by block."""
    space = space_of(name)
    superblocks = [*space.superblocks[:index], superblock, *space.superblocks[index + 1 :]]
    return network_cost(space.network(tuple(superblocks), space.input.resolutions[0])).parameters


def assert_parameters_are_those_of_the_whole_network(name: str, index: int, superblock: SuperBlock) -> None:
    whole = (
        parameters(name, index, superblock)
        / network_cost(space_of(name).masternet(space_of(name).input.resolutions[0])).parameters
    )
    assert terms_of(name)(index, superblock)["parameters"] == pytest.approx(math.log2(whole), rel=1e-12, abs=1e-15)


@SHIPPED
@pytest.mark.parametrize("width", SCALES)
@pytest.mark.parametrize("depth", SCALES)
def test_no_term_of_the_masternets_own_superblocks_has_an_effect(name: str, width: Scale, depth: Scale) -> None:
    for index, own in enumerate(space_of(name).superblocks):
        assert set(terms_of(name, width, depth)(index, own).values()) == {0.0}


def test_parameters_are_log2_of_the_whole_networks_ratio_for_every_choice_of_a_space() -> None:
    last = len(space_of("digits").superblocks) - 1
    assert {index for index, _ in choices("digits")} == set(range(last + 1))  # the last is read by the head
    for index, superblock in choices("digits"):
        assert_parameters_are_those_of_the_whole_network("digits", index, superblock)


@settings(max_examples=40)
@given(st.sampled_from(SPACES[1:]), st.data())
def test_parameters_are_log2_of_the_whole_networks_ratio_in_spaces_of_many_types(name: str, data: st.DataObject) -> None:
    index, superblock = data.draw(st.sampled_from(choices(name)))
    assert_parameters_are_those_of_the_whole_network(name, index, superblock)


@SHIPPED
def test_parameters_count_the_block_that_reads_the_superblock(name: str) -> None:
    """The first block of the next super-block, and the head's after the last: both grow with the width before them."""
    for index, own in enumerate(space_of(name).superblocks):
        assert_parameters_are_those_of_the_whole_network(name, index, own.model_copy(update={"width": 2 * own.width}))


@SCALED
@SHIPPED
def test_twice_as_wide_is_one_on_either_scale(name: str, scale: Scale) -> None:
    for index, own in enumerate(space_of(name).superblocks):
        wide = terms_of(name, width=scale)(index, own.model_copy(update={"width": 2 * own.width}))
        assert wide["width"] == pytest.approx(1.0)
        assert wide["depth"] == 0


@pytest.mark.parametrize(("scale", "value"), [("log2", -1.0), ("linear", -0.5)])
def test_half_as_wide_is_a_doubling_less_or_half_a_width_less(scale: Scale, value: float) -> None:
    own = space_of("digits").superblocks[2]
    half = own.model_copy(update={"width": own.width // 2})
    assert terms_of("digits", width=scale)(2, half)["width"] == pytest.approx(value)


@pytest.mark.parametrize(("scale", "value"), [("log2", 1.0), ("linear", 3.0)])
def test_twice_as_deep_is_one_doubling_or_as_many_blocks(scale: Scale, value: float) -> None:
    own = space_of("digits").superblocks[2]  # three blocks deep
    deep = terms_of("digits", depth=scale)(2, own.model_copy(update={"depth": 2 * own.depth}))
    assert deep["depth"] == pytest.approx(value)
    assert deep["width"] == 0


@SCALED
def test_the_scale_of_the_widths_leaves_the_depths_alone_and_the_other_way_round(scale: Scale) -> None:
    for index, superblock in choices("digits"):
        assert terms_of("digits", scale, "log2")(index, superblock)["depth"] == terms_of("digits")(index, superblock)["depth"]
        assert terms_of("digits", "log2", scale)(index, superblock)["width"] == terms_of("digits")(index, superblock)["width"]


@settings(max_examples=60)
@given(st.sampled_from(SPACES), st.data())
def test_a_type_has_terms_of_its_own_exactly_where_it_is_not_the_masternets(name: str, data: st.DataObject) -> None:
    index, superblock = data.draw(st.sampled_from(choices(name)))
    kind, own = superblock.block_type, space_of(name).superblocks[index].block_type
    found = terms_of(name)(index, superblock)
    typed = {str(kind): 1.0, f"{index + 1} {kind}": 1.0}
    assert {term: value for term, value in found.items() if term in typed} == ({} if kind == own else typed)
    slopes = {f"{index + 1} {of}{move}" for of in ("", f"{kind} ") for move in ("width", "depth")}
    assert set(found) == {*SHARED, *slopes, *(() if kind == own else typed)}


def test_another_kernel_or_ratio_alone_is_another_type() -> None:
    own = space_of("cifar10").superblocks[3]  # DW k3 r3
    for kind in (BlockType("DW", 5, 3.0), BlockType("DW", 3, 6.0)):
        found = terms_of("cifar10")(3, superblock_of(kind, own.width, own.depth, own.stride))
        assert (found[str(kind)], found[f"4 {kind}"], found["width"], found["depth"]) == (1.0, 1.0, 0.0, 0.0)


def test_a_move_counts_the_same_for_the_network_the_superblock_and_the_type_in_its_place() -> None:
    for index, superblock in choices("digits"):
        found = terms_of("digits")(index, superblock)
        for move in ("width", "depth"):
            assert found[move] == found[f"{index + 1} {move}"] == found[f"{index + 1} {superblock.block_type} {move}"]


@settings(max_examples=40)
@given(st.data())
def test_two_places_have_only_the_shared_terms_and_those_of_a_type_in_common(data: st.DataObject) -> None:
    one, other = (data.draw(st.sampled_from(choices("masternet"))) for _ in range(2))
    if one[0] != other[0]:
        common = set(terms_of("masternet")(*one)) & set(terms_of("masternet")(*other))
        assert common - {str(one[1].block_type)} == set(SHARED)


def test_the_resolution_changes_no_term() -> None:
    small, large = (terms_of("digits", resolution=resolution) for resolution in space_of("digits").input.resolutions)
    for index, superblock in choices("digits"):
        assert small(index, superblock) == large(index, superblock)
