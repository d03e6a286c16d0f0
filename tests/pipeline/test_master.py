"""A MasterNet that was trained before (`master: {from: FOLDER}`), and one that has learnt nothing."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
import torch

from genet.arch.network import Network
from genet.cli.main import main
from genet.config.overrides import read_settings
from genet.config.reader import read_network, read_recipe, to_yaml
from genet.config.recipe import PretrainedMaster, Schedule, Training
from genet.errors import DataError, EvidenceError, NonFiniteLossError, RunError, SpecError
from genet.models.build import GENet, build
from genet.models.weights import NETWORK_FILE, WEIGHTS_FILE, load_weights, save_weights, write_labels
from genet.pipeline.context import RunContext, open_run
from genet.pipeline.distill import finished_trials, planned_trials, run_planned_trials
from genet.pipeline.master import parent_of, train_master
from genet.pipeline.profile import profile_device
from genet.pipeline.report import write_report
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.trainings import Trainings
from genet.progress import Progress
from genet.search.outcome import TrainedNetwork
from genet.storage import write_atomic
from genet.trials.runners.opening import open_runner
from tests.fixtures.tiny import RECIPE, tiny_recipe, write_recipe

FROM = RECIPE.replace("master: {epochs: 3, batch: 64, learning_rate: 0.4}", "master: {from: trained}")


def put(folder: Path, network: Network, seed: int = 7) -> None:
    """A network with weights in a folder."""
    write_atomic(folder / NETWORK_FILE, to_yaml(network).encode())
    save_weights(build(network, seed), folder / WEIGHTS_FILE)


@pytest.fixture
def job(tmp_path: Path) -> RunContext:
    put(tmp_path / "trained", tiny_recipe(tmp_path).space.masternet(16))
    return RunContext(RunFolder(tmp_path / "run"), read_recipe(write_recipe(tmp_path, FROM)), Progress())


def test_it_becomes_the_runs_masternet_weight_by_weight(job: RunContext, tmp_path: Path) -> None:
    trained = train_master(job)
    ours = load_weights(job.masternet, job.folder.master.with_suffix(".safetensors")).state_dict()
    theirs = build(job.masternet, 7).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert TrainedNetwork.load(job.folder.master) == trained
    assert 0 <= trained.nas_accuracy <= 1


def test_its_classes_may_come_in_another_order_and_no_others(job: RunContext, tmp_path: Path) -> None:
    taken = train_master(job)
    module = build(job.masternet, 7)
    for tensor in module.head.fc.parameters():
        tensor.data = tensor.data.flip(0)
    save_weights(module, tmp_path / "trained" / WEIGHTS_FILE)
    write_labels(tmp_path / "trained", list("9876543210"))
    assert train_master(job) == taken
    write_labels(tmp_path / "trained", list("987654321x"))
    with pytest.raises(
        DataError, match="digits: got images that lack x and have 0 in addition, expected the network's own classes"
    ):
        train_master(job)


def test_its_weights_may_come_from_another_resolution(job: RunContext, tmp_path: Path) -> None:
    put(tmp_path / "trained", job.masternet.at(32))
    assert train_master(job).resolution == 16


def test_taken_once_it_is_not_taken_again(job: RunContext) -> None:
    train_master(job)
    before = job.folder.master.stat().st_mtime_ns
    train_master(job)
    assert job.folder.master.stat().st_mtime_ns == before


def test_the_run_keeps_a_copy_of_its_own(job: RunContext, tmp_path: Path) -> None:
    taken = train_master(job)
    shutil.rmtree(tmp_path / "trained")
    assert train_master(job) == taken


def test_more_processes_to_decode_images_change_nothing(job: RunContext) -> None:
    taken = train_master(job)
    job.folder.trials.append({"a": "trial"})
    job.recipe = job.recipe.model_copy(update={"data": job.recipe.data.model_copy(update={"workers": 2})})
    assert train_master(job) == taken


def test_other_weights_under_trials_are_refused(job: RunContext, tmp_path: Path) -> None:
    train_master(job)
    job.folder.trials.append({"a": "trial"})
    put(tmp_path / "trained", job.masternet, seed=8)
    with pytest.raises(RunError, match="expected those that the run's trials started from"):
        train_master(job)


def test_another_network_is_refused_with_both_notations(job: RunContext, tmp_path: Path) -> None:
    put(tmp_path / "trained", Network.parse(str(job.masternet).replace("c16", "c24", 1)))
    with pytest.raises(SpecError, match=r"got .*c24.*, expected the space's MasterNet, .*c16"):
        train_master(job)


@pytest.mark.parametrize("missing", ["network.yaml", "model.safetensors"])
def test_a_check_of_the_recipe_tells_what_the_folder_lacks(
    job: RunContext, tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tmp_path / "tiny.yaml")]) == 0
    (tmp_path / "trained" / missing).unlink()
    assert main(["check", str(tmp_path / "tiny.yaml")]) == 2
    assert f" without {missing}, expected the space's MasterNet with trained weights" in capsys.readouterr().err


def test_the_folder_is_looked_for_beside_the_recipe_and_reads_back(job: RunContext, tmp_path: Path) -> None:
    assert job.recipe.master == PretrainedMaster(folder=str(tmp_path / "trained"))
    (tmp_path / "again.yaml").write_text(to_yaml(job.recipe))
    assert read_recipe(tmp_path / "again.yaml") == job.recipe


@pytest.mark.parametrize(
    ("master", "law"),
    [
        ("{from: 3}", r"master\.from: must be text"),
        ("{from: trained, epochs: 3}", r"master\.learning_rate: must be given"),
        ("{from: trained, epochs: 3, learning_rate: 1, augment: none}", r"master\.augment: is not a key here"),
        ("{epochs: three}", r"master\.epochs: "),
        ("trained", r"master: "),
    ],
)
def test_faults_are_told_where_they_stand(tmp_path: Path, master: str, law: str) -> None:
    with pytest.raises(SpecError, match=law):
        read_recipe(write_recipe(tmp_path, FROM.replace("{from: trained}", master)))


# Networks that begin with the weights of others

TUNED = FROM.replace("{from: trained}", "{from: trained, epochs: 1, batch: 256, learning_rate: 1e-9}")
STILL = Training(epochs=1, batch=256, learning_rate=1e-9, init="masternet")  # leaves the weights as they were


@pytest.fixture
def tuning(tmp_path: Path) -> RunContext:
    """A MasterNet that begins with the weights of a wider network for seven classes."""
    masternet = str(tiny_recipe(tmp_path).space.masternet(16))
    put(tmp_path / "trained", Network.parse(masternet.replace("c16", "c24", 1).replace("| 10", "| 7")))
    return RunContext(RunFolder(tmp_path / "run"), read_recipe(write_recipe(tmp_path, TUNED)), Progress())


def stem_of(weights: Path, network: Network) -> torch.Tensor:
    return load_weights(network, weights).stem.conv.weight


def test_a_masternet_begins_with_the_weights_of_a_network_like_it_and_is_trained_on(tuning: RunContext, tmp_path: Path) -> None:
    trained = train_master(tuning)
    assert len(trained.curve) == 1
    origin = read_network(tmp_path / "trained")
    found = stem_of(tuning.folder.master.with_suffix(".safetensors"), tuning.masternet)
    assert torch.allclose(found, stem_of(tmp_path / "trained" / WEIGHTS_FILE, origin), atol=1e-6)
    assert train_master(tuning) == trained
    (tmp_path / "again.yaml").write_text(to_yaml(tuning.recipe))
    assert read_recipe(tmp_path / "again.yaml") == tuning.recipe


def test_once_trained_it_needs_the_folder_no_more_that_it_began_with(tuning: RunContext, tmp_path: Path) -> None:
    trained = train_master(tuning)
    shutil.rmtree(tmp_path / "trained")
    assert train_master(tuning) == trained
    tuning.folder.master.with_suffix(".safetensors").unlink()
    with pytest.raises(SpecError, match=r"master\.from: got .*trained without network\.yaml"):
        train_master(tuning)


def head_of(module: GENet) -> torch.Tensor:
    return module.head.fc.weight.detach()


@pytest.mark.parametrize(
    ("labels", "rows"),
    [("9876543210", list(range(9, -1, -1))), ("987654321x", None), (None, list(range(10)))],
    ids=["another order", "other classes", "unnamed"],
)
def test_its_classifier_begins_in_the_order_of_the_runs_classes_and_anew_for_others(
    tuning: RunContext, tmp_path: Path, labels: str | None, rows: list[int] | None
) -> None:
    origin = Network.parse(str(tuning.masternet).replace("c16", "c24", 1))
    put(tmp_path / "trained", origin)
    write_labels(tmp_path / "trained", list(labels) if labels else None)
    train_master(tuning)
    found = head_of(load_weights(tuning.masternet, tuning.folder.master.with_suffix(".safetensors")))
    wanted = head_of(build(origin, tuning.recipe.seed)) if rows is None else head_of(build(origin, 7))[rows]
    assert torch.allclose(found, wanted, atol=1e-6)


def test_other_weights_to_begin_with_are_refused_under_trials_and_train_it_anew_before(
    tuning: RunContext, tmp_path: Path
) -> None:
    trained = train_master(tuning)
    put(tmp_path / "trained", tuning.masternet, seed=8)
    assert train_master(tuning) != trained
    tuning.folder.trials.append({"a": "trial"})
    put(tmp_path / "trained", tuning.masternet, seed=9)
    with pytest.raises(RunError, match="expected those that the run's trials started from"):
        train_master(tuning)


def test_the_trials_of_a_masternet_with_new_weights_are_not_those_of_one_that_began_with_others(tuning: RunContext) -> None:
    anew = tuning.recipe.model_copy(update={"master": tuning.recipe.master.schedule})
    assert anew.evidence_digest != tuning.recipe.evidence_digest


def test_a_masternet_cannot_begin_with_a_network_of_another_stem(tuning: RunContext, tmp_path: Path) -> None:
    put(tmp_path / "trained", Network.parse(str(tuning.masternet).replace("Conv k3 c8", "Conv k3 c16")))
    with pytest.raises(SpecError, match=r"Conv k3 c16 .*, expected the channels, stem, head and number of super-blocks of"):
        train_master(tuning)


def test_networks_of_a_run_begin_with_the_masternets_weights_and_those_of_another_shape_with_new_ones(job: RunContext) -> None:
    train_master(job)
    job.recipe = job.recipe.model_copy(update={"train": STILL})
    like, unlike = str(job.masternet).replace("d2 r2", "d3 r2"), "@16x1 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | Conv k1 c32 | 10"
    trainings = Trainings(job, open_runner, {}, parent_of(job))
    trainings.name({like: "like", unlike: "unlike"})
    lines = trainings.train("trainings", [(like, 0), (unlike, 0)], STILL)
    assert [line.inherited for line in lines.values()] == [True, False]
    parent = stem_of(job.folder.master.with_suffix(".safetensors"), job.masternet)
    kept = [
        torch.allclose(stem_of(job.folder.network(network) / WEIGHTS_FILE, network), parent, atol=1e-6)
        for network in (trainings.task(notation, STILL).spec.network for notation in (like, unlike))
    ]
    assert kept == [True, False]
    before = Trainings(job, open_runner, {})
    before.name({like: "like", unlike: "unlike"})
    ids = [[each.task(notation, STILL).id for notation in (like, unlike)] for each in (trainings, before)]
    assert ids[0][0] != ids[1][0], "other weights to begin with, another training"
    assert ids[0][1] == ids[1][1]


# A MasterNet that has learnt nothing


@pytest.mark.parametrize(
    ("accuracy", "loss", "said"),
    [
        (0.10, 2.1, "its accuracy is 10.0%, within two standard errors of chance (10.0%)"),
        (0.1299, 2.1, "within two standard errors of chance"),
        (0.1301, 2.1, None),
        (0.5, 2.26, "its training loss is 2.260 (guessing: 2.303)"),
        (0.5, 2.25, None),
        (0.5, None, None),  # trained elsewhere
    ],
)
def test_a_network_at_chance_or_with_the_loss_of_guessing_has_learnt_nothing(
    accuracy: float, loss: float | None, said: str | None
) -> None:
    known = TrainedNetwork(
        inputs="", network="", resolution=32, nas_accuracy=accuracy, nas_images=400, test_accuracy=accuracy, loss=loss
    )
    why = known.why_unlearnt(10)
    assert why is None if said is None else said in str(why)
    assert known.model_copy(update={"nas_images": 29}).why_unlearnt(10) is None  # too few to tell


def test_of_a_masternet_from_elsewhere_that_has_learnt_nothing_no_schedule_is_blamed(job: RunContext) -> None:
    profile_device(job)
    train_master(job)
    with pytest.raises(EvidenceError, match="its weights were taken as they are") as refused:
        run_planned_trials(job)
    assert str(refused.value).endswith(f"; next: genet check {job.folder.recipe_file}")


def test_a_run_stops_before_its_trials_if_the_masternet_has_learnt_nothing_unless_told_to_go_on(tmp_path: Path) -> None:
    said = list[str]()
    still = RECIPE.replace("{epochs: 3, batch: 64, learning_rate: 0.4}", "{epochs: 3, batch: 64, learning_rate: 1.0e-9}")
    still = still.replace("device: cpu", "device: estimate:v100")
    with open_run(tmp_path / "run", Progress(), read_recipe(write_recipe(tmp_path, still))) as job:
        profile_device(job)
        train_master(job)
        with pytest.raises(EvidenceError, match=r"has learnt nothing: .*learning rate is too low, .*augmentation") as refused:
            run_planned_trials(job)
        text, command = str(refused.value).split("; next: ")
        assert "--any-master goes on anyway, but its trials say little" in text
        assert command == f"genet run {tmp_path}/run/recipe.yaml --run {tmp_path}/run --set master.learning_rate=1e-08"
        assert finished_trials(job) == ()
    measured = job.folder.latency.read()
    better = read_recipe(write_recipe(tmp_path, still.replace("1.0e-9", "1.0e-8")))
    with open_run(tmp_path / "run", Progress(), better) as job:
        profile_device(job)
        assert (job.folder.latency.read(), job.folder.recipe()) == (measured, better), "what was measured stays"
        train_master(job)
        job.progress.say = said.append  # type: ignore[method-assign]
        assert len(run_planned_trials(job, any_master=True)) == len(planned_trials(job))
        assert any("almost blindly" in line and "at the cost of a whole search" in line for line in said)
        why = train_master(job).why_unlearnt(10)
        assert f"by --any-master from a MasterNet that has learnt nothing, and say little: {why}." in (
            write_report(job).read_text()
        )


def test_a_masternet_whose_loss_is_not_finite_is_refused_with_the_command_that_lowers_its_learning_rate(tmp_path: Path) -> None:
    wild = RECIPE.replace("learning_rate: 0.4}\ndistill", "learning_rate: 1.0e+30}\ndistill")
    with (
        open_run(tmp_path / "run", Progress(), read_recipe(write_recipe(tmp_path, wild))) as job,
        pytest.raises(NonFiniteLossError, match=r"lower learning_rate; .*; next: ") as refused,
    ):
        train_master(job)
    *command, key, value = shlex.split(str(refused.value).split("; next: ")[1])
    assert command == ["genet", "run", f"{tmp_path}/run/recipe.yaml", "--run", f"{tmp_path}/run"]
    assert key == "--set"
    master = read_recipe(tmp_path / "run" / "recipe.yaml", read_settings([value])).master
    assert isinstance(master, Schedule)
    assert master.learning_rate == 2.5e29
