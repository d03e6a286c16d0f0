"""From sums of blocks to whole networks: what the correction learns, and that it never learns too much."""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genet.arch.network import Network, blocks
from genet.config.recipe import Measure
from genet.device import read_card
from genet.errors import EvidenceError
from genet.latency.ops import network_ops
from genet.latency.predict import CalibrationNetwork, Correction, Predictor, fit_correction
from genet.latency.staircase.space_sweeps import random_networks
from genet.latency.table import BlockRow, LatencyTable, NetworkRow, Setting
from genet.storage import Journal
from tests.fixtures.tiny import tiny_recipe

SETTING = Setting.of(read_card(torch.device("cpu")), Measure(batch=2))


def wholes(
    count: int, scale: float, kernel: float = 0.0, host: float = 0.0, noise: float = 0.0, seed: int = 0
) -> list[CalibrationNetwork]:
    """Networks of 1 to 10 ms and 30 to 90 kernels that keep to the law exactly, up to the noise."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        sum_ms, ops = draw.uniform(1, 10), draw.randrange(30, 90)
        ms = max(scale * sum_ms + kernel * ops, host * ops) * math.exp(draw.gauss(0, noise))
        found.append(CalibrationNetwork(sum_ms=sum_ms, ops=ops, ms=ms))
    return found


def plain_error(networks: list[CalibrationNetwork]) -> float:
    """What a single scale errs on networks left out one at a time."""
    errors = []
    for number, left_out in enumerate(networks):
        ratios = [whole.sum_ms / whole.ms for whole in networks if whole is not networks[number]]
        scale = sum(ratios) / sum(ratio**2 for ratio in ratios)
        errors.append(abs(scale * left_out.sum_ms / left_out.ms - 1))
    return statistics.fmean(errors)


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.9])
@pytest.mark.parametrize("count", [2, 4, 5, 20])
def test_a_scale_is_recovered_exactly(count: int, scale: float) -> None:
    found = fit_correction(wholes(count, scale))
    assert found.ms(3.0, 0) == pytest.approx(scale * 3)
    assert found.ms(30.0, 0) == pytest.approx(scale * 30)
    assert found.left_out_error == pytest.approx(0, abs=1e-9)
    assert found.networks == count


@pytest.mark.parametrize("kernel", [0.004, 0.03])
def test_a_scale_and_a_cost_per_kernel_are_recovered_exactly(kernel: float) -> None:
    found = fit_correction(wholes(12, 1.3, kernel))
    assert found.scale == pytest.approx(1.3)
    assert found.kernel_ms == pytest.approx(kernel)
    assert found.left_out_error == pytest.approx(0, abs=1e-9)


def test_what_every_kernel_costs_the_host_is_recovered() -> None:
    found = fit_correction(wholes(20, 1.1, host=0.1, seed=3))
    assert found.host_ms == pytest.approx(0.1)
    assert found.scale == pytest.approx(1.1)
    assert found.ms(1.0, 60) == pytest.approx(6.0)
    assert found.ms(100.0, 60) == pytest.approx(110.0)


def test_networks_that_all_wait_for_the_host_are_predicted_by_their_kernels() -> None:
    found = fit_correction(wholes(12, 1.1, host=1.0))
    assert found.ms(0.1, 50) == pytest.approx(50.0)
    assert found.left_out_error == pytest.approx(0, abs=1e-9)


def test_a_few_networks_that_do_not_wait_for_the_host_leave_the_others_at_their_kernels() -> None:
    large = [CalibrationNetwork(sum_ms=100.0 + number, ops=50, ms=1.1 * (100 + number)) for number in range(2)]
    found = fit_correction([*wholes(12, 1.1, host=1.0), *large])
    assert found.ms(5.0, 50) == pytest.approx(50.0)
    assert found.ms(100.5, 50) == pytest.approx(1.1 * 100.5, rel=0.01)


@pytest.mark.parametrize("scale", [1.0, 1.37, 1.9])
def test_the_rounding_of_exact_numbers_is_not_taken_for_a_host(scale: float) -> None:
    """An estimate's networks are exactly the sums of their blocks."""
    for seed in range(3):
        found = fit_correction(wholes(20, scale, seed=seed))
        assert found.host_ms == 0
        assert found.ms(0.5, 80) == pytest.approx(0.5 * scale)


def test_a_few_networks_get_the_plainest_form() -> None:
    found = fit_correction(wholes(4, 1.3, kernel=0.05, host=0.1))
    assert (found.kernel_ms, found.host_ms) == (0.0, 0.0)


