"""The latency table: rows by setting, what stands between two rows, drift, and files that are not what they should be."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from genet.arch.network import Block, blocks
from genet.config.recipe import Measure
from genet.device import DeviceCard, read_card
from genet.errors import EvidenceError
from genet.latency.evidence import read_evidence
from genet.latency.noise import sentinel_noise
from genet.latency.table import BlockRow, LatencyTable, NetworkRow, Setting, find_setting, is_repeated, settings
from genet.storage import Journal
from tests.fixtures.tiny import tiny_recipe

CARD = read_card(torch.device("cpu"))
SETTING = Setting.of(CARD, Measure(batch=2))
BLOCK = Block("XX", 3, None, 8, 8, 1, 4)
READER = Block("XX", 3, None, 8, 32, 2, 4)


def row(block: Block, ms: float | None, drift: float = 1.0) -> BlockRow:
    if ms is None:
        return BlockRow(block=block, ops=5, failure="must fit into memory, and does not")
    return BlockRow(block=block, ops=5, ms=ms, median_ms=ms, spread=0.01, drift=drift)


def network_row(network: str, ms: tuple[float, ...], reference_ms: tuple[float, ...]) -> NetworkRow:
    return NetworkRow(network=network, reference="master", ops=9, ms=ms, reference_ms=reference_ms, spread=0.0)


def reading(width: int) -> Block:
    return dataclasses.replace(READER, in_width=width)


def table(folder: Path, setting: Setting = SETTING, name: str = "latency.jsonl") -> LatencyTable:
    return LatencyTable(Journal(folder / name), setting)


def with_card(**facts: object) -> Setting:
    return SETTING.model_copy(update={"device": CARD.model_copy(update=facts)})


def test_all_kinds_of_rows_are_there_after_opening_again(tmp_path: Path) -> None:
    written = table(tmp_path)
    written.add_block(row(BLOCK, 3.0))
    written.add_network(network_row("net", (2.0, 3.0), (4.0, 4.0)))
    written.add_sentinel(BLOCK, 0.5)
    found = table(tmp_path)
    assert found.block_rows == (row(BLOCK, 3.0),)
    assert found.network_rows == (network_row("net", (2.0, 3.0), (4.0, 4.0)),)
    assert found.sentinels == {str(BLOCK): [0.5]}
    assert BLOCK in found
    assert len(found) == 1


def test_of_two_rows_of_a_block_the_later_counts(tmp_path: Path) -> None:
    written = table(tmp_path)
    for ms in (3.0, 4.0):
        written.add_block(row(BLOCK, ms))
    assert written.ms(BLOCK) == table(tmp_path).ms(BLOCK) == 4.0
    assert len(table(tmp_path)) == 1


@pytest.mark.parametrize(
    "other",
    [
        SETTING.model_copy(update={"dtype": "bf16"}),
        SETTING.model_copy(update={"batch": 4}),
        SETTING.model_copy(update={"memory_format": "channels_last"}),
        SETTING.model_copy(update={"runtime": "compile"}),
        with_card(name="another"),
        with_card(torch="0.1"),
        with_card(clocks="1 MHz / 2 MHz"),
        with_card(driver="1.2"),
        with_card(cudnn=1),
        with_card(processors=1234),
    ],
    ids=["dtype", "batch", "memory format", "runtime", "name", "torch", "clocks", "driver", "cudnn", "processors"],
)
def test_rows_of_different_settings_never_mix(tmp_path: Path, other: Setting) -> None:
    first = table(tmp_path)
    first.add_block(row(BLOCK, 3.0))
    first.add_network(network_row("net", (2.0,), (4.0,)))
    first.add_sentinel(BLOCK, 1.0)
    empty = table(tmp_path, other)
    assert (empty.block_rows, empty.network_rows, empty.sentinels) == ((), (), {})
    empty.add_block(row(BLOCK, 7.0))
    assert (table(tmp_path).ms(BLOCK), table(tmp_path, other).ms(BLOCK)) == (3.0, 7.0)


def test_memory_operating_system_and_python_are_no_part_of_the_key(tmp_path: Path) -> None:
    table(tmp_path).add_block(row(BLOCK, 3.0))
    assert BLOCK in table(tmp_path, with_card(memory_bytes=1, platform="other", python="3.99"))


GPU = CARD.model_copy(update={"kind": "cuda", "name": "GPU X", "driver": "580.159.04"})


def gpu(**facts: object) -> Setting:
    return Setting.of(GPU.model_copy(update=facts), Measure(batch=2, dtype="fp16"))


def test_a_mended_driver_leaves_a_table_valid_and_another_driver_does_not(tmp_path: Path) -> None:
    table(tmp_path, gpu()).add_block(row(BLOCK, 3.0))
    assert BLOCK in table(tmp_path, gpu(driver="580.159.11"))
    assert BLOCK not in table(tmp_path, gpu(driver="580.160.04"))
    assert BLOCK not in table(tmp_path, gpu(driver=None))


def test_rows_whose_digest_an_earlier_version_took_of_more_facts_are_read(tmp_path: Path) -> None:
    old, setting = "0123456789ab", gpu()
    journal = Journal(tmp_path / "latency.jsonl")
    journal.append({"row": "setting", "digest": old, "value": setting.model_dump(mode="json", exclude={"fp32"})})
    journal.append({"row": "block", "setting": old, "value": row(BLOCK, 3.0).model_dump(mode="json")})
    assert table(tmp_path, setting).ms(BLOCK) == 3.0
    assert settings(journal) == {setting.digest: setting}
    assert find_setting(journal, old) == find_setting(journal, setting.digest) == setting
    assert len(table(tmp_path, gpu(name="another"))) == 0


def test_the_key_says_what_fp32_means_on_a_gpu_and_nothing_elsewhere() -> None:
    def fp32(kind: str, **wanted: object) -> str | None:
        return Setting.of(CARD.model_copy(update={"kind": kind}), Measure.model_validate(wanted)).fp32

    assert fp32("cuda", dtype="fp32") == "TF32 convolutions, IEEE linear layers"
    assert fp32("cuda", dtype="fp32", runtime="tensorrt") == "TF32"
    assert (fp32("cuda", dtype="bf16"), fp32("cpu", dtype="fp32"), fp32("estimate", dtype="fp32")) == (None, None, None)
    plain = Setting.of(GPU, Measure(dtype="fp32"))
    assert plain.digest != plain.model_copy(update={"fp32": None}).digest


def test_the_digest_of_a_processor_is_what_it_was_before_fp32_was_told() -> None:
    card = DeviceCard(
        kind="cpu",
        name="Some CPU",
        processors=4,
        memory_bytes=2**34,
        l2_bytes=None,
        capability="AVX2",
        driver=None,
        clocks=None,
        cuda=None,
        cudnn=None,
        torch="2.11.0",
        python="3.11.7",
        platform="Linux x86_64",
    )
    assert Setting.of(card, Measure(batch=2)).digest == "d998dcb53a7d"


def test_auto_is_cuda_graphs_on_a_gpu_whether_it_is_here_or_estimated_and_eager_elsewhere() -> None:
    def runtime(kind: str, wanted: str = "auto") -> str:
        return Setting.of(CARD.model_copy(update={"kind": kind}), Measure.model_validate({"runtime": wanted})).runtime

    assert (runtime("cuda"), runtime("estimate"), runtime("cpu")) == ("cudagraph", "cudagraph", "eager")
    assert (runtime("cuda", "eager"), runtime("cpu", "compile")) == ("eager", "compile")


def test_the_version_of_a_runtimes_own_package_is_part_of_the_key(tmp_path: Path) -> None:
    import onnxruntime

    setting = Setting.of(CARD, Measure(batch=2, runtime="onnxruntime"))
    assert setting.package == onnxruntime.__version__
    assert f"onnxruntime {onnxruntime.__version__}" in str(setting)
    assert SETTING.package is None
    table(tmp_path, setting).add_block(row(BLOCK, 3.0))
    assert BLOCK not in table(tmp_path, setting.model_copy(update={"package": "0.1"}))
    assert Setting.of(CARD.model_copy(update={"kind": "estimate"}), Measure(runtime="onnxruntime")).package is None


def test_a_setting_reads_as_its_facts_and_leaves_out_what_is_not_known() -> None:
    card: DeviceCard = CARD.model_copy(update={"name": "GPU X", "kind": "cuda", "driver": "550", "torch": "2.9"})
    setting = SETTING.model_copy(update={"device": card, "dtype": "fp16", "memory_format": "channels_last", "batch": 64})
    assert str(setting) == "GPU X, batch 64, fp16, channels last, eager, driver 550, torch 2.9"
    bare = setting.model_copy(update={"device": card.model_copy(update={"driver": None, "torch": None})})
    assert str(bare) == "GPU X, batch 64, fp16, channels last, eager"
    assert not setting.estimate
    here = setting.model_copy(update={"device": card.model_copy(update={"kind": "cpu", "processors": 3, "driver": None})})
    assert str(here) == "GPU X, 3 threads, batch 64, fp16, channels last, eager, torch 2.9"
    assert str(with_card(kind="cpu", name="P", processors=1)).startswith("P, 1 thread, ")
    assert with_card(kind="estimate").estimate


def test_a_table_whose_setting_does_not_tell_its_threads_is_read_and_mixes_with_none_that_does(tmp_path: Path) -> None:
    silent = with_card(kind="cpu", name="P", processors=None)
    table(tmp_path, silent).add_block(row(BLOCK, 3.0))
    evidence = read_evidence(tmp_path / "latency.jsonl")
    assert evidence.ms(BLOCK) == 3.0
    assert str(evidence.setting).startswith("P, batch ")
    assert BLOCK not in table(tmp_path, with_card(kind="cpu", name="P", processors=2))


def test_a_recorded_failure_is_an_answer_and_infinitely_slow(tmp_path: Path) -> None:
    written = table(tmp_path)
    written.add_block(row(BLOCK, None))
    assert table(tmp_path).ms(BLOCK) == math.inf
    assert BLOCK in written
    other = dataclasses.replace(BLOCK, size=8)
    assert written.missing([other, BLOCK, other]) == [other]


def test_drift_is_divided_out_of_a_blocks_latency(tmp_path: Path) -> None:
    written = table(tmp_path)
    written.add_block(row(BLOCK, 3.3, drift=1.1))
    assert table(tmp_path).ms(BLOCK) == pytest.approx(3.0)
    found = table(tmp_path).block_row(BLOCK)
    assert found is not None
    assert found.ms == 3.3


def test_a_latency_is_told_at_the_speed_that_the_machine_has_most_of_the_time(tmp_path: Path) -> None:
    written = table(tmp_path)
    written.add_sentinel(BLOCK, 6.0)  # busy with something else
    written.add_block(row(BLOCK, 12.0))
    assert written.ms(BLOCK) == 12.0
    for ms in (2.0, 2.0):
        written.add_sentinel(BLOCK, ms)
    assert written.ms(BLOCK) == table(tmp_path).ms(BLOCK) == pytest.approx(4.0)


@given(
    low=st.integers(1, 500),
    gaps=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    ms=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
)
def test_a_block_that_reads_a_width_between_two_measured_ones_lies_on_their_line(
    tmp_path_factory: pytest.TempPathFactory, low: int, gaps: tuple[int, int], ms: tuple[float, float]
) -> None:
    measured = table(tmp_path_factory.mktemp("t"))
    between, high = low + gaps[0], low + sum(gaps)
    measured.add_block(row(reading(low), ms[0]))
    measured.add_block(row(reading(high), ms[1] * 1.25, drift=1.25))
    share = gaps[0] / sum(gaps)
    assert measured.ms(reading(between)) == pytest.approx((1 - share) * ms[0] + share * ms[1], rel=1e-9)


def test_of_many_measured_widths_the_two_nearest_count(tmp_path: Path) -> None:
    measured = table(tmp_path)
    for width, ms in [(64, 9.0), (8, 1.0), (16, 2.0), (32, 3.0)]:
        measured.add_block(row(reading(width), ms))
    assert measured.ms(reading(24)) == pytest.approx(2.5)
    assert measured.ms(reading(48)) == pytest.approx(6.0)
    measured.add_block(row(reading(40), 3.0))  # what is known of the widths follows new rows
    assert measured.ms(reading(48)) == pytest.approx(5.0)


@pytest.mark.parametrize("width", [4, 128])
def test_nothing_is_guessed_outside_of_the_widths_measured(tmp_path: Path, width: int) -> None:
    measured = table(tmp_path)
    for known in (8, 64):
        measured.add_block(row(reading(known), 1.0))
    with pytest.raises(
        EvidenceError,
        match=rf"lacks XX k3 c{width}>32 s2 @4, expected every block of the network; `genet profile RUN` measures it",
    ):
        measured.ms(reading(width))


def test_a_repeated_block_is_never_interpolated(tmp_path: Path) -> None:
    measured = table(tmp_path)
    repeated = Block("XX", 3, None, 32, 32, 1, 4)
    for width in (16, 64):
        measured.add_block(row(dataclasses.replace(repeated, in_width=width), 1.0))
    assert measured.ms(dataclasses.replace(repeated, in_width=24)) == 1.0
    with pytest.raises(
        EvidenceError, match=r"lacks XX k3 c32>32 s1 @4, expected every block of the network; `genet profile RUN` measures it"
    ):
        measured.ms(repeated)


def test_a_block_with_an_identity_shortcut_never_brackets_one_with_a_projection(tmp_path: Path) -> None:
    measured = table(tmp_path)
    repeated = Block("XX", 3, None, 32, 32, 1, 4)
    measured.add_block(row(dataclasses.replace(repeated, in_width=16), 2.0))
    measured.add_block(row(repeated, 0.5))
    with pytest.raises(EvidenceError, match="lacks XX k3 c24>32 s1 @4"):
        measured.ms(dataclasses.replace(repeated, in_width=24))
    measured.add_block(row(dataclasses.replace(repeated, in_width=48), 6.0))
    assert measured.ms(dataclasses.replace(repeated, in_width=24)) == pytest.approx(3.0)
    assert is_repeated(repeated)
    assert not is_repeated(dataclasses.replace(repeated, stride=2))
    assert not is_repeated(Block("Conv", 3, None, 32, 32, 1, 4))


def test_a_block_of_another_kernel_ratio_stride_or_size_brackets_nothing(tmp_path: Path) -> None:
    measured = table(tmp_path)
    wanted = Block("BL", 3, 0.5, 24, 32, 2, 8)
    for change in ({"kernel": 5}, {"ratio": 0.25}, {"stride": 1}, {"size": 4}, {"width": 64}, {"kind": "DW"}):
        for width in (16, 48):
            measured.add_block(row(dataclasses.replace(wanted, in_width=width, **change), 1.0))
    with pytest.raises(EvidenceError, match="lacks BL k3"):
        measured.ms(wanted)


@pytest.mark.parametrize("failed", [8, 64])
def test_a_block_between_a_measured_width_and_one_that_failed_is_infinitely_slow(tmp_path: Path, failed: int) -> None:
    """The widest reader that does not fit must not make every network that reads a bit less a fault of the whole job."""
    measured = table(tmp_path)
    for width in (8, 32, 64):
        measured.add_block(row(reading(width), None if width == failed else 1.0))
    assert measured.ms(reading(20 if failed == 8 else 48)) == math.inf
    assert measured.ms(reading(48 if failed == 8 else 20)) == 1.0


def test_a_networks_latency_is_the_sum_of_its_blocks(tmp_path: Path) -> None:
    network = tiny_recipe(tmp_path).space.masternet(16)
    measured = table(tmp_path)
    for number, block in enumerate(dict.fromkeys(blocks(network)), start=1):
        measured.add_block(row(block, float(number)))
    assert measured.predict_ms(network) == sum(measured.ms(block) for block in blocks(network))
    assert measured.predict_ms(network) >= 15  # five different blocks: stem, XX, two DW, head


def test_a_network_row_tells_its_mean_and_its_ratio_to_the_reference() -> None:
    found = network_row("net", (2.0, 6.0), (4.0, 6.0))
    assert found.mean_ms == 4.0
    assert found.ratios == (0.5, 1.0)
    assert found.ratio == 0.75


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=9), st.floats(0.1, 5), st.floats(0.1, 5))
def test_a_machine_that_drifts_leaves_the_ratio_alone(speeds: list[float], own: float, other: float) -> None:
    found = network_row("net", tuple(own * speed for speed in speeds), tuple(other * speed for speed in speeds))
    assert found.ratio == pytest.approx(own / other)


@pytest.mark.parametrize(("ms", "reference_ms"), [((), ()), ((1.0,), ()), ((1.0, 2.0), (1.0,)), ((1.0,), (1.0, 2.0))])
def test_the_rounds_of_a_network_are_pairs(ms: tuple[float, ...], reference_ms: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="must have rounds, each with the reference's latency"):
        network_row("net", ms, reference_ms)


def test_the_masternet_must_have_been_measured_whole(tmp_path: Path) -> None:
    masternet, measured = tiny_recipe(tmp_path).space.masternet(16), table(tmp_path)
    assert measured.network_row(masternet) is None
    with pytest.raises(EvidenceError, match=r"lacks @16x1.*, expected the MasterNet measured whole in "):
        measured.masternet_ms(masternet)
    measured.add_network(network_row(str(masternet), (2.0, 4.0), (2.0, 4.0)))
    assert table(tmp_path).masternet_ms(masternet) == 3.0


def test_rows_of_other_evidence_are_taken_over_once_and_never_replace_own_ones(tmp_path: Path) -> None:
    mine, theirs = table(tmp_path), table(tmp_path, name="other.jsonl")
    second = dataclasses.replace(BLOCK, size=8)
    mine.add_block(row(BLOCK, 1.0))
    mine.add_network(network_row("a", (1.0,), (1.0,)))
    mine.add_sentinel(BLOCK, 1.0)
    for block in (BLOCK, second):
        theirs.add_block(row(block, 9.0))
    for name in ("a", "b"):
        theirs.add_network(network_row(name, (9.0,), (9.0,)))
    for ms in (1.0, 1.5, 0.5):
        theirs.add_sentinel(BLOCK, ms)
    for _ in range(2):
        mine.adopt(theirs)
        lines = len((tmp_path / "latency.jsonl").read_text().splitlines())
        assert lines == 1 + 2 + 2 + 3
    found = table(tmp_path)
    assert (found.ms(BLOCK), found.ms(second)) == (1.0, 9.0)
    assert [(each.network, each.mean_ms) for each in found.network_rows] == [("a", 1.0), ("b", 9.0)]
    assert found.sentinels == {str(BLOCK): [1.0, 1.5, 0.5]}


@pytest.mark.parametrize("busy", ["this", "other"])
def test_rows_held_against_another_sentinel_are_told_at_the_machines_usual_speed_too(busy: str, tmp_path: Path) -> None:
    mine, theirs = table(tmp_path), table(tmp_path, name="other.jsonl")
    for each, name, size in ((mine, "this", 8), (theirs, "other", 12)):
        first = 13.0 if name == busy else 1.0
        for ms in (first, 1.0, 1.0):
            each.add_sentinel(dataclasses.replace(BLOCK, size=size), ms)
        each.add_block(row(dataclasses.replace(BLOCK, size=size), 2.0, drift=1 / first))  # while the machine was calm
    mine.adopt(theirs)
    assert [mine.ms(each.block) for each in mine.block_rows] == pytest.approx([2.0, 2.0])


def test_rows_of_other_evidence_are_brought_to_the_speed_that_this_table_was_begun_at(tmp_path: Path) -> None:
    mine, theirs = table(tmp_path), table(tmp_path, name="other.jsonl")
    second = dataclasses.replace(BLOCK, size=8)
    for each, speed in ((mine, 1.0), (theirs, 2.0)):
        each.add_sentinel(BLOCK, 3.0 * speed)
    theirs.add_block(row(second, 10.0))
    mine.adopt(theirs)
    assert table(tmp_path).ms(second) == 5.0


def test_noise_is_how_far_two_readings_of_the_sentinel_differ(tmp_path: Path) -> None:
    measured = table(tmp_path)
    assert measured.noise == 0
    for _ in range(2):
        measured.add_sentinel(BLOCK, 1.0)
    assert measured.noise == 0  # two readings are one difference, which tells nothing
    draw = random.Random(0)
    measured.sentinels[str(BLOCK)][:] = [math.exp(draw.gauss(0, 0.01)) for _ in range(400)]
    assert measured.noise == pytest.approx(0.01, rel=0.2)
    for index in range(200, 400):
        measured.sentinels[str(BLOCK)][index] *= 1.5  # one step of the clock
    assert measured.noise == pytest.approx(0.01, rel=0.2)


def test_a_damaged_line_is_reported_and_its_row_missing(tmp_path: Path) -> None:
    table(tmp_path).add_block(row(BLOCK, 3.0))
    path = tmp_path / "latency.jsonl"
    path.write_text(path.read_text().replace('"ms":3.0', '"ms":4.0'))
    assert table(tmp_path).damaged == (2,)
    assert BLOCK not in table(tmp_path)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("block", {"ms": 1}), ("network", {"ms": [1.0]}), ("sentinel", "fast"), ("weather", 1)],
)
def test_a_row_that_is_no_row_is_named(tmp_path: Path, kind: str, value: object) -> None:
    Journal(tmp_path / "latency.jsonl").append({"row": kind, "setting": SETTING.digest, "value": value})
    with pytest.raises(EvidenceError, match=r"latency\.jsonl: every row must be a block, a network or a sentinel, got"):
        table(tmp_path)


def test_rows_of_no_setting_of_today_are_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "latency.jsonl")
    journal.append({"row": "setting", "digest": "old", "value": {"device": "of another version"}})
    journal.append({"row": "block", "setting": "old", "value": {"ms": 1}})
    table(tmp_path).add_block(row(BLOCK, 3.0))
    assert len(table(tmp_path)) == 1
    assert settings(journal) == {SETTING.digest: SETTING}


def test_the_settings_of_a_journal_can_be_read_without_their_devices(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "latency.jsonl")
    assert settings(journal) == {}
    with pytest.raises(EvidenceError, match="lacks the latencies that the staircases were found with"):
        find_setting(journal, SETTING.digest)
    other = SETTING.model_copy(update={"batch": 4})
    for setting in (SETTING, other, SETTING):
        table(tmp_path, setting).add_block(row(BLOCK, 3.0))
    assert settings(journal) == {SETTING.digest: SETTING, other.digest: other}
    assert find_setting(journal, other.digest) == other


def test_the_first_rounds_of_a_network_are_a_row_of_their_own() -> None:
    found = network_row("net", (2.0, 6.0, 9.0), (4.0, 6.0, 9.0))
    assert found.first(2) == network_row("net", (2.0, 6.0), (4.0, 6.0))
    assert found.first(9) == found


def test_scatter_tells_the_noise_of_the_sentinel_from_the_drifts_of_rows_alone() -> None:
    draw = random.Random(0)
    readings = [math.exp(draw.gauss(0, 0.01)) for _ in range(600)]
    drifts = [math.sqrt(before * after) for before, after in itertools.pairwise(readings)]
    rows = [row(reading(8 * number), 1.0, drift) for number, drift in enumerate(drifts, start=1) for _ in range(3)]
    assert sentinel_noise(rows) == pytest.approx(0.01, rel=0.2)
    assert sentinel_noise(rows[:6]) == sentinel_noise([]) == 0  # one change tells nothing
    assert sentinel_noise([row(BLOCK, 1.0)] * 9) == 0


def test_two_tables_on_one_journal_know_each_others_rows_as_soon_as_they_add_to_it(tmp_path: Path) -> None:
    one, other = table(tmp_path), table(tmp_path)
    elsewhere = table(tmp_path, with_card(driver="another"))
    one.add_block(row(BLOCK, 3.0))
    elsewhere.add_block(row(BLOCK, 9.0))
    other.add_sentinel(BLOCK, 0.5)
    assert other.block_rows == (row(BLOCK, 3.0),)
    one.add_network(network_row("net", (2.0,), (4.0,)))
    assert one.sentinels == {str(BLOCK): [0.5]}
    assert [len(elsewhere), len(table(tmp_path))] == [1, 1]
