"""What a job knows, and how it measures and judges by it: on estimates that scatter as a machine's rounds do."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from genet.arch.network import Network
from genet.config.budget import Budget
from genet.config.reader import read_recipe
from genet.config.recipe import Select
from genet.errors import EvidenceError
from genet.latency.table import LatencyTable, NetworkRow
from genet.latency.timing.meter import EstimateMeter, InterleavedTimer
from genet.latency.timing.stopwatch import Timing
from genet.latency.workload import Workload
from genet.pipeline.context import calibration_rows, open_run, read_run
from genet.pipeline.distill import run_planned_trials
from genet.pipeline.entrants import find_entrants
from genet.pipeline.fit import fit_trials
from genet.pipeline.master import train_master
from genet.pipeline.profile import profile_device
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.search_state import SearchState, run_table
from genet.pipeline.select import select_networks
from genet.progress import Progress
from genet.search.certificate import INTERIM_LOOKS, Selection
from genet.search.race import Entrant
from genet.storage import Journal
from tests.fixtures.tiny import RECIPE, write_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
BUDGETS = RECIPE.replace("device: cpu", "device: estimate:v100").replace("[2.0x, 0.000001]", "[0.9x, 1.0x, 1.5x]")


class Noise:
    """Rounds of whole networks scatter by 6 %, or by much more, alike for the same network and round, whoever asks."""

    def __init__(self, wild: bool = False) -> None:
        self.wild, self.rounds = wild, Counter[str]()
        self.plain = EstimateMeter.prepare

    def follow(self, table: LatencyTable) -> None:
        self.rounds = Counter({row.network: len(row.ms) for row in table.network_rows})

    def prepare(self, meter: EstimateMeter, parts: Sequence[Workload]) -> InterleavedTimer:
        timer, name = self.plain(meter, parts), parts[0].name
        if not parts[0].whole:
            return timer

        def timed(repeats: int = 30, tracker: object = None) -> tuple[Timing, ...]:
            draw = random.Random(f"{name}/{self.rounds[name]}")
            self.rounds[name] += 1
            factors = [draw.lognormvariate(0, 2) if self.wild else draw.gauss(1, 0.06) for _ in parts]
            return tuple(
                each.model_copy(update={"ms": each.ms * factor}) for each, factor in zip(timer(repeats), factors, strict=True)
            )

        return timed


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny run up to its selection."""
    folder, noise = tmp_path_factory.mktemp("state"), Noise()
    with (
        pytest.MonkeyPatch.context() as patch,
        open_run(folder / "run", Progress(), read_recipe(write_recipe(folder, BUDGETS))) as job,
    ):
        patch.setattr(EstimateMeter, "prepare", lambda meter, parts: noise.prepare(meter, parts))
        for step in (profile_device, train_master, run_planned_trials, fit_trials, select_networks):
            step(job)
    return RunFolder(folder / "run")


def entrants_of(run: RunFolder, folder: Path, patch: pytest.MonkeyPatch, killed_after: int | None = None) -> tuple[Entrant, ...]:
    """The entrants of a copy of the run, found by a second command if the first was killed after so many networks."""
    noise, add, added = Noise(), LatencyTable.add_network, list[str]()

    def adding(table: LatencyTable, row: NetworkRow) -> None:
        add(table, row)
        added.append(row.network)
        if len(added) == killed_after:
            raise KeyboardInterrupt

    shutil.copytree(run.path, folder)
    with patch.context() as here:
        here.setattr(EstimateMeter, "prepare", lambda meter, parts: noise.prepare(meter, parts))
        here.setattr(LatencyTable, "add_network", adding)
        for _ in range(2 if killed_after else 1):
            try:
                with open_run(folder, Progress()) as job:
                    noise.follow(job.table)
                    found = find_entrants(job)
            except KeyboardInterrupt:
                continue
        assert killed_after is None or len(added) > killed_after
    return found.entrants


