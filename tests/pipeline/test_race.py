"""`genet race`: known designs and the search's best are trained alike, and the best within each budget is handed out."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import math
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from genet.arch.external import ExternalModel, read_notation
from genet.arch.network import Input, Network
from genet.cli.final_table import print_outcomes
from genet.cli.main import NONE_MET, main
from genet.config.budget import Budget
from genet.config.reader import read_recipe, read_space, to_yaml
from genet.config.recipe import Recipe, Search, Select
from genet.errors import EvidenceError, GenetError, LostDeviceError, MeasurementError, NoKernelError, OutOfMemoryError
from genet.latency.noise import with_interval
from genet.latency.profile import measure_network
from genet.latency.table import NetworkRow
from genet.latency.trace import structure_cost
from genet.models.build import build
from genet.pipeline import joint_trials as joint_step
from genet.pipeline import scale_designs as scan_step
from genet.pipeline import trainings as step
from genet.pipeline.context import open_run
from genet.pipeline.distill import run_planned_trials
from genet.pipeline.entrants import EntrantFinder, _certified_for_another, find_entrants, missing_designs
from genet.pipeline.export import export_selected
from genet.pipeline.fit import fit_trials
from genet.pipeline.joint_trials import TARGET_SHARE, run_joint_trials
from genet.pipeline.master import Parent, train_master
from genet.pipeline.profile import profile_device
from genet.pipeline.race import run_race, why_unrivalled
from genet.pipeline.report import write_report
from genet.pipeline.run import run_job
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.search_state import SearchState
from genet.pipeline.select import select_networks
from genet.pipeline.shortfalls import list_shortfalls
from genet.pipeline.trainings import FinishedTraining, Trainings
from genet.progress import Progress
from genet.search.certificate import Selection
from genet.search.known_designs import SHAPES, Design, designs_of, known_designs, scaled, to_next_edge
from genet.search.outcome import Outcomes, TrainedNetwork
from genet.search.race import Entrant, Entrants, JointTrial
from genet.search.rounds import NEAR
from genet.storage import write_atomic
from genet.trials.runners.on_ray import OnRay
from genet.trials.runners.opening import open_runner
from genet.trials.runners.processes import Processes
from tests.fixtures.commands import answer
from tests.fixtures.tiny import RECIPE, write_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
BUDGETS = RECIPE.replace("device: cpu", "device: estimate:v100").replace("[2.0x, 0.000001]", "[1.2x, 1.0x, 0.000001]")
BUDGETS = BUDGETS.replace("joint_trials: 0", "joint_trials: 2")
OWN = "@16x1 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | 10"


def recipe_with(folder: Path, race: str) -> Recipe:
    return read_recipe(write_recipe(folder, BUDGETS.replace("{effort: quick}", race)))


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny run up to its selection, on estimates."""
    folder = tmp_path_factory.mktemp("race")
    with open_run(folder / "run", Progress(), read_recipe(write_recipe(folder, BUDGETS))) as job:
        for step_of in (profile_device, train_master, run_planned_trials, fit_trials, select_networks):
            step_of(job)
    return RunFolder(folder / "run")


