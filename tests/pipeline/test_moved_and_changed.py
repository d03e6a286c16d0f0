"""Images and projects that are moved, which repeats nothing, and images that change under what was made from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from genet import load
from genet.arch.network import Network
from genet.cli import main as cli
from genet.config.reader import read_recipe, read_training, to_yaml
from genet.export.exports import export
from genet.export.format import TrainedModel
from genet.models.build import build
from genet.models.weights import save_weights
from genet.pipeline.context import open_run
from genet.pipeline.distill import run_planned_trials
from genet.pipeline.master import train_master
from genet.pipeline.profile import profile_device
from genet.pipeline.train import TrainingSpec, trained_before
from genet.progress import Progress
from genet.search.outcome import TrainedNetwork
from genet.storage import write_atomic
from genet.training.image_identity import NOTE
from tests.fixtures.commands import answer, fault
from tests.fixtures.tiny import RECIPE, SPACE, write_recipe

NETWORK = "@8x3 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | Conv k1 c8 | 2"
TRAINING = (
    "name: brief\ndata: {name: folder, nas_validation: 0.25, root: images}\ntrain: {epochs: 1, batch: 4, learning_rate: 0.1}\n"
)
TRAIN = ("train", NETWORK, "--recipe", "brief.yaml", "--into", "net")
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def draw(root: Path, count: int = 8) -> None:
    for split in ("train", "validation"):
        for colour, label in enumerate(("cat", "dog")):
            for number in range(count):
                file = root / split / label / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (200 * colour + number, 0, 0)).save(file)


def stamps(folder: Path) -> dict[str, int]:
    """When each file of results was written; recipes, notes and pages may be."""
    results = (file for file in folder.rglob("*") if file.suffix in (".json", ".jsonl", ".safetensors", ".onnx"))
    written_anew = (NOTE, "environment.json", "regression.json")
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in results if file.name not in written_anew}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images and the recipe of a training, to work in."""
    project = tmp_path / "project"
    draw(project / "images")
    (project / "brief.yaml").write_text(TRAINING)
    monkeypatch.chdir(project)
    return project


# `genet train --into`


def rename_a_class() -> None:
    for split in ("train", "validation"):
        Path("images", split, "dog").rename(Path("images", split, "ant"))


def add_an_image() -> None:
    shutil.copy("images/train/cat/0.png", "images/train/cat/99.png")


def enlarge_a_test_image() -> None:
    Image.effect_noise((8, 8), 99).save("images/validation/dog/0.png")


CHANGES = {
    rename_a_class: "class ant is new, class dog is gone",
    add_an_image: "train/cat has 9 images, had 8",
    enlarge_a_test_image: "validation/dog has images of other names or sizes",
}


@pytest.mark.parametrize(
    ("change", "finished"),
    [*((change, True) for change in CHANGES), (rename_a_class, False), (add_an_image, False)],
)
def test_a_training_is_not_gone_on_with_when_its_images_have_changed(
    project: Path, change: Callable[[], None], finished: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, *TRAIN)
    if not finished:
        (project / "net" / "model.json").rename(project / "net" / "model.01234567.checkpoint")
    shutil.copytree("images", "before")
    before = stamps(project / "net")
    change()
    said = fault(capsys, *TRAIN)
    assert said == (
        f"net: got other images ({CHANGES[change]}), expected those that its results were made from; put them back, or give "
        "another --into FOLDER"
    )
    assert stamps(project / "net") == before
    answer(capsys, *TRAIN, "--data", "before")


