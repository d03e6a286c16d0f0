"""Evidence files: which setting is read, what moved between two, and what widths suit both devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from genet.arch.network import Block
from genet.config.recipe import Measure
from genet.device import read_card
from genet.errors import EvidenceError
from genet.latency.evidence import differences, read_evidence
from genet.latency.staircase.portability import portability
from genet.latency.table import BlockRow, LatencyTable, NetworkRow, Setting
from genet.storage import Journal

CARD = read_card(torch.device("cpu"))
SETTING = Setting.of(CARD, Measure(batch=2))
BLOCKS = tuple(Block("XX", 3, None, width, width, 1, 14) for width in (8, 16, 24))


def other_card(**facts: object) -> Setting:
    return SETTING.model_copy(update={"device": CARD.model_copy(update=facts)})


def write(path: Path, ms: Iterable[float | None], setting: Setting = SETTING, sentinel: Iterable[float] = ()) -> Path:
    """An evidence file with latencies of `BLOCKS`."""
    table = LatencyTable(Journal(path), setting)
    for block, latency in zip(BLOCKS, ms, strict=False):
        failure = "does not fit" if latency is None else None
        table.add_block(BlockRow(block=block, ops=5, ms=latency, median_ms=latency, spread=0.01, failure=failure))
    for reading in sentinel:
        table.add_sentinel("sentinel", reading)
    return path


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"gone\.jsonl does not exist, expected an evidence file such as RUN/latency\.jsonl"):
        read_evidence(tmp_path / "gone.jsonl")


def test_a_file_without_latencies_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    Journal(path).append({"trial": "abc"})
    with pytest.raises(EvidenceError, match=r"trials\.jsonl: got no latencies, expected those of a setting"):
        read_evidence(path)
    (tmp_path / "text").write_text("hello\nworld\n")
    with pytest.raises(EvidenceError, match="got no latencies, expected those of a setting"):
        read_evidence(tmp_path / "text")


def test_the_only_setting_is_taken_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [1.0, None, 3.0])
    for wanted in (None, Measure(batch=2)):
        table = read_evidence(path, wanted)
        assert table.setting == SETTING
        assert [table.ms(block) for block in BLOCKS] == [1.0, math.inf, 3.0]
    with pytest.raises(EvidenceError, match="set measure's runtime, dtype, memory_format, batch and threads"):
        read_evidence(path, Measure(batch=2, dtype="bf16"))


def test_of_several_settings_the_one_that_fits_the_recipe_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    changes: tuple[dict[str, object], ...] = (
        {},
        {"batch": 4},
        {"dtype": "bf16"},
        {"memory_format": "channels_last"},
        {"runtime": "compile"},
    )
    for number, change in enumerate(changes):
        write(path, [1.0 + number], SETTING.model_copy(update=change))
    for number, change in enumerate(changes):
        wanted = Measure.model_validate({"batch": 2, "runtime": "eager"} | change)
        assert read_evidence(path, wanted).ms(BLOCKS[0]) == 1.0 + number
    assert read_evidence(path, Measure(batch=4)).ms(BLOCKS[0]) == 2.0  # `auto` fits every runtime


def test_of_two_thread_counts_the_one_of_the_recipe_is_taken_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "latency.jsonl"
    for place, threads in enumerate((1, 64)):
        write(path, (1.0 + place,), other_card(processors=threads))
    assert read_evidence(path, Measure(batch=2, threads=64)).ms(BLOCKS[0]) == 2.0
    for threads in (None, 2):
        with pytest.raises(EvidenceError, match=r"set measure's runtime, dtype, memory_format, batch and threads to it"):
            read_evidence(path, Measure(batch=2, threads=threads))


def test_several_settings_without_a_recipe_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [1.0])
    write(path, [1.0], SETTING.model_copy(update={"batch": 4}))
    with pytest.raises(
        EvidenceError, match=r"got 2 settings that match the request, expected one \(known: .*batch 2.*; .*batch 4.*\)"
    ):
        read_evidence(path)


def test_settings_none_of_which_fits_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [1.0])
    write(path, [1.0], SETTING.model_copy(update={"batch": 4}))
    with pytest.raises(
        EvidenceError,
        match=r"got 0 settings that match the request, expected one \(known: .*batch 2.*; .*batch 4.*\); set measure's",
    ):
        read_evidence(path, Measure(batch=8))


def test_two_settings_that_both_fit_are_not_guessed_between(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [1.0])
    write(path, [2.0], other_card(driver="550"))
    with pytest.raises(EvidenceError, match=r"got 2 settings that match the request, expected one \(known: .*driver 550"):
        read_evidence(path, Measure(batch=2))


def test_rows_that_moved_are_told_most_moved_first_with_the_facts_that_differ(tmp_path: Path) -> None:
    before = write(tmp_path / "a.jsonl", [1.0, 2.0, 4.0])
    after = write(tmp_path / "b.jsonl", [1.1, 1.0, 4.0], other_card(driver="550", torch="9.9"))
    (found,) = differences(before, after)
    assert found.facts == (("driver", "None", "550"), ("torch", str(CARD.torch), "9.9"))
    assert [(row.name, row.before_ms, row.after_ms) for row in found.rows] == [
        (str(BLOCKS[1]), 2.0, 1.0),
        (str(BLOCKS[0]), 1.0, 1.1),
        (str(BLOCKS[2]), 4.0, 4.0),
    ]
    assert [row.change for row in found.rows] == pytest.approx([-0.5, 0.1, 0.0])
    assert (found.before, found.after) == (SETTING, other_card(driver="550", torch="9.9"))


def test_rows_that_one_file_has_alone_are_counted_and_failures_are_no_latencies(tmp_path: Path) -> None:
    before = write(tmp_path / "a.jsonl", [1.0, 2.0, None])
    after = write(tmp_path / "b.jsonl", [1.0])
    LatencyTable(Journal(after), SETTING).add_network(
        NetworkRow(network="net", reference="net", ops=9, ms=(1.0,), reference_ms=(1.0,), spread=0.0)
    )
    (found,) = differences(before, after)
    assert (len(found.rows), found.only_before, found.only_after) == (1, 1, 1)
    assert found.facts == ()


def test_whole_networks_are_compared_by_their_mean(tmp_path: Path) -> None:
    for name, factor in (("a.jsonl", 1.0), ("b.jsonl", 2.0)):
        row = NetworkRow(network="net", reference="net", ops=9, ms=(factor, 3 * factor), reference_ms=(1.0, 1.0), spread=0.0)
        LatencyTable(Journal(tmp_path / name), SETTING).add_network(row)
    (found,) = differences(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert [(row.name, row.before_ms, row.after_ms) for row in found.rows] == [("net", 2.0, 4.0)]


def test_drift_within_a_file_is_not_divided_out_of_a_comparison(tmp_path: Path) -> None:
    for name, drift in (("a.jsonl", 1.0), ("b.jsonl", 1.25)):
        LatencyTable(Journal(tmp_path / name), SETTING).add_block(
            BlockRow(block=BLOCKS[0], ops=5, ms=2.0 * drift, median_ms=2.0, spread=0.0, drift=drift)
        )
    (found,) = differences(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert found.rows[0].change == pytest.approx(0.25)


def test_the_floor_is_what_both_sentinels_scatter(tmp_path: Path) -> None:
    calm, restless = [1.0] * 5, [1.0, 1.02, 1.0, 1.02, 1.0]
    files = [write(tmp_path / f"{name}.jsonl", [1.0], sentinel=s) for name, s in (("a", calm), ("b", restless), ("c", restless))]
    noise = LatencyTable(Journal(files[1]), SETTING).noise
    assert noise > 0
    assert differences(files[0], files[0])[0].floor == 0
    assert differences(files[0], files[1])[0].floor == pytest.approx(3 * noise)
    assert differences(files[1], files[2])[0].floor == pytest.approx(3 * noise * math.sqrt(2))


def test_files_are_compared_condition_by_condition(tmp_path: Path) -> None:
    bf16 = SETTING.model_copy(update={"dtype": "bf16"})
    before = write(write(tmp_path / "a.jsonl", [1.0]), [1.0], bf16)
    after = write(write(tmp_path / "b.jsonl", [2.0], bf16), [4.0], SETTING.model_copy(update={"batch": 8}))
    (found,) = differences(before, after)
    assert found.before.dtype == found.after.dtype == "bf16"
    assert found.rows[0].change == pytest.approx(1.0)


def test_files_without_a_shared_condition_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    before = write(tmp_path / "a.jsonl", [1.0])
    after = write(tmp_path / "b.jsonl", [1.0], SETTING.model_copy(update={"batch": 8}))
    with pytest.raises(EvidenceError, match=r"that both share, expected at least one \(.*batch 2.* against .*batch 8"):
        differences(before, after)


def swept(path: Path, ms: Callable[[Block], float], kinds: Iterable[str] = ("XX",), name: str = "a") -> LatencyTable:
    table = LatencyTable(Journal(path), other_card(name=name))
    for kind in kinds:
        for width in range(16, 257, 16):
            ratio = None if kind == "XX" else 0.5
            block = Block(kind, 3, ratio, width, width, 1, 14)  # type: ignore[arg-type]
            table.add_block(BlockRow(block=block, ops=5, ms=ms(block), median_ms=1.0, spread=0.001))
    return table


def stairs(tread: int) -> Callable[[Block], float]:
    return lambda block: float(math.ceil(block.width / tread))


def test_widths_of_two_devices_have_their_common_multiples_in_common_at_a_cost(tmp_path: Path) -> None:
    one, other = swept(tmp_path / "a", stairs(32), name="one"), swept(tmp_path / "b", stairs(48), name="other")
    found = portability(one, other)
    (place,) = found.places
    assert set(place.first) == set(range(32, 257, 32))
    assert set(place.second) == {*range(48, 257, 48), 256}
    assert place.both == (96, 192, 256)
    assert place.cost_first > 0
    assert place.cost_second > 0
    # by hand: on `one` a wanted width of 16 or 32 costs 3 in place of 1, 48 and 64 3 in place of 2, ...
    wanted = range(16, 257, 16)
    by_hand = [math.ceil(min(w for w in place.both if w >= width) / 32) / math.ceil(width / 32) for width in wanted]
    assert place.cost_first == pytest.approx(sum(by_hand) / len(by_hand) - 1, rel=1e-3)
    assert (found.cost_first, found.cost_second) == (place.cost_first, place.cost_second)
    assert found.first.startswith("one")
    assert found.second.startswith("other")


def test_a_device_shares_all_its_widths_with_itself_at_no_cost(tmp_path: Path) -> None:
    table = swept(tmp_path / "a", stairs(64))
    (place,) = portability(table, table).places
    assert place.both == place.first == place.second
    assert place.cost_first == place.cost_second == pytest.approx(0)


def test_only_places_that_both_have_are_compared_and_the_costs_are_their_mean(tmp_path: Path) -> None:
    one = swept(tmp_path / "a", stairs(32), ("XX", "BL"))
    other = swept(tmp_path / "b", lambda block: stairs(32 if block.kind == "BL" else 48)(block), ("XX", "BL", "DW"))
    found = portability(one, other)
    assert [place.block for place in found.places] == ["XX k3 c* s1 @14", "BL k3 r0.5 c* s1 @14"]
    assert found.places[1].cost_first == pytest.approx(0)
    assert found.cost_first == pytest.approx(found.places[0].cost_first / 2)


def test_files_that_share_no_staircase_are_refused(tmp_path: Path) -> None:
    one, other = swept(tmp_path / "a", stairs(32), ("XX",), "one"), swept(tmp_path / "b", stairs(32), ("BL",), "other")
    with pytest.raises(EvidenceError, match=r"at least 3 widths, got none \(1 on one, 1 on other\)"):
        portability(one, other)
    few = read_evidence(write(tmp_path / "c.jsonl", [1.0, 2.0]))
    with pytest.raises(EvidenceError, match="need a common block measured over at least 3 widths, got none"):
        portability(few, few)
