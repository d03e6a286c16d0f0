"""The tournament for the MasterNet: held once, on all runners, killed anywhere without loss, and what its winner is used for."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genet.arch.network import Network
from genet.arch.space import SearchSpace
from genet.cli.main import main
from genet.config.reader import read_recipe, to_yaml
from genet.config.recipe import Recipe
from genet.errors import DeviceError, EvidenceError, RunError
from genet.latency.staircase.space_sweeps import Staircases
from genet.latency.table import LatencyTable
from genet.pipeline import trainings as step
from genet.pipeline.context import open_run, read_run
from genet.pipeline.distill import planned_trials
from genet.pipeline.entrants import find_entrants
from genet.pipeline.master import train_master
from genet.pipeline.preflight import outlook
from genet.pipeline.profile import check_job, profile_device
from genet.pipeline.run import run_job
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.tournament import find_masternet, standings_of
from genet.progress import Progress, duration
from genet.search.known_designs import MASTERNET
from genet.search.outcome import TOURNAMENT, Outcomes
from genet.search.race import Entrants
from genet.search.tournament import Tournament
from genet.trials.runners.processes import Processes
from tests.fixtures.commands import answer
from tests.fixtures.tiny import RECIPE, SPACE, write_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
DEEP = "@16x1 | Conv k3 c8 s2 | " + " | ".join(["DW k3 c8 s1 d1 r1"] * 8) + " | 10"  # whose kernels alone take longer
OWN = (
    "@16x1 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | XX k3 c32 s2 d1 | 10",
    "@16x1 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | BL k3 c32 s2 d1 r0.5 | 10",
    "@16x1 | Conv k3 c8 s2 | BL k3 c16 s2 d1 r0.5 | XX k3 c32 s2 d1 | 10",
    "@16x1 | Conv k3 c8 s2 | XX k3 c16 s2 d2 | XX k3 c16 s1 d1 | 10",
)
FEW = (
    RECIPE.replace("device: cpu", "device: estimate:v100")
    .replace("nas_validation: 0.25", "nas_validation: 0.5")
    .replace("train: {epochs: 2, batch: 64", "train: {epochs: 5, batch: 32")
    .replace("[2.0x, 0.000001]", "[1.0x]")
)


def recipe_with(folder: Path, *masternets: str) -> Recipe:
    listed = ", ".join(f'"{each}"' for each in masternets)
    return read_recipe(write_recipe(folder, FEW, SPACE + f"masternets: [{listed}]\n" * bool(masternets)))


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose tournament among five is over; on estimates, which take no time."""
    folder = tmp_path_factory.mktemp("tournament")
    with open_run(folder / "run", Progress(), recipe_with(folder, *OWN)) as job:
        find_masternet(job)
    return RunFolder(folder / "run")


