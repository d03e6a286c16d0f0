"""Networks of a user's own, from `genet import` to `genet export`, and what is refused before anything is spent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from genet import load
from genet.arch.external import read_notation
from genet.cli import main as cli
from genet.config.reader import read_structure, read_training, to_yaml
from genet.models.external import with_fingerprint
from genet.models.weights import save_weights
from genet.pipeline.train import train_network
from genet.search.outcome import percent
from genet.studies.fold import fold
from genet.training.loop import Execution
from tests.fixtures import others
from tests.fixtures.commands import answer, fault
from tests.fixtures.tiny import RECIPE, write_recipe
from tests.models.test_plain import as_it_was, foreign

BRIEF = "name: brief\ndata: {name: digits, nas_validation: 0.25}\ntrain: {epochs: 1, batch: 128, learning_rate: 0.1MORE}\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folders lie, and no hub answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    Path("brief.yaml").write_text(BRIEF.replace("MORE", ""))
    Path("mixed.yaml").write_text(BRIEF.replace("MORE", ", mixup: 0.2, ema: 0.9"))


def take(name: str) -> tuple[str, ...]:
    return ("import", f"tests.fixtures.others:{name}", "--size", "8", "--channels", "1", "--classes", "10", "--into", "mine")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("main_last", "trained by its logits, [2] of its output", marks=pytest.mark.slow),
        pytest.param("masked", "training moves the zeros too", marks=pytest.mark.slow),
        ("Convolutional", ""),
    ],
)
def test_it_is_imported_trained_and_exported(name: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, *take(name))
    images = torch.randn(3, 1, 8, 8)
    assert torch.allclose(load("mine")(images), as_it_was(getattr(others, name))(images), atol=1e-6)
    assert cli.main(["train", "mine/network.yaml", "--recipe", "mixed.yaml", "--into", "trained"]) == 0
    assert told in capsys.readouterr().out
    assert load("trained")(images).shape == (3, 10)
    assert answer(capsys, "export", "trained", "--format", "onnx")["exports"] == ["trained/export"]


def test_the_onnx_file_of_an_imported_network_tells_its_accuracy_on_images_that_are_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genet.export.format_latency.BRIEFLY_S", 0.0)
    answer(capsys, *take("Convolutional"))
    (found,) = answer(capsys, "export", "mine", "--format", "onnx", "--data", "digits")["formats"].values()
    (onnx,) = (each for each in found["exported"] if each["format"] == "onnx")
    assert onnx["test_images"] == 359
    assert onnx["accuracy"] == answer(capsys, "eval", "mine/export/model.onnx", "--data", "digits")["top1"]
    assert f"| {percent(onnx['accuracy'])} | {onnx_ms(found):.4f} in onnxruntime, " in Path("mine/card.md").read_text()


def onnx_ms(found: dict[str, Any]) -> float:
    """The latency of an export's ONNX file, in milliseconds per image."""
    serving = found["serving"]
    return next(one["ms"] for one in serving["served"] if one["format"] == "onnx") / serving["batch"]


