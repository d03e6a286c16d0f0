"""What a search space offers, against enumerations of tiny spaces that are written without the space's own methods."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from genet.arch.cost import network_cost
from genet.arch.network import BlockType, Network, SuperBlock, blocks
from genet.arch.space import SearchSpace
from genet.config.reader import read_space, shipped_files
from tests.fixtures.strategies import spaces


def space_of(superblocks: list[dict[str, Any]], widths: Any = "wave-aligned", stem: Any = None, **perturb: Any) -> SearchSpace:
    """A tiny space on images of 9 and 16 pixels."""
    ranges: dict[str, Any] = {"width": [1, 1], "depth": [0, 0], "kernel": [3], "trials_per_type": 1}
    return SearchSpace.model_validate(
        {
            "name": "tiny",
            "input": {"channels": 1, "classes": 3, "resolutions": [9, 16]},
            "stem": stem or {"kernel": 3, "width": 5, "stride": 1},
            "superblocks": superblocks,
            "head": {"width": 16},
            "perturb": ranges | perturb,
            "widths": widths,
        }
    )


def superblock(kind: str, depth: int, width: int, stride: int = 1, kernel: int = 3, ratio: float | None = None) -> dict[str, Any]:
    return {"type": kind, "depth": depth, "width": width, "stride": stride, "kernel": kernel, "ratio": ratio}


TINY = {
    "types change": space_of(
        [superblock("XX", 1, 16), superblock("BL", 2, 32, 2, ratio=0.5)],
        width=[0.5, 1.5],
        depth=[-1, 1],
        types=["XX", "BL", "DW"],
        ratio={"BL": [0.5], "DW": [1.5]},
    ),
    "a dearer first super-block makes the next one cheaper": space_of(
        [superblock("XX", 1, 16), superblock("XX", 1, 16)],
        stem={"kernel": 3, "width": 16, "stride": 2},
        width=[0.5, 1],
        types=["BL", "DW"],
        ratio={"BL": [0.5], "DW": [3]},
    ),
    "own choices lie off every list": space_of(
        [superblock("BL", 3, 24, 2, kernel=7, ratio=1.0), superblock("DW", 1, 8, 2, kernel=5, ratio=2.0)],
        widths={"multiple_of": 16},
        width=[0.5, 2.0],
        depth=[-3, 0],
        kernel=[3, 5],
        ratio={"BL": [0.5], "DW": [3]},
    ),
    "two super-blocks may vanish": space_of(
        [superblock("XX", 1, 16), superblock("DW", 2, 8, 2, ratio=3), superblock("BL", 0, 16, ratio=0.5)],
        width=[0.5, 1],
        depth=[-1, 1],
        ratio={"BL": [0.5], "DW": [3]},
    ),
    "a narrow super-block is cheaper than none": space_of(
        [superblock("DW", 1, 8, ratio=1), superblock("XX", 1, 64, 2)],
        stem={"kernel": 3, "width": 64, "stride": 1},
        width=[1, 1.25],
        depth=[-1, 1],
        ratio={"DW": [1]},
    ),
    "none is cheaper, for what it reads is narrow": space_of(
        [superblock("XX", 1, 64), superblock("XX", 1, 64, 2)],
        stem={"kernel": 3, "width": 8, "stride": 1},
        width=[0.125, 1],
        depth=[-1, 0],
    ),
    "one super-block has never a block": space_of(
        [superblock("XX", 1, 16), superblock("XX", 0, 8), superblock("XX", 2, 8, 2)], width=[0.5, 2], depth=[-1, 0]
    ),
    "nothing but a super-block that may vanish": space_of(
        [superblock("XX", 1, 8)], width=[1, 3], depth=[-1, 1], types=["XX", "DW"], ratio={"DW": [3]}
    ),
    "a stem that strides": space_of(
        [superblock("XX", 1, 8), superblock("XX", 1, 8), superblock("DW", 1, 8, 2, ratio=3)],
        stem={"kernel": 5, "width": 8, "stride": 2},
        width=[1, 2],
        depth=[0, 1],
        ratio={"DW": [3]},
    ),
}


def brute_force_choices(space: SearchSpace, index: int) -> set[SuperBlock]:
    """Every super-block that the ranges of the space allow at `index`, tried one by one."""
    own, perturb = space.superblocks[index], space.perturb
    kinds = perturb.types or (own.type,)
    ratios = {"XX": [None], "BL": perturb.ratio.BL, "DW": perturb.ratio.DW}
    block_types = {(kind, kernel, ratio) for kind in kinds for kernel in perturb.kernel for ratio in ratios[kind]}
    block_types.add((own.type, own.kernel, own.ratio))
    step = space.widths if isinstance(space.widths, str) else space.widths.multiple_of
    low, high = (Fraction(str(factor)) * own.width for factor in perturb.width)
    found = set()
    for width in range(1, int(high) + 1):
        on_the_grid = low <= width and width % (8 if step == "wave-aligned" else step) == 0
        if not on_the_grid and width != own.width:
            continue
        for kind, kernel, ratio in block_types:
            if ratio is not None and abs(width * ratio / 8 - round(width * ratio / 8)) > 1e-9:
                continue
            for depth in range(own.depth + perturb.depth[0], own.depth + perturb.depth[1] + 1):
                if depth == 0 and own.stride == 1:
                    found.add(own.model_copy(update={"depth": 0}))  # one, whatever its type and width
                if depth >= 1:
                    stands = {
                        "type": kind,
                        "depth": depth,
                        "width": width,
                        "stride": own.stride,
                        "kernel": kernel,
                        "ratio": ratio,
                    }
                    found.add(SuperBlock.model_validate(stands))
    return found


def brute_force_networks(space: SearchSpace, resolution: int) -> Iterator[Network]:
    per_superblock = [brute_force_choices(space, index) for index in range(len(space.superblocks))]
    for chosen in itertools.product(*per_superblock):
        yield Network.model_validate(
            {
                "input": {"channels": space.input.channels, "classes": space.input.classes, "resolution": resolution},
                "stem": space.stem,
                "superblocks": chosen,
                "head": space.head,
            }
        )


tiny = pytest.mark.parametrize("space", TINY.values(), ids=TINY.keys())


@tiny
def test_the_size_of_a_space_is_the_number_of_its_networks(space: SearchSpace) -> None:
    networks = {network for resolution in space.input.resolutions for network in brute_force_networks(space, resolution)}
    assert len(networks) > 15
    assert space.size(space.widths_on_offer()) == len(networks)


@tiny
def test_the_choices_of_a_super_block_are_all_that_the_ranges_allow_each_once(space: SearchSpace) -> None:
    for index in range(len(space.superblocks)):
        choices = list(space.choices(index, space.widths_on_offer()))
        assert len(set(choices)) == len(choices)
        assert set(choices) == brute_force_choices(space, index)


@tiny
def test_the_blocks_of_a_space_are_exactly_those_of_its_networks_each_once(space: SearchSpace) -> None:
    for resolution in space.input.resolutions:
        found = space.blocks(space.widths_on_offer(), resolution)
        assert len(set(found)) == len(found)
        assert set(found) == {block for network in brute_force_networks(space, resolution) for block in blocks(network)}


@tiny
def test_the_blocks_of_a_space_follow_the_widths_that_are_kept(space: SearchSpace) -> None:
    kept = {place: widths[-1:] for place, widths in space.widths_on_offer().items()}
    chosen = itertools.product(*(list(space.choices(index, kept)) for index in range(len(space.superblocks))))
    networks = [space.network(superblocks, 16) for superblocks in chosen]
    assert set(space.blocks(kept, 16)) == {block for network in networks for block in blocks(network)}
    assert space.size(kept) == len(networks) * len(space.input.resolutions)


@tiny
def test_the_smallest_network_is_in_the_space(space: SearchSpace) -> None:
    for resolution in space.input.resolutions:
        assert space.smallest(resolution) in set(brute_force_networks(space, resolution))


@tiny
def test_no_network_of_a_space_has_fewer_macs_than_the_smallest(space: SearchSpace) -> None:
    for resolution in space.input.resolutions:
        fewest = min(network_cost(network).macs for network in brute_force_networks(space, resolution))
        assert network_cost(space.smallest(resolution)).macs == fewest


def test_no_network_of_the_digits_space_has_fewer_macs_than_the_smallest() -> None:
    space = read_space("digits")
    smaller = Network.parse(
        "@24x1 | Conv k3 c16 s2 | DW k3 c8 s1 d1 r3 | BL k3 c16 s2 d1 r0.5 | BL k3 c48 s2 d1 r0.5 | BL k3 c32 s2 d1 r0.5"
        " | Conv k1 c128 | 10"
    )
    for index, chosen in enumerate(smaller.superblocks):
        assert chosen in set(space.choices(index, space.widths_on_offer()))
    assert network_cost(space.smallest(24)).macs <= network_cost(smaller).macs


@given(spaces())
def test_depths_are_whole_ranges_that_fall_to_none_only_where_nothing_strides(space: SearchSpace) -> None:
    low, high = space.perturb.depth
    for index, own in enumerate(space.superblocks):
        depths = space.depths(index)
        assert min(depths) == max(1 if own.stride == 2 else 0, own.depth + low)
        assert max(depths) == own.depth + high
        assert list(depths) == list(range(min(depths), max(depths) + 1))


@given(spaces())
def test_the_masternets_own_choice_is_always_offered(space: SearchSpace) -> None:
    widths = space.widths_on_offer()
    for index, own in enumerate(space.superblocks):
        assert space.block_types(index)[:1] == ((own.block_type,) if max(space.depths(index)) else ())
        assert own in set(space.choices(index, widths))


@given(spaces())
def test_a_random_space_offers_what_its_ranges_allow_and_nothing_else(space: SearchSpace) -> None:
    for index in range(len(space.superblocks)):
        assert set(space.choices(index, space.widths_on_offer())) == brute_force_choices(space, index)


@given(spaces())
def test_the_sizes_of_a_space_are_those_of_its_networks(space: SearchSpace) -> None:
    for resolution in space.input.resolutions:
        network = space.masternet(resolution)
        firsts = [0, *itertools.accumulate(superblock.depth for superblock in network.superblocks)]
        _, *rest = blocks(network)
        assert space.sizes(resolution) == tuple(rest[first].size for first in firsts)


@pytest.mark.parametrize(
    ("kind", "ratio", "widths"),
    [
        ("XX", None, (32, 40, 48, 56, 64, 72, 80, 88, 96)),
        ("BL", 0.25, (32, 64, 96)),
        ("BL", 0.5, (32, 48, 64, 80, 96)),
        ("DW", 1.5, (32, 48, 64, 80, 96)),
        ("DW", 3.0, (32, 40, 48, 56, 64, 72, 80, 88, 96)),
    ],
)
def test_a_width_whose_inner_width_is_no_multiple_of_8_is_not_offered(
    kind: str, ratio: float | None, widths: tuple[int, ...]
) -> None:
    ratios = {} if ratio is None else {"ratio": {kind: [ratio]}}
    space = space_of([superblock("XX", 1, 64)], width=[0.5, 1.5], types=[kind], **ratios)
    assert space.widths_on_offer()[0, BlockType(kind, 3, ratio)] == widths


def test_a_block_type_without_any_exportable_width_is_not_offered() -> None:
    space = space_of([superblock("XX", 1, 8)], types=["XX", "BL"], ratio={"BL": [0.25]})
    assert space.block_types(0) == (BlockType("XX", 3),)


@pytest.mark.parametrize(("factors", "edge"), [((0.28, 1), 56), ((0.56, 1), 112), ((1, 1.16), 232), ((1, 2.28), 456)])
def test_the_edge_of_a_width_range_is_offered_whatever_floats_make_of_it(factors: tuple[float, float], edge: int) -> None:
    space = space_of([superblock("XX", 1, 200)], width=list(factors))
    assert edge in space.widths_on_offer()[0, BlockType("XX", 3)]


def test_a_plain_grid_holds_its_multiples_and_the_masternets_own_width() -> None:
    space = space_of([superblock("XX", 1, 40)], widths={"multiple_of": 32}, width=[0.5, 2.0])
    assert space.widths_on_offer()[0, BlockType("XX", 3)] == (32, 40, 64)


def test_a_sweep_repeats_one_block_over_the_widths_on_offer() -> None:
    space = space_of([superblock("XX", 1, 16, 2), superblock("DW", 1, 8, 2, ratio=3)], width=[0.5, 2], ratio={"DW": [3]})
    swept = space.repeated_blocks(0, BlockType("XX", 3), space.widths_on_offer(), 9)
    assert [str(block) for block in swept] == [f"XX k3 c{width}>{width} s1 @5" for width in (8, 16, 24, 32)]
    swept = space.repeated_blocks(1, BlockType("DW", 3, 3.0), space.widths_on_offer(), 9)
    assert [str(block) for block in swept] == [f"DW k3 r3 c{width}>{width} s1 @3" for width in (8, 16)]


@pytest.mark.parametrize("name", shipped_files("search_spaces"))
def test_the_masternet_of_a_shipped_space_is_one_of_its_networks(name: str) -> None:
    space = read_space(name)
    widths = space.widths_on_offer()
    masternet = space.masternet(max(space.input.resolutions))
    assert masternet.name == name
    for index, own in enumerate(masternet.superblocks):
        assert own in set(space.choices(index, widths))