@pytest.fixture
def run(held: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(held.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def prepared(folder: Path, held: RunFolder, recipe: Recipe, *journals: str) -> RunFolder:
    """A folder for a run that finds in these journals what another has paid for."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    for name in journals:
        shutil.copy(held.path / name, folder)
    return RunFolder(folder)


def trained(run: RunFolder) -> list[tuple[str, int]]:
    return [(line["network"], line["epochs"]) for line in run.race.read().records]


def test_the_best_of_the_last_round_wins_and_no_training_is_run_twice(held: RunFolder) -> None:
    found = Tournament.load(held.tournament)
    assert [len(each.trainings) for each in found.rounds] == [5, 2]
    assert [each.epochs for each in found.rounds] == [1, 2]
    assert found.contenders[0].design == MASTERNET
    assert max(Counter(trained(held)).values()) == 1
    reached = {line["id"]: line["held_out"] for line in held.race.read().records}
    first, last = ({network: reached[id] for network, id in each.trainings.items()} for each in found.rounds)
    assert min(first[network] for network in last) >= sorted(first.values())[-2]
    assert last[str(found.winner)] == max(last.values())


def test_all_designs_have_the_latency_of_the_spaces_masternet(held: RunFolder) -> None:
    masternet, *others = Tournament.load(held.tournament).contenders
    assert masternet.network == str(held.recipe().space.masternet(16))
    assert all(0.85 * masternet.ms_per_image <= each.ms_per_image <= masternet.ms_per_image for each in others)


def test_the_winner_is_trained_and_perturbed_and_budgets_are_multiples_of_the_latency_told_before(run: RunFolder) -> None:
    with open_run(run.path, Progress()) as job:
        winner = Network.parse(str(Tournament.load(run.tournament).winner))
        assert winner != job.reference, "else this test shows nothing"
        assert (job.masternet, job.space.superblocks) == (winner, winner.superblocks)
        profile_device(job)
        assert train_master(job).network == str(winner)
        stairs = Staircases.load(run.staircase).staircases
        assert {stair.superblock for stair in stairs} == set(range(len(winner.superblocks)))
        assert {len(Network.parse(trial.network).superblocks) for trial in planned_trials(job)} == {len(winner.superblocks)}
        assert job.table.network_row(job.reference) is not None
        assert {row.reference for row in job.table.network_rows} == {str(job.reference)}


def test_a_space_without_masternets_has_no_tournament(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", Progress(), recipe_with(tmp_path)) as job:
        assert find_masternet(job) is None
        assert job.masternet == job.reference
        assert job.space == job.recipe.space
        seen = check_job(job)
    assert not job.folder.tournament.exists()
    assert not job.folder.race.path.exists()
    assert "tournament" not in seen.seconds
    assert not any(line.startswith("tournament") for line in outlook(seen, job.table.setting))


def test_the_preflight_tells_what_a_tournament_costs_in_full_trainings_and_in_time(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", Progress(), recipe_with(tmp_path, "known", "patterns", *OWN)) as job:
        seen = check_job(job)
    told = " ".join(" ".join(outlook(seen, job.table.setting)).split())
    assert seen.contenders == 19
    assert seen.cost[TOURNAMENT] == pytest.approx((19 * 1 + 7 * 2 + 3 * 4) / 5)
    assert "tournament 19 designs for the MasterNet, at most 9.0 full trainings" in told
    assert seen.seconds["tournament"] > 0
    assert f"from the start: tournament {duration(seen.seconds['tournament'])}, profile" in told


# Killed, and asked for again


def killed_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, number: int) -> None:
    """Have the process end, as a kill would, before a method is carried out for the so manyth time."""
    real, calls = getattr(owner, name), 0

    def method(self: Any, *given: Any) -> Any:
        nonlocal calls
        if calls == number:
            raise KeyboardInterrupt
        calls += 1
        return real(self, *given)

    monkeypatch.setattr(owner, name, method)


@pytest.mark.parametrize(
    ("owner", "name", "paid"),
    [
        (LatencyTable, "add_network", "race.jsonl"),
        (Tournament, "save", "race.jsonl"),
        pytest.param(step.Trainings, "_keep", "latency.jsonl", marks=pytest.mark.slow),
    ],
)
def test_killed_in_every_step_it_ends_with_the_same_winner_and_repeats_nothing(
    held: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, paid: str
) -> None:
    """Before every second network that is timed, state that is written, or training that is kept."""
    recipe, kills = recipe_with(tmp_path, *OWN), 0
    prepared(tmp_path / "run", held, recipe, paid)
    while True:
        with monkeypatch.context() as patch:
            killed_at(patch, owner, name, 2)
            try:
                with open_run(tmp_path / "run", Progress(), recipe) as job:
                    find_masternet(job)
                break
            except KeyboardInterrupt:
                kills += 1
                assert kills < 100
    assert kills
    run = RunFolder(tmp_path / "run")
    assert Tournament.load(run.tournament) == Tournament.load(held.tournament)
    assert sorted(trained(run)) == sorted(trained(held))
    timed = [line["value"]["network"] for line in run.latency.read().records if line["row"] == "network"]
    before = [line["value"]["network"] for line in held.latency.read().records if line["row"] == "network"]
    assert sorted(timed) == sorted(before)


def test_over_it_is_not_held_again(run: RunFolder) -> None:
    before = {file: file.stat().st_mtime_ns for file in (run.tournament, run.race.path, run.latency.path)}
    with open_run(run.path, Progress(), run.recipe()) as job:
        find_masternet(job)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_other_trainings_hold_it_anew_as_long_as_there_are_no_trials_and_never_after(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, recipe = Tournament.load(run.tournament), run.recipe()
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"label_smoothing": 0.1})})
    run.trials.append({"a": "trial"})
    with open_run(run.path, Progress(), recipe) as job:
        assert find_masternet(job) == before
    run.trials.path.unlink()
    killed_at(monkeypatch, step.Trainings, "_keep", 0)
    with open_run(run.path, Progress(), recipe) as job, pytest.raises(KeyboardInterrupt):
        find_masternet(job)
    assert Tournament.load(run.tournament).winner is None


def test_on_another_device_it_is_measured_anew_and_no_training_is_repeated_and_after_trials_it_stays(run: RunFolder) -> None:
    before, recipe = Tournament.load(run.tournament), run.recipe()
    measure = recipe.measure.model_copy(update={"device": "estimate:t4"})
    elsewhere = recipe.model_copy(update={"measure": measure})
    run.trials.append({"a": "trial"})
    with open_run(run.path, Progress(), elsewhere) as job:
        assert find_masternet(job) == before
    run.trials.path.unlink()
    with open_run(run.path, Progress(), elsewhere) as job:
        found = find_masternet(job)
    assert found is not None
    assert (before.setting.device.name, found.setting.device.name) == ("estimate:v100", "estimate:t4")
    assert found.contenders[0].ms_per_image != before.contenders[0].ms_per_image
    assert found.winner in {each.network for each in found.contenders}
    assert max(Counter(trained(run)).values()) == 1


def test_on_another_device_a_run_that_has_only_its_tournament_goes_no_further_without_being_asked(run: RunFolder) -> None:
    recipe, before = run.recipe(), run.latency.path.stat().st_mtime_ns
    elsewhere = recipe.model_copy(update={"measure": recipe.measure.model_copy(update={"device": "estimate:t4"})})
    law = r"got .*t4.*, expected .*v100.*, with which the run was measured; give genet run --remeasure to measure again"
    with pytest.raises(RunError, match=law), open_run(run.path, Progress(), elsewhere, same_setting=True):
        pass
    assert run.latency.path.stat().st_mtime_ns == before
    with open_run(run.path, Progress(), recipe, same_setting=True) as job:
        assert job.tournament is not None, "in its own setting it goes on"


def test_staircases_found_around_another_masternet_are_found_anew(run: RunFolder) -> None:
    with open_run(run.path, Progress()) as job:
        profile_device(job)
    over, measured = Tournament.load(run.tournament), run.latency.read()
    over.model_copy(update={"winner": None}).save(run.tournament)
    with open_run(run.path, Progress()) as job:
        assert find_masternet(job) == over
        assert not run.staircase.exists()
        profile_device(job)
    assert run.latency.read().records[: len(measured.records)] == measured.records
    assert len(run.latency.read().records) <= len(measured.records) + 1  # a session writes its setting


@pytest.mark.slow
def test_two_processes_find_what_one_does(held: RunFolder, tmp_path: Path) -> None:
    with open_run(tmp_path / "run", Progress(), recipe_with(tmp_path, *OWN)) as job:
        found = find_masternet(job, lambda device: Processes(["cpu", "cpu"]))
    assert found == Tournament.load(held.tournament)


# What does not take part


def said_by(folder: Path, recipe: Recipe, change: Callable[[], None] = lambda: None) -> tuple[Tournament, list[str]]:
    said = list[str]()
    with open_run(folder, Progress(), recipe) as job:
        job.progress.say = said.append  # type: ignore[method-assign]
        found = find_masternet(job)
    assert found is not None
    return found, said


def test_if_no_design_is_as_fast_the_masternet_of_the_space_stays_and_nothing_is_trained(tmp_path: Path) -> None:
    found, said = said_by(tmp_path / "run", recipe_with(tmp_path, DEEP))
    assert found.winner == str(read_recipe(tmp_path / "tiny.yaml").space.masternet(16))
    assert not (tmp_path / "run" / "race.jsonl").exists()
    assert any("no scaled version is within" in line and "does not take part" in line for line in said)
    assert said[-1].startswith("  the MasterNet of the space stays: no other design is within its")


IN_ITS_FIRST_STEP = ZeroDivisionError("in its first step")


def failing(monkeypatch: pytest.MonkeyPatch, *names: str, fault: Exception = IN_ITS_FIRST_STEP) -> None:
    learn = step.train_by_epochs

    def learnt(spec: Any, *given: Any) -> Any:
        if not names or spec.network.name in names:
            raise fault
        return learn(spec, *given)

    monkeypatch.setattr(step, "train_by_epochs", learnt)


def without_its_winner(held: RunFolder, folder: Path) -> tuple[Tournament, Recipe, RunFolder]:
    """A tournament that is over, its recipe, and a run of that which lacks the winner's trainings."""
    over, recipe = Tournament.load(held.tournament), recipe_with(folder, *OWN)
    run = prepared(folder / "run", held, recipe, "latency.jsonl")
    for line in (line for line in held.race.read().records if line["network"] != over.winner):
        run.race.append(line)
    return over, recipe, run


def test_a_design_that_cannot_be_trained_is_out_and_said(
    held: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, recipe, run = without_its_winner(held, tmp_path)
    assert over.won is not None
    failing(monkeypatch, over.won.design)
    found, said = said_by(run.path, recipe)
    assert found.winner != over.winner
    assert any(over.won.design in line and "ZeroDivisionError: in its first step" in line for line in said)
    assert {each.state for each in standings_of(read_run(run.path, Progress()))} == {"won", "out", "failed"}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "worker killed"),
        (DeviceError("32 images do not fit"), "out of memory"),
    ],
)
def test_a_design_whose_worker_or_memory_was_lost_ends_the_round_and_is_trained_by_the_next_command(
    held: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, kind: str
) -> None:
    over, recipe, run = without_its_winner(held, tmp_path)
    assert over.won is not None
    lost = rf"failed: got no result for 1 design \({over.won.design}.*: {kind}.* give the same command to try them again"
    with monkeypatch.context() as patch:
        failing(patch, over.won.design, fault=fault)
        with pytest.raises(EvidenceError, match=lost):
            said_by(run.path, recipe)
    assert Tournament.load(run.tournament).winner is None
    assert said_by(run.path, recipe)[0] == over


