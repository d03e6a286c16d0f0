"""What is measured of a search space: enough for every network of it, and far less than all of its blocks."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from genet.arch.network import Block, BlockType, blocks
from genet.arch.space import MultipleOf, SearchSpace, WidthsOnOffer
from genet.config.reader import read_space
from genet.config.recipe import Measure
from genet.device import read_card
from genet.errors import EvidenceError
from genet.latency.staircase.space_sweeps import (
    StaircaseSite,
    correction_networks,
    expected_rows,
    find_staircases,
    random_networks,
    rows_needed,
    staircase_sites,
    sweep_blocks,
)
from genet.latency.staircase.sweep import SHORT
from genet.latency.table import BlockRow, LatencyTable, Setting, is_repeated
from genet.storage import Journal
from tests.fixtures.tiny import tiny_recipe

SETTING = Setting.of(read_card(torch.device("cpu")), Measure(batch=2))
SHIPPED, MASTERNET = read_space("digits"), read_space("masternet")
DIGITS = SHIPPED.model_copy(update={"input": SHIPPED.input.model_copy(update={"resolutions": (24, 32)})})


def table(folder: Path) -> LatencyTable:
    return LatencyTable(Journal(folder / "latency.jsonl"), SETTING)


def row(block: Block, ms: float | None) -> BlockRow:
    if ms is None:
        return BlockRow(block=block, ops=5, failure="must fit into memory, and does not")
    return BlockRow(block=block, ops=5, ms=ms, median_ms=ms, spread=0.001)


def fill(measured: LatencyTable, wanted: Iterable[Block], ms: Callable[[Block], float | None] = lambda block: 1.0) -> None:
    for block in measured.missing(wanted):
        measured.add_block(row(block, ms(block)))


def every(space: SearchSpace, step: int = 1) -> dict[int, WidthsOnOffer]:
    """Every n-th width on offer, at every resolution."""
    thinned = {key: widths[::step] for key, widths in space.widths_on_offer().items()}
    return dict.fromkeys(space.input.resolutions, thinned)


@pytest.mark.parametrize("name", ["tiny", "digits", "digits without a head"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_every_network_of_the_kept_widths_can_be_predicted(tmp_path: Path, name: str, step: int) -> None:
    space = tiny_recipe(tmp_path).space if name == "tiny" else DIGITS
    space = space.model_copy(update={"head": None}) if "without" in name else space
    kept, measured = every(space, step), table(tmp_path)
    fill(measured, rows_needed(space, kept), lambda block: 1.0 + block.in_width)
    for network in (*random_networks(space, kept, 200, seed=step), *map(space.masternet, kept)):
        assert 0 < measured.predict_ms(network) < math.inf


def test_resolutions_may_keep_different_widths(tmp_path: Path) -> None:
    offered = DIGITS.widths_on_offer()
    kept = {24: {key: widths[::2] for key, widths in offered.items()}, 32: {key: widths[-2:] for key, widths in offered.items()}}
    measured = table(tmp_path)
    fill(measured, rows_needed(DIGITS, kept))
    networks = random_networks(DIGITS, kept, 100, seed=0)
    assert {network.input.resolution for network in networks} == {24, 32}
    assert all(measured.predict_ms(network) > 0 for network in networks)


def test_what_reads_a_block_that_failed_never_stops_the_prediction_of_a_network(tmp_path: Path) -> None:
    """The widest head does not fit into memory; networks near it are infinitely slow, and the others are known."""
    kept, measured = {32: every(DIGITS)[32]}, table(tmp_path)
    needed = set(rows_needed(DIGITS, kept))
    widest = max(block.in_width for block in needed if block.kind == "Head")
    fill(measured, needed, lambda block: None if block.kind == "Head" and block.in_width == widest else 1.0)
    predictions = [measured.predict_ms(network) for network in random_networks(DIGITS, kept, 60, seed=0)]
    assert math.inf in predictions
    assert min(predictions) < math.inf


def test_far_fewer_rows_are_needed_than_the_space_has_blocks() -> None:
    kept = every(MASTERNET, 4)
    needed = set(rows_needed(MASTERNET, kept))
    whole = {block for resolution, widths in kept.items() for block in MASTERNET.blocks(widths, resolution)}
    assert needed <= whole | {block for resolution in kept for block in blocks(MASTERNET.masternet(resolution))}
    assert len(needed) < len(whole) / 3


def test_every_repeated_block_of_a_kept_width_is_needed() -> None:
    kept = every(DIGITS, 2)
    needed = set(rows_needed(DIGITS, kept))
    for resolution, widths in kept.items():
        assert {block for block in DIGITS.blocks(widths, resolution) if is_repeated(block)} <= needed


def test_blocks_that_differ_in_what_they_read_alone_are_needed_at_the_ends_and_in_between() -> None:
    kept = {32: every(DIGITS)[32]}
    readers: dict[Block, list[int]] = {}
    for block in set(DIGITS.blocks(kept[32], 32)):
        if not is_repeated(block):
            readers.setdefault(dataclasses.replace(block, in_width=0), []).append(block.in_width)
    needed = set(rows_needed(DIGITS, kept))
    for alike, widths in readers.items():
        taken = {block.in_width for block in needed if dataclasses.replace(block, in_width=0) == alike}
        assert {min(widths), max(widths)} <= taken
        assert len(taken) >= min(3, len(widths))


def test_the_papers_space_is_a_table_of_thousands_of_rows_and_not_of_millions() -> None:
    expected = expected_rows(MASTERNET, networks=20)
    assert MASTERNET.input.resolutions == (192, 224, 256)
    assert 1000 < expected.rows < 12_000
    assert expected.rows == expected.sweep + expected.rest
    assert expected.networks == 23


def test_a_plain_grid_has_no_sweeps_and_all_its_rows_are_counted() -> None:
    plain = DIGITS.model_copy(update={"widths": MultipleOf(multiple_of=16)})
    assert staircase_sites(plain) == ()
    expected = expected_rows(plain, networks=3)
    assert expected.sweep == 0
    assert expected.rest == len(set(rows_needed(plain, every(plain))))


def stairs(tread: int) -> Callable[[Block], float]:
    return lambda block: float(math.ceil(block.width / tread))


def place_of(block_type: BlockType, widths: Iterable[int]) -> StaircaseSite:
    sweep = tuple(Block(block_type.kind, block_type.kernel, block_type.ratio, width, width, 1, 14) for width in widths)
    return StaircaseSite(0, 224, block_type, sweep)


def swept(place: StaircaseSite, own_width: int, measured: LatencyTable, ms: Callable[[Block], float | None]) -> int:
    """Measure what is asked for until nothing more is; returns the calls it took."""
    for calls in itertools.count():
        asked = sweep_blocks(place, own_width, measured)
        if not asked:
            return calls
        assert not [block for block in asked if block in measured], "asked for again"
        fill(measured, asked, ms)
    raise AssertionError


@pytest.mark.parametrize("tread", [64, 128, 192])
def test_a_sweep_ends_and_has_found_the_planted_edges_with_half_of_the_widths(tmp_path: Path, tread: int) -> None:
    place, measured = place_of(BlockType("XX", 3), range(160, 641, 8)), table(tmp_path)
    swept(place, 320, measured, stairs(tread))
    assert len(measured) <= len(place.sweep) / 2
    known = {block.width for block in place.sweep if block in measured}
    edges = set(range(tread, 640, tread)) - set(range(160))
    assert {width for edge in edges for width in (edge, edge + 8)} <= known


def test_a_sweep_of_the_papers_third_superblock_finds_its_edges_among_25_widths(tmp_path: Path) -> None:
    place = next(
        place for place in staircase_sites(MASTERNET) if str(place.block_type) == "BL k3 r0.25" and place.superblock == 2
    )
    assert len(place.sweep) <= 30
    measured = table(tmp_path)
    swept(place, 512, measured, stairs(256))
    known = {block.width for block in place.sweep if block in measured}
    assert {512, 544, 768, 800} <= known


def test_a_sweep_of_32_widths_does_not_take_equal_steps_for_a_slope(tmp_path: Path) -> None:
    """After the first look two wide intervals rise by one step each; there are measurements left to look into them."""
    place, measured = place_of(BlockType("BL", 3, 0.5), range(16, 521, 16)), table(tmp_path)
    swept(place, 256, measured, stairs(128))
    known = {block.width for block in place.sweep if block in measured}
    assert {width for edge in (128, 256, 384) for width in (edge, edge + 16)} <= known


def test_a_short_sweep_is_asked_for_whole_and_once(tmp_path: Path) -> None:
    place, measured = place_of(BlockType("XX", 3), range(8, 8 * SHORT, 8)), table(tmp_path)
    assert len(place.sweep) == SHORT - 1
    assert sweep_blocks(place, 64, measured) == place.sweep
    assert swept(place, 64, measured, stairs(64)) == 1


def test_the_masternets_own_width_is_always_measured(tmp_path: Path) -> None:
    place, measured = place_of(BlockType("XX", 3), range(160, 641, 8)), table(tmp_path)
    swept(place, 328, measured, stairs(10_000))
    assert any(row.block.width == 328 for row in measured.block_rows)


def test_a_sweep_ends_where_widths_fail_and_never_asks_for_them_again(tmp_path: Path) -> None:
    place, measured = place_of(BlockType("XX", 3), range(160, 641, 8)), table(tmp_path)
    swept(place, 320, measured, lambda block: None if block.width > 400 else stairs(64)(block))
    assert len(measured) < len(place.sweep)
    assert {392, 400} <= {row.block.width for row in measured.block_rows if row.failure is None}


@pytest.mark.parametrize("fitting", [0, 1])
def test_a_sweep_of_which_hardly_anything_fits_ends_too(tmp_path: Path, fitting: int) -> None:
    place, measured = place_of(BlockType("XX", 3), range(160, 641, 8)), table(tmp_path)
    fits = [160][:fitting]
    swept(place, 320, measured, lambda block: 1.0 if block.width in fits else None)
    assert len(measured) <= len(place.sweep)
    assert sum(row.failure is None for row in measured.block_rows) == fitting


def test_the_staircases_keep_the_widths_at_the_edges_and_the_masternets_own(tmp_path: Path) -> None:
    space = DIGITS.model_copy(update={"input": DIGITS.input.model_copy(update={"resolutions": (32,)})})
    measured = table(tmp_path)
    for place in staircase_sites(space):
        fill(measured, place.sweep, stairs(20))
    found = find_staircases(space, measured)
    assert found.setting == SETTING.digest
    for placed, place in zip(found.staircases, staircase_sites(space), strict=True):
        widths = {block.width for block in place.sweep}
        own = space.superblocks[placed.superblock].width
        last_of_a_tread = {width for width in widths if math.ceil(width / 20) < math.ceil((width + 8) / 20)} | {max(widths)}
        wanted = {width for width in last_of_a_tread if math.ceil(width / 20) * 20 - width < 8 or width == max(widths)}
        assert wanted <= set(placed.kept)
        assert {own} & widths <= set(placed.kept)
        assert set(placed.kept) <= widths
    offered = space.widths_on_offer()
    kept = found.kept_widths(offered, 32)
    assert set(kept) == set(offered)
    assert sum(map(len, kept.values())) < sum(map(len, offered.values()))


def test_a_drift_that_was_divided_out_is_not_taken_for_noise(tmp_path: Path) -> None:
    """Rows are measured in random order while the machine slows down by a tenth; the sentinel shows no noise at all."""
    space = DIGITS.model_copy(update={"input": DIGITS.input.model_copy(update={"resolutions": (32,)})})
    steady, drifting = table(tmp_path), table(tmp_path / "b")
    every_row = list(dict.fromkeys(block for place in staircase_sites(space) for block in place.sweep))
    random.Random(0).shuffle(every_row)
    for number, block in enumerate(every_row):
        ms, drift = stairs(20)(block), 1 + 0.1 * (number // 4) / (len(every_row) // 4)  # four rows between two readings
        steady.add_block(row(block, ms))
        drifting.add_block(row(block, ms * drift).model_copy(update={"drift": drift}))
    for one, other in zip(find_staircases(space, steady).staircases, find_staircases(space, drifting).staircases, strict=True):
        assert one.kept == other.kept
        assert one.staircase is None or (other.staircase is not None and other.staircase.noise < 0.02)


def test_widths_that_failed_are_never_kept_and_no_part_of_a_staircase(tmp_path: Path) -> None:
    measured = table(tmp_path)
    for place in staircase_sites(DIGITS):
        middle = place.sweep[len(place.sweep) // 2].width
        fill(measured, place.sweep, lambda block, middle=middle: None if block.width > middle else stairs(16)(block))
    failed = {str(row.block) for row in measured.block_rows if row.failure}
    assert len(failed) > 10
    for placed, place in zip(find_staircases(DIGITS, measured).staircases, staircase_sites(DIGITS), strict=True):
        gone = {block.width for block in place.sweep if str(block) in failed}
        assert not gone & set(placed.kept)
        assert placed.staircase is None or not gone & set(placed.staircase.widths)


def test_a_block_type_of_which_no_width_could_be_measured_is_not_on_offer(tmp_path: Path) -> None:
    """Profiling again, as the refusal of a place without any row advises, would change nothing: failures are answers."""
    measured = table(tmp_path)
    for place in staircase_sites(DIGITS):
        fill(measured, place.sweep, lambda block: None if block.kind == "DW" else stairs(16)(block))
    for placed in find_staircases(DIGITS, measured).staircases:
        assert (placed.kept == ()) == placed.block_type.startswith("DW")


def test_a_single_width_that_could_be_measured_is_kept_without_a_staircase(tmp_path: Path) -> None:
    measured = table(tmp_path)
    for place in staircase_sites(DIGITS):
        smallest = min(block.width for block in place.sweep)
        fill(measured, place.sweep, lambda block, smallest=smallest: 1.0 if block.width == smallest else None)
    alone = [placed for placed in find_staircases(DIGITS, measured).staircases if placed.staircase is None]
    assert alone
    assert all(len(placed.kept) == 1 for placed in alone)


def test_a_place_without_any_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"super-block 1: got no latency for any width of XX k3 at 24 pixels"):
        find_staircases(DIGITS, table(tmp_path))


def test_random_networks_are_distinct_of_the_kept_widths_and_the_seeds() -> None:
    kept = every(DIGITS, 2)
    found = random_networks(DIGITS, kept, 50, seed=7)
    assert len(set(found)) == len(found) == 50
    assert found == random_networks(DIGITS, kept, 50, seed=7)
    assert found != random_networks(DIGITS, kept, 50, seed=8)
    assert [network.input.resolution for network in found[:4]] == [24, 32, 24, 32]
    for network in found:
        for index, superblock in enumerate(network.superblocks):
            assert superblock.width in kept[24][index, superblock.block_type] or not superblock.depth
    assert 0 < sum(not network.superblocks[0].depth for network in found) < 10  # the only one that may vanish


def test_random_networks_end_when_the_space_is_small(tmp_path: Path) -> None:
    space = tiny_recipe(tmp_path).space
    narrow = {16: {key: widths[:1] for key, widths in space.widths_on_offer().items()}}
    found = random_networks(space, narrow, 200, seed=0)
    assert len(set(found)) == len(found) == space.size(narrow[16])


def test_the_networks_that_correct_predictions_hold_the_masternets(tmp_path: Path) -> None:
    kept = every(DIGITS)
    found = correction_networks(DIGITS, kept, 5, seed=0)
    assert found[:2] == (DIGITS.masternet(24), DIGITS.masternet(32))
    assert len(set(found)) == len(found) == 7
