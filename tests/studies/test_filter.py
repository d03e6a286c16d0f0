"""Searches on a table of a whole space: what they find, what they are charged, and that none looks at what it did not pay for."""

from __future__ import annotations

import bz2
import itertools
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.errors import GenetError, SpecError
from genet.progress import Progress
from genet.studies.filter.bench import Bench, BenchRow, frontier_of, read_nats
from genet.studies.filter.searchers import SEARCHERS
from genet.studies.filter.study import (
    PREDICATES,
    STUCK,
    Conditions,
    Reward,
    filtering_cost,
    predicate_frontier,
    search_by_filtering,
    search_by_sampling,
    study,
)

WIDTHS = (8, 16, 32)


def bench(seed: int = 0, positions: int = 3, noise: float = 2.0) -> Bench:
    """Wider is slower and, but for luck, better."""
    draw = np.random.default_rng(seed)
    rows = []
    for choices in itertools.product(WIDTHS, repeat=positions):
        size = sum(choices)
        accuracy = min(99.0, 20 + 8 * math.log2(size) + float(draw.normal(0, noise)))
        speed = 1e5 / (20 + size) * float(draw.uniform(0.9, 1.1))
        train, macs = 10.0 + size, size * 1000
        name = ":".join(map(str, choices))
        rows.append(BenchRow(network=name, top1_percent=accuracy, images_per_sec=speed, macs=macs, train_sec=train, time_sec=0.5))
    return Bench(tuple(rows))


SPACE = bench()
REWARD = Reward(1000.0)


def area(points: list[tuple[float, float]], corner: tuple[float, float]) -> float:
    """Dominated area, cell by cell."""
    xs, ys = (sorted({corner[axis], *(point[axis] for point in points)}) for axis in (0, 1))
    cells = 0.0
    for (left, right), (low, high) in itertools.product(itertools.pairwise(xs), itertools.pairwise(ys)):
        if any(point[0] >= right and point[1] >= high for point in points):
            cells += (right - left) * (high - low)
    return cells


@given(st.integers(0, 10**6), st.lists(st.integers(0, 26), max_size=12))
def test_hypervolume_is_the_dominated_area_over_that_of_the_true_frontier(seed: int, places: list[int]) -> None:
    space = bench(seed)
    chosen = [space.rows[place] for place in places]
    expected = area([row.point for row in chosen], space.corner) / area([row.point for row in space.rows], space.corner)
    assert space.hypervolume(chosen) == pytest.approx(expected)
    assert space.hypervolume(space.rows) == pytest.approx(1)


def test_utilization_orders_networks_as_operations_per_second_do() -> None:
    rows = predicate_frontier(SPACE.rows, "utilization")
    for row in SPACE.rows:
        beaten = any(
            other.images_per_sec >= row.images_per_sec
            and other.macs * other.images_per_sec >= row.macs * row.images_per_sec
            and (other.images_per_sec, other.macs) != (row.images_per_sec, row.macs)
            for other in SPACE.rows
        )
        assert beaten != (row in rows)


@pytest.mark.parametrize("predicate", list(PREDICATES))
def test_filtering_with_enough_time_trains_the_predicates_frontier_and_nothing_else(predicate) -> None:
    cost = filtering_cost(SPACE, predicate)
    found = search_by_filtering(SPACE, predicate, cost, seed=1)
    left = predicate_frontier(SPACE.rows, predicate)
    assert (found.trained, found.timed) == (len(left), len(SPACE.rows))
    assert found.seconds == pytest.approx(cost)
    assert set(found.frontier) == {row.network for row in frontier_of(left)}


@given(st.floats(0, 1), st.integers(0, 5))
def test_no_search_spends_more_than_its_budget(share: float, seed: int) -> None:
    budget = share * filtering_cost(SPACE, "FLOPs")
    runs = [search_by_filtering(SPACE, name, budget, seed) for name in PREDICATES]
    runs += [search_by_sampling(SPACE, name, REWARD, budget, seed) for name in SEARCHERS]
    assert all(run.seconds <= budget * (1 + 1e-6) for run in runs)
    assert all(0 <= run.share <= 1 and 0 <= run.hypervolume <= 1 + 1e-9 for run in runs)


@pytest.mark.parametrize("method", list(SEARCHERS))
def test_a_search_is_charged_the_longer_of_training_and_timing_and_once_for_every_network(method: str) -> None:
    found = search_by_sampling(SPACE, method, REWARD, 1e9, 0)
    assert found.seconds <= sum(row.train_sec for row in SPACE.rows)
    if method == "random":
        assert found.trained == len(SPACE.rows)
        assert found.seconds == pytest.approx(sum(row.train_sec for row in SPACE.rows))
        assert found.share == found.hypervolume == 1


@pytest.mark.parametrize("method", list(SEARCHERS))
def test_a_search_depends_on_its_seed_alone(method: str) -> None:
    budget = 500.0
    assert search_by_sampling(SPACE, method, REWARD, budget, 3) == search_by_sampling(SPACE, method, REWARD, budget, 3)
    others = {search_by_sampling(SPACE, method, REWARD, budget, seed).frontier for seed in range(6)}
    assert len(others) > 1