@pytest.mark.slow
def test_a_command_that_was_killed_finds_the_entrants_that_an_undisturbed_one_finds(
    chosen: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = entrants_of(chosen, tmp_path / "whole", monkeypatch)
    assert entrants_of(chosen, tmp_path / "killed", monkeypatch, 17) == whole


def test_the_best_within_a_latency_are_those_of_the_recipes_own_method(chosen: RunFolder) -> None:
    job = read_run(chosen.path, Progress())
    size = job.recipe.search_resolution
    exact = SearchState(job, run_table(job))
    limit_ms = 1.5 * exact.reference_ms
    drawn = dataclasses.replace(
        job,
        recipe=job.recipe.model_copy(
            update={"select": Select(budgets=job.recipe.select.budgets, method="random", random_samples=300)}
        ),
    )
    sampled = SearchState(drawn, run_table(drawn))
    for state in (exact, sampled):
        found, offered = state.best(size, limit_ms, 3), {each.network for each in state.frontier(size)}
        assert found[0].network in offered
        assert all(each.predicted_ms <= limit_ms for each in found)
        assert [each.predicted_accuracy for each in found] == sorted((e.predicted_accuracy for e in found), reverse=True)
    assert {each.network for each in sampled.best(size, limit_ms, 12)} <= {each.network for each in sampled.frontier(size)}


def test_the_masternet_itself_races_at_its_own_latency_and_nothing_smaller_in_its_place(
    chosen: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [each for each in entrants_of(chosen, tmp_path / "run", monkeypatch) if each.design == "masternet"]
    masternet = str(chosen.recipe().space.masternet(16))
    assert [each.network for each in found if str(each.budget) == "1x"] == [masternet]


def test_a_network_too_close_to_its_budget_is_given_up_unless_one_is_patient(
    chosen: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(chosen.path, tmp_path / "run")
    noise, network = Noise(), Network.parse("@16x1 | Conv k3 c8 s2 | XX k3 c24 s2 d1 | DW k3 c16 s2 d2 r2 | Conv k1 c32 | 10")
    monkeypatch.setattr(EstimateMeter, "prepare", lambda meter, parts: noise.prepare(meter, parts))
    with open_run(tmp_path / "run", Progress()) as job:
        state = SearchState(job, job.table)
        row = state.measure(network, Budget.parse("100x"))
        close = Budget.parse(f"{row.ratio:.4f}x")
        given_up = state.measure(network, close, patient=False)
        assert state.judge(given_up, close).within is None
        assert len(given_up.ms) < INTERIM_LOOKS[-1] == len(state.measure(network, close).ms)


def test_a_budget_that_noise_leaves_undecided_is_measured_anew_by_the_next_command_and_met(
    chosen: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(chosen.path, tmp_path / "run")
    run, noise, said = RunFolder(tmp_path / "run"), Noise(wild=True), list[str]()
    recipe = run.recipe()
    recipe = recipe.model_copy(update={"select": Select(budgets=("0.8x", "0.000001x"), measure_top_k=2)})
    with monkeypatch.context() as patch, open_run(run.path, Progress(), recipe) as job:
        patch.setattr(EstimateMeter, "prepare", lambda meter, parts: noise.prepare(meter, parts))
        planned = {row.network for row in calibration_rows(job, job.table, SearchState(job, job.table).kept)}
        job.table.forget({row.network for row in job.table.network_rows} - planned - {str(job.reference)})
        selection, entrants = select_networks(job), find_entrants(job)
    assert [str(budget) for budget in selection.undecided] == [str(budget) for budget in entrants.undecided] == ["0.8x"]
    assert "could not be certified" in selection.unmet[0]
    with open_run(run.path, Progress()) as job:
        job.progress.say = said.append  # type: ignore[method-assign]
        entrants = find_entrants(job)  # as `genet race`, which selects anew then
    selection = Selection.load(run.selection)
    assert "0.8x could not be certified before" in said[0]
    assert (selection.undecided, entrants.undecided) == ((), ())
    assert {str(entrant.budget) for entrant in entrants.entrants} == {"0.8x"}
    assert [str(each.budget) for each in entrants.unmet] == ["0.000001x"]
    with open_run(run.path, Progress()) as job:
        assert (select_networks(job), find_entrants(job)) == (selection, entrants), "and then it is decided"


def test_a_table_without_a_block_is_no_reason_to_take_another(chosen: RunFolder, tmp_path: Path) -> None:
    with open_run(chosen.path, Progress()) as job:
        other = job.table.setting.model_copy(update={"batch": 7})
        state = SearchState(job, LatencyTable(Journal(tmp_path / "latency.jsonl"), other))
        assert state.batch == 7
        with pytest.raises(EvidenceError):
            _ = state.reference_ms


@pytest.mark.parametrize("batch", [10, 24, 48, 96, 100])
def test_the_masternet_keeps_a_budget_of_its_own_latency_at_every_batch(chosen: RunFolder, tmp_path: Path, batch: int) -> None:
    with open_run(chosen.path, Progress()) as job:
        notation = str(job.masternet)
        table = LatencyTable(Journal(tmp_path / "latency.jsonl"), job.table.setting.model_copy(update={"batch": batch}))
        for n in range(200):
            ms = (1.0 + n / 7,) * 3
            table.add_network(NetworkRow(network=notation, reference=notation, ops=1, ms=ms, reference_ms=ms, spread=0.0))
            state = SearchState(job, table)
            row = table.network_row(job.masternet)
            assert row is not None
            assert state.judge(row, Budget.parse("1.0x")).within is True