class Sigmoids(others.Net):
    """The network with another activation, and weights of the same shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.mid[2] = nn.Sigmoid()


def test_a_function_that_was_edited_is_not_taken_for_the_one_that_was_trained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(capsys, *take("plain"))
    train = ("train", "mine/network.yaml", "--recipe", "brief.yaml", "--into", "trained")
    found = answer(capsys, *train)
    network = read_structure("mine")
    assert read_notation(str(network), network.name) == network
    with monkeypatch.context() as edited:
        edited.setattr(others, "plain", Sigmoids)
        for command in (train, ("eval", "trained", "--data", "digits"), ("latency", "mine/network.yaml"), ("export", "trained")):
            said = fault(capsys, *command)
            assert "tests.fixtures.others:plain no longer computes what it did when this network was imported" in said
            assert said.count("\n") == 0
        Path("mine").rename("before")
        answer(capsys, *take("plain"))
        assert "network.yaml: got the file of another training, expected that of this one" in fault(capsys, *train)
        assert str(read_structure("mine")) != str(network)
    Path("mine").rename("edited")
    Path("before").rename("mine")
    assert answer(capsys, *train) == found


def test_a_network_that_an_earlier_version_took_in_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(capsys, *take("plain"))
    network = read_structure("mine")
    for folder in ("mine", "old"):
        save_weights(load("mine"), Path(folder, "model.safetensors"))
    Path("old/network.yaml").write_text(to_yaml(network.model_copy(update={"computes": None})))
    assert str(read_structure("old")) == "tests.fixtures.others:plain @8x1 | 10"
    answer(capsys, "eval", "old", "--data", "digits")
    answer(capsys, "train", "mine/network.yaml", "--recipe", "brief.yaml", "--from", "old", "--into", "on")


@pytest.mark.parametrize("function", [others.scaled_by_numpy, others.scaled_by_torch])
def test_a_function_that_computes_otherwise_at_every_call_has_no_note_of_that(function: Callable[[], nn.Module]) -> None:
    assert with_fingerprint(foreign(function)).computes is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("plain", "its weights are random: the function loads none"),
        ("loaded", "to name them, write mine/labels.txt"),
        ("loaded_but_for_its_head", "with its weights, but random ones in head.weight: the function loads none for them"),
    ],
)
def test_an_import_says_if_weights_are_random_and_else_that_names_of_classes_are_missing(
    name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(take(name)) == 0
    said = capsys.readouterr().out
    assert told in said
    assert ("random" in said) == (name != "loaded")


def test_a_network_that_looks_at_values_is_refused_before_it_is_trained_in_vain(capsys: pytest.CaptureFixture[str]) -> None:
    said = fault(capsys, *take("Branches"))
    assert said.startswith("mine failed to run on images of 1 x 8 x 8 that have a shape but no values (")
    assert "\n" not in said
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("INSTANCE", "got a network, expected a function or class that builds one; write def build(): return INSTANCE"),
        ("OnCuda", "remove .cuda() and .to() from its code"),
    ],
)
def test_what_a_function_does_wrong_is_told_with_the_way_out(name: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in fault(capsys, *take(name))


def test_two_notations_are_trained_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    networks = [f"@8x1 | Conv k3 c8 s2 | XX k3 c{width} s2 d1 | 10" for width in (8, 16)]
    folders = {answer(capsys, "train", network, "--recipe", "brief.yaml")["folder"] for network in networks}
    assert len(folders) == 2


def test_a_batch_larger_than_the_training_set_is_told_and_the_card_states_what_was_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("huge.yaml").write_text(BRIEF.replace("MORE", "").replace("batch: 128", "batch: 4096"))
    assert cli.main(["train", "@8x1 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | 10", "--recipe", "huge.yaml", "--into", "trained"]) == 0
    assert "batch 4,096 is reduced to 1,078" in capsys.readouterr().out
    answer(capsys, "export", "trained", "--format", "pt2")
    assert "batch: 1078" in Path("trained/card.md").read_text()


def test_what_is_folded_is_trained_on_mixed_images_too() -> None:
    folded = fold(foreign(others.main_first), 4)
    train_network(Path("folded"), folded, read_training("mixed.yaml"), Execution(), fold=4)
    assert load("folded")(torch.zeros(1, 4, 8, 8)).shape == (1, 40)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("frozen", "got weights that are all frozen, expected some to train"),
        ("Taught", "failed in training mode when given only images"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_nothing_is_written(
    name: str, law: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, *take(name))
    assert law in fault(capsys, "train", "mine/network.yaml", "--recipe", "brief.yaml", "--into", "trained")
    assert not Path("trained/network.yaml").exists()


def test_weights_that_are_frozen_stay_and_the_rest_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, *take("half_frozen"))
    answer(capsys, "train", "mine/network.yaml", "--recipe", "brief.yaml", "--from", "mine", "--into", "trained")
    before, after = load("mine").state_dict(), load("trained").state_dict()
    assert torch.equal(before["stem.0.weight"], after["stem.0.weight"])
    assert not torch.equal(before["mid.0.weight"], after["mid.0.weight"])


def test_a_function_is_named_by_its_folder_where_it_cannot_be_named_itself(capsys: pytest.CaptureFixture[str]) -> None:
    own = "tests.fixtures.others:plain"
    trained = ("train", own, "--recipe", "brief.yaml")
    told = fault(capsys, "train", "timm:gernet_s.idstcv_in1k", "--recipe", "brief.yaml")
    assert "genet import timm:gernet_s.idstcv_in1k --into" in told
    for command in (("latency", own), trained, ("survey", own, "--device", "estimate:v100"), ("eval", own, "--data", "digits")):
        assert f"genet import {own} --into FOLDER makes" in fault(capsys, *command)


def test_the_recipe_of_a_search_is_told_from_that_of_one_training_and_a_run_from_a_recipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = "@8x1 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | Conv k1 c8 | 10"
    write_recipe(Path())
    (said,) = fault(capsys, "train", network, "--recipe", "tiny.yaml").splitlines()
    assert said.startswith(
        "tiny.yaml: got the recipe of a search (it has distill, master, race, select, space), expected one for the training of a "
        "single network, which holds name, data, augment, device, train, seed, log; give one such as "
    )
    Path("folder").mkdir()
    assert fault(capsys, "run", "folder") == "folder: got a folder, expected a recipe; name the recipe's file"
    Path("folder/recipe.yaml").write_text(RECIPE)
    assert fault(capsys, "run", "folder") == (
        "folder: got the folder of a run, expected a recipe; genet run folder/recipe.yaml --run folder resumes it"
    )


def test_an_onnx_file_from_elsewhere_is_not_timed_and_is_not_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.onnx").touch()
    said = fault(capsys, "latency", "mine.onnx")
    assert said.startswith("mine.onnx: got a file from elsewhere, expected one in the folder of a genet export")


def test_a_teacher_that_cannot_be_fetched_is_missed_before_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(
        Path(),
        RECIPE.replace(
            "epochs: 2, batch: 64, learning_rate: 0.4}\n",
            "epochs: 2, batch: 64, learning_rate: 0.4, teacher: 'timm:test_byobnet'}\n",
        ),
    )
    said = fault(capsys, "run", "tiny.yaml", "--run", "run")
    assert said.startswith("teacher: got timm:test_byobnet (timm:test_b")
    assert said.endswith("expected timm:MODEL or a trained network's folder")
    assert "got no answer from 127.0.0.1:9 and no copy in the cache" in said
    assert not Path("run/latency.jsonl").exists()


def test_weights_of_timm_that_cannot_be_fetched_are_said_to_be_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "timm:gernet_s", "--into", "mine"]) == 0
    assert "without weights: got no answer from 127.0.0.1:9 and no copy in the cache" in capsys.readouterr().out
    assert "got no trained weights" in fault(capsys, "rank", "timm:test_byobnet", "--size", "64")
    assert "timm:test_byobnet: got no answer from 127.0.0.1:9" in fault(capsys, "eval", "timm:test_byobnet", "--data", "digits")
