"""`genet check`: all faults at once, the images, the budgets and the time of a job, before it begins."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from genet.cli import main as cli
from genet.config.reader import read_recipe
from genet.pipeline.run_folder import RunFolder
from genet.search.outcome import Outcomes
from genet.training.inventory import take_stock
from tests.fixtures.commands import answer, fault
from tests.fixtures.images import draw_images
from tests.fixtures.tiny import RECIPE, SPACE, write_recipe

FOLDER = RECIPE.replace("data: {name: digits,", "data: {name: folder,")
CLASSES = {"cat": 16, "dog": 20, "owl": 3}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe for three classes of grey images, which are yet to be given."""
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path, FOLDER, SPACE.replace("classes: 10", "classes: 3"))


def test_a_network_may_be_given_by_its_notation(capsys: pytest.CaptureFixture[str]) -> None:
    notation = "@32x3 | Conv k3 c16 s2 | XX k3 c32 s2 d1 | 10"
    assert answer(capsys, "check", notation)["notation"] == notation


def test_a_name_that_recipe_and_space_share_is_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "check", "digits")["images"] == "digits"


def test_images_are_counted_by_set_and_classes_with_too_few_are_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_images(tmp_path / "images", CLASSES)
    (tmp_path / "images" / "train" / "cat" / "notes.txt").write_text("no image")
    found = answer(capsys, "check", recipe, "--data", "images")
    counted = {key: found[key] for key in ("classes", "images_to_train", "images_held_out", "images_to_test")}
    assert counted == {"classes": 3, "images_to_train": 29, "images_held_out": 10, "images_to_test": 6}
    few, error = found["notes"]
    assert few == "few images to train on: owl (2)"
    assert error == "with only 10 images held out, accuracies have a standard error of up to 16 points"
    assert " epochs of 1 step), the MasterNet's " in found["expected_time"]
    assert "from steps of 29 images timed here: " in found["expected_time"]
    assert cli.main(["check", str(recipe), "--data", "images"]) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path}/images/train: left out 1 .txt (no images that Pillow reads)" in " ".join(printed.split())
    whole = "notation", "images  ", "  ", str(tmp_path)  # names are not broken
    assert all(len(line) <= 80 for line in printed.splitlines() if not line.startswith(whole))


def test_surprises_about_sizes_and_colours_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = draw_images(tmp_path / "images", {"cat": 40, "dog": 40, "owl": 40}, size=(12, 10), mode="L")
    recipe = write_recipe(tmp_path, FOLDER, SPACE.replace("classes: 10", "classes: 3").replace("channels: 1", "channels: 3"))
    assert answer(capsys, "check", recipe, "--data", images)["notes"] == [
        "half of the images have at most 10 pixels on their shorter edge, and are enlarged to 16",
        "all images that were checked are grey, but the space has three channels",
    ]


