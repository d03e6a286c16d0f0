"""The latency table: rows by setting, sums of blocks, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genet.device import read_card
from genet.errors import EvidenceError
from genet.files import Journal
from genet.latency.profile import profile_blocks, profile_network
from genet.latency.table import BlockRow, LatencyTable, NetworkRow, Setting, find_setting
from genet.spec.network import Block, blocks
from genet.spec.recipe import Measure
from tests.tiny import tiny_recipe

CPU = torch.device("cpu")
SETTING = Setting.of(read_card(CPU), Measure(batch=2))
BLOCK = Block("XX", 3, None, 8, 8, 1, 4)


def row(block: Block, ms: float) -> BlockRow:
    return BlockRow(block=block, ms=ms, median_ms=ms, spread=0.01)


def table(folder: Path, setting: Setting = SETTING) -> LatencyTable:
    return LatencyTable(Journal(folder / "latency.jsonl"), setting)


def test_rows_are_there_after_opening_again(tmp_path: Path) -> None:
    table(tmp_path).add_block(row(BLOCK, 3.0))
    assert table(tmp_path).ms(BLOCK) == 3.0
    assert BLOCK in table(tmp_path)


def test_rows_of_different_settings_never_mix(tmp_path: Path) -> None:
    table(tmp_path).add_block(row(BLOCK, 3.0))
    for change in ({"dtype": "bf16"}, {"batch": 4}, {"memory_format": "channels_last"}, {"runtime": "compile"}):
        assert BLOCK not in table(tmp_path, SETTING.model_copy(update=change))
    other_torch = SETTING.device.model_copy(update={"torch": "0.1"})
    assert BLOCK not in table(tmp_path, SETTING.model_copy(update={"device": other_torch}))


def test_memory_and_operating_system_are_no_part_of_the_key(tmp_path: Path) -> None:
    table(tmp_path).add_block(row(BLOCK, 3.0))
    rebooted = SETTING.device.model_copy(update={"memory_bytes": 1, "platform": "other", "python": "3.99"})
    assert BLOCK in table(tmp_path, SETTING.model_copy(update={"device": rebooted}))


def test_the_setting_of_a_journal_can_be_read_without_its_device(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "latency.jsonl")
    with pytest.raises(EvidenceError, match="must hold the latencies that the staircases were found in"):
        find_setting(journal, SETTING.digest)
    other = SETTING.model_copy(update={"batch": 4})
    for setting in (SETTING, other, SETTING):
        table(tmp_path, setting).add_block(row(BLOCK, 3.0))
    assert find_setting(journal, SETTING.digest) == SETTING
    assert find_setting(journal, other.digest) == other


def test_a_networks_latency_is_the_sum_of_its_blocks(tmp_path: Path) -> None:
    network = tiny_recipe(tmp_path).space.masternet(16)
    measured = table(tmp_path)
    for number, block in enumerate(dict.fromkeys(blocks(network)), start=1):
        measured.add_block(row(block, float(number)))
    assert measured.predict_ms(network) == sum(measured.ms(block) for block in blocks(network))
    assert measured.predict_ms(network) >= 15  # five different blocks: stem, XX, two DW, head


def test_a_missing_block_is_named_with_the_command_that_measures_it(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"lacks XX k3 c8>8 s1 @4; `genet profile RUN` measures it"):
        table(tmp_path).ms(BLOCK)


def test_a_damaged_line_is_reported_and_its_row_missing(tmp_path: Path) -> None:
    table(tmp_path).add_block(row(BLOCK, 3.0))
    path = tmp_path / "latency.jsonl"
    path.write_text(path.read_text().replace('"ms":3.0', '"ms":4.0'))
    assert table(tmp_path).damaged == (2,)
    assert BLOCK not in table(tmp_path)


def test_a_row_that_is_no_row_is_named(tmp_path: Path) -> None:
    Journal(tmp_path / "latency.jsonl").append({"row": "block", "setting": SETTING.digest, "value": {"ms": 1}})
    with pytest.raises(EvidenceError, match="every row must be a block or a network"):
        table(tmp_path)


def test_each_missing_block_is_measured_once_and_kept(tmp_path: Path) -> None:
    other = Block("DW", 3, 2.0, 8, 8, 1, 4)
    measured = table(tmp_path)
    ticks: list[int] = []
    profile_blocks(measured, [BLOCK, other, BLOCK], CPU, 0, lambda: ticks.append(1))
    assert len(ticks) == len(measured) == 2
    profile_blocks(measured, [BLOCK, other], CPU, 0, lambda: ticks.append(1))
    assert len(ticks) == 2
    assert table(tmp_path).ms(other) == measured.ms(other) > 0


def test_a_network_is_measured_once_and_remembered(tmp_path: Path) -> None:
    network = tiny_recipe(tmp_path).space.masternet(16)
    assert table(tmp_path).network_row(network) is None
    first = profile_network(table(tmp_path), network, CPU, reference=network)
    assert profile_network(table(tmp_path), network, CPU, reference=network) == first
    table(tmp_path).add_network(network_row(str(network), 7.0))
    assert profile_network(table(tmp_path), network, CPU, reference=network).ms == 7.0


def test_a_machine_that_has_slowed_down_since_the_reference_was_measured_is_corrected_for(tmp_path: Path) -> None:
    space = tiny_recipe(tmp_path).space
    reference, other = space.masternet(16), space.smallest(16)
    honest = profile_network(table(tmp_path), reference, CPU, reference).ms
    table(tmp_path).add_network(network_row(str(reference), honest / 1000))  # as if the machine had been much faster
    found = profile_network(table(tmp_path), other, CPU, reference)
    assert found.drift > 100
    assert found.steady_ms < honest / 100
    assert found.ms > found.steady_ms * 100


def network_row(network: str, ms: float) -> NetworkRow:
    return NetworkRow(network=network, ms=ms, median_ms=ms, spread=0.0, drift=1.0)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_every_kind_of_block_can_be_measured(tmp_path: Path, dtype: str, memory_format: str) -> None:
    setting = SETTING.model_copy(update={"dtype": dtype, "memory_format": memory_format})
    wanted = list(blocks(tiny_recipe(tmp_path).space.masternet(16)))
    measured = table(tmp_path, setting)
    profile_blocks(measured, wanted, CPU, 0, lambda: None)
    assert all(measured.ms(block) > 0 for block in wanted)
