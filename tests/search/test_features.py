"""The terms: what a super-block is described by, held against the whole network that it would make."""

from __future__ import annotations

import math
from functools import cache
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.arch.network import BlockType, SuperBlock
from genet.arch.space import SearchSpace, superblock_of
from genet.config.reader import read_space
from genet.search.features import FINE_TUNING, FRESH, SIZE, Features, Scale, attainable, fine_tuning_features, prior_scale

SHARED = {"size", "depth"}
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
def terms_of(name: str, width: Scale = "log2", depth: Scale = "log2", resolution: int = 0) -> Features:
    space = space_of(name)
    return Features(space.masternet(resolution or space.input.resolutions[0]), width, depth)


@SHIPPED
@pytest.mark.parametrize("width", SCALES)
@pytest.mark.parametrize("depth", SCALES)
def test_no_term_of_the_masternets_own_superblocks_has_an_effect(name: str, width: Scale, depth: Scale) -> None:
    for index, own in enumerate(space_of(name).superblocks):
        assert set(terms_of(name, width, depth)(index, own).values()) == {0.0}


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_size_is_log2_of_the_width_ratio_and_half_that_of_the_depth_for_every_choice_of_a_space(name: str) -> None:
    """On either scale of the others: size is always in logarithms."""
    found = {(width, depth): terms_of(name, width, depth) for width in SCALES for depth in SCALES}
    for index, superblock in choices(name):
        own = space_of(name).superblocks[index]
        size = math.log2(superblock.width**2 * (superblock.depth or 0.5) / (own.width**2 * own.depth)) / 2
        for terms in found.values():
            assert terms(index, superblock)["size"] == pytest.approx(size, rel=1e-12, abs=1e-15)


@SHIPPED
def test_twice_as_wide_is_as_large_as_four_times_as_deep(name: str) -> None:
    for index, own in enumerate(space_of(name).superblocks):
        wide, deep = own.model_copy(update={"width": 2 * own.width}), own.model_copy(update={"depth": 4 * own.depth})
        assert terms_of(name)(index, wide)["size"] == terms_of(name)(index, deep)["size"] == 1.0


@given(st.sampled_from(SPACES), st.data())
def test_of_two_superblocks_that_differ_in_one_way_the_larger_has_the_larger_size(name: str, data: st.DataObject) -> None:
    index, one = data.draw(st.sampled_from(choices(name)))
    way = data.draw(st.sampled_from(("width", "depth")))
    other = one.model_copy(update={way: data.draw(st.integers(getattr(one, way) + 1, 2 * getattr(one, way) + 1))})
    assert terms_of(name)(index, one)["size"] < terms_of(name)(index, other)["size"]


@SCALED
@SHIPPED
def test_twice_as_wide_is_one_on_either_scale(name: str, scale: Scale) -> None:
    for index, own in enumerate(space_of(name).superblocks):
        wide = terms_of(name, width=scale)(index, own.model_copy(update={"width": 2 * own.width}))
        assert wide[f"{index + 1} width"] == pytest.approx(1.0)
        assert wide["depth"] == 0