def test_a_tournament_in_which_all_fail_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch)
    with pytest.raises(EvidenceError, match=r"tournament for the MasterNet failed: got no design that could be trained.*ZeroDiv"):
        said_by(tmp_path / "run", recipe_with(tmp_path, OWN[0]))


@pytest.mark.parametrize("masternets", [(OWN[0].replace("x1 ", "x3 "),), (OWN[0].replace("| 10", "| 7"),), ("known", "known")])
def test_designs_that_cannot_compete_are_refused_before_anything_is_written(
    tmp_path: Path, masternets: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(tmp_path, FEW, SPACE + f"masternets: {[*masternets]}\n")
    for command in (("check", str(tmp_path / "tiny.yaml")), ("run", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "run"))):
        assert main([*command]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


# On another machine's evidence


def test_the_evidence_of_a_tournament_is_enough_for_another_and_what_it_lacks_is_told(held: RunFolder, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, *OWN)
    measure = recipe.measure.model_copy(update={"latency_file": str(held.latency.path)})
    recipe = recipe.model_copy(update={"measure": measure})
    run = prepared(tmp_path / "run", held, recipe, "race.jsonl")
    found, _ = said_by(run.path, recipe)
    assert found.winner == Tournament.load(held.tournament).winner
    other = recipe_with(tmp_path, "known").model_copy(update={"measure": measure})
    with pytest.raises(EvidenceError, match=r"^the tournament for the MasterNet failed: the evidence of .* lacks .*nets out$"):
        said_by(tmp_path / "other", other)


# What is seen of it


def test_the_standing_is_told_at_any_time(held: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = ("master", str(held.path), "--status")
    over = answer(capsys, *status)
    assert [each["state"] for each in over["standings"]] == ["won", "out", "out", "out", "out"]
    assert over["masternet"] is None
    assert main([*status]) == 0
    printed = capsys.readouterr().out
    assert "the MasterNet is design-" in printed
    assert "`genet master RUN` trains it" in printed

    begun = prepared(tmp_path / "begun", held, recipe_with(tmp_path, *OWN))
    for line in held.race.read().records[:2]:
        begun.race.append(line)
    found = Tournament.load(held.tournament)
    found.model_copy(update={"winner": None, "rounds": found.rounds[:1]}).save(begun.tournament)
    status = ("master", str(begun.path), "--status")
    told = answer(capsys, *status)
    assert [each["state"] for each in told["standings"]] == ["leads", "in", "in", "in", "in"]
    assert main([*status]) == 0
    assert "round 1 of 2, 5 designs of" in capsys.readouterr().out
    with pytest.raises(RunError, match="the tournament for the MasterNet is not finished; `genet master RUN` finishes it"):
        _ = read_run(begun.path, Progress()).masternet
    assert main(["profile", str(begun.path)]) == 2
    assert "`genet master RUN` finishes it" in capsys.readouterr().err


def test_a_check_lists_the_designs_that_compete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe_with(tmp_path, "known", *OWN)
    found = answer(capsys, "check", str(tmp_path / "tiny.yaml"))
    assert found["masternets"] == 9
    listed = answer(capsys, "check", str(tmp_path / "tiny-space.yaml"), "--designs")
    assert list(listed["masternets"])[:2] == [MASTERNET, "resnet18"]
    assert set(listed["masternets"].values()) >= set(OWN)


@pytest.mark.slow
def test_a_whole_job_races_the_winner_and_the_masternet_of_the_space_and_tells_of_both(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_run(run.path, Progress(), run.recipe()) as job:
        outcomes = run_job(job, any_master=True)
        designs = {entrant.design for entrant in find_entrants(job).entrants}
    found = Tournament.load(run.tournament)
    assert found.won is not None
    assert {MASTERNET, found.won.design} <= designs
    assert outcomes.won == found.won
    assert outcomes.masternet_ms_per_image == Entrants.load(run.entrants).masternet_ms_per_image
    assert outcomes.trainings > sum(each.epochs * len(each.trainings) for each in found.rounds) / 5
    assert Outcomes.load(run.results) == outcomes
    page = run.report.read_text()
    assert '<table id="tournament">' in page
    assert f"<td>{found.won.design}</td>" in page
    capsys.readouterr()
    assert main(["race", str(run.path)]) == 0
    assert f"MasterNet ({found.won.design})" in capsys.readouterr().out


def test_a_space_is_the_same_around_another_masternet_but_for_its_networks() -> None:
    space = SearchSpace.model_validate(dict(read_recipe("digits").space))
    other = Network.parse(OWN[1]).at(24)
    around = space.around(other)
    assert around.masternet(24) == other
    assert around.perturb == space.perturb
    assert around.head is None