@pytest.fixture
def run(chosen: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(chosen.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.mark.slow
def test_a_design_of_a_function_that_was_edited_does_not_race_though_it_is_known(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "read_current", lambda *_: "known")
    network = ExternalModel(
        source="tests.fixtures.others:plain", input=Input(channels=1, classes=10, resolution=16), computes="16x1:1:2:3"
    )
    write_atomic(tmp_path / "mine" / "network.yaml", to_yaml(network).encode())
    with open_run(run.path, Progress()) as job:
        race = job.recipe.race.model_copy(update={"designs": (str(tmp_path / "mine"),)})
        job.recipe = job.recipe.model_copy(update={"race": race})
        with pytest.raises(GenetError, match=r"tests\.fixtures\.others:plain no longer computes what it did when"):
            find_entrants(job)


@pytest.fixture(scope="module")
def raced(chosen: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same after its race."""
    folder = tmp_path_factory.mktemp("raced") / "run"
    shutil.copytree(chosen.path, folder)
    with open_run(folder, Progress()) as job:
        run_race(job)
        export_selected(job, ["timm"])
        write_report(job)
    return RunFolder(folder)


def test_no_training_is_run_twice_whatever_budgets_a_network_races_for(raced: RunFolder) -> None:
    ids = [record["id"] for record in raced.race.read().records]
    assert len(ids) == len(set(ids)) > 1


def test_a_second_training_holds_out_other_images_unless_its_weights_have_seen_them(raced: RunFolder) -> None:
    with open_run(raced.path, Progress()) as job:
        network = str(job.masternet)
        for parent, parts in ((None, [0, 1, 2, 0]), (Parent(build(job.masternet), "weights"), [0, 0, 0, 0])):
            trainings = Trainings(job, open_runner, {}, parent)
            trainings.name({network: "m"})
            specs = [trainings.task(network, job.recipe.train, repeat).spec for repeat in range(4)]
            assert [spec.part for spec in specs] == parts
            assert len({spec.inputs for spec in specs}) == 4
            if parent is None:  # by an earlier version, whose repeats held out the same images
                before = dataclasses.replace(specs[1], part=0).inputs
                line = {"id": before, "name": "m", "network": network, "epochs": 3, "repeat": 1, "held_out": 0.5}
                trainings._finished[before] = FinishedTraining.model_validate(line)
                assert trainings.task(network, job.recipe.train, 1).id == before, "it is not paid for twice"
    for line in raced.race.read().records:
        assert len(base64.b64decode(line["right"])) == math.ceil(line["held_out_images"] / 8)


def test_designs_race_at_every_resolution_and_in_budgets_that_they_are_certified_for(run: RunFolder) -> None:
    with open_run(run.path, Progress()) as job:
        finder = EntrantFinder(SearchState(job, job.table), job.recipe.select.budgets[:1])
        (budget,) = finder.limits
        found = list(finder.designs(designs_of(job.recipe)[:1], {budget: (12, 16)}, {budget: math.inf}))
    assert {(each.design, each.resolution) for each in found} == {("masternet", 12), ("masternet", 16)}
    smaller = Budget.parse("0.1x")
    within = found[0].model_copy(update={"within": (budget, smaller)})
    (added,) = _certified_for_another([within, *found[1:]], {budget: 1.0, smaller: 0.5})
    assert (added.budget, added.budget_ms_per_image, added.network) == (smaller, 0.5, within.network)


def test_a_design_is_missing_from_the_budgets_that_none_of_its_entrants_is_within() -> None:
    larger, smaller = Budget.parse("1x"), Budget.parse("0.5x")
    network = Network.parse("@16x1 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | 10")
    designs = [Design(name=name, network=network) for name in ("both", "one", "none")]
    facts = {"budget_ms_per_image": 1.0, "network": str(network), "resolution": 16, "parameters": 1, "macs": 1}
    entrants = [
        Entrant(budget=budget, within=within, design=design, name=str(design), **facts)
        for budget, within, design in [
            (smaller, (larger, smaller), "both"),  # one that is smaller than it need be is missing nowhere
            (larger, (larger,), "one"),
            (smaller, (larger, smaller), None),
        ]
    ]
    assert missing_designs(designs, entrants, (larger, smaller)) == {"one": (smaller,), "none": (larger, smaller)}


def without_joint(found: Entrants) -> Entrants:
    return found.model_copy(update={"joint": (), "promoted": (), "promoted_inputs": ""})


# Joint trials


def joint_of(run: RunFolder) -> tuple[JointTrial, ...]:
    return Entrants.load(run.entrants).joint


def with_joint_trials(run: RunFolder, count: int) -> Recipe:
    return run.recipe().model_copy(update={"search": Search(joint_trials=count)})


def test_joint_trials_are_near_their_budgets_and_trained_shortly(raced: RunFolder) -> None:
    found = joint_of(raced)
    assert len(found) == 2
    with open_run(raced.path, Progress()) as job:
        state = SearchState(job, job.table)
        for trial in found:
            ms = state.choice_tables(16).predict(Network.parse(trial.network)).ms
            assert NEAR * TARGET_SHARE * state.limit_ms(trial.budget) <= 1.01 * ms  # on estimates, predictions are nearly right
            assert ms <= 1.01 * TARGET_SHARE * state.limit_ms(trial.budget)
    shortly = {line["network"] for line in raced.race.read().records if line["epochs"] == 1}  # of two
    assert shortly >= {trial.network for trial in found}


def more_is_better(names: Mapping[str, str], _title: str = "") -> dict[str, float]:
    """Accuracies that grow with the parameters: the search is not told so."""
    found = {network: read_notation(network, name) for network, name in names.items()}
    return {key: 1 - 1e3 / structure_cost(network).parameters for key, network in found.items()}


def test_rounds_come_closer_to_what_is_best_and_the_best_of_each_budget_goes_on_with_a_certificate(run: RunFolder) -> None:
    with open_run(run.path, Progress(), with_joint_trials(run, 12)) as job:
        found = run_joint_trials(job, find_entrants(job), more_is_better, more_is_better)
    joint = [trial.network for trial in found.joint]
    reached = more_is_better(dict.fromkeys(joint, "x"))
    assert len({*joint}) == 12
    assert fmean(reached[network] for network in joint[6:]) > fmean(reached[network] for network in joint[:6])
    assert {str(entrant.budget) for entrant in found.promoted} == {"1.2x", "1x"}
    for entrant in found.promoted:
        own = sorted(reached[trial.network] for trial in found.joint if trial.budget == entrant.budget)
        assert reached[entrant.network] >= own[-2]
        assert entrant.ms_per_image is not None
        assert entrant.ms_per_image <= entrant.budget_ms_per_image


def test_neighbours_of_the_best_network_are_proposed_as_it_is_measured_and_not_as_it_was_predicted(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sooner(*given: Any) -> NetworkRow:
        row = measure_network(*given)
        return row.model_copy(update={"ms": tuple(ms / 2 for ms in row.ms)})

    monkeypatch.setattr(joint_step, "measure_network", sooner)
    with open_run(run.path, Progress(), with_joint_trials(run, 12)) as job:
        found, state = run_joint_trials(job, find_entrants(job), more_is_better, more_is_better), SearchState(job, job.table)
        shares = [state.predicted_ms(Network.parse(each.network)) / state.limit_ms(each.budget) for each in found.joint]
    assert max(shares[:6]) <= 1 < median(shares[6:]), "half of the predicted latency leaves room for twice as much"


def test_the_short_trainings_of_entrants_and_of_every_round_of_joint_trials_have_titles_of_their_own(run: RunFolder) -> None:
    titles = list[str]()

    def titled(names: Mapping[str, str], title: str) -> dict[str, float]:
        titles.extend([title] if names else [])
        return more_is_better(names)

    for count in (4, 6):  # for two budgets: one each to begin with, then one each a round
        with open_run(run.path, Progress(), with_joint_trials(run, count)) as job:
            run_joint_trials(job, find_entrants(job), titled, more_is_better)
    entrants, *rounds = titles
    assert entrants == "short trainings of the entrants"
    assert rounds[:2] == ["joint trials, round 1", "joint trials, round 2"]
    assert rounds[2:] == [entrants, "joint trials of earlier rounds", "joint trials, round 3"]


@pytest.mark.slow
def test_a_network_with_new_weights_teaches_nothing_about_those_that_inherit(run: RunFolder) -> None:
    recipe, found = with_joint_trials(run, 6), list[Entrants]()
    train = recipe.train.model_copy(update={"init": "masternet"})
    with open_run(run.path, Progress(), recipe.model_copy(update={"train": train})) as job:
        unlike = str(scaled(job.masternet, 0.5))  # in its head too
        entrants = find_entrants(job)
        other = entrants.entrants[0].model_copy(update={"network": unlike, "design": "other-head"})
        entrants = entrants.model_copy(update={"entrants": (*entrants.entrants, other)})
        for share in (0.0, 1.0):

            def reached(names: Mapping[str, str], _title: str = "", share: float = share) -> dict[str, float]:
                return more_is_better(names) | {network: share for network in names if network == unlike}

            found.append(run_joint_trials(job, entrants, reached, reached))
    assert found[0].joint == found[1].joint


@pytest.mark.slow
def test_a_budget_that_is_added_gets_joint_trials_of_its_own_and_learns_from_those_before(run: RunFolder) -> None:
    with open_run(run.path, Progress(), with_joint_trials(run, 4)) as job:
        before = run_joint_trials(job, find_entrants(job), more_is_better, more_is_better)
    recipe = with_joint_trials(run, 6)
    select = Select(budgets=("1.2x", "1.0x", "0.9x"), measure_top_k=recipe.select.measure_top_k)
    with open_run(run.path, Progress(), recipe.model_copy(update={"select": select})) as job:
        select_networks(job)
        after = run_joint_trials(job, find_entrants(job), more_is_better, more_is_better)
    assert after.joint[:4] == before.joint
    assert [str(trial.budget) for trial in after.joint[4:]] == ["0.9x", "0.9x"]


@pytest.mark.slow
def test_a_budget_that_no_network_is_near_leaves_the_others_their_rounds(run: RunFolder) -> None:
    recipe, said = with_joint_trials(run, 12), list[str]()
    select = Select(budgets=("90x", "1.0x"), measure_top_k=recipe.select.measure_top_k)
    with open_run(run.path, Progress(), recipe.model_copy(update={"select": select})) as job:
        job.progress.say = said.append  # type: ignore[method-assign]
        select_networks(job)
        found = run_joint_trials(job, find_entrants(job), more_is_better, more_is_better)
    assert [str(trial.budget) for trial in found.joint] == ["1x"] * 6
    assert "  only 0 joint trials for 90x: no other network is near that latency" in said


def test_joint_trials_that_are_never_certified_are_said_not_to_go_on(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    with open_run(run.path, Progress(), with_joint_trials(run, 4)) as job:
        job.progress.say = said.append  # type: ignore[method-assign]
        entrants = find_entrants(job)
        monkeypatch.setattr(EntrantFinder, "certificate", lambda *_, **__: None)
        assert run_joint_trials(job, entrants, more_is_better, more_is_better).promoted == ()
    assert "  no joint trial for 1x goes on to the race: none of the best is certified" in said


def test_joint_trials_race_beside_a_design_that_other_code_builds(run: RunFolder) -> None:
    recipe = with_joint_trials(run, 4)
    race = recipe.race.model_copy(update={"designs": ("timm:test_byobnet",)})
    with open_run(run.path, Progress(), recipe.model_copy(update={"race": race})) as job:
        found = find_entrants(job)
        other = found.entrants[0].model_copy(update={"network": "timm:test_byobnet @16x1 | 10", "design": "timm-test_byobnet"})
        found = found.model_copy(update={"entrants": (*found.entrants, other)})
        found = run_joint_trials(job, found, more_is_better, more_is_better)
    assert len(found.joint) == 4


def test_on_another_machines_evidence_joint_trials_are_predicted_and_nothing_is_measured(run: RunFolder, tmp_path: Path) -> None:
    with open_run(run.path, Progress(), with_joint_trials(run, 4)) as job:
        run_joint_trials(job, find_entrants(job), more_is_better, more_is_better)
    shutil.copy(run.latency.path, tmp_path / "elsewhere.jsonl")
    recipe = with_joint_trials(run, 6)
    elsewhere = recipe.measure.model_copy(update={"latency_file": str(tmp_path / "elsewhere.jsonl")})
    with open_run(run.path, Progress(), recipe.model_copy(update={"measure": elsewhere})) as job:
        select_networks(job)
        found = find_entrants(job)
        lines = len(run.latency.read().records)
        found = run_joint_trials(job, found, more_is_better, more_is_better)
    assert len(found.joint) == 6
    assert found.promoted
    assert all(entrant.ms_per_image is None for entrant in found.promoted)
    assert all((entrant.predicted_ms_per_image or 1.0) <= entrant.budget_ms_per_image for entrant in found.promoted)
    assert len(run.latency.read().records) == lines


def test_a_second_race_repeats_nothing(raced: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(raced.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    before = Entrants.load(run.entrants), Outcomes.load(run.results), run.race.read().records, len(run.latency.read().records)
    with open_run(run.path, Progress()) as job:
        run_race(job)
    after = Entrants.load(run.entrants), Outcomes.load(run.results), run.race.read().records, len(run.latency.read().records)
    assert after[:3] == before[:3]
    assert after[3] <= before[3] + 1  # a session writes its setting


def test_more_joint_trials_go_on_from_those_that_there_are(raced: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(raced.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    before, lines = joint_of(run), len(run.race.read().records)
    with open_run(run.path, Progress(), with_joint_trials(run, 5)) as job:
        run_race(job)
    after = joint_of(run)
    assert after[:2] == before
    assert len({trial.network for trial in after}) == len(after) == 5
    new = run.race.read().records[lines:]
    assert {line["network"] for line in new} >= {trial.network for trial in after[2:]}
    assert not any(line["network"] in {trial.network for trial in before} and line["epochs"] == 1 for line in new)


@pytest.mark.slow
def test_a_round_that_is_killed_is_not_proposed_anew(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(spec: Any, *given: Any) -> Any:
        raise KeyboardInterrupt

    learnt = step.train_by_epochs
    with monkeypatch.context() as patch, open_run(run.path, Progress()) as job:
        patch.setattr(step, "train_by_epochs", lambda spec, *given: (killed if joint_of(run) else learnt)(spec, *given))
        with pytest.raises(KeyboardInterrupt):
            run_race(job)
    proposed = joint_of(run)
    assert proposed
    with open_run(run.path, Progress()) as job:
        run_race(job)
    assert joint_of(run)[: len(proposed)] == proposed


def test_of_fewer_joint_trials_than_were_proposed_those_that_are_not_trained_are_taken_back(run: RunFolder) -> None:
    def killed(names: Mapping[str, str], _title: str) -> dict[str, float]:
        if joint_of(run):
            raise KeyboardInterrupt
        return more_is_better(names)

    with open_run(run.path, Progress(), with_joint_trials(run, 12)) as job, pytest.raises(KeyboardInterrupt):
        run_joint_trials(job, find_entrants(job), killed, more_is_better)
    proposed, asked = joint_of(run), list[str]()
    assert [str(trial.budget) for trial in proposed] == ["1.2x"] * 3 + ["1x"] * 3

    def noted(names: Mapping[str, str], _title: str) -> dict[str, float]:
        asked.extend(names)
        return more_is_better(names)

    over = {proposed[2].network}
    with open_run(run.path, Progress(), with_joint_trials(run, 3)) as job:  # two for the first budget, one for the second
        found = run_joint_trials(job, find_entrants(job), noted, lambda names: over & names.keys())
    assert found.joint == (proposed[0], proposed[2], proposed[3])
    assert {trial.network for trial in proposed} & {*asked} == {trial.network for trial in found.joint}


def test_without_joint_trials_the_race_is_among_predictions_and_designs(run: RunFolder) -> None:
    with open_run(run.path, Progress(), with_joint_trials(run, 0)) as job:
        run_race(job)
    assert joint_of(run) == ()


def test_joint_trials_stay_if_the_entrants_change(raced: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(raced.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    before = joint_of(run)
    race = run.recipe().race.model_copy(update={"searched": 3})
    with open_run(run.path, Progress(), run.recipe().model_copy(update={"race": race})) as job:
        assert find_entrants(job).joint == before


# What is handed out


@pytest.mark.slow
def test_two_budgets_with_one_network_share_a_card(run: RunFolder) -> None:
    recipe = with_joint_trials(run, 0)
    select = Select(budgets=("1.2x", "1.21x"))  # which all entrants of the first keep too
    with open_run(run.path, Progress(), recipe.model_copy(update={"select": select})) as job:
        select_networks(job)
        one, other = run_race(job).outcomes
        export_selected(job, ["safetensors"])
    if one.name != other.name:
        pytest.skip("the larger budget has a network of its own")
    card = (run.path / one.export).parent / "card.md"
    assert all(f"| budget {budget}, " in card.read_text() for budget in ("1.2x", "1.21x"))


# Known designs


def test_designs_shrink_images_as_far_as_the_masternet_and_keep_their_widths() -> None:
    for name, most in (("digits", 16), ("cifar10", 8)):
        space = read_space(name)
        for design in known_designs(space):
            network = design.network
            assert isinstance(network, Network)
            stride = network.stem.stride
            for superblock in network.superblocks:
                stride *= superblock.stride
            assert stride == most
            assert (network.input.channels, network.input.classes) == (space.input.channels, space.input.classes)
    assert [design.name for design in known_designs(read_space("digits"))] == ["masternet", *SHAPES]


def test_a_design_is_scaled_through_legal_widths_in_the_order_of_macs_and_through_itself() -> None:
    for design in known_designs(read_space("digits")):
        scales, *shallower = design.forms(32)
        assert len(scales) > 20
        assert design.network.at(32) in scales
        for network in itertools.chain(scales, *shallower):
            assert Network.parse(str(network)) == network  # parsing checks every law
    masternet = read_space("digits").masternet(32)
    assert scaled(masternet, 2.0).superblocks[0].width == 2 * masternet.superblocks[0].width


def test_a_design_comes_at_half_its_depth_and_again_until_every_super_block_has_one_block() -> None:
    genet = next(design for design in known_designs(read_space("digits")) if design.name == "genet")
    depths = [{tuple(block.depth for block in network.superblocks) for network in form} for form in genet.forms(32)]
    assert depths == [{(1, 2, 6, 4, 1)}, {(1, 1, 3, 2, 1)}, {(1, 1, 2, 1, 1)}, {(1, 1, 1, 1, 1)}]


def test_a_design_of_ones_own_is_a_notation_a_file_beside_the_recipe_or_a_timm_model(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ninput: {channels: 1, classes: 10, resolution: 16}\nstem: {kernel: 3, width: 8, stride: 2}\n"
        "superblocks: [{type: XX, depth: 1, width: 16, stride: 2, kernel: 3}]\nhead: {width: 32}\n"
    )
    recipe = recipe_with(tmp_path, f'{{designs: [mine.yaml, "{OWN}", "timm:resnet10t"]}}')
    *known, mine, written, timm = designs_of(recipe)
    assert len(known) == 5
    assert (mine.name, str(written.network), timm.name) == ("mine", OWN, "timm-resnet10t")
    assert timm.forms(16) == ((timm.network,),)


@pytest.mark.parametrize(
    ("design", "law"),
    [
        (OWN.replace("x1 ", "x3 "), "got a network that reads 3 channels, expected 1; begin it with @16x1$"),
        (OWN.replace("| 10", "| 7"), r"for 7 classes, expected 10; end it with \| 10$"),
        ("nowhere.yaml", "nowhere.yaml"),
        ("timm:no_such_network", "no_such_network"),
        ("@64x1 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | XX k3 c8 s2 d1 | XX k3 c8 s2 d1 | XX k3 c8 s2 d1 | 10", "at 16 pixels"),
    ],
)
def test_a_design_that_cannot_race_is_refused_before_anything_is_written(tmp_path: Path, design: str, law: str) -> None:
    recipe = recipe_with(tmp_path, f'{{designs: ["{design}"]}}')
    with pytest.raises(GenetError, match=law), open_run(tmp_path / "run", Progress(), recipe):
        pass
    assert not (tmp_path / "run").exists()


# Entrants


def test_every_design_that_can_be_scaled_to_a_budget_enters_certified(raced: RunFolder) -> None:
    entrants = Entrants.load(raced.entrants)
    for entrant in entrants.entrants:
        assert entrant.ms_per_image is not None
        assert entrant.ms_per_image + (entrant.interval_ms_per_image or 0) <= entrant.budget_ms_per_image
    assert {entrant.design for entrant in entrants.entrants if str(entrant.budget) == "1.2x"} >= {None, "masternet"}
    assert [str(unmet.budget) for unmet in entrants.unmet] == ["0.000001ms/image"]
    assert entrants.unmet[0].smallest_ms_per_image > 0.000001


def test_a_second_look_measures_nothing_anew(raced: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(raced.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    before, lines = without_joint(Entrants.load(run.entrants)), len(run.latency.read().records)
    run.entrants.unlink()
    with open_run(run.path, Progress()) as job:
        assert find_entrants(job) == before
    assert len(run.latency.read().records) <= lines + 1  # a session writes its setting


def test_a_design_that_could_not_be_timed_for_now_is_looked_for_again_by_the_next_command(
    raced: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(raced.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    before = without_joint(Entrants.load(run.entrants))
    run.entrants.unlink()

    def full(*_: object, **__: object) -> None:
        raise MeasurementError("other work holds the memory")

    with monkeypatch.context() as patch, open_run(run.path, Progress()) as job:
        patch.setattr(scan_step, "measure_network", full)
        assert {entrant.design for entrant in find_entrants(job).entrants} == {None, "masternet"}  # whose rounds are known
    with open_run(run.path, Progress()) as job:
        assert find_entrants(job) == before


@pytest.mark.parametrize(("fault", "tried"), [(MeasurementError("no kernel"), 2), (OutOfMemoryError("no memory"), 3)])
def test_a_design_that_could_not_be_timed_twice_for_the_same_reason_is_named_and_not_tried_again(
    raced: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: MeasurementError, tried: int
) -> None:
    shutil.copytree(raced.path, tmp_path / "run")
    run, attempts = RunFolder(tmp_path / "run"), list[int]()
    run.entrants.unlink()

    def failing(*_: object, **__: object) -> None:
        attempts[-1] += 1
        raise fault

    monkeypatch.setattr(scan_step, "measure_network", failing)
    for _ in range(3):
        attempts.append(0)
        with open_run(run.path, Progress()) as job:
            found = find_entrants(job)
    assert sum(map(bool, attempts)) == tried
    assert bool(found.inputs) is (tried == 2)
    assert found.untimed["resnet18 at 16 pixels"] == str(fault)
    with open_run(run.path, Progress(), with_joint_trials(run, 0)) as job:
        result = run_race(job)
    assert result.failed["resnet18 at 16 pixels"] == f"not timed: {fault}"
    assert result.not_within["resnet18"] == tuple(each.budget for each in result.outcomes)


def test_a_super_block_of_no_block_has_no_edge_to_be_widened_to() -> None:
    network = Network.parse("@16x1 | Conv k3 c8 s2 | XX k3 c24 s1 d0 | XX k3 c24 s2 d1 | 10")
    assert to_next_edge(network, 0) is None
    assert to_next_edge(network, 1) is not None


# The race


def test_no_budget_gets_a_worse_network_than_a_smaller_one_and_all_figures_have_errors(raced: RunFolder) -> None:
    found = Outcomes.load(raced.results)
    large, small = found.outcomes
    assert (str(large.budget), str(small.budget)) == ("1.2x", "1x")
    assert large.held_out_accuracy >= small.held_out_accuracy
    for each in found.raced:
        assert 0 < each.held_out_error < 0.1
        assert 0 < each.test_error < 0.1
    assert found.trainings >= 3 / 2 + len(found.raced)  # the MasterNet's three epochs, and every one in full
    for outcome in found.outcomes:
        for each in outcome.exported:
            assert (raced.path / each.export / "exports.json").exists()
            card = ((raced.path / each.export).parent / "card.md").read_text()
            assert with_interval(each.ms_per_image, each.interval_ms_per_image) in card
    page = raced.report.read_text()
    assert "cannot be met; the smallest that can be met is" in page
    assert "best known design" in page or "best of the search" in page


def test_the_last_table_fits_80_columns_and_the_command_repeats_nothing(
    raced: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = len(raced.race.read().records)
    assert main(["race", str(raced.path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    notations = [
        line for line in printed if line.lstrip().startswith("@") or str(raced.path) in line or line.startswith("budget")
    ]
    assert max(len(line.rstrip()) for line in printed if line not in notations) <= 80
    found = answer(capsys, "race", str(raced.path))
    assert len(raced.race.read().records) == lines
    assert {"network", "held_out_accuracy", "test_accuracy", "ms_per_image", "searched", "tie", "known"} <= set(
        found["outcomes"][0]
    )


@pytest.mark.parametrize(("searched", "rival"), [(True, "mobilenetv2"), (False, "of the search")])
def test_on_a_narrow_terminal_no_name_is_cut_and_the_best_of_the_other_kind_stands_beside_it(
    raced: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, searched: bool, rival: str
) -> None:
    found = Outcomes.load(raced.results)
    names = {"name": "mobilenetv2-r224-abcdef", "searched": searched, "tie": True}
    known = found.raced[0].model_copy(update={"design": "mobilenetv2"})
    best = {"known": known, "best_searched": found.raced[0]}
    rows = tuple(outcome.model_copy(update=names | best) for outcome in found.outcomes)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    print_outcomes(found.model_copy(update={"outcomes": rows}), raced.path)
    printed = capsys.readouterr().out
    assert printed.count("mobilenetv2-r224-abcdef  ") == printed.count(f"  {rival}  ") == len(rows)
    assert "…" not in printed


def kill_after(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    """Have the race end, as a kill would, before the journal gets one more line than so many."""
    written = 0
    keep = step.Trainings._keep

    def kept(self: Any, *given: Any) -> None:
        nonlocal written
        if written == lines:
            raise KeyboardInterrupt
        written += 1
        keep(self, *given)

    monkeypatch.setattr(step.Trainings, "_keep", kept)


def without_cost(run: RunFolder) -> Outcomes:
    return Outcomes.load(run.results).model_copy(update={"trainings": 0.0, "cost": {}})


@pytest.mark.slow
def test_killed_before_every_line_of_its_journal_it_ends_as_an_undisturbed_one(
    run: RunFolder, raced: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = len(raced.race.read().records)
    for number in range(lines):
        with monkeypatch.context() as patch, open_run(run.path, Progress()) as job:
            kill_after(patch, 1)
            with pytest.raises(KeyboardInterrupt) if number < lines - 1 else nullcontext():
                run_race(job)
    assert without_cost(run) == without_cost(raced)
    assert len(run.race.read().records) == lines


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize("runner", ["processes", "ray"])
def test_two_workers_find_what_one_process_does(run: RunFolder, raced: RunFolder, runner: str) -> None:
    if runner == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'genet-nas[ray]'")
    with open_run(run.path, Progress()) as job:
        run_race(job, lambda device: Processes(["cpu", "cpu"]) if runner == "processes" else OnRay(None, device))
    assert without_cost(run) == without_cost(raced)


def test_a_network_that_cannot_be_trained_is_left_out_and_said(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    learn, said = step.train_by_epochs, []

    def failing(spec: Any, *given: Any) -> Any:
        if spec.network.name == "masternet":
            raise ZeroDivisionError("in its first step")
        return learn(spec, *given)

    monkeypatch.setattr(step, "train_by_epochs", failing)
    with open_run(run.path, Progress(), with_joint_trials(run, 0)) as job:
        job.progress.say = said.append  # type: ignore[method-assign]
        found = run_race(job)
    assert any("masternet" in line and "ZeroDivisionError: in its first step" in line for line in said)
    assert all(each.design != "masternet" for each in found.raced)
    assert any(name.startswith("masternet") for name in found.failed)
    monkeypatch.undo()
    with open_run(run.path, Progress()) as job:  # a bug is no verdict on a network: the next command tries again
        again = run_race(job)
    assert not again.failed
    assert again != found


def test_a_network_that_no_library_has_a_kernel_for_is_out_for_good(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    learn, tried = step.train_by_epochs, list[str]()

    def failing(spec: Any, *given: Any) -> Any:
        tried.append(spec.network.name)
        if spec.network.name == "masternet":
            raise NoKernelError("no kernel")
        return learn(spec, *given)

    monkeypatch.setattr(step, "train_by_epochs", failing)
    with open_run(run.path, Progress(), with_joint_trials(run, 0)) as job:
        found = run_race(job)
    assert {"no kernels: no kernel"} == {why for name, why in found.failed.items() if name.startswith("masternet")}
    assert found.tried_again == ()
    tried.clear()
    with open_run(run.path, Progress()) as job:
        assert run_race(job) == found
    assert not tried


def test_a_device_that_is_lost_is_no_verdict_on_a_network(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(spec: Any, *given: Any) -> Any:
        raise LostDeviceError("the device stopped answering")

    monkeypatch.setattr(step, "train_by_epochs", failing)
    with pytest.raises(LostDeviceError), open_run(run.path, Progress()) as job:
        run_race(job)
    assert run.race.read().records == ()


def test_on_another_machines_evidence_the_searchs_networks_race_alone(run: RunFolder, tmp_path: Path) -> None:
    shutil.copy(run.latency.path, tmp_path / "elsewhere.jsonl")
    recipe, said = run.recipe(), list[str]()
    elsewhere = recipe.measure.model_copy(update={"latency_file": str(tmp_path / "elsewhere.jsonl")})
    with open_run(run.path, Progress(), recipe.model_copy(update={"measure": elsewhere})) as job:
        job.progress.say = said.append  # type: ignore[method-assign]
        select_networks(job)
        found = find_entrants(job)
    assert found.entrants
    assert all(entrant.design is None and entrant.ms_per_image is None for entrant in found.entrants)
    assert [str(unmet.budget) for unmet in found.unmet] == ["0.000001ms/image"]
    assert any("known designs cannot be timed, so they do not race" in line for line in said)


def test_a_race_in_which_all_fail_says_why_with_a_row_for_every_budget_and_the_next_command_tries_again(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = list[str]()

    def failing(spec: Any, *given: Any) -> Any:
        tried.append(str(spec.network))
        raise ZeroDivisionError("in its first step")

    monkeypatch.setattr(step, "train_by_epochs", failing)
    with (
        pytest.raises(EvidenceError, match=r"the race failed.*ZeroDivisionError"),
        open_run(run.path, Progress(), with_joint_trials(run, 0)) as job,
    ):
        run_job(job, any_master=True)
    found = Outcomes.load(run.results)
    assert (found.outcomes, [str(each) for each in found.untrained]) == ((), ["1.2x", "1x"])
    assert [str(each.budget) for each in found.unmet] == ["0.000001ms/image"]
    assert {*found.tried_again} == {*found.failed}
    for line in (*found.shortfalls, *(f"{name}: {why}" for name, why in found.failed.items())):
        assert line in run.report.read_text()
    assert answer(capsys, "export", run.path, code=NONE_MET)["shortfalls"] == list(found.shortfalls)
    first, _ = tried.copy(), tried.clear()
    with pytest.raises(EvidenceError, match="the race failed"), open_run(run.path, Progress()) as job:
        run_race(job)
    assert tried == first


def test_a_budget_all_of_whose_trainings_fail_has_a_row_and_a_sentence_and_the_others_their_networks(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learn, smaller = step.train_by_epochs, Budget(1.0, "x")
    with open_run(run.path, Progress(), with_joint_trials(run, 0)) as job:
        within = {entrant.network for entrant in find_entrants(job).entrants if smaller in entrant.within}

        def failing(spec: Any, *given: Any) -> Any:
            if str(spec.network) in within:
                raise NoKernelError("no kernel")
            return learn(spec, *given)

        monkeypatch.setattr(step, "train_by_epochs", failing)
        found, _ = run_race(job), write_report(job)
    assert [str(each.budget) for each in found.outcomes] == ["1.2x"]
    assert found.untrained == (smaller,)
    assert any(line.startswith("budget 1x (") and "every training within it failed" in line for line in list_shortfalls(run))
    capsys.readouterr()
    print_outcomes(found, run.path)
    assert any(line.startswith("none was trained") and "1x" in line for line in capsys.readouterr().out.splitlines())
    assert "has no network: every training within it failed" in run.report.read_text()


def test_every_network_of_the_race_is_in_the_last_lines_and_in_the_report_with_what_it_reached(
    raced: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    found, racing = Outcomes.load(raced.results), Entrants.load(raced.entrants).racing
    networks = {each.network for each in found.raced}
    assert {*found.outraced} == {each.name for each in racing if each.network not in networks}
    assert found.outraced, "the best third is trained fully"
    lost = found.raced[-1].model_copy(update={"name": "resnet18-r16-lost", "held_out_accuracy": 0.5, "held_out_error": 0.01})
    capsys.readouterr()
    print_outcomes(found.model_copy(update={"raced": (*found.raced, lost)}), raced.path)
    printed, page = " ".join(capsys.readouterr().out.split()), raced.report.read_text()
    assert "resnet18-r16-lost 50.0±1.0" in printed
    for name, reached in found.outraced.items():
        assert f"{name} {100 * reached:.1f}" in printed
        assert f"<td><b>{name}</b></td>" in page
    for each in found.raced:
        assert each.name in printed
        assert f"<td><b>{each.name}</b><br>" in page


def test_a_winner_without_a_rival_tells_what_it_reached_and_what_became_of_the_others(
    raced: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(raced.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    found, selection, entrants = Outcomes.load(run.results), Selection.load(run.selection), Entrants.load(run.entrants).racing
    won = found.outcomes[0].model_copy(update={"searched": False, "known": None, "best_searched": None})
    assert found.outcomes[0].unrivalled == ""
    reached = f"{100 * won.held_out_accuracy:.1f} ± {100 * won.held_out_error:.1f} %"
    assert won.verdict == f"{won.name} reaches {reached} on the held-out images"
    designs = [each for each in entrants if each.design]
    with open_run(run.path, Progress()) as job:
        assert why_unrivalled(job, entrants, won) == "every training of a network of the search within the budget failed"
        assert why_unrivalled(job, designs, won) == "no network of the search was certified to be within the budget"
        lost = tuple(each.model_copy(update={"within": False, "undecided": True}) for each in selection.choices)
        selection.model_copy(update={"choices": lost}).save(run.selection)
        noise = why_unrivalled(job, designs, won)
        assert (
            why_unrivalled(job, [], won.model_copy(update={"searched": True}))
            == "no known design was certified to be within the budget"
        )
    assert noise.endswith("was certified to be within the budget: timings spread too much to tell whether one is")
    capsys.readouterr()
    print_outcomes(found.model_copy(update={"outcomes": (won.model_copy(update={"unrivalled": noise}),)}), run.path)
    assert f" % on the held-out images; {noise}" in " ".join(capsys.readouterr().out.split())


def test_a_winner_at_chance_is_said_to_have_learnt_nothing_wherever_it_is_handed_out(
    raced: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(raced.path, tmp_path / "run")
    run, why = RunFolder(tmp_path / "run"), "its accuracy is 10.0%, within two standard errors of chance (10.0%)"
    won = Outcomes.load(run.results).outcomes[0]
    assert not any("learnt nothing" in line for line in list_shortfalls(run))
    model = (run.path / won.export).with_name("model.json")
    TrainedNetwork.load(model).model_copy(update={"nas_accuracy": 0.1, "loss": None}).save(model)
    with open_run(run.path, Progress()) as job:
        found = run_race(job)
        export_selected(job, ["timm"], won.name)
        write_report(job)
    assert Outcomes.load(run.results).unlearnt == found.unlearnt == {won.name: why}
    said = [line for line in list_shortfalls(run) if line.endswith(f"the best, {won.name}, has learnt nothing: {why}")]
    assert [line.split()[1] for line in said] == [str(each.budget) for each in found.outcomes if each.name == won.name]
    assert f"| not useful | it has learnt nothing: {why} |" in (run.path / won.export).with_name("card.md").read_text()
    page = run.report.read_text()
    assert f"It has learnt nothing: {why}." in page
    assert said[0] in page
    capsys.readouterr()
    print_outcomes(found, run.path)
    printed = capsys.readouterr().out
    assert f"it has learnt nothing: {why}" in " ".join(printed.split())
    assert printed.index("\n\n") > printed.index("learnt") > printed.index(won.name), "in the table too"


@pytest.mark.slow
def test_a_run_none_of_whose_budgets_can_be_met_ends_with_its_report_and_exit_code_3(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = run.recipe()
    impossible = recipe.model_copy(update={"select": Select(budgets=(0.000001,))})
    with open_run(run.path, Progress(), impossible) as job:
        assert run_job(job, any_master=True).outcomes == ()
    assert run.report.exists()
    assert main(["race", str(run.path)]) == 3
    assert "cannot be met by any network: the smallest that can be met is" in capsys.readouterr().err