@pytest.mark.parametrize(("scale", "value"), [("log2", -1.0), ("linear", -0.5)])
def test_half_as_wide_is_a_doubling_less_or_half_a_width_less(scale: Scale, value: float) -> None:
    own = space_of("digits").superblocks[2]
    half = own.model_copy(update={"width": own.width // 2})
    assert terms_of("digits", width=scale)(2, half)["3 width"] == pytest.approx(value)


@pytest.mark.parametrize(("scale", "value"), [("log2", 1.0), ("linear", 3.0)])
def test_twice_as_deep_is_one_doubling_or_as_many_blocks(scale: Scale, value: float) -> None:
    own = space_of("digits").superblocks[2]  # three blocks deep
    deep = terms_of("digits", depth=scale)(2, own.model_copy(update={"depth": 2 * own.depth}))
    assert deep["depth"] == pytest.approx(value)
    assert deep["3 width"] == 0


@SCALED
def test_the_scale_of_the_widths_leaves_the_depths_alone_and_the_other_way_round(scale: Scale) -> None:
    for index, superblock in choices("digits"):
        found = terms_of("digits")(index, superblock)
        depth, width = f"{index + 1} depth", f"{index + 1} width"
        assert terms_of("digits", scale, "log2")(index, superblock)[depth] == found[depth]
        assert terms_of("digits", "log2", scale)(index, superblock)[width] == found[width]


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
        assert (found[str(kind)], found[f"4 {kind}"], found["size"], found["4 width"], found["depth"]) == (
            1.0,
            1.0,
            0.0,
            0.0,
            0.0,
        )


@SCALED
def test_a_move_counts_the_same_for_the_superblock_and_the_type_in_its_place_and_a_deeper_one_for_all(scale: Scale) -> None:
    for index, superblock in choices("digits"):
        found = terms_of("digits", scale, scale)(index, superblock)
        for move in ("width", "depth"):
            assert found[f"{index + 1} {move}"] == found[f"{index + 1} {superblock.block_type} {move}"]
        assert found["depth"] == found[f"{index + 1} depth"]


@given(st.data())
def test_two_places_have_only_the_shared_terms_and_those_of_a_type_in_common(data: st.DataObject) -> None:
    one, other = (data.draw(st.sampled_from(choices("masternet"))) for _ in range(2))
    if one[0] != other[0]:
        common = set(terms_of("masternet")(*one)) & set(terms_of("masternet")(*other))
        assert common - {str(one[1].block_type)} == SHARED


def test_the_resolution_changes_no_term() -> None:
    small, large = (terms_of("digits", resolution=resolution) for resolution in (24, 32))
    for index, superblock in choices("digits"):
        assert small(index, superblock) == large(index, superblock)


def test_fine_tuning_has_a_term_for_all_and_one_for_the_superblock() -> None:
    inherited = {"fine-tuning": 1.0, "3 fine-tuning": 1.0}
    assert fine_tuning_features(2, fresh=False) == inherited
    assert fine_tuning_features(2, fresh=True) == inherited | {"fresh weights": 1.0, "3 fresh weights": 1.0}


def test_no_term_of_a_superblock_is_one_of_fine_tuning() -> None:
    for name in SPACES:
        for index, superblock in choices(name):
            assert not set(terms_of(name)(index, superblock)) & set(fine_tuning_features(index, fresh=True))


@SHIPPED
def test_what_all_share_is_trusted_most_and_a_types_slope_in_its_place_least(name: str) -> None:
    """Of every term there is: size and fine-tuning are next to free, the shared deviation of depths is not."""
    for index, superblock in choices(name):
        kind = superblock.block_type
        least = {f"{index + 1} {kind} width", f"{index + 1} {kind} depth"}
        for term in (*terms_of(name)(index, superblock), *fine_tuning_features(index, fresh=True)):
            trusted = prior_scale(term)
            if term == SIZE or term.endswith((FINE_TUNING, FRESH)):
                assert trusted >= 100
            else:
                assert trusted == (0.5 if term in least else 1.0)


# what sums of effects stand for

MASTERNETS = np.linspace(0, 1, 101).tolist()


@pytest.mark.parametrize("masternet", MASTERNETS[::10] + MASTERNETS[-5:-1])
def test_accuracies_keep_the_order_of_sums_and_none_reaches_1(masternet: float) -> None:
    assert (np.diff(attainable(np.linspace(-0.5, 1.05, 1000), masternet)) > 0).all()
    assert attainable(np.array([1.05, 2.0, 100.0]), masternet).max() < 1


def test_a_network_without_any_change_is_predicted_within_a_fifth_of_a_point_of_the_masternet() -> None:
    for masternet in MASTERNETS:
        assert attainable(np.array(masternet), masternet) == pytest.approx(masternet, abs=0.002)