def test_every_fault_is_told_at_once_those_of_the_recipes_own_images_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = draw_images(tmp_path / "images", {"cat": 4, "dog": 4, "owl": 4})
    (images / "validation" / "owl").rename(images / "validation" / "ant")
    (images / "train" / "cat" / "0.png").write_text("no image")
    text = FOLDER.replace("folder,", "folder, root: images,").replace("train: {", "augment: {policy: nonsense}\ntrain: {")
    text = text.replace("master: {epochs: 3, batch: 64, learning_rate: 0.4}", "master: {from: nowhere}")
    recipe = write_recipe(tmp_path, text.replace("race: {", "race: {designs: [nowhere.yaml], "))
    lines = fault(capsys, "check", recipe).splitlines()
    told = (
        "master.from: got ",
        "nowhere.yaml: must be a file that exists",
        "augment.policy: got 'nonsense'",
        f"{images / 'train'}: 1 of 12 files cannot be opened as images: cat/0.png; repair",
        f"{images}: got different classes in train and validation",
    )
    assert len(lines) == len(told)
    for line, start in zip(lines, told, strict=True):
        assert start in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images: None, "got 3 classes, expected the search space's 10"),
        (
            lambda images: (images / "validation").rename(images / "other"),
            "got folders other, train, expected validation, val, valid, test",
        ),
        (lambda images: images.rename(images.with_name("gone")), "does not exist, expected the folder of the images"),
    ],
    ids=["classes", "no split", "no folder"],
)
def test_images_that_a_run_would_refuse_are_refused(
    change: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = draw_images(tmp_path / "images", {"cat": 4, "dog": 4, "owl": 4})
    change(images)  # type: ignore[operator]
    assert said in fault(capsys, "check", write_recipe(tmp_path, FOLDER), "--data", images)


def test_a_folder_of_classes_alone_is_refused_in_one_line_and_the_lines_of_the_docs_divide_it(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = draw_images(tmp_path / "my images", {"a cat": 10, "dog": 10, "owl": 10})
    shutil.rmtree(images / "validation")
    for folder in (images / "train").iterdir():
        folder.rename(images / folder.name)
    (images / "train").rmdir()
    told = {fault(capsys, "check", recipe, "--data", images), fault(capsys, "init", "new.yaml", "--data", images)}
    (line,) = "\n".join(told).splitlines()
    assert line.startswith(f"{images}: got folders a cat, dog, owl, expected train and validation, with one folder of images per")
    page = (Path(__file__).parents[2] / "docs" / "your-own-images.md").read_text()
    (lines,) = re.findall(r"^    cd ROOT && mkdir train.*?^    done$", page, re.MULTILINE | re.DOTALL)
    subprocess.run(["bash", "-ec", lines.replace("ROOT", '"$1"', 1), "bash", str(images)], check=True)
    found = take_stock(images)
    assert found.train == {"a cat": 8, "dog": 8, "owl": 8}
    assert found.test == {"a cat": 2, "dog": 2, "owl": 2}


def test_an_image_that_is_cut_short_is_told_in_one_line_whoever_decodes_it(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = draw_images(tmp_path / "images", CLASSES)
    for file in (images / "train").glob("*/[0-4].png"):
        file.write_bytes(file.read_bytes()[:60])
    recipe.write_text(recipe.read_text().replace("folder,", "folder, workers: 2, loading: stream,"))
    lines = fault(capfd, "check", recipe, "--data", images).splitlines()
    assert len(lines) > 3
    for line in lines:
        assert line.startswith(f"{images}/train/")
        assert line.endswith("; repair or remove it")


def test_images_go_with_recipes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fault(capsys, "check", "genet-light", "--data", tmp_path).startswith(
        "--data: got genet-light, which has no images, expected a recipe"
    )


def test_values_of_the_command_line_are_checked_as_run_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path)
    found = answer(capsys, "check", recipe, "--budget", "3ms", "--batch", "2", "--runtime", "onnxruntime")
    assert [key for key in found if key.startswith("budget ")] == ["budget 3ms"]
    assert found["budget 3ms"].startswith("1.5 ms/image: known after")
    assert "within reach" in answer(capsys, "check", recipe, "--budget", "9ms", "--device", "estimate:v100")["budget 9ms"]
    faulty = ("--set", "train.epochs=0", "--budget", "5s", "--batch", "many")
    assert fault(capsys, "check", recipe, *faulty) == fault(capsys, "run", recipe, *faulty)
    assert fault(capsys, "check", recipe, "--set", "space.input.classes=7").startswith("digits have 1 channel and 10 classes")


def test_values_of_the_command_line_go_with_the_recipe_of_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    notation = "@32x3 | Conv k3 c16 s2 | XX k3 c32 s2 d1 | 10"
    said = fault(capsys, "check", notation, "--set", "seed=1", "--budget", "5ms")
    assert [line.split(", expected ")[0] for line in said.splitlines()] == [
        f"--set seed: got {notation}",
        f"--budget: got {notation}",
    ]


def test_budgets_are_told_in_all_forms_and_by_what_is_measured_whether_they_can_be_met(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path, RECIPE.replace("[2.0x, 0.000001]", "[2.0x, 0.000001, 5ms, 0.5x]"))
    unknown = answer(capsys, "check", recipe)
    assert unknown["budget 2x"] == "within reach, by the MasterNet itself"
    assert unknown["budget 0.5x"] == "known after genet run has measured, which is its first step"
    assert unknown["budget 5ms"].startswith("0.07812 ms/image: known after")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").symlink_to(finished.path)
    measured = answer(capsys, "check", recipe)
    masternet_ms = 64 * Outcomes.load(finished.results).masternet_ms_per_image
    tiny = f"6.4e-05 ms per batch of 64, {6.4e-05 / masternet_ms:.4g}x: probably out of reach, the network"
    assert measured["budget 0.000001ms/image"].startswith(tiny)
    assert measured["budget 5ms"].startswith(f"0.07812 ms/image, {5 / masternet_ms:.4g}x: ")
    given = write_recipe(tmp_path, RECIPE.replace("device: cpu,", f"latency_file: {finished.latency.path},"))
    (tmp_path / "runs" / "tiny").unlink()
    assert answer(capsys, "check", given)["budget 0.000001ms/image"] == measured["budget 0.000001ms/image"]


def test_what_comes_along_is_measured_by_nobody_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "check", "genet-imagenet")
    assert found["images"] == "not given; check them with --data FOLDER"
    assert read_recipe("genet-imagenet").data.root is None
