"""`genet train`: any network by a recipe, interrupted and gone on with, by one process or by several."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genet.arch.network import Network
from genet.cli.main import main
from genet.config.reader import read_any, read_network, read_training, shipped_files, to_yaml
from genet.config.recipe import TrainingRecipe
from genet.errors import GenetError
from genet.models.build import build
from genet.models.weights import load_weights, read_labels, save_weights, write_labels
from genet.pipeline.train import TrainingSpec, teacher_of
from genet.storage import write_atomic
from genet.training.checkpoints import Checkpoints, Preempted

NETWORK = "@16x1 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | DW k3 c24 s2 d1 r2 | Conv k1 c32 | 10"
RECIPE = """
name: brief
data: {name: digits, nas_validation: 0.25}
train: {epochs: 3, batch: 64, learning_rate: 0.4, warmup_epochs: 1, mixup: 0.2, random_erase_prob: 0.2, ema: 0.9}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "brief.yaml").write_text(RECIPE)
    return tmp_path / "brief.yaml"


def trained(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["train", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["train", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_any_network_is_trained_into_a_folder_of_its_own_and_once_only(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = trained(capsys, NETWORK, "--recipe", recipe, "--into", tmp_path / "net")
    assert found["test_accuracy"] > 0.3  # chance is 0.1
    assert str(read_network(tmp_path / "net" / "network.yaml")) == NETWORK
    assert {file.name for file in (tmp_path / "net").iterdir()} >= {"recipe.yaml", "model.json", "model.safetensors"}
    assert list((tmp_path / "net").glob("*.checkpoint*")) == []
    load_weights(Network.parse(NETWORK), tmp_path / "net" / "model.safetensors")
    head, *rows = (tmp_path / "net" / "curves.csv").read_text().splitlines()
    assert head == "epoch,training_loss,training_accuracy"
    assert [row.partition(",")[0] for row in rows] == ["1", "2", "3"]
    stamp = (tmp_path / "net" / "model.json").stat().st_mtime_ns
    assert trained(capsys, NETWORK, "--recipe", recipe, "--into", tmp_path / "net") == found
    assert (tmp_path / "net" / "model.json").stat().st_mtime_ns == stamp


def test_a_folder_of_another_training_is_left_alone(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(capsys, NETWORK, "--recipe", recipe, "--into", tmp_path / "net")
    recipe.write_text(RECIPE.replace("epochs: 3", "epochs: 2"))
    assert "recipe.yaml: got the file of another training, expected that of this one" in refused(
        capsys, NETWORK, "--recipe", recipe, "--into", tmp_path / "net"
    )
    other = NETWORK.replace("c24", "c16")
    assert "network.yaml: got the file of another training" in refused(
        capsys, other, "--recipe", recipe, "--into", tmp_path / "net"
    )


def training(recipe: Path, into: Path, *before: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """`genet train`, under way."""
    command = [sys.executable, *before, "-m", "genet", "train", NETWORK, "--recipe", str(recipe), "--into", str(into)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_told_to_end_it_saves_and_the_same_command_ends_with_the_weights_of_an_undisturbed_one(
    recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(RECIPE.replace("epochs: 3", "epochs: 12"))
    for into in (tmp_path / "undisturbed", tmp_path / "told"):
        with training(recipe, into) as process:
            if into.name == "told":
                while process.poll() is None and not list(into.glob("*.checkpoint")):
                    time.sleep(0.01)
                process.terminate()
                assert process.wait(60) == 128 + signal.SIGTERM
                assert process.stderr is not None
                assert process.stderr.read() == b"terminated; the same command resumes the work\n"
    (saved,) = (tmp_path / "told").glob("*.checkpoint")
    state = Checkpoints(saved).read()
    assert state is not None
    assert 0 < state["epoch"] < 12
    mark = Preempted.load(saved.with_suffix(".preempted.json"))
    assert (mark.epochs, mark.steps) == (state["epoch"], state["step"])
    with training(recipe, tmp_path / "told") as process:
        assert process.wait(120) == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("undisturbed", "told"))
    assert one == other
    assert not list((tmp_path / "told").glob("*.preempted.json"))


@pytest.mark.slow
def test_two_processes_train_one_network(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with training(recipe, tmp_path / "two", *together) as process:
        assert process.wait(120) == 0
    alone = trained(capsys, NETWORK, "--recipe", recipe, "--into", tmp_path / "one")
    found = json.loads((tmp_path / "two" / "model.json").read_text())
    assert found["nas_accuracy"] == pytest.approx(alone["nas_accuracy"], abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        (["nowhere"], "nowhere: got no folder, expected a run folder"),
        ([NETWORK, "--recipe", "BRIEF", "--network", "some"], "--network: got --recipe too, expected one of them"),
        ([NETWORK.replace("| 10", "| 11"), "--recipe", "BRIEF"], "digits have 1 channel and 10 classes"),
        ([NETWORK, "--recipe", "brif"], "brif: must be a file or one of cifar10, digits, genet-imagenet"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line_and_nothing_is_written(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], law: str
) -> None:
    given = [str(recipe) if argument == "BRIEF" else argument for argument in arguments]
    said = refused(capsys, *given, "--into", tmp_path / "net")
    assert law in said
    assert said.count("\n") == 1
    assert not (tmp_path / "net").exists()


@pytest.mark.slow
def test_ctrl_c_saves_its_very_step_too_and_going_on_is_told(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE.replace("epochs: 3", "epochs: 12"))
    into = tmp_path / "net"
    with training(recipe, into) as process:
        while process.poll() is None and not list(into.glob("*.checkpoint")):
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b"interrupted; the same command resumes the work\n"
    (mark,) = into.glob("*.preempted.json")
    assert Preempted.load(mark).epochs > 0
    (into / mark.name.replace(".preempted.json", ".checkpoint.other")).write_bytes(b"damaged")
    with training(recipe, into, output=subprocess.PIPE) as process:
        said, _ = process.communicate()
        assert process.returncode == 0
    told = " ".join(said.decode().split())
    assert "resuming after" in told or "starting again from the first epoch" in told
    assert "checkpoint.other: damaged and left out" in told


def test_imported_weights_are_not_trained_over(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_teacher(tmp_path / "net", NETWORK)
    before = (tmp_path / "net" / "model.safetensors").read_bytes()
    said = refused(capsys, tmp_path / "net", "--recipe", recipe, "--into", tmp_path / "net")
    assert "got weights from elsewhere, expected an empty folder or files of this training" in said
    assert (tmp_path / "net" / "model.safetensors").read_bytes() == before


def test_a_network_is_named_by_its_folder_and_ends_with_its_labels(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_atomic(tmp_path / "net" / "network.yaml", to_yaml(Network.parse(NETWORK)).encode())
    assert "got the folder of one network, expected a run folder; genet train" in refused(capsys, tmp_path / "net")
    trained(capsys, tmp_path / "net", "--recipe", recipe, "--into", tmp_path / "net")
    assert (tmp_path / "net" / "labels.txt").read_text().split() == list("0123456789")


def test_another_network_that_lies_in_the_folder_is_not_trained_over(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_atomic(tmp_path / "net" / "network.yaml", b"# mine\n" + to_yaml(Network.parse(NETWORK.replace("c24", "c16"))).encode())
    said = refused(capsys, NETWORK, "--recipe", recipe, "--into", tmp_path / "net")
    assert "network.yaml: got the file of another training, expected that of this one" in said
    assert (tmp_path / "net" / "network.yaml").read_bytes().startswith(b"# mine")


def put_two(folder: Path, labels: tuple[str, ...] = ("b", "a")) -> None:
    """A network of two classes in some order, of the same weights else."""
    module = build(TWO, seed=3)
    if labels == ("b", "a"):
        for tensor in module.head.fc.parameters():
            tensor.data = tensor.data.flip(0)
    write_atomic(folder / "network.yaml", to_yaml(TWO).encode())
    save_weights(module, folder / "model.safetensors")
    write_labels(folder, labels)


def put_noise(root: Path) -> Path:
    """Images of noise in two class folders, the second brighter."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 40)):
        for name, number in itertools.product("ab", range(count)):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            brighter = 100 * (name == "b")
            Image.fromarray(draw.integers(brighter, 150 + brighter, (16, 16), np.uint8)).save(
                root / split / name / f"{number}.png"
            )
    return root


TWO = Network.parse(NETWORK.removesuffix("10") + "2", "two")
STILL = "name: still\ndata: {name: folder, nas_validation: 0.25}\ntrain: {epochs: 8, batch: 12, learning_rate: 1.0e-12MORE}\n"


def test_training_that_goes_on_numbers_the_classes_as_its_start_does(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(STILL.replace("MORE", ""))
    images, reached = put_noise(tmp_path / "images"), []
    for name, labels in (("usual", ("a", "b")), ("swapped", ("b", "a"))):
        start, into = tmp_path / name, tmp_path / f"{name}-on"
        put_two(start, labels)
        found = trained(capsys, start / "network.yaml", "--recipe", recipe, "--from", start, "--data", images, "--into", into)
        reached.append(found["test_accuracy"])
        assert read_labels(into) == labels
    assert reached[0] == reached[1] != 0.5


def test_a_start_of_other_classes_is_refused(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(STILL.replace("MORE", ""))
    start, images = tmp_path / "net", put_noise(tmp_path / "images")
    put_two(start, ("a", "c"))
    said = refused(
        capsys, start / "network.yaml", "--recipe", recipe, "--from", start, "--data", images, "--into", tmp_path / "on"
    )
    assert "got images that lack c and have b in addition, expected the network's own classes" in said


def test_a_teacher_answers_in_the_order_of_the_images_classes(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(STILL.replace("MORE", ", teacher: teacher"))
    put_two(tmp_path / "teacher")
    read = read_training(recipe)
    spec, images = TrainingSpec(TWO, read.train, read.data, 0), torch.randn(3, 1, 16, 16)
    teacher = teacher_of(spec, ("a", "b"))
    assert teacher is not None
    assert torch.equal(teacher.eval()(images), build(TWO, seed=3).eval()(images))
    with pytest.raises(
        GenetError, match=r"teacher: got .*, which lacks c and has b in addition, expected the classes of the images"
    ):
        teacher_of(spec, ("a", "c"))


def put_teacher(folder: Path, notation: str, seed: int = 0) -> None:
    network = Network.parse(notation)
    write_atomic(folder / "network.yaml", to_yaml(network).encode())
    save_weights(build(network, seed), folder / "model.safetensors")


@pytest.mark.parametrize(
    ("teacher", "law"),
    [
        ("timm:resnet10", "teacher: got timm:resnet10 ("),
        ("empty", ", expected timm:MODEL or a trained network's folder"),
        (NETWORK.replace("@16x1", "@16x3"), " failed on images of 1 x 16 x 16"),
        (NETWORK.removesuffix("10") + "7", " for 7 classes, expected one for the network's 10 classes"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: str, law: str
) -> None:
    if "|" in teacher:
        put_teacher(tmp_path / "trained", teacher)
        teacher = "trained"
    recipe.write_text(RECIPE.replace("ema: 0.9", f"teacher: {teacher}"))
    assert law in refused(capsys, NETWORK, "--recipe", recipe, "--into", tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_teacher_is_looked_for_beside_the_recipe_and_its_weights_are_part_of_the_training(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE.replace("ema: 0.9", "teacher: trained"))
    read = read_training(recipe)
    assert read.train.teacher == str(recipe.parent / "trained")
    names = []
    for seed in (0, 1, 0):
        put_teacher(recipe.parent / "trained", NETWORK, seed)
        names.append(TrainingSpec(Network.parse(NETWORK), read.train, read.data, 0).inputs)
    assert names[0] == names[2] != names[1]


@pytest.mark.parametrize("name", sorted(shipped_files("recipes/training")))
def test_every_training_recipe_that_comes_along_can_be_read(name: str) -> None:
    assert isinstance(read_any(shipped_files("recipes/training")[name]), TrainingRecipe)


@pytest.mark.parametrize(
    ("setting", "law"),
    [
        ("augment: {policy: original}", "augment: got policy original for digits, expected crop, flip or cutout alone"),
        ("augment: {scale: [0.5, 1]}", "augment: got scale 0.5 to 1 for digits, expected crop, flip or cutout alone"),
        ("augment: original", "must be none, or a mapping such as {crop: 4, flip: true}"),
        ("augment: {crop: 4, scale: [0.5, 1]}", "cannot be combined with crop"),
        (
            "mixup: 0.2, batch: 33",
            "a batch must divide into 1 processes x 1 parts of it, in pairs if images are mixed",
        ),
    ],
)
def test_a_training_that_cannot_be_writes_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, law: str
) -> None:
    recipe.write_text(RECIPE.replace("batch: 64, ", "").replace("mixup: 0.2, random_erase_prob: 0.2, ema: 0.9", setting))
    assert law in refused(capsys, NETWORK, "--recipe", recipe, "--into", tmp_path / "net")
    assert not (tmp_path / "net" / "model.json").exists()


def test_several_processes_without_torchrun_are_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "several processes need RANK, LOCAL_RANK" in refused(capsys, NETWORK, "--recipe", recipe)


@pytest.mark.parametrize("accumulate", [3, 64])
def test_parts_of_a_batch_must_divide_it_and_have_two_images(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], accumulate: int
) -> None:
    recipe.write_text(RECIPE.replace("ema: 0.9", f"grad_accum_steps: {accumulate}"))
    said = refused(capsys, NETWORK, "--recipe", recipe)
    assert f"train.grad_accum_steps: must divide the batch of 64 into parts of two images or more (got {accumulate})" in said
