"""A network is its notation: one text, one digest, and the blocks that follow from it."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from genet.arch.network import Block, Network, SuperBlock, blocks
from genet.config.reader import read_network
from genet.errors import SpecError
from tests.fixtures.strategies import networks

SMALL = "@33x3 | Conv k3 c13 s2 | XX k3 c48 s2 d2 | BL k5 c64 s1 d1 r0.25 | DW k7 c32 s2 d1 r3 | Conv k1 c64 | 10"


@given(networks())
def test_a_notation_parses_to_the_network_that_it_was_written_from(network: Network) -> None:
    again = Network.parse(str(network))
    assert again.model_dump(exclude={"name"}) == network.model_dump(exclude={"name"})
    assert again == network


@given(networks(), st.text(max_size=5))
def test_the_name_labels_a_network_and_is_no_part_of_it(network: Network, name: str) -> None:
    renamed = network.model_copy(update={"name": name})
    assert renamed == network
    assert hash(renamed) == hash(network)
    assert renamed.digest == network.digest


@given(networks(), networks())
def test_networks_digests_and_hashes_are_equal_exactly_when_notations_are(one: Network, other: Network) -> None:
    same = str(one) == str(other)
    assert (one == other) == same
    assert (one.digest == other.digest) == same


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("@33", "@35"),
        ("x3", "x1"),
        ("Conv k3", "Conv k5"),
        ("c13", "c14"),
        ("c13 s2", "c13 s1"),
        ("XX k3", "XX k5"),
        ("c48", "c56"),
        ("c48 s2", "c48 s1"),
        ("d2", "d3"),
        ("r0.25", "r0.5"),
        ("r0.25", "r1"),
        (" | BL k5 c64 s1 d1 r0.25", ""),
        ("DW k7 c32 s2 d1 r3", "XX k7 c32 s2 d1"),
        ("c64 | 10", "c65 | 10"),
        (" | Conv k1 c64", ""),
        ("| 10", "| 11"),
    ],
)
def test_any_change_of_a_notation_changes_network_and_digest(part: str, changed: str) -> None:
    assert part in SMALL
    one, other = Network.parse(SMALL), Network.parse(SMALL.replace(part, changed, 1))
    assert one != other
    assert one.digest != other.digest


def test_a_digest_is_the_same_in_every_process() -> None:
    assert Network.parse("@32x3 | Conv k3 c8 s2 | XX k3 c8 s1 d1 | Conv k1 c8 | 10").digest == "c924c7aa5881"


def test_a_network_differs_from_its_notation_as_text() -> None:
    assert Network.parse(SMALL) != SMALL


def test_line_breaks_separate_entries_as_bars_do() -> None:
    assert Network.parse(SMALL.replace(" | ", "\n")) == Network.parse(SMALL)
    assert Network.parse(f"\n  {SMALL}  |\n") == Network.parse(SMALL)


def test_a_whole_ratio_is_written_without_a_point() -> None:
    assert str(Network.parse(SMALL.replace("r3", "r3.0"))) == SMALL


BAD_NOTATIONS = [
    ("", ["a notation must have at least 4 entries (input, stem, super-block, classes), got 0"]),
    ("10", ["a notation must have at least 4 entries (input, stem, super-block, classes), got 1"]),
    ("@32x3 | XX k3 c8 s1 d1 | 10", ["a notation must have at least 4 entries (input, stem, super-block, classes), got 3"]),
    ("@32x3 | Conv k3 c8 s2 | Conv k1 c8 | 10", ["at least 5 entries (input, stem, super-block, head, classes), got 4"]),
    (SMALL.replace("Conv k1 c64", "conv c64"), ["must look like 'Conv k1 c2560', got 'conv c64'"]),
    (SMALL.replace("Conv k1 c64", "Head c64"), ["must look like 'BL k3 c640 s2 d6 r0.25', got 'Head c64'"]),
    (SMALL.replace("@33", "33"), ["must look like '@192x3', got '33x3'"]),
    (SMALL.replace("c13 s2", "c13"), ["must look like 'Conv k3 c32 s2', got 'Conv k3 c13'"]),
    (SMALL.replace("XX k3", "XXk3"), ["must look like 'BL k3 c640 s2 d6 r0.25', got 'XXk3 c48 s2 d2'"]),
    (SMALL.replace("d2", "d-1"), ["got 'XX k3 c48 s2 d-1'"]),
    (SMALL.replace("r3", "r"), ["got 'DW k7 c32 s2 d1 r'"]),
    (SMALL.replace("Conv k1", "Conv k3"), ["must look like 'Conv k1 c2560', got 'Conv k3 c64'"]),
    (SMALL.replace("| 10", "| ten"), ["must look like '1000', got 'ten'"]),
    (SMALL.replace("XX k3", "YY k3"), ["YY k3 c48 s2 d2: superblocks.0.type: "]),
    (SMALL.replace("XX k3", "XX k4"), ["XX k4 c48 s2 d2: superblocks.0.kernel: "]),
    (SMALL.replace("c48", "c44"), ["XX k3 c44 s2 d2: superblocks.0.width: must be a multiple of 8"]),
    (SMALL.replace("c48", "c0"), ["XX k3 c0 s2 d2: superblocks.0.width: "]),
    (SMALL.replace("c48 s2", "c48 s3"), ["XX k3 c48 s3 d2: superblocks.0.stride: "]),
    (SMALL.replace("d2", "d0"), ["XX k3 c48 s2 d0: superblocks.0.stride: must be 1 if the depth is 0"]),
    (SMALL.replace("d2", "d2 r1"), ["XX k3 c48 s2 d2 r1: superblocks.0.ratio: must be absent for XX"]),
    (SMALL.replace(" r0.25", ""), ["BL k5 c64 s1 d1: superblocks.1.ratio: must be given and at most 1 for BL"]),
    (SMALL.replace("r0.25", "r2"), ["BL k5 c64 s1 d1 r2: superblocks.1.ratio: must be given and at most 1 for BL"]),
    (SMALL.replace("r0.25", "r0.2"), ["superblocks.1.ratio: must make the inner width a multiple of 8, but 64 * 0.2 = 12.8"]),
    (SMALL.replace("r3", "r0.5"), ["DW k7 c32 s2 d1 r0.5: superblocks.2.ratio: must be given and at least 1 for DW"]),
    (SMALL.replace("r3", "r1e999"), ["DW k7 c32 s2 d1 r1e999: superblocks.2.ratio: "]),
    (SMALL.replace("r3", "r--"), ["DW k7 c32 s2 d1 r--: superblocks.2.ratio: "]),
    (SMALL.replace("@33", "@7"), ["superblocks: must have a total stride of at most the resolution 7, but it is 8"]),
    (SMALL.replace("c48", "c44").replace("d1 r3", "d0 r3"), ["XX k3 c44 s2 d2: ", "DW k7 c32 s2 d0 r3: "]),
]


@pytest.mark.parametrize(("notation", "fragments"), BAD_NOTATIONS)
def test_a_bad_notation_is_refused_with_the_entry_at_fault(notation: str, fragments: list[str]) -> None:
    with pytest.raises(SpecError, match=re.escape(fragments[0])) as caught:
        Network.parse(notation)
    assert len(caught.value.faults) == len(fragments)
    for fault, fragment in zip(caught.value.faults, fragments, strict=True):
        assert fragment in fault


@pytest.mark.parametrize(
    ("notation", "entry", "field"),
    [
        (SMALL.replace("@33", "@0"), "@0x3", "input.resolution"),
        (SMALL.replace("Conv k3", "Conv k4"), "Conv k4 c13 s2", "stem.kernel"),
        (SMALL.replace("c64 | 10", "c0 | 10"), "Conv k1 c0", "head.width"),
        (SMALL.replace("| 10", "| 1"), "1", "input.classes"),
    ],
)
def test_a_fault_outside_the_super_blocks_names_its_entry_too(notation: str, entry: str, field: str) -> None:
    with pytest.raises(SpecError, match=f"^{re.escape(f'{entry}: {field}: ')}"):
        Network.parse(notation)


def test_every_misshapen_entry_of_a_notation_is_named_at_once() -> None:
    with pytest.raises(SpecError, match="got 'Conv c13'") as caught:
        Network.parse("@33x3 | Conv c13 | XX c48 | Conv k1 c64 | 10")
    assert [fault.split("got ")[1] for fault in caught.value.faults] == ["'Conv c13'", "'XX c48'"]


def test_a_total_stride_that_equals_the_resolution_is_legal() -> None:
    assert [block.size for block in blocks(Network.parse(SMALL.replace("@33", "@8")))][-1] == 1


@pytest.mark.parametrize(
    ("kind", "width", "ratio", "inner"), [("BL", 200, 0.28, 56), ("DW", 200, 1.16, 232), ("DW", 120, 8.2, 984)]
)
def test_a_ratio_whose_inner_width_is_a_multiple_of_8_is_legal_whatever_floats_make_of_it(
    kind: str, width: int, ratio: float, inner: int
) -> None:
    superblock = SuperBlock.model_validate({"type": kind, "depth": 1, "width": width, "stride": 1, "kernel": 3, "ratio": ratio})
    assert round(superblock.width * superblock.ratio) == inner


@pytest.mark.parametrize("field", ["width", "depth", "stride", "kernel"])
def test_a_super_block_is_frozen(field: str) -> None:
    superblock = Network.parse(SMALL).superblocks[0]
    with pytest.raises(ValidationError, match="frozen"):
        setattr(superblock, field, 8)


def test_the_blocks_of_a_network_have_the_sizes_and_widths_that_flow_through_it() -> None:
    assert [str(block) for block in blocks(Network.parse(SMALL))] == [
        "Conv k3 c3>13 s2 @33",
        "XX k3 c13>48 s2 @17",
        "XX k3 c48>48 s1 @9",
        "BL k5 r0.25 c48>64 s1 @9",
        "DW k7 r3 c64>32 s2 @9",
        "Head k1 c32>64 s1 @5 n10",
    ]


def test_a_super_block_of_depth_0_has_no_block_and_passes_on_what_it_reads() -> None:
    network = Network.parse(SMALL.replace("s1 d1 r0.25", "s1 d0 r0.25"))
    assert [str(block) for block in blocks(network)] == [
        "Conv k3 c3>13 s2 @33",
        "XX k3 c13>48 s2 @17",
        "XX k3 c48>48 s1 @9",
        "DW k7 r3 c48>32 s2 @9",
        "Head k1 c32>64 s1 @5 n10",
    ]
    assert network.stages == (network.superblocks[0], network.superblocks[2])
    assert [superblock.writes(48) for superblock in network.superblocks] == [48, 48, 32]


def test_a_network_of_nothing_but_super_blocks_of_depth_0_is_its_stem_and_its_classifier() -> None:
    found = blocks(Network.parse("@8x3 | Conv k3 c13 s2 | XX k3 c48 s1 d0 | 10"))
    assert list(map(str, found)) == ["Conv k3 c3>13 s2 @8", "Classifier k1 c13>10 s1 @4 n10"]


def test_without_the_heads_entry_the_classifier_reads_the_last_super_block() -> None:
    network = Network.parse(SMALL.replace(" | Conv k1 c64", ""))
    assert network.head is None
    *others, last = blocks(network)
    assert others == list(blocks(Network.parse(SMALL)))[:-1]
    assert (str(last), last.pooled_width) == ("Classifier k1 c32>10 s1 @5 n10", 32)


def test_the_blocks_of_genet_light_are_those_of_the_paper() -> None:
    found = [(block.kind, block.in_width, block.width, block.stride, block.size) for block in blocks(read_network("genet-light"))]
    assert found == [
        ("Conv", 3, 13, 2, 192),
        ("XX", 13, 48, 2, 96),
        ("XX", 48, 48, 2, 48),
        *[("XX", 48, 48, 1, 24)] * 2,
        ("BL", 48, 384, 2, 24),
        *[("BL", 384, 384, 1, 12)] * 6,
        ("DW", 384, 560, 2, 12),
        ("DW", 560, 560, 1, 6),
        ("DW", 560, 256, 1, 6),
        ("Head", 256, 1920, 1, 6),
    ]


@given(networks())
def test_every_block_reads_what_the_block_before_it_writes(network: Network) -> None:
    found = list(blocks(network))
    assert len(found) == 2 + sum(superblock.depth for superblock in network.superblocks)
    assert (found[0].in_width, found[0].size) == (network.input.channels, network.input.resolution)
    assert found[-1].classes == network.input.classes
    for before, after in pairwise(found):
        assert (after.in_width, after.size) == (before.width, before.out_size)
        assert after.size >= 1


@pytest.mark.parametrize(("size", "stride", "written"), [(7, 1, 7), (7, 2, 4), (8, 2, 4), (1, 2, 1)])
def test_a_stride_halves_the_size_upwards(size: int, stride: int, written: int) -> None:
    assert Block("XX", 3, None, 8, 8, stride, size).out_size == written