def test_a_single_network_gives_a_scale_and_no_error() -> None:
    assert fit_correction([CalibrationNetwork(sum_ms=2.0, ops=9, ms=3.0)]) == Correction(
        scale=1.5, kernel_ms=0.0, host_ms=0.0, networks=1, left_out_error=None
    )


def test_without_a_network_there_is_no_correction() -> None:
    with pytest.raises(EvidenceError, match="needs a network measured whole, got none"):
        fit_correction([])


networks = st.lists(
    st.builds(CalibrationNetwork, sum_ms=st.floats(0.1, 100), ops=st.integers(5, 200), ms=st.floats(0.1, 100)),
    min_size=2,
    max_size=9,
)


@given(networks)
@settings(deadline=None, max_examples=60)
def test_the_correction_errs_no_more_on_left_out_networks_than_a_plain_scale(measured: list[CalibrationNetwork]) -> None:
    found = fit_correction(measured)
    assert found.left_out_error is not None
    assert found.left_out_error <= plain_error(measured) + 1e-9
    assert found.scale > 0


@given(networks)
@settings(deadline=None, max_examples=60)
def test_a_richer_form_is_chosen_only_where_it_pays(measured: list[CalibrationNetwork]) -> None:
    found = fit_correction(measured)
    assert found.left_out_error is not None
    if found.kernel_ms or found.host_ms:
        assert found.left_out_error < 0.95 * plain_error(measured) + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_is_not_taken_for_a_host(seed: int) -> None:
    measured = wholes(20, 1.2, noise=0.02, seed=seed)
    found = fit_correction(measured)
    for whole in measured:
        assert found.ms(whole.sum_ms, whole.ops) == pytest.approx(1.2 * whole.sum_ms, rel=0.05)


def table_with(folder: Path, every: list[Network], speed: float) -> LatencyTable:
    """Blocks of a millisecond per kernel, and whole networks `speed` times as slow as their sums."""
    table = LatencyTable(Journal(folder / "latency.jsonl"), SETTING)
    for block in dict.fromkeys(block for network in every for block in blocks(network)):
        table.add_block(BlockRow(block=block, ops=1, ms=0.1 + block.width / 64, median_ms=1.0, spread=0.0))
    reference = speed * table.predict_ms(every[0])
    for network in every:
        ms = speed * table.predict_ms(network)
        table.add_network(
            NetworkRow(
                network=str(network),
                reference=str(every[0]),
                ops=len(network_ops(network)),
                ms=(ms, 2 * ms),  # the second round at half the speed
                reference_ms=(reference, 2 * reference),
                spread=0.0,
            )
        )
    return table


@pytest.fixture
def every(tmp_path: Path) -> list[Network]:
    space = tiny_recipe(tmp_path).space
    return [space.masternet(16), *random_networks(space, {16: space.widths_on_offer()}, 8, 0)]


def test_networks_are_predicted_at_the_speed_at_which_the_masternet_was_measured(tmp_path: Path, every: list[Network]) -> None:
    table = table_with(tmp_path, every, 1.4)
    predictor = Predictor(table, every[0], table.network_rows)
    assert predictor.ms(every[0]) == pytest.approx(table.masternet_ms(every[0]))
    for network in every:
        assert predictor.ms(network) == pytest.approx(1.5 * 1.4 * table.predict_ms(network))


def test_a_network_with_blocks_that_the_table_lacks_teaches_nothing(tmp_path: Path, every: list[Network]) -> None:
    table = table_with(tmp_path, every, 1.4)
    foreign = Network.parse("@8x1 | Conv k3 c8 s1 | XX k7 c8 s1 d1 | Conv k1 c8 | 2")
    strange = table.network_rows[1].model_copy(update={"network": str(foreign), "ms": (999.0, 999.0)})
    predictor = Predictor(table, every[0], [*table.network_rows, strange])
    assert predictor.correction.networks == len(table.network_rows)
    with pytest.raises(EvidenceError, match="lacks"):
        predictor.ms(foreign)
    with pytest.raises(EvidenceError, match="needs a network measured whole, got none"):
        Predictor(table, every[0], [strange])


def test_one_more_network_corrects_what_is_predicted_from_then_on(tmp_path: Path, every: list[Network]) -> None:
    table = table_with(tmp_path, every, 1.4)
    predictor = Predictor(table, every[0], table.network_rows[:1])
    before = predictor.ms(every[2])
    row = table.network_rows[1]
    predictor.learn(row.model_copy(update={"ms": tuple(1.2 * ms for ms in row.ms)}))
    assert predictor.correction.networks == 2
    assert before < predictor.ms(every[2]) < 1.2 * before
