"""`genet fold` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genet import load
from genet.arch.network import Input
from genet.config.recipe import Data
from genet.models.folded import Folded
from genet.training.accuracy import accuracy
from genet.training.splits import load_data
from tests.fixtures.commands import answer, fault

V100 = ("--device", "estimate:v100", "--dtype", "fp16", "--runtime", "tensorrt")
SMALL = "@16x1 | Conv k3 c16 s1 | XX k3 c32 s2 d1 | Conv k1 c64 | 10"
RECIPE = "name: quick\ndata: {name: digits}\ntrain: {epochs: 4, batch: 32, learning_rate: 0.4, warmup_epochs: 1}\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the recipe and the folders lie."""
    monkeypatch.chdir(tmp_path)
    Path("quick.yaml").write_text(RECIPE)


def test_networks_are_told_before_and_after_and_one_that_cannot_be_folded_does_not_stop_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = answer(capsys, "fold", "timm:resnet18", "timm:convnext_atto", "genet-light", *V100, "--plot", "folds.svg")
    assert [one["network"] for one in found["networks"]] == ["resnet18", "genet-light"]
    assert "running convnext_atto with all its layers 2 times as wide failed" in found["failed"]["convnext_atto"]
    for one in found["networks"]:
        assert one["flops"] == pytest.approx(1, rel=0.1)
        assert one["traffic"] == pytest.approx(one["flops"] * one["before"]["intensity"] / one["after"]["intensity"])
        assert one["traffic"] < 0.7
        assert one["speed"] == pytest.approx(one["after"]["images_per_sec"] / one["before"]["images_per_sec"])
        assert one["after"]["utilization"] > one["before"]["utilization"]
        assert one["speed_error"] is None
    assert "<title>resnet18, after: " in Path("folds.svg").read_text()


@pytest.mark.slow
def test_a_folded_network_is_trained_beside_the_original_and_loads_again(capsys: pytest.CaptureFixture[str]) -> None:
    command = (SMALL, "--images-per-fold", "4", "--recipe", "quick.yaml", "--into", "both", "--device", "cpu", "--batch", "8")
    found = answer(capsys, "fold", *command)
    assert found["accuracy"]["original"] > 0.3
    assert 0 < found["networks"][0]["speed_error"] < found["networks"][0]["speed"]
    inside = load("both/folded")
    assert inside(torch.zeros(1, 4, 16, 16)).shape == (1, 40)
    test = load_data(Data(name="digits"), Input(channels=1, classes=10, resolution=16), 0).test
    again = accuracy(Folded(inside, 4), test.shuffled(0), 16, torch.device("cpu"))
    assert again == pytest.approx(found["accuracy"]["folded"])
    before = {file: file.stat().st_mtime_ns for file in Path("both").rglob("model.*")}
    assert answer(capsys, "fold", *command)["accuracy"] == found["accuracy"]
    assert {file: file.stat().st_mtime_ns for file in Path("both").rglob("model.*")} == before


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        (
            ("timm:resnet18", "--images-per-fold", "5"),
            "--images-per-fold: got 5 for a batch of 64, expected a divisor of the batch; try --batch 65",
        ),
        (
            ("timm:resnet18", "--images-per-fold", "1"),
            "--images-per-fold: got 1, expected at least 2, such as 4",
        ),
        (("timm:resnet51",), "is not the name of a timm model; nearest"),
        (("timm:resnet18", "--recipe", "digits"), "--recipe and --into: got one alone or several networks"),
        (
            ("timm:resnet18", "--recipe", "digits", "--into", "x", *V100),
            "--recipe: got --device estimate:v100, expected a device of this machine",
        ),
        (("timm:convnext_atto", *V100), "running convnext_atto with all its layers 2 times as wide failed"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], law: str) -> None:
    assert law in fault(capsys, "fold", *arguments)
