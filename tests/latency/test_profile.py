"""Profiling: on this machine's own processor, and on a simulated device whose speed and faults are known."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from genet.arch.network import Block, Network
from genet.errors import EvidenceError, GenetError, LostDeviceError, MeasurementError
from genet.latency.ops import network_ops
from genet.latency.profile import measure_network, profile_blocks, profile_sweep
from genet.latency.staircase.staircase import analyse
from genet.latency.table import LatencyTable, Setting
from genet.latency.timing.meter import DeviceMeter
from genet.latency.timing.ratio import ROUNDS, StopRule
from genet.latency.workload import Workload, read_blocks, with_width
from genet.progress import Tracker, WorkItem
from genet.storage import Journal
from tests.fixtures.simulated import SETTING, Simulated
from tests.fixtures.tiny import tiny_recipe

CPU = torch.device("cpu")
SENTINEL = Block("Conv", 3, None, 8, 8, 1, 8)
KINDS = (
    Block("Conv", 3, None, 3, 16, 2, 16),
    Block("Depthwise", 3, None, 16, 16, 1, 16),
    Block("XX", 3, None, 16, 16, 1, 8),
    Block("XX", 3, None, 8, 16, 2, 8),
    Block("BL", 3, 0.5, 32, 32, 1, 8),
    Block("BL", 5, 0.25, 16, 32, 1, 8),
    Block("DW", 3, 3.0, 16, 16, 1, 8),
    Block("DW", 5, 6.0, 8, 16, 2, 8),
    Block("Head", 1, None, 16, 32, 1, 4, 10),
)


def table(folder: Path, setting: Setting = SETTING) -> LatencyTable:
    return LatencyTable(Journal(folder / "latency.jsonl"), setting)


def convolutions(count: int) -> list[Block]:
    """Blocks that are no repeated ones, with different widths."""
    return [Block("Conv", 3, None, 8, 8 * number, 1, 8) for number in range(2, count + 2)]


def by_width(part: Workload) -> float:
    """A millisecond per eight channels written, the same for every block of a chain."""
    found = re.search(r">(\d+)", part.name)
    assert found is not None
    return int(found[1]) / 8 * len(part.groups())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_every_kind_of_block_is_measured_on_this_machine(tmp_path: Path, dtype: str, memory_format: str) -> None:
    setting = SETTING.model_copy(update={"dtype": dtype, "memory_format": memory_format})
    measured = table(tmp_path, setting)
    ticks = Tracker(WorkItem("rows", None))
    profile_blocks(measured, DeviceMeter(setting, CPU), KINDS, SENTINEL, tracker=ticks)
    assert ticks.done == len(measured) == len(KINDS)
    for row in table(tmp_path, setting).block_rows:
        assert row.failure is None
        assert 0 < measured.ms(row.block) < math.inf
        assert row.ops > 0


def test_a_block_asked_for_twice_is_measured_once_and_never_again(tmp_path: Path) -> None:
    meter, wanted = Simulated(by_width), convolutions(5)
    profile_blocks(table(tmp_path), meter, [*wanted, *wanted[:2]], SENTINEL)
    assert [meter.timed[str(block)] for block in wanted] == [1] * 5
    assert profile_blocks(table(tmp_path), Simulated(lambda _: math.nan), wanted, SENTINEL) == 0


class Stopped(Tracker):
    """Ends the work after so many steps, as Ctrl-C does."""

    def advance(self, note: str = "") -> None:
        if self.done == self.count.total:
            raise KeyboardInterrupt
        super().advance(note)


def test_what_a_stopped_run_had_measured_is_not_measured_again(tmp_path: Path) -> None:
    wanted = convolutions(80)
    with pytest.raises(KeyboardInterrupt):
        profile_blocks(table(tmp_path), Simulated(by_width), wanted, SENTINEL, tracker=Stopped(WorkItem("rows", 50)))
    kept = len(table(tmp_path))
    assert 0 < kept < 80
    meter = Simulated(by_width)
    profile_blocks(table(tmp_path), meter, wanted, SENTINEL)
    assert sum(meter.timed[str(block)] for block in wanted) == 80 - kept
    assert len(table(tmp_path)) == 80


def test_the_order_is_random_and_the_seeds(tmp_path: Path) -> None:
    wanted = convolutions(12)

    def order(folder: str, seed: int) -> list[str]:
        meter = Simulated(by_width)
        profile_blocks(table(tmp_path / folder), meter, wanted, SENTINEL, seed)
        return [name for name in meter.timed if name != str(SENTINEL)]

    assert order("a", 1) == order("b", 1) != order("c", 2)
    assert order("d", 1) != [str(block) for block in wanted]


def test_a_repeated_block_costs_half_of_what_three_take_longer_than_one(tmp_path: Path) -> None:
    repeated, first = Block("XX", 3, None, 16, 16, 1, 8), Block("XX", 3, None, 8, 16, 2, 8)
    measured = table(tmp_path)
    profile_blocks(measured, Simulated(lambda part: 5.0 + 2.0 * len(part.groups())), [repeated, first], SENTINEL)
    assert measured.ms(repeated) == pytest.approx(2.0)  # what is paid once per pass has cancelled
    assert measured.ms(first) == pytest.approx(7.0)


def test_three_blocks_that_seem_no_slower_than_one_are_timed_again(tmp_path: Path) -> None:
    repeated, threes = Block("XX", 3, None, 16, 16, 1, 8), list[Workload]()

    def ms(part: Workload) -> float:
        blocks, noisy = len(part.groups()), not threes
        if blocks == 3:
            threes.append(part)
        return 5.0 - blocks if noisy else 5.0 + 2.0 * blocks

    measured = table(tmp_path)
    profile_blocks(measured, Simulated(ms), [repeated], SENTINEL)
    assert measured.ms(repeated) == pytest.approx(2.0)


def test_where_noise_swallows_two_of_three_blocks_a_third_of_the_three_counts(tmp_path: Path) -> None:
    repeated = Block("XX", 3, None, 16, 16, 1, 8)
    measured = table(tmp_path)
    profile_blocks(measured, Simulated(lambda part: 5.0 - len(part.groups())), [repeated], SENTINEL)
    (row,) = measured.block_rows
    assert row.failure is None
    assert row.ms == pytest.approx((5.0 - 3) / 3)


def test_a_block_that_cannot_be_timed_is_a_failed_row_and_the_others_go_on(tmp_path: Path) -> None:
    wanted = convolutions(6)

    def ms(part: Workload) -> float:
        if part.name == str(wanted[2]):
            raise MeasurementError("it must fit into memory, and does not")
        return by_width(part)

    profile_blocks(table(tmp_path), Simulated(ms), wanted, SENTINEL)
    found = table(tmp_path)
    assert [row.failure for row in found.block_rows if row.failure] == ["it must fit into memory, and does not"]
    assert [found.ms(block) for block in wanted] == [2.0, 3.0, math.inf, 5.0, 6.0, 7.0]
    assert found.missing(wanted) == []


def test_a_device_that_is_lost_leaves_its_rows_and_the_block_that_it_was_lost_at(tmp_path: Path) -> None:
    wanted = convolutions(20)
    tried: list[str] = []

    def ms(part: Workload) -> float:
        if part.name != str(SENTINEL):
            tried.append(part.name)
        if len(tried) == 11:
            raise LostDeviceError(f"the device stopped while {part.name} was timed")
        return by_width(part)

    with pytest.raises(LostDeviceError, match="stopped while"):
        profile_blocks(table(tmp_path), Simulated(ms), wanted, SENTINEL)
    found = table(tmp_path)
    assert {str(row.block) for row in found.block_rows} == set(tried)
    assert [str(row.block) for row in found.block_rows if row.failure] == [tried[10]]
    again = Simulated(by_width)
    profile_blocks(found, again, wanted, SENTINEL)
    assert not any(again.timed[name] for name in tried)  # what killed the device is not given to it again
    assert len(table(tmp_path)) == 20


@pytest.mark.parametrize(("kind", "rows"), [("cpu", 2), ("cuda", 17)])
def test_the_sentinel_is_read_after_half_a_second_on_a_processor_and_after_five_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, rows: int
) -> None:
    seconds = itertools.count(0, 0.3)
    now = [next(seconds)]

    def ms(part: Workload) -> float:
        now[0] = next(seconds)
        return by_width(part)

    monkeypatch.setattr("genet.latency.profile.time.monotonic", lambda: now[0])
    meter = Simulated(ms)
    meter.setting = meter.setting.model_copy(update={"device": meter.setting.device.model_copy(update={"kind": kind})})
    measured = table(tmp_path)
    profile_blocks(measured, meter, convolutions(34), SENTINEL)
    assert len(measured.sentinels[str(SENTINEL)]) == 1 + 34 // rows


def test_a_machine_that_slows_down_midway_is_corrected_for(tmp_path: Path) -> None:
    wanted = convolutions(90)
    measured = table(tmp_path)
    marked = profile_blocks(measured, Simulated(by_width, lambda n: 1.0 if n < 50 else 1.1), wanted, SENTINEL)
    assert marked == 0  # the rows in between were measured again, and the sentinel then stood still
    drifts = {round(row.drift, 6) for row in measured.block_rows}
    assert drifts == {1.0, 1.1}
    usual = statistics.median(measured.sentinels[str(SENTINEL)])  # it took 1 ms when the table was begun
    for block in wanted:
        row = measured.block_row(block)
        assert row is not None
        assert measured.ms(block) == pytest.approx(usual * block.width / 8, rel=0.01)
        assert row.ms == pytest.approx(row.drift * block.width / 8)


def test_a_slow_drift_is_divided_out_of_every_row(tmp_path: Path) -> None:
    wanted = convolutions(120)
    measured = table(tmp_path)
    profile_blocks(measured, Simulated(by_width, lambda n: 1.0005**n), wanted, SENTINEL)
    assert max(row.drift for row in measured.block_rows) > 1.04
    usual = statistics.median(measured.sentinels[str(SENTINEL)])
    for block in wanted:
        assert measured.ms(block) == pytest.approx(usual * block.width / 8, rel=0.01)


def test_a_machine_that_was_busy_while_the_table_was_begun_does_not_make_its_blocks_slow(tmp_path: Path) -> None:
    wanted = convolutions(120)
    profile_blocks(table(tmp_path), Simulated(by_width, lambda n: 13.0 if n < 2 else 1.0), wanted, SENTINEL)
    assert table(tmp_path).sentinels[str(SENTINEL)][0] == 13.0
    assert [table(tmp_path).ms(block) for block in wanted] == pytest.approx([block.width / 8 for block in wanted])


def test_rows_of_a_later_session_are_brought_to_one_speed_with_those_of_the_first(tmp_path: Path) -> None:
    wanted = convolutions(8)
    profile_blocks(table(tmp_path), Simulated(by_width), wanted[:4], SENTINEL)
    profile_blocks(table(tmp_path), Simulated(by_width, lambda _: 1.3), wanted, SENTINEL)
    usual = 1.15  # the median of two readings each
    assert [table(tmp_path).ms(block) for block in wanted] == pytest.approx([usual * block.width / 8 for block in wanted])


def test_a_table_keeps_the_sentinel_that_it_was_begun_with(tmp_path: Path) -> None:
    wanted = convolutions(8)
    profile_blocks(table(tmp_path), Simulated(by_width), wanted[:4], SENTINEL)
    profile_blocks(table(tmp_path), Simulated(by_width, lambda _: 1.3), wanted, wanted[0])
    assert list(table(tmp_path).sentinels) == [str(SENTINEL)]
    usual = 1.15  # the median of two readings each
    assert [table(tmp_path).ms(block) for block in wanted] == pytest.approx([usual * block.width / 8 for block in wanted])


def test_a_sentinel_that_can_no_longer_be_timed_is_named_with_the_file(tmp_path: Path) -> None:
    wanted = convolutions(4)
    profile_blocks(table(tmp_path), Simulated(by_width), wanted[:2], SENTINEL)

    def ms(part: Workload) -> float:
        if part.name == str(SENTINEL):
            raise MeasurementError("no memory")
        return by_width(part)

    law = re.escape("latency.jsonl: timing again the block that its rows are compared with failed: no memory; give another")
    with pytest.raises(MeasurementError, match=law):
        profile_blocks(table(tmp_path), Simulated(ms), wanted, SENTINEL)


def test_rows_are_measured_once_while_the_sentinel_stands_still(tmp_path: Path) -> None:
    meter, wanted = Simulated(by_width, lambda n: 1.0 + 0.015 * (n % 2)), convolutions(6)
    assert profile_blocks(table(tmp_path), meter, wanted, SENTINEL) == 0
    assert [meter.timed[str(block)] for block in wanted] == [1] * 6


def test_rows_between_two_readings_of_a_sentinel_that_moved_are_measured_once_more(tmp_path: Path) -> None:
    meter, wanted = Simulated(by_width, lambda n: 1.0 if n < 4 else 1.05), convolutions(6)
    assert profile_blocks(table(tmp_path), meter, wanted, SENTINEL) == 0
    assert [meter.timed[str(block)] for block in wanted] == [2] * 6
    assert len(table(tmp_path)) == 6


def test_rows_of_a_machine_that_never_stands_still_are_marked_and_kept(tmp_path: Path) -> None:
    meter, wanted = Simulated(by_width, lambda n: 1.05**n), convolutions(6)
    assert profile_blocks(table(tmp_path), meter, wanted, SENTINEL) == 6
    assert [meter.timed[str(block)] for block in wanted] == [2] * 6
    assert all(row.drift > 1.1 for row in table(tmp_path).block_rows)


def networks(folder: Path) -> tuple[Network, Network]:
    space = tiny_recipe(folder).space
    return space.smallest(16), space.masternet(16)


def whole_ms(part: Workload) -> float:
    return float(len(part.ops()))


def test_a_whole_network_is_timed_in_turn_with_the_reference_until_it_is_enough(tmp_path: Path) -> None:
    network, master = networks(tmp_path)
    row = measure_network(table(tmp_path), Simulated(whole_ms, lambda n: 1.0 + n / 10), network, master)
    assert len(row.ms) == ROUNDS
    assert row.ratios == pytest.approx([len(network_ops(network)) / len(network_ops(master))] * ROUNDS)
    assert table(tmp_path).network_row(network) == row
    more = measure_network(table(tmp_path), Simulated(whole_ms), network, master, StopRule(least=7))
    assert len(more.ms) == 7
    assert more.ms[:ROUNDS] == row.ms  # rounds on the disk count


def test_what_few_rounds_tell_does_not_change_when_more_were_measured_later(tmp_path: Path) -> None:
    network, master = networks(tmp_path)
    meter = Simulated(whole_ms, lambda n: 1.0 + n / 10)
    few = measure_network(table(tmp_path), meter, network, master)
    many = measure_network(table(tmp_path), meter, network, master, StopRule(least=9))
    assert measure_network(table(tmp_path), Simulated(whole_ms), network, master) == few
    found = table(tmp_path).network_row(network)
    assert found == many, "the table keeps all rounds"
    assert len(many.ms) == 9


def test_rounds_on_the_disk_that_are_enough_are_not_added_to(tmp_path: Path) -> None:
    network, master = networks(tmp_path)
    row = measure_network(table(tmp_path), Simulated(whole_ms), network, master)
    meter = Simulated(whole_ms)
    assert measure_network(table(tmp_path), meter, network, master) == row
    assert not meter.timed


def test_rounds_beside_another_reference_do_not_count(tmp_path: Path) -> None:
    network, master = networks(tmp_path)
    measure_network(table(tmp_path), Simulated(whole_ms, lambda _: 5.0), network, network)
    row = measure_network(table(tmp_path), Simulated(whole_ms), network, master)
    assert row.ms == (whole_ms_of(network),) * ROUNDS
    assert row.reference == str(master)


def test_fewer_rounds_than_a_prediction_can_be_held_against_are_never_enough(tmp_path: Path) -> None:
    network, master = networks(tmp_path)
    assert len(measure_network(table(tmp_path), Simulated(whole_ms), network, master, StopRule(lambda _: True)).ms) == ROUNDS


def test_the_reference_is_its_own_reference(tmp_path: Path) -> None:
    _, master = networks(tmp_path)
    row = measure_network(table(tmp_path), Simulated(whole_ms, lambda n: 1.0 + n), master, master)
    assert row.ms == row.reference_ms
    assert row.ratio == 1


def test_a_whole_network_is_measured_on_this_machine(tmp_path: Path) -> None:
    network, master = networks(tmp_path)
    row = measure_network(table(tmp_path), DeviceMeter(SETTING, CPU), network, master, StopRule(least=ROUNDS + 2))
    assert len(row.ms) == ROUNDS + 2
    assert all(0 < ms < math.inf for ms in (*row.ms, *row.reference_ms))


def whole_ms_of(network: Network) -> float:
    return float(len(network_ops(network)))


GRID = range(8, 521, 8)


def sweep_of(notation: str, grid: Sequence[int] = GRID) -> dict[int, tuple[Block, ...]]:
    return {width: read_blocks(with_width(notation, width)) for width in grid}


def stairs(tread: int, widest: int = 10**6) -> Callable[[Workload], float]:
    """A device that works in tiles of `tread` channels; what is wider than `widest` does not fit."""

    def ms(part: Workload) -> float:
        found = re.search(r">(\d+)", part.name)
        assert found is not None
        if int(found[1]) > widest:
            raise MeasurementError("it must fit into memory, and does not")
        return 0.1 + math.ceil(int(found[1]) / tread) * len(part.groups())

    return ms


@pytest.mark.parametrize("notation", ["XX k3 c64 @14", "Conv k3 c64>128 @14", "XX k3 c64>64 d3 s2 @14"])
@pytest.mark.parametrize("tread", [96, 128])
def test_a_sweep_finds_every_planted_edge_with_a_fraction_of_the_widths(tmp_path: Path, tread: int, notation: str) -> None:
    at_width = sweep_of(notation)
    sweep, macs = profile_sweep(table(tmp_path), Simulated(stairs(tread)), at_width)
    assert len(sweep.widths) == len(macs) <= len(at_width) / 2
    assert analyse(sweep).edges == tuple(range(tread, max(GRID), tread))


def test_a_short_grid_is_measured_whole(tmp_path: Path) -> None:
    at_width = sweep_of("XX k3 c64 @14", range(8, 81, 8))
    sweep, _ = profile_sweep(table(tmp_path), Simulated(stairs(32)), at_width)
    assert sweep.widths == tuple(at_width)
    assert sweep.ms == pytest.approx([math.ceil(width / 32) for width in at_width])


def test_a_sweep_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    at_width = sweep_of("XX k3 c64 @14")
    with pytest.raises(KeyboardInterrupt):
        profile_sweep(table(tmp_path), Simulated(stairs(128)), at_width, tracker=Stopped(WorkItem("rows", 6)))
    sweep, _ = profile_sweep(table(tmp_path), Simulated(stairs(128)), at_width)
    again = Simulated(stairs(128))
    assert profile_sweep(table(tmp_path), again, at_width)[0] == sweep
    assert not again.timed
    assert analyse(sweep).edges == (128, 256, 384, 512)


def test_widths_that_do_not_fit_are_left_out_of_a_sweep(tmp_path: Path) -> None:
    sweep, _ = profile_sweep(table(tmp_path), Simulated(stairs(128, widest=400)), sweep_of("XX k3 c64 @14"))
    assert max(sweep.widths) <= 400
    assert analyse(sweep).edges == (128, 256, 384)


def test_a_sweep_most_of_whose_widths_do_not_fit_is_read_from_those_that_do(tmp_path: Path) -> None:
    """EvidenceError is for fewer than two widths that can be measured; here are 25."""
    sweep, _ = profile_sweep(table(tmp_path), Simulated(stairs(64, widest=200)), sweep_of("XX k3 c64 @14"))
    assert analyse(sweep).edges == (64, 128, 192)


def test_a_staircase_of_a_single_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="at least 2 widths that can be measured, got 1"):
        profile_sweep(table(tmp_path), Simulated(stairs(64)), sweep_of("XX k3 c64 @14", [64]))


def test_a_long_range_of_which_only_the_narrowest_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="at least 2 widths that can be measured, got 1: it must fit into memory"):
        profile_sweep(table(tmp_path), Simulated(stairs(64, widest=8)), sweep_of("XX k3 c64 @14"))


def test_a_staircase_of_which_nothing_fits_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(GenetError, match="must fit into memory") as caught:
        profile_sweep(table(tmp_path), Simulated(stairs(64, widest=1)), sweep_of("XX k3 c64 @14"))
    assert "\n" not in str(caught.value)


def test_sweeps_of_two_blocks_in_one_table_do_not_take_each_other_for_drift(tmp_path: Path) -> None:
    """One is ten times as fast as the other; the sentinel is the first one's, and stands still."""
    small, large = sweep_of("XX k3 c64 @7", range(8, 81, 8)), sweep_of("XX k3 c64 @70", range(8, 81, 8))
    meter = Simulated(lambda part: part.image[1] / 7 * (1 + len(part.groups())))
    for at_width in (small, large):
        profile_sweep(table(tmp_path), meter, at_width)
    found = table(tmp_path)
    assert {round(found.ms(blocks[0]), 6) for blocks in small.values()} == {1.0}
    assert {round(found.ms(blocks[0]), 6) for blocks in large.values()} == {10.0}


def test_of_two_processes_that_begin_a_table_side_by_side_both_hold_their_rows_against_the_first_ones_sentinel(
    tmp_path: Path,
) -> None:
    """The second one opens the empty table, and the first one measures; then the machine is half as fast."""
    first, second, meter = table(tmp_path), table(tmp_path), Simulated(by_width, lambda _: 2.0)
    shared, *own = convolutions(6)
    profile_blocks(first, Simulated(by_width), [shared], SENTINEL)
    profile_blocks(second, meter, [shared, *own], own[0])
    found = table(tmp_path)
    assert found.sentinel == second.sentinel == SENTINEL
    assert meter.timed[str(shared)] == 0, "what the first one has measured is not measured again"
    assert {str(row.block): row.drift for row in found.block_rows} == {str(shared): 1.0, **{str(block): 2.0 for block in own}}
    assert set(found.missing([shared, *own])) == set()
