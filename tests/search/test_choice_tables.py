"""What every super-block offers, in tables: held against whole networks counted block by block."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genet.arch.cost import block_cost, network_cost
from genet.arch.network import Block, Network, SuperBlock, SuperBlockKind, blocks, superblock_blocks
from genet.arch.space import SearchSpace, WidthsOnOffer
from genet.config.recipe import Measure
from genet.device import read_card
from genet.errors import EvidenceError
from genet.latency.ops import block_ops, kernel_count, network_ops
from genet.latency.predict import Correction, Predictor
from genet.latency.table import BlockRow, LatencyTable, NetworkRow, Setting
from genet.search.choice_tables import ChoiceTables, MsByInWidth, Predicted, tabulate_choices
from genet.search.features import attainable
from genet.search.solver import frontier
from genet.storage import Journal
from tests.fixtures.strategies import kernels, multiples_of_8, spaces

SIZE = 16
ACCURACY = 0.5  # so low that effects add up
SPACE = SearchSpace.model_validate(
    {
        "name": "strides",
        "input": {"channels": 3, "classes": 10, "resolutions": [SIZE]},
        "stem": {"kernel": 3, "width": 16, "stride": 1},
        "superblocks": [
            {"type": "XX", "depth": 2, "width": 16, "stride": 1, "kernel": 3},
            {"type": "BL", "depth": 1, "width": 32, "stride": 1, "kernel": 3, "ratio": 0.5},
            {"type": "DW", "depth": 2, "width": 24, "stride": 2, "kernel": 3, "ratio": 3},
        ],
        "head": {"width": 64},
        "perturb": {
            "width": [0.5, 1.5],
            "depth": [-1, 1],
            "kernel": [3],
            "ratio": {"BL": [0.5], "DW": [3]},
            "types": ["XX", "BL", "DW"],
            "trials_per_type": 1,
        },
        "widths": {"multiple_of": 8},
    }
)
SHORT = SPACE.model_copy(update={"superblocks": SPACE.superblocks[:2]})  # 567 networks


def block_ms(block: Block) -> float:
    """A latency that follows from every part of the block, and from no law."""
    return 0.1 + zlib.crc32(str(block).encode()) % 1009 / 500


def gain(index: int, superblock: SuperBlock) -> float:
    return zlib.crc32(f"{index} {superblock}".encode()) % 1009 / 10_000 - 0.05


def reading(ms: Callable[[Block], float]) -> MsByInWidth:
    def ms_by_in_width(block: Block, in_widths: Sequence[int]) -> np.ndarray:
        return np.array([ms(dataclasses.replace(block, in_width=int(width))) for width in in_widths])

    return ms_by_in_width


def tabulated(space: SearchSpace = SPACE, host_ms: float = 0.0, ms: Callable[[Block], float] = block_ms) -> ChoiceTables:
    return tabulate_choices(space, space.widths_on_offer(), SIZE, Predicted(ACCURACY, gain, reading(ms), host_ms))


def random_picks(tables: ChoiceTables, count: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.column_stack([draw.integers(len(offer.choices), size=count) for offer in tables.superblocks])


def failing(failed: Callable[[Block], bool]) -> Callable[[Block], float]:
    """Some blocks could not be measured."""
    return lambda block: math.inf if failed(block) else block_ms(block)


# the tables


def assert_tables_are_sums(space: SearchSpace, widths: WidthsOnOffer, resolution: int) -> None:
    tables = tabulate_choices(space, widths, resolution, Predicted(ACCURACY, gain, reading(block_ms)))
    stem, *_, head = blocks(space.masternet(resolution))
    assert tables.stem == (block_ms(stem), block_cost(stem).parameters, len(block_ops(stem)))
    reads = {stem.width}
    for index, (offer, size) in enumerate(zip(tables.superblocks, space.sizes(resolution)[:-1], strict=True)):
        offered = list(space.choices(index, widths))
        assert len(offer.choices) == len(offered)
        assert set(offer.choices) == set(offered)
        assert set(offer.reads) == reads
        assert sorted(offer.reads.values()) == list(range(len(reads)))
        assert offer.gain.tolist() == [gain(index, choice) for choice in offer.choices]
        for width, row in offer.reads.items():
            parts = [list(superblock_blocks(choice, width, size)) for choice in offer.choices]
            assert offer.ms[row].tolist() == pytest.approx([sum(map(block_ms, each)) for each in parts])
            assert offer.parameters[row].tolist() == [sum(block_cost(block).parameters for block in each) for each in parts]
            assert offer.kernels[row].tolist() == [sum(map(kernel_count, each)) for each in parts]
            assert offer.widths[row].tolist() == [choice.width if choice.depth else width for choice in offer.choices]
        reads = {choice.width if choice.depth else width for choice in offer.choices for width in reads}
    heads = {width: dataclasses.replace(head, in_width=width) for width in reads}
    assert tables.head == {
        width: (block_ms(one), block_cost(one).parameters, len(block_ops(one))) for width, one in heads.items()
    }


def test_every_entry_is_the_sum_over_the_superblocks_blocks() -> None:
    """Of strides 1 and 2, reading the own width and others, one block deep and deeper, of all kinds."""
    assert_tables_are_sums(SPACE, SPACE.widths_on_offer(), SIZE)
    cases = {
        (choice.type, choice.stride, width == choice.width, choice.depth > 1)
        for offer in tabulated().superblocks
        for choice, width in itertools.product(offer.choices, offer.reads)
    }
    assert cases == set(itertools.product(get_args(SuperBlockKind), (1, 2), (True, False), (True, False)))


@settings(max_examples=10)
@given(spaces(), st.randoms(use_true_random=False))
def test_every_entry_of_any_space_is_the_sum_over_the_superblocks_blocks(space: SearchSpace, draw: random.Random) -> None:
    widths = {key: tuple(sorted(draw.sample(kept, min(2, len(kept))))) for key, kept in space.widths_on_offer().items()}
    assert_tables_are_sums(space, widths, draw.choice(space.input.resolutions))


# kernels


@st.composite
def residuals(draw: st.DrawFn) -> Block:
    """Any block with a shortcut, often an identity."""
    kind = draw(st.sampled_from(get_args(SuperBlockKind)))
    width = draw(multiples_of_8)
    ratio = None if kind == "XX" else draw(st.sampled_from([0.25, 0.5, 1.0] if kind == "BL" else [1.0, 3.0]))
    in_width = draw(st.just(width) | multiples_of_8)
    return Block(kind, draw(kernels), ratio, in_width, width, draw(st.sampled_from([1, 2])), draw(st.integers(1, 64)))


@st.composite
def singles(draw: st.DrawFn) -> Block:
    """Any stem, depthwise convolution, head or classifier."""
    kind = draw(st.sampled_from(["Conv", "Depthwise", "Head", "Classifier"]))
    last, width = kind in ("Head", "Classifier"), draw(multiples_of_8)
    in_width = width if kind == "Depthwise" else draw(st.just(width) | multiples_of_8)
    kernel, stride = (1, 1) if last else (draw(kernels), draw(st.sampled_from([1, 2])))
    classes = width if kind == "Classifier" else 10 if last else 0
    return Block(kind, kernel, None, in_width, width, stride, draw(st.integers(1, 64)), classes)


@given(residuals() | singles())
def test_a_blocks_kernels_are_counted_as_they_are_listed(block: Block) -> None:
    assert kernel_count(block) == len(block_ops(block))


def test_a_projection_is_two_kernels_more_and_a_stem_has_none() -> None:
    for kind, ratio, count in (("XX", None, 7), ("BL", 0.5, 10), ("DW", 3.0, 10)):
        same = Block(kind, 3, ratio, 16, 16, 1, 8)
        others = (dataclasses.replace(same, in_width=24), dataclasses.replace(same, stride=2))
        assert [kernel_count(block) for block in (same, *others)] == [count, count + 2, count + 2]
    assert {kernel_count(Block("Conv", 3, None, width, 16, 2, 8)) for width in (3, 16)} == {3}


# whole networks


@pytest.mark.parametrize("host_ms", [0.0, 0.13], ids=["the device decides", "the host may decide"])
def test_what_is_predicted_of_random_networks_is_summed_over_their_blocks(host_ms: float) -> None:
    tables = tabulated(host_ms=host_ms)
    picks = random_picks(tables, 120)
    found = tables.totals(picks)
    networks = [tables.network(row) for row in picks.tolist()]
    device = np.array([sum(map(block_ms, blocks(network))) for network in networks])
    host = host_ms * np.array([len(network_ops(network)) for network in networks])
    assert found.ms == pytest.approx(np.maximum(device, host))
    assert (0.1 < np.mean(host > device) < 0.9) == (host_ms > 0)  # both sides are tried
    gains = [sum(gain(*each) for each in enumerate(network.superblocks)) for network in networks]
    assert found.accuracy == pytest.approx(ACCURACY + np.array(gains))
    assert found.parameters.tolist() == [network_cost(network).parameters for network in networks]


def test_a_network_is_made_of_the_choices_picked() -> None:
    tables = tabulated()
    for picks in random_picks(tables, 5).tolist():
        network = tables.network(picks)
        assert network.superblocks == tuple(o.choices[place] for o, place in zip(tables.superblocks, picks, strict=True))
        assert (network.input.resolution, network.stem, network.head) == (SIZE, SPACE.stem, SPACE.head)


@pytest.mark.parametrize("host_ms", [0.0, 0.13], ids=["the device decides", "the host may decide"])
def test_of_one_network_on_offer_the_same_is_predicted_as_of_its_choices(host_ms: float) -> None:
    tables = tabulated(host_ms=host_ms)
    picks = random_picks(tables, 20, seed=1)
    for place, choices in enumerate(picks.tolist()):
        network, found = tables.network(choices), tables.totals(picks)
        assert tables.holds(network)
        assert tables.predict(network) == (found.ms[place], found.accuracy[place], found.parameters[place])
        device, host = sum(map(block_ms, blocks(network))), host_ms * len(network_ops(network))
        assert tables.predict(network).ms == pytest.approx(max(device, host))
        assert tables.predict(network).parameters == network_cost(network).parameters


def test_every_choice_of_a_superblock_has_its_place() -> None:
    for offer in tabulated().superblocks:
        assert list(offer.place) == list(offer.choices)
        assert list(offer.place.values()) == list(range(len(offer.choices)))


# what is not on offer


def test_a_network_is_held_where_all_its_superblocks_are_on_offer() -> None:
    widths = SPACE.widths_on_offer()
    thinned = {key: tuple(w for w in kept if w != 24 or key[0] != 1) for key, kept in widths.items()}
    every, fewer = (tabulate_choices(SPACE, of, SIZE, Predicted(ACCURACY, gain, reading(block_ms))) for of in (widths, thinned))
    networks = [every.network(choices) for choices in random_picks(every, 60).tolist()]
    gone = [network.superblocks[1].width == 24 for network in networks]
    assert 0 < sum(gone) < len(gone)
    assert [fewer.holds(network) for network in networks] == [not each for each in gone]
    assert all(map(every.holds, networks))
    kept = [network for network, missing in zip(networks, gone, strict=True) if not missing]
    for network in kept:
        assert fewer.predict(network) == every.predict(network)


def test_what_has_no_gain_is_not_on_offer_and_all_else_is() -> None:
    def known(index: int, superblock: SuperBlock) -> float | None:
        gone = (superblock.type == "DW" and index == 0) or superblock.width == 48
        return None if gone else 0.0 if superblock.depth == 1 else gain(index, superblock)

    widths = SPACE.widths_on_offer()
    tables = tabulate_choices(SPACE, widths, SIZE, Predicted(ACCURACY, known, reading(block_ms)))
    for index, offer in enumerate(tables.superblocks):
        assert set(offer.choices) == {each for each in SPACE.choices(index, widths) if known(index, each) is not None}
    assert {choice.type for choice in tables.superblocks[0].choices} == {"XX", "BL"}
    assert set(tables.superblocks[1].reads) == {8, 16, 24}
    assert set(tables.superblocks[2].reads) == {8, 16, 24, 32, 40}  # 8 passes where the second super-block vanishes
    found = tables.totals(picks := random_picks(tables, 20))
    assert found.ms.tolist() == pytest.approx([sum(map(block_ms, blocks(tables.network(row)))) for row in picks.tolist()])


@pytest.mark.parametrize("kept", ["all widths", "without the own"])
def test_a_superblock_without_any_gain_keeps_the_masternets_own(kept: str) -> None:
    own = SPACE.superblocks[1]
    every = SPACE.widths_on_offer()
    widths = every if kept == "all widths" else {key: tuple(w for w in of if w != own.width) for key, of in every.items()}
    tables = tabulate_choices(
        SPACE, widths, SIZE, Predicted(ACCURACY, lambda i, s: None if i == 1 else gain(i, s), reading(block_ms))
    )
    only = tables.superblocks[1]
    assert (only.choices, only.gain.tolist()) == ((own,), [0.0])
    assert set(tables.superblocks[2].reads) == {own.width}
    assert [len(tables.superblocks[place].choices) > 9 for place in (0, 2)] == [True, True]


def more_is_better(index: int, superblock: SuperBlock) -> float:
    return gain(index, superblock) + superblock.width / 100 + superblock.depth / 10


FAILED: dict[str, Callable[[Block], bool]] = {
    "first blocks": lambda block: block.kind != "Head" and (block.in_width, block.width) == (24, 48),
    "repeated blocks": lambda block: block.in_width == block.width in (24, 48),
    "heads": lambda block: block.kind == "Head" and block.in_width > 32,
}


@pytest.mark.parametrize("which", FAILED)
def test_a_block_of_infinite_latency_never_reaches_the_frontier_and_takes_nothing_else_from_it(which: str) -> None:
    """Not even where it would be the most accurate."""
    ms = failing(FAILED[which])
    tables = tabulate_choices(SHORT, SHORT.widths_on_offer(), SIZE, Predicted(ACCURACY, more_is_better, reading(ms)))
    every = np.array(list(itertools.product(*(range(len(offer.choices)) for offer in tables.superblocks))))
    networks = [tables.network(row) for row in every.tolist()]
    slow = np.array([sum(map(ms, blocks(network))) for network in networks])
    gains = np.array([sum(more_is_better(*each) for each in enumerate(network.superblocks)) for network in networks])
    accuracy = attainable(ACCURACY + gains, ACCURACY)
    assert np.isfinite(slow).any()
    assert np.isinf(slow[accuracy.argmax()])
    assert tables.totals(every).ms == pytest.approx(slow)
    found = frontier(tables)
    for budget in np.quantile(slow[np.isfinite(slow)], [0.02, 0.3, 0.7, 1.0]) + 1e-9:
        best = max(c.predicted_accuracy for c in found if c.predicted_ms <= budget)
        assert best == pytest.approx(accuracy[slow <= budget].max())
    assert max(c.predicted_accuracy for c in found) == pytest.approx(accuracy[np.isfinite(slow)].max())


def test_a_superblock_of_which_nothing_could_be_measured_leaves_no_network() -> None:
    """Only the last super-block has a stride."""
    some = frontier(tabulated(ms=failing(lambda block: block.stride == 2 and block.kind != "XX")))
    assert {Network.parse(candidate.network).superblocks[2].type for candidate in some} == {"XX"}
    with pytest.raises(EvidenceError, match="need a block that could be measured"):
        frontier(tabulated(ms=failing(lambda block: block.stride == 2)))


def test_where_no_head_could_be_measured_there_is_no_network_either() -> None:
    with pytest.raises(EvidenceError):
        frontier(tabulated(SHORT, ms=failing(lambda block: block.kind == "Head")))


# from a table of measured blocks


SETTING = Setting.of(read_card(torch.device("cpu")), Measure(batch=2))


def row(block: Block, ms: float | None) -> BlockRow:
    failure = "it does not fit into memory" if ms is None else None
    return BlockRow(block=block, ops=1, ms=ms, median_ms=ms, spread=0.0, failure=failure)


def table(folder: Path, rows: dict[Block, float | None]) -> LatencyTable:
    made = LatencyTable(Journal(folder / "latency.jsonl"), SETTING)
    for block, ms in rows.items():
        made.add_block(row(block, ms))
    return made


def test_a_table_reads_many_widths_at_once_as_it_reads_each_alone(tmp_path: Path) -> None:
    block = Block("XX", 3, None, 8, 32, 1, 4)
    known = {8: 1.0, 16: 2.0, 32: 0.5, 48: 6.0, 64: None, 80: 3.0, 96: 5.0, 104: None, 120: None}
    made = table(tmp_path, {dataclasses.replace(block, in_width=width): ms for width, ms in known.items()})
    widths = [48, 8, 12, 16, 24, 32, 40, 56, 64, 72, 80, 88, 96, 112]
    by_hand = [
        6.0,
        1.0,
        1.5,
        2.0,
        3.0,
        0.5,
        5.0,
        math.inf,
        math.inf,
        math.inf,
        3.0,
        4.0,
        5.0,
        math.inf,
    ]  # 32 repeats: it is no bracket
    assert made.ms_by_in_width(block, widths).tolist() == pytest.approx(by_hand)
    assert [made.ms(dataclasses.replace(block, in_width=width)) for width in widths] == pytest.approx(by_hand)
    assert made.ms_by_in_width(block, [80, 8]).tolist() == [3.0, 1.0]  # in the order asked for


@pytest.mark.parametrize(
    ("wanted", "lacking"), [([16, 4], 4), ([128, 16], 128), ([16, 32, 48], 32)], ids=["narrower", "wider", "repeated"]
)
def test_a_table_asked_for_many_widths_names_the_one_that_it_lacks(tmp_path: Path, wanted: list[int], lacking: int) -> None:
    block = Block("XX", 3, None, 8, 32, 1, 4)
    made = table(tmp_path, {dataclasses.replace(block, in_width=width): 1.0 for width in (8, 16, 64)})
    with pytest.raises(EvidenceError, match=rf"lacks XX k3 c{lacking}>32 s1 @4"):
        made.ms_by_in_width(block, wanted)


@pytest.mark.parametrize(
    "correction",
    [
        Correction(scale=1.2, kernel_ms=0.05, host_ms=0.0, networks=9, left_out_error=None),
        Correction(scale=0.8, kernel_ms=0.02, host_ms=0.15, networks=9, left_out_error=None),
    ],
    ids=["the device decides", "the host may decide"],
)
def test_tables_of_a_predictor_say_of_whole_networks_what_the_predictor_says(tmp_path: Path, correction: Correction) -> None:
    widths = {key: of[:1] + of[-1:] if len(of) > 2 else of for key, of in SHORT.widths_on_offer().items()}
    masternet = SHORT.masternet(SIZE)
    made = table(tmp_path, {block: block_ms(block) for block in (*SHORT.blocks(widths, SIZE), *blocks(masternet))})
    made.add_network(
        NetworkRow(network=str(masternet), reference=str(masternet), ops=9, ms=(3.0,), reference_ms=(3.0,), spread=0.0)
    )
    predictor = Predictor(made, masternet, made.network_rows)
    predictor.correction = correction
    tables = tabulate_choices(SHORT, widths, SIZE, Predicted(ACCURACY, gain, predictor.ms_by_in_width, correction.host_ms))
    picks = random_picks(tables, 60)
    networks = [tables.network(row) for row in picks.tolist()]
    assert tables.totals(picks).ms.tolist() == pytest.approx([predictor.ms(network) for network in networks])
    waits = [predictor.ms(n) > correction.device_ms(made.predict_ms(n), len(network_ops(n))) for n in networks]
    assert (0.1 < np.mean(waits) < 0.9) == (correction.host_ms > 0)
