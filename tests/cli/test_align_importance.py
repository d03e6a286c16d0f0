"""`genet align --objective importance` as a user meets it: pruned, trained on, loaded again, and gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from genet import load
from genet.arch.external import ExternalModel, read_notation
from genet.arch.network import Input
from genet.cli import main as cli
from genet.config.reader import read_structure, to_yaml
from genet.models.weights import save_weights
from tests.fixtures.commands import answer, fault

V100 = ("--device", "estimate:v100", "--dtype", "fp16", "--runtime", "cudagraph", "--batch", "4096")
NETS = "tests.fixtures.align_networks"
OURS = "@8x1 | Conv k3 c24 s1 | XX k3 c72 s2 d2 | Conv k1 c320 | 10"
RECIPE = "name: quick\ndata: {name: digits, nas_validation: 0.25}\ntrain: {epochs: 4, batch: 32, learning_rate: 0.05}\n"
IMPORTANCE = ("--objective", "importance", "--data", "digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual network that knows digits, and the latencies of its layers."""
    folder = tmp_path_factory.mktemp("dense")
    structure = ExternalModel(name="dense", source=f"{NETS}:residual", input=Input(channels=1, classes=10, resolution=8))
    (folder / "dense.yaml").write_text(to_yaml(structure))
    (folder / "quick.yaml").write_text(RECIPE)
    dense, recipe, rows = (str(folder / name) for name in ("dense", "quick.yaml", "runs/align/latency.jsonl"))
    assert cli.main(["train", f"{dense}.yaml", "--recipe", recipe, "--into", dense]) == 0
    assert cli.main(["align", dense, *IMPORTANCE, "--target-ratio", "0.6", *V100, "--evidence", rows]) == 0
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `runs/align` is written, beside the trained network and a recipe."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


def test_a_network_is_pruned_to_a_share_of_its_latency_trained_on_and_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("align", "dense", *IMPORTANCE, "--target-ratio", "0.6", *V100, "--into", "slim", "--recipe", "quick.yaml")
    found = answer(capsys, *asked)
    assert found["ratio"] <= 0.6
    before, cut = found["accuracy"]
    assert before == answer(capsys, "eval", "dense", "--data", "digits")["top1"]
    assert cut == answer(capsys, "eval", "slim/cut", "--data", "digits")["top1"]
    tuned = answer(capsys, "eval", "slim", "--data", "digits")["top1"]
    assert tuned == found["trained"]["test_accuracy"] > max(cut, 0.9)
    structure = read_structure("slim")
    assert isinstance(structure, ExternalModel)
    assert structure.removed == tuple(found["removed"]) != ()
    assert read_notation(str(structure), structure.name) == structure
    assert sum(parameter.numel() for parameter in load("slim").parameters()) == found["parameters"][1]
    files = {path: path.read_bytes() for path in Path("slim").rglob("*") if path.is_file()}
    shutil.rmtree("runs")
    assert answer(capsys, *asked) == found
    assert not Path("runs").exists()  # nothing is measured again
    assert {path: path.read_bytes() for path in files} == files
    for path in Path("slim").glob("model.*"):
        path.unlink()  # as if it had been killed while it was trained
    assert answer(capsys, *asked)["trained"] == found["trained"]
    assert "got a network from another command, expected one from this command" in fault(capsys, *asked, "--exclude", "stem")


def test_what_is_pruned_is_pruned_again(capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "align", "dense", *IMPORTANCE, "--target-ratio", "0.6", *V100, "--into", "once")
    found = answer(capsys, "align", "once", *IMPORTANCE, "--target-ratio", "0.8", *V100, "--into", "twice")
    once, twice = read_structure("once"), read_structure("twice")
    assert isinstance(once, ExternalModel)
    assert isinstance(twice, ExternalModel)
    assert once.removed
    assert twice.removed == (*once.removed, *found["removed"])
    assert answer(capsys, "eval", "twice", "--data", "digits")["top1"] == found["accuracy"][1]


def test_what_each_group_keeps_is_told_and_so_are_the_blocks_that_are_gone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["align", "dense", *IMPORTANCE, "--target-ratio", "0.6", *V100]) == 0
    said = capsys.readouterr().out
    assert " of 2 residual blocks removed: blocks." in said
    assert "importance kept: " in said
    assert "estimated: " in said
    assert "before any further training" in said


def test_channels_are_kept_by_their_importance_in_a_cut_by_the_papers_objective_too(capsys: pytest.CaptureFixture[str]) -> None:
    module = load("dense")
    with torch.no_grad():
        module.blocks[1].conv1.weight[::2] *= 100  # large filters that nothing comes of
        for tensor in (module.blocks[1].bn1.weight, module.blocks[1].bn1.bias):
            tensor[::2] = 0
    save_weights(module, Path("dense/model.safetensors"))
    whole = answer(capsys, "eval", "dense", "--data", "digits")["top1"]
    Path("widths.yaml").write_text("name: cut\nwidths: {blocks.1.conv1: 16}\n")
    cut = ("align", "dense", "--pruned", "widths.yaml", "--data", "digits", *V100, "--target-ratio", "0.99", "--criterion")
    assert answer(capsys, *cut, "l1")["accuracy"][0] < whole == answer(capsys, *cut, "taylor")["accuracy"][0]


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        (("dense", "--objective", "importance"), "--objective importance: got no images, expected training images"),
        (("dense", *IMPORTANCE), "--target-ratio: got none with --objective importance, expected the latency to reach"),
        (
            ("dense", *IMPORTANCE, "--target-ratio", "0.7", "--untrained"),
            "--objective importance: got --untrained, expected trained weights",
        ),
        (
            ("dense", *IMPORTANCE, "--target-ratio", "0.01"),
            "--target-ratio: got 0.01, expected a ratio that the smallest network on offer reaches",
        ),
        (
            ("dense", *IMPORTANCE, "--target-ratio", "0.7", "--scale", "width", "--mode", "accuracy"),
            "--scale: got --objective importance too, expected one of them, as importance chooses widths and channels itself",
        ),
        (("dense", *IMPORTANCE, "--target-ratio", "0.7", "--criterion", "l2"), "--criterion l2: got --objective importance too"),
        (
            ("dense", *IMPORTANCE, "--target-ratio", "0.7", "--solver", "exact"),
            "--solver exact: got --objective importance too, expected one of them, as importance chooses widths",
        ),
        ((OURS, *IMPORTANCE, "--target-ratio", "0.7"), "--objective importance: got a network of super-blocks"),
        (("timm:test_byobnet", *IMPORTANCE, "--target-ratio", "0.7"), "timm:test_byobnet: got no trained weights (got no"),
        (
            (f"{NETS}:Residual", "--example", "1,1,8,8", *IMPORTANCE, "--target-ratio", "0.7"),
            "got random weights, which differ at every call",
        ),
        (("dense", "--recipe", "quick.yaml"), "--recipe: got no --into, expected a folder"),
        (("dense", "--recipe", "quick.yaml", "--into", "dense"), "dense: got network.yaml, model.safetensors, "),
        (
            ("dense", "--criterion", "taylor"),
            "--criterion taylor: got no images, expected some to score the channels by; give --data FOLDER",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], law: str) -> None:
    assert law in fault(capsys, "align", *arguments, *V100)


def test_a_block_to_remove_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = to_yaml(read_structure("dense")).replace("name: dense", "name: wrong\nremoved: [blocks.7]")
    Path("wrong.yaml").write_text(wrong)
    said = fault(capsys, "latency", "wrong.yaml", *V100)
    assert said == f"removed: got blocks.7, expected blocks of {NETS}:residual"