def test_a_training_goes_on_after_a_test_image_was_repaired_that_had_not_told_anything_yet(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was broken after the training had begun, so that only its last step met it."""
    Path("brief.yaml").write_text(TRAINING.replace("root:", "loading: stream, root:"))
    broken, whole = Path("images/validation/dog/0.png"), Path("images/validation/dog/0.png").read_bytes()

    def break_it(*_: object) -> None:
        broken.write_bytes(whole[:45])

    monkeypatch.setattr("genet.pipeline.train.write_labels", break_it)  # the last that is written before a training
    assert "got a file that does not decode" in fault(capsys, *TRAIN)
    checkpoint = next(Path("net").glob("model.*.checkpoint*"))
    monkeypatch.undo()
    monkeypatch.chdir(project)
    enlarge_a_test_image()
    answer(capsys, *TRAIN)
    known = json.loads(Path("net/model.json").read_text())["inputs"]
    assert checkpoint.name.startswith(f"model.{known[:8]}."), "the checkpoint was gone on with"


def test_broken_images_are_named_before_anything_is_written_or_trained(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train/cat/0", "validation/dog/0"):
        Path("images", f"{name}.png").write_bytes(b"")
    said = fault(capsys, *TRAIN).splitlines()
    law = "got a file that does not decode (it is empty), expected an image; repair or remove it"
    assert said == [f"{project}/images/{name}.png: {law}" for name in ("train/cat/0", "validation/dog/0")]
    assert not any(Path("net").glob("*"))


def test_a_training_whose_images_are_moved_is_known_and_its_recipe_follows(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, *TRAIN)
    before = stamps(project)
    Path("images").rename("pictures")
    assert fault(capsys, *TRAIN).endswith(
        "does not exist, expected the folder of the images; give --data FOLDER, where they are now"
    )
    said = fault(capsys, "export", "net")
    assert "images does not exist, expected the folder of the images" in said
    assert "give --data FOLDER for others" in said
    assert answer(capsys, *TRAIN, "--data", "pictures") == found
    assert read_training("net/recipe.yaml").data.root == str(project / "pictures")
    (project / "brief.yaml").write_text(TRAINING.replace("images", "pictures"))
    assert answer(capsys, *TRAIN) == found
    assert stamps(project) == before


def test_a_moved_project_knows_its_trainings_and_exports_them_on_their_images(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, exported = answer(capsys, *TRAIN), answer(capsys, "export", "net", "--format", "genet-string")
    before = stamps(project)
    monkeypatch.chdir(project.rename(project.with_name("moved")))
    assert answer(capsys, "export", "net", "--format", "genet-string") == exported
    assert answer(capsys, *TRAIN) == found
    assert stamps(Path.cwd()) == before


def test_an_export_is_made_on_the_networks_own_images_or_on_others_that_are_asked_for(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, *TRAIN)
    own = answer(capsys, "export", "net", "--format", "onnx")
    Path("images").rename("pictures")
    assert answer(capsys, "export", "net", "--format", "onnx", "--data", "pictures") == own
    assert "| data | folder: 12 images to train on" in Path("net/card.md").read_text()
    shutil.copy("pictures/validation/cat/0.png", "pictures/validation/cat/99.png")
    said = fault(capsys, "export", "net")
    assert "got other images (validation/cat has 9 images, had 8), expected those that its results were made from; " in said
    assert "; put them back, or give --data FOLDER with others" in said
    others = answer(capsys, "export", "net", "--format", "onnx", "--data", "pictures")
    assert {each["test_images"] for form in others["formats"].values() for each in form["exported"]} == {17}
    assert "| data | not known; calibrated and tested on images of pictures |" in Path("net/card.md").read_text()


@pytest.mark.slow
def test_images_of_others_do_not_tell_what_a_networks_classes_are_called(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network.parse(NETWORK)
    write_atomic(Path("net/network.yaml"), to_yaml(network).encode())
    save_weights(build(network), Path("net/model.safetensors"))
    draw(Path("others"))
    for split in ("train", "validation"):
        Path("others", split, "cat").rename(Path("others", split, "cow"))
    answer(capsys, "export", "net", "--data", "others", "--format", "onnx")
    assert not Path("net/export/labels.txt").exists()
    export(TrainedModel(load("net"), labels=("cow", "dog")), Path("net/export"), ("onnx",))  # as an earlier version guessed
    answer(capsys, "export", "net", "--data", "images", "--format", "onnx")
    assert answer(capsys, "eval", "net/export/model.onnx", "--data", "images")["images"] == 16


def test_the_images_that_a_network_was_trained_on_tell_what_its_classes_are_called(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, *TRAIN)
    Path("net/labels.txt").unlink()  # an earlier version wrote none
    answer(capsys, "export", "net", "--format", "genet-string")
    assert Path("net/labels.txt").read_text() == Path("net/export/labels.txt").read_text() == "cat\ndog\n"


def test_a_training_of_an_earlier_version_counts_and_takes_note_of_the_images_that_are_there(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It knew images by their place alone."""
    answer(capsys, *TRAIN)
    recipe, result = read_training("brief.yaml"), Path("net/model.json")
    spec = TrainingSpec(Network.parse(NETWORK), recipe.train, recipe.data, recipe.seed, images=str(project / "images"))
    TrainedNetwork.load(result).model_copy(update={"inputs": spec.inputs, "images": None}).save(result)
    Path("net", NOTE).unlink()
    before = stamps(project)
    Path("images").rename("pictures")
    assert cli.main([*TRAIN, "--data", "pictures"]) == 0
    assert "an earlier version did not record its images; those in" in " ".join(capsys.readouterr().out.split())
    assert cli.main([*TRAIN, "--data", "pictures"]) == 0
    assert "earlier version" not in capsys.readouterr().out
    assert stamps(project) == before
    Path("pictures/train/cat/0.png").unlink()
    assert "train/cat has 7 images, had 8" in fault(capsys, *TRAIN, "--data", "pictures")


def put_teacher(folder: str, seed: int) -> None:
    network = Network.parse(NETWORK)
    write_atomic(Path(folder, "network.yaml"), to_yaml(network).encode())
    save_weights(build(network, seed), Path(folder, "model.safetensors"))


def test_a_teacher_is_known_by_its_weights_wherever_it_lies_and_another_one_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_teacher("teacher", 0)
    taught = TRAINING.replace("batch: 4", "batch: 4, teacher: teacher")
    Path("brief.yaml").write_text(taught)
    found = answer(capsys, *TRAIN)
    before = stamps(project / "net")
    Path("teacher").rename("moved")
    put_teacher("other", 1)
    Path("brief.yaml").write_text(taught.replace("teacher: teacher", "teacher: moved"))
    assert answer(capsys, *TRAIN) == found
    Path("brief.yaml").write_text(taught.replace("teacher: teacher", "teacher: other"))
    assert "recipe.yaml: got the file of another training, expected that of this one" in fault(capsys, *TRAIN)
    assert stamps(project / "net") == before


def test_a_training_that_an_earlier_version_named_by_the_place_of_its_teacher_counts(project: Path) -> None:
    put_teacher("teacher", 0)
    recipe = read_training("brief.yaml")
    training = recipe.train.model_copy(update={"teacher": "teacher"})
    spec = TrainingSpec(Network.parse(NETWORK), training, recipe.data, 0)
    known = TrainedNetwork(inputs=spec.earlier_inputs, network="", resolution=8, nas_accuracy=0, nas_images=1, test_accuracy=0)
    known.save(Path("model.json"))
    shutil.copy("teacher/model.safetensors", "model.safetensors")
    assert spec.earlier_inputs != spec.inputs
    assert trained_before(spec, Path("model.json")) == known


# Runs

JOB = (
    RECIPE.replace("{name: digits, nas_validation: 0.25}", "{name: folder, nas_validation: 0.25, root: images}")
    .replace("device: cpu", "device: estimate:v100")
    .replace("batch: 64", "batch: 8")
)


def test_a_run_names_broken_images_before_it_measures_or_takes_its_folder(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(project, JOB, SPACE.replace("channels: 1, classes: 10", "channels: 3, classes: 2"))
    Path("images/validation/dog/0.png").write_bytes(b"<html>")
    law = "got a file that does not decode (it is not an image that Pillow reads), expected an image; repair or remove it"
    assert fault(capsys, "run", "tiny.yaml") == f"{project}/images/validation/dog/0.png: {law}"
    assert not Path("runs").exists()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run on a folder of images, which was moved since."""
    project = tmp_path_factory.mktemp("job") / "project"
    draw(project / "images", 40)
    write_recipe(project, JOB, SPACE.replace("channels: 1, classes: 10", "channels: 3, classes: 2"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        assert cli.main(["run", "tiny.yaml", "--any-master"]) == 0
    return project.rename(project.with_name("moved"))


@pytest.fixture
def moved(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in."""
    shutil.copytree(job, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


STEPS = (("run", "tiny.yaml"), *((name, "runs/tiny") for name in ("master", "distill", "train", "export")))


@pytest.mark.slow
def test_a_moved_project_is_finished(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(moved)
    for step in STEPS[1:]:
        answer(capsys, *step)
    answer(capsys, *STEPS[0])
    assert stamps(moved) == before


@pytest.mark.slow
def test_of_images_that_were_moved_alone_the_recipe_or_an_option_tells(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(moved)
    Path("images").rename("pictures")
    said = fault(capsys, "distill", "runs/tiny")
    assert "images does not exist, expected the folder of the images" in said
    assert said.endswith(
        "if the images were moved, give --data FOLDER to genet run or genet export, or set data.root in runs/tiny/recipe.yaml"
    )
    answer(capsys, "export", "runs/tiny", "--data", "pictures")
    answer(capsys, "distill", "runs/tiny")
    Path("pictures").rename("photographs")
    Path("tiny.yaml").write_text(JOB.replace("images", "photographs"))
    answer(capsys, "run", "tiny.yaml")
    answer(capsys, "distill", "runs/tiny")
    assert stamps(moved) == before


def test_a_run_that_is_moved_alone_finds_its_images_where_they_were(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(project / "images", 40)
    recipe = read_recipe(write_recipe(project, JOB, SPACE.replace("channels: 1, classes: 10", "channels: 3, classes: 2")))
    with open_run(Path("runs/tiny"), Progress(), recipe) as job:
        profile_device(job)
        train_master(job)
        run_planned_trials(job, any_master=True)
    monkeypatch.chdir(project.rename(tmp_path / "moved"))
    answer(capsys, "master", "runs/tiny")  # takes note of where it is
    Path("runs/tiny").rename(tmp_path / "alone")
    before = stamps(tmp_path / "alone")
    answer(capsys, "distill", tmp_path / "alone")
    assert stamps(tmp_path / "alone") == before


def test_no_step_takes_other_images_than_those_that_the_run_began_with(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(moved)
    rename_a_class()
    for step in (*STEPS, ("validate", "runs/tiny", "--n", "4", "--epochs", "1")):
        assert fault(capsys, *step).splitlines()[-1] == (
            "runs/tiny: got other images (class ant is new, class dog is gone), expected those that its results were made from; "
            "put them back, or give --new-run for a new folder"
        )
    assert stamps(moved) == before


def test_of_a_run_that_has_measured_alone_the_images_may_change(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in Path("runs/tiny").iterdir():
        if file.name not in ("latency.jsonl", "recipe.yaml", "staircase.json", NOTE):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    add_an_image()
    answer(capsys, "master", "runs/tiny")
    assert json.loads(Path("runs/tiny", NOTE).read_text())["contents"]["train"]["cat"]["images"] == 41
    Path("images/train/cat/99.png").unlink()
    assert "train/cat has 40 images, had 41" in fault(capsys, "master", "runs/tiny")
