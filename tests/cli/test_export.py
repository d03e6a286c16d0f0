"""`genet export`, `genet eval`, `genet import` and `genet latency FOLDER` as a user types them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_transform, resolve_data_config

from genet.config.recipe import Data
from genet.export.format_latency import with_latencies
from genet.export.manifest import Exports
from genet.export.onnx_formats import FILES
from genet.export.timm_form import open_timm
from genet.latency.noise import with_interval
from genet.models.weights import load
from genet.pipeline.run_folder import RunFolder
from genet.search.outcome import Outcomes, percent
from genet.storage import digest, write_checked
from genet.training.accuracy import accuracy
from genet.training.splits import load_test
from tests.fixtures.commands import answer, fault
from tests.fixtures.small import NETWORK

CPU = torch.device("cpu")


@pytest.fixture
def trained(exported, tmp_path: Path) -> Path:
    """The folder of a network with weights, as `genet import` or `genet train` leaves it."""
    folder = tmp_path / "small"
    folder.mkdir()
    for name in ("network.yaml", "model.safetensors", "model.safetensors.sha256"):
        shutil.copy(exported[0] / name, folder / name)
    return folder


def test_a_runs_export_has_all_formats_and_its_card_all_of_the_evidence(finished: RunFolder) -> None:
    (outcome,) = Outcomes.load(finished.results).outcomes
    folder = finished.path / outcome.export
    exports = Exports.load(folder / "exports.json")
    card = (folder.parent / "card.md").read_text()
    # a known design may win, of which a GENet string has no words for a missing head, and timm none for a stem of stride 1
    assert not set(exports.left_out) - {"genet-string", "timm"}
    for each in exports.exported:
        assert f"| {each.format} | {each.purpose} |" in card
        for name, known in each.files.items():
            assert digest((folder / name).read_bytes()) == known
            assert f"{known}  export/{name}" in card
    facts = (
        outcome.network,
        with_interval(outcome.ms_per_image, outcome.interval_ms_per_image),
        "licence",
        "torch ",
        "epochs: 2",
        "| data | digits: ",
    )
    for fact in (*facts, "logits, of 0, 1, 2, 3"):
        assert fact in card


def test_record_and_card_of_a_runs_export_tell_what_every_format_reaches_and_takes(finished: RunFolder) -> None:
    (outcome,) = Outcomes.load(finished.results).outcomes
    folder = finished.path / outcome.export
    exports, card = Exports.load(folder / "exports.json"), (folder.parent / "card.md").read_text()
    assert exports.serving
    assert exports.serving.batch == finished.recipe().measure.batch == 64
    assert f"briefly in its own runtime, on {exports.serving.setting}:" in card
    assert ", batch 64, fp32 images, each format as it is loaded:" in card
    rows = {line.split(" | ")[0].strip("| "): line for line in card.splitlines() if line.startswith("| ")}
    for each in exports.exported:
        if each.format == "genet-string":
            assert rows[each.format].endswith("| not measured | not measured: it has no weights |")
        else:
            ms = exports.serving.ms_per_image(each.format)
            assert f"| {percent(each.accuracy)} | {ms:.4f} in " in rows[each.format]


def test_latencies_are_kept_in_their_setting_and_a_runtime_that_is_not_there_is_told(
    exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genet.export.format_latency.BRIEFLY_S", 0.0)
    folder = tmp_path / "export"
    shutil.copytree(exported[0], folder)
    timed = with_latencies(exported[1], folder, CPU, batch=2)
    assert timed.serving
    assert timed.serving.ms_per_image("onnx")
    assert Exports.load(folder / "exports.json") == timed == with_latencies(timed, folder, CPU, batch=2)
    with monkeypatch.context() as lacking:
        lacking.setitem(sys.modules, "onnxruntime", None)
        without = with_latencies(timed, folder, CPU, batch=1)
        assert without.serving
        assert without.serving.ms_per_image("timm")
        assert [one.format for one in without.serving.served if one.failure] == ["onnx", "onnx-fp16", "onnx-int8"]
        onnx = without.serving.of("onnx")
        assert onnx
        assert onnx.failure == "runtime onnxruntime needs its package, which is not installed; pip install 'onnxruntime'"
        assert with_latencies(without, folder, CPU, batch=1) is without
    installed = with_latencies(without, folder, CPU, batch=1).serving
    assert installed
    assert installed.ms_per_image("onnx")


def test_what_a_runtime_refuses_is_told_once_and_the_other_formats_are_timed(
    exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genet.export.format_latency.BRIEFLY_S", 0.0)
    folder = tmp_path / "export"
    shutil.copytree(exported[0], folder)
    write_checked(folder / FILES["onnx"], b"no model")
    timed = with_latencies(exported[1], folder, CPU, batch=1)
    assert timed.serving
    assert [one.format for one in timed.serving.served if one.failure] == ["onnx"]
    assert timed.serving.ms_per_image("onnx-fp16")
    assert with_latencies(timed, folder, CPU, batch=1) is timed


def test_the_cards_lines_and_timms_config_prepare_an_image_as_the_network_was_shown_it(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, "export", trained, "--data", "digits", "--format", "timm")
    monkeypatch.chdir(trained)
    first = np.random.default_rng(0).permutation(1797)[0]  # of the test images
    Image.fromarray((load_digits().images[first] / 16 * 255).round().astype(np.uint8)).save("image.png")
    found: dict[str, Any] = {}
    exec(textwrap.dedent(Path("card.md").read_text().split("to 8 bits first):\n")[1].split("Then, in")[0]), found)
    config = resolve_data_config(model=open_timm(Path("export/timm")))
    by_timm = create_transform(**config)(Image.open("image.png"))[None]
    shown, _ = next(load_test(Data(), NETWORK.input).batches(1, 12))
    for images in (torch.from_numpy(found["images"]), by_timm):
        assert torch.allclose(images, shown, atol=0.02)  # twice the step of a byte


@pytest.mark.slow
def test_the_cards_lines_run_where_the_card_lies(finished: RunFolder) -> None:
    (outcome,) = Outcomes.load(finished.results).outcomes
    card = (finished.path / outcome.export).parent / "card.md"
    text = card.read_text().split("\npt2:\n")[1].split("\n\n")[0]
    script = "\n".join(line.strip() for line in text.splitlines()) + "\nprint(network(torch.zeros(2, 1, 16, 16)).shape)"
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=card.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "torch.Size([2, 10])\n"


def test_one_network_of_a_run_and_one_format_may_be_asked_for(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (outcome,) = Outcomes.load(copy.results).outcomes
    shutil.rmtree(copy.path / outcome.export)
    found = answer(capsys, "export", str(copy.path), "--network", outcome.name, "--format", "onnx")
    (exports,) = found["formats"].values()
    assert [each["format"] for each in exports["exported"]] == ["safetensors", "onnx"]
    assert "got no such network, expected one of" in fault(capsys, "export", str(copy.path), "--network", "other")
    said = fault(capsys, "export", str(copy.path), "--data", "elsewhere")
    assert said == f"--data: got {copy.path}, a run on digits, expected a run on a folder of images; leave it out"


def test_a_network_without_images_leaves_int8_out_and_with_images_has_it(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (without,) = answer(capsys, "export", str(trained))["formats"].values()
    assert list(without["left_out"]) == ["onnx-int8"]
    assert "Left out: onnx-int8" in (trained / "card.md").read_text()
    (found,) = answer(capsys, "export", str(trained), "--data", "digits")["formats"].values()
    assert not found["left_out"]
    assert {each["test_images"] for each in found["exported"] if each["accuracy"] is not None} == {359}
    assert "| data | not known; calibrated and tested on images of digits |" in (trained / "card.md").read_text()
    (still,) = answer(capsys, "export", str(trained), "--format", "timm")["formats"].values()
    assert still == found, "another call for one format takes none away"


def test_every_format_has_the_accuracy_that_the_network_has(exported, capsys: pytest.CaptureFixture[str]) -> None:
    folder, images = exported[0], load_test(Data(), NETWORK.input)
    wanted = accuracy(load(folder), images, 12, torch.device("cpu"))
    for form in ("safetensors", "timm", "onnx", "onnx-fp16", "pt2"):
        found = answer(capsys, "eval", str(folder), "--format", form, "--data", "digits", "--device", "cpu")
        assert found["images"] == 359
        assert abs(found["top1"] - wanted) <= (2 / 359 if form == "onnx-fp16" else 0)
        assert found["top5"] >= found["top1"]


def test_images_of_other_classes_are_refused(exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("ant", "bee"):
        (tmp_path / "validation" / label).mkdir(parents=True)
        shutil.copy(Path(__file__).parents[2] / "README.md", tmp_path / "validation" / label / "image.png")
    for label in "abcdefghij":
        shutil.copytree(tmp_path / "validation" / "ant", tmp_path / "ten" / "validation" / label)
    told = fault(capsys, "eval", str(exported[0]), "--data", str(tmp_path / "ten"))
    assert "got images that lack 0, 1, 2, 3, 4 and 5 more and have a, b, c, d, e and 5 more in addition, expected the " in told
    told = fault(capsys, "eval", str(exported[0]), "--data", str(tmp_path))
    assert "got 2 classes, expected the network's 10" in told
    told = fault(capsys, "eval", str(exported[0]), "--data", str(tmp_path / "validation"))
    assert "expected train and validation, with one folder of images per class" in told


def test_a_network_that_is_taken_in_can_be_exported_again(exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken (1)"  # which no network can be called
    found = answer(capsys, "import", str(exported[0] / "timm"), "--into", str(taken))
    assert found == {"folder": str(taken), "network": str(NETWORK), "weights": True}
    assert answer(capsys, "export", str(taken), "--format", "timm")["exports"] == [str(taken / "export")]
    for name in ("config.json", "model.safetensors"):
        assert (taken / "export" / "timm" / name).read_bytes() == (exported[0] / "timm" / name).read_bytes()
    assert "expected a folder without a network" in fault(capsys, "import", str(exported[0] / "timm"), "--into", str(taken))


@pytest.mark.parametrize("name", ["model.safetensors", "labels.txt"])
def test_a_file_that_a_network_taken_in_would_replace_is_left_alone(
    exported, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"mine")
    said = fault(capsys, "import", exported[0], "--into", tmp_path)
    assert said == f"{tmp_path}: got {name} in it, expected a folder without a network; give another --into FOLDER"
    assert (tmp_path / name).read_bytes() == b"mine"


def test_a_structure_alone_cannot_be_exported_and_says_how_it_gets_weights(
    exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    line = str(exported[0] / "network.txt")
    assert answer(capsys, "import", line, "--into", str(taken), "--size", "12", "--classes", "10")["weights"] is False
    assert "genet train" in fault(capsys, "export", str(taken))


def test_a_network_inside_a_run_is_exported_by_the_run(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (outcome,) = Outcomes.load(copy.results).outcomes
    folder = (copy.path / outcome.export).parent
    told = fault(capsys, "export", str(folder))
    assert f"genet export {copy.path} --network {folder.name}" in told


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        (["eval", "FOLDER", "--data", "digits", "--device", "gpu"], "device must be auto, cpu, cuda or cuda:N"),
        (["import", "ConvKX(3", "--into", "there", "--classes", "1"], "--classes: got 1, expected at least two classes"),
        (["latency", "FOLDER", "--batch", "0"], "--batch must be greater than"),
        (["latency", "FOLDER", "--plot", "a.svg"], "timing the formats of an export failed: got --plot"),
        (["export", "FOLDER", "--format", "onx"], "--format must be one of"),
        (["export", "FOLDER"], "got an export, expected the folder of the trained network"),
        (
            ["export", "nowhere"],
            "nowhere: got a folder without recipe.yaml or network.yaml, expected a run folder or the folder of a trained network",
        ),
        (
            ["eval", "FOLDER/model.onnx", "--format", "onnx", "--data", "digits"],
            "got a file, expected the folder of an export, which has formats; leave --format out",
        ),
        (["latency", "FOLDER/model.onnx"], "got one file of an export, expected its folder"),
    ],
)
def test_options_that_cannot_be_are_one_line(
    exported, capsys: pytest.CaptureFixture[str], arguments: list[str], law: str
) -> None:
    assert law in fault(capsys, *(each.replace("FOLDER", str(exported[0])) for each in arguments))


@pytest.mark.usefixtures("one_thread")
def test_every_format_of_an_export_is_timed_in_its_own_runtime(exported, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = answer(capsys, "latency", str(exported[0]), "--batch", "2", "--device", "cpu")["exports"].values()
    assert {one["format"]: one["runtime"] for one in found} == {
        "safetensors": "eager",
        "timm": "eager",
        "pt2": "eager",
        "onnx": "onnxruntime",
        "onnx-fp16": "onnxruntime",
        "onnx-int8": "onnxruntime",
    }
    assert all(one["ms"] > 0 for one in found)
    told = fault(capsys, "latency", str(exported[0]), "--runtime", "compile")
    assert "timing the formats of an export failed: got --runtime, expected neither other networks nor such options" in told


def test_a_folders_network_is_estimated_by_its_structure(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "latency", str(trained), "--device", "estimate:v100")["estimate"] is True