@pytest.mark.parametrize("method", ["REINFORCE", "evolution"])
def test_what_learns_comes_to_propose_better_networks_than_chance(method: str) -> None:
    """One width of four earns ten times as much at every one of five positions."""
    rewards = []
    for seed in range(5):
        searcher = SEARCHERS[method]([4] * 5, seed)
        late = []
        for step in range(600):
            choices = searcher.propose()
            reward = float(sum(choice == 2 for choice in choices))
            searcher.learn(choices, reward)
            late += [reward] if step >= 500 else []
        rewards.append(np.mean(late))
    assert np.mean(rewards) > 2.5  # 1.25 by chance


@pytest.mark.parametrize("method", list(SEARCHERS))
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_every_proposal_is_a_network_of_the_space(method: str, sizes: list[int], seed: int) -> None:
    searcher = SEARCHERS[method](sizes, seed)
    for step in range(30):
        choices = searcher.propose()
        assert len(choices) == len(sizes)
        assert all(0 <= choice < size for choice, size in zip(choices, sizes, strict=True))
        searcher.learn(choices, float(step % 3))


def test_a_search_that_has_converged_ends() -> None:
    one = Bench((BenchRow(network="8", top1_percent=50, images_per_sec=10, macs=1, train_sec=1),))
    assert search_by_sampling(one, "evolution", REWARD, 1e9, 0).trained == 1
    assert STUCK < 10**4


def test_the_study_repeats_every_method_with_every_seed_and_tells_means() -> None:
    found = study(SPACE, Conditions(seeds=4))
    assert found.budget_sec == pytest.approx(filtering_cost(SPACE, "utilization"))
    assert len(found.runs) == 4 * (len(PREDICATES) + len(SEARCHERS))
    for method in found.methods:
        shares = [run.share for run in found.runs if run.method == method.method]
        assert method.share == pytest.approx(np.mean(shares))
        assert method.share_deviation == pytest.approx(np.std(shares, ddof=1))
    assert found.left["utilization"] == len(predicate_frontier(SPACE.rows, "utilization"))


def test_a_space_whose_accuracies_are_all_the_same_has_no_agreement_to_tell() -> None:
    alike = Bench(tuple(row.model_copy(update={"top1_percent": 70.0}) for row in SPACE.rows))
    assert study(alike, Conditions(seeds=1)).spearman == {"utilization": None, "FLOPs": None}


def test_the_reward_is_the_papers() -> None:
    row = BenchRow(network="8", top1_percent=90, images_per_sec=350_000, macs=1, train_sec=1)
    assert Reward(175_000, 0.07)(row) == pytest.approx(0.9 * 2**0.07)


def test_a_space_with_a_hole_is_refused() -> None:
    with pytest.raises(SpecError, match="3 x 3 x 3 = 27 networks, got 26"):
        Bench(SPACE.rows[1:])
    with pytest.raises(SpecError, match="the same number of widths"):
        Bench((*SPACE.rows, SPACE.rows[0].model_copy(update={"network": "8:8"})))


def nats_file(folder: Path) -> Path:
    """A file of NATS-Bench's format with eight networks, by the package's own classes."""
    from nats_bench.api_utils import ArchResults, ResultsCount

    infos, names = {}, [":".join(each) for each in itertools.product(("8", "64"), repeat=3)]
    for index, name in enumerate(names):
        by_epochs = {}
        for epochs in (12, 90):
            found = ArchResults(index, name)
            shown = range(epochs)
            curve = dict.fromkeys(shown, 50.0)
            tested = {f"ori-test@{epoch}": 80.0 + index + epoch / 100 for epoch in shown}
            result = ResultsCount(
                "cifar10", None, curve, curve, 0.1, 5.0 + index, {"arch_str": name}, 777, epochs, [0.01 + 0.001 * index]
            )
            result.update_train_info(curve, curve, curve, dict.fromkeys(shown, 2.0))
            result.update_eval(tested, tested, dict.fromkeys(tested, 1.0))
            found.update("cifar10", 777, result)
            by_epochs[str(epochs)] = found.state_dict()
        infos[index] = by_epochs
    content = {"meta_archs": names, "arch2infos": infos, "evaluated_indexes": set(infos)}
    file = folder / "NATS-sss.pickle.pbz2"
    file.write_bytes(bz2.compress(pickle.dumps(content)))
    return file


def test_nats_benchs_own_format_is_read(tmp_path: Path) -> None:
    space = read_nats(nats_file(tmp_path), Progress())
    assert space.options == ((8, 64),) * 3
    row = space.row_of[8, 8, 64]
    assert row.top1_percent == pytest.approx(81.89)  # after the last of 90 epochs
    assert row.train_sec == pytest.approx(180)
    assert row.images_per_sec == pytest.approx(256 / 0.011)
    assert row.macs == 6_000_000


def test_a_file_that_is_not_there_or_damaged_is_refused_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(GenetError, match=r"does not exist, expected .*; get NATS-sss-v1_0-50262"):
        read_nats(tmp_path / "nowhere", Progress())
    (tmp_path / "broken.pickle.pbz2").write_bytes(b"nothing")
    with pytest.raises(GenetError, match="reading it as NATS-Bench's size space failed"):
        read_nats(tmp_path / "broken.pickle.pbz2", Progress())
