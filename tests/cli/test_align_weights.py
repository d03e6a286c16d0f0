"""`genet align` on networks with ways of their own: which layers move, whose weights stay, and what accuracy they keep."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from genet import load
from genet.cli import main as cli
from genet.config.reader import to_yaml
from genet.models.external import build_structure
from genet.models.weights import read_labels, save_weights, write_labels
from tests.fixtures import others
from tests.fixtures.commands import answer, fault
from tests.models.test_plain import as_it_was, foreign

V100 = ("--device", "estimate:v100", "--dtype", "fp16", "--runtime", "cudagraph", "--batch", "512", "--param-tolerance", "0.9")
TIMMS = ("align", "timm:test_byobnet", "--size", "64", "--device", "estimate:v100", "--batch", "1")
TIMMS = (*TIMMS, "--mode", "accuracy", "--scale", "width", "--into", "wide")


def own(name: str) -> tuple[str, ...]:
    return ("align", f"tests.fixtures.others:{name}", "--example", "1,1,8,8", *V100)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `runs/align` is written, and no hub answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", ["parametrized", "hooked", "half"])
def test_what_is_written_of_any_network_is_loaded_again(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, *own(name), "--into", "aligned")
    assert found["widths"]
    loaded, images = load("aligned"), torch.randn(3, 1, 8, 8)
    assert loaded(images).shape == (3, 10)
    assert sum(p.numel() for p in loaded.parameters()) == found["parameters"][1]


def test_pruned_filters_are_cut_first_and_the_rest_answers_as_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*own("masked"), "--include", "mid", "--into", "cut"]) == 0
    assert "masked: made plain weights: mid.0.weight (a mask, 32% of it zero)" in capsys.readouterr().out
    images = torch.randn(3, 1, 8, 8)
    assert load("cut").get_submodule("mid.0").out_channels == 40
    assert torch.allclose(load("cut")(images), as_it_was(others.masked)(images), atol=1e-5)


@pytest.mark.parametrize(
    ("patterns", "moved"),
    [
        ((), {"stem.0", "mid.0"}),
        (("--include", "stem*"), {"stem.0"}),
        (("--include", "m?d", "--include", "stem.0"), {"stem.0", "mid.0"}),
        (("--exclude", "mid"), {"stem.0"}),
        (("--include", "*.0", "--exclude", "stem.[01]"), {"mid.0"}),
    ],
)
def test_layers_move_as_their_names_are_included_and_excluded(
    capsys: pytest.CaptureFixture[str], patterns: tuple[str, ...], moved: set[str]
) -> None:
    assert set(answer(capsys, *own("plain"), *patterns)["widths"]) == moved


def test_layers_that_share_their_channels_with_one_that_is_left_out_stay_too(capsys: pytest.CaptureFixture[str]) -> None:
    tangled = ("align", "tests.fixtures.align_networks:tangled", "--example", "1,3,16,16", *V100)
    cli.main([*tangled, "--exclude", "outer"])
    assert "stem.0 stays as it is: outer.0, whose channels it shares, is left out" in capsys.readouterr().out
    ours = "@32x3 | Conv k3 c24 s1 | XX k3 c72 s2 d2 | BL k3 c200 s2 d2 r0.4 | Conv k1 c320 | 10"
    assert set(answer(capsys, "align", ours, *V100, "--include", "stages.*")["widths"]) <= {"stages.0", "stages.1"}
    assert "the layers are stem, stages.0, stages.1, head" in fault(capsys, "align", ours, *V100, "--include", "layer1")


def test_layers_that_share_a_weight_or_feed_an_auxiliary_head_stay(capsys: pytest.CaptureFixture[str]) -> None:
    for name, reason in (
        ("Tied", "one.0 stays as it is: one.0 and other.0 share a weight"),
        ("main_first", "fails in training"),
    ):
        assert cli.main([*own(name), "--into", name]) == 0
        assert reason in capsys.readouterr().out
    assert load("main_first").train()(torch.randn(2, 1, 8, 8))[1].shape == (2, 10)


def test_the_accuracy_is_told_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    structure = foreign(others.masked)
    save_weights(build_structure(structure), Path("mine/model.safetensors"))
    Path("mine/network.yaml").write_text(to_yaml(structure))
    found = answer(capsys, "align", "mine", *V100, "--data", "digits", "--include", "mid", "--into", "cut")
    before, after = found["accuracy"]
    assert before == after == answer(capsys, "eval", "mine", "--data", "digits")["top1"]  # what is cut off was pruned
    moved = answer(capsys, "align", "mine", *V100, "--data", "digits", "--into", "narrow")["accuracy"]
    assert moved == [before, answer(capsys, "eval", "narrow", "--data", "digits")["top1"]]


def test_the_names_of_the_classes_go_along_with_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    structure = foreign(others.plain)
    save_weights(build_structure(structure), Path("mine/model.safetensors"))
    Path("mine/network.yaml").write_text(to_yaml(structure))
    write_labels(Path("mine"), tuple("1032547698"))
    answer(capsys, "align", "mine", *V100, "--into", "narrow")
    assert read_labels(Path("narrow")) == tuple("1032547698")


def test_without_weights_at_hand_nothing_is_measured_or_written_unless_fresh_ones_will_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = fault(capsys, *TIMMS)
    assert said.startswith("timm:test_byobnet: got no trained weights (got no")
    assert said.endswith("or --untrained for fresh ones")
    assert not Path("runs").exists()
    answer(capsys, *TIMMS, "--untrained")
    assert load("wide")(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_the_shape_of_a_cut_network_without_its_weights_is_none_to_keep_weights_of(capsys: pytest.CaptureFixture[str]) -> None:
    narrow = foreign(others.plain).model_copy(update={"layers": {"head": (10, 48)}})
    Path("network.yaml").write_text(to_yaml(narrow))
    assert "got no trained weights (there are none beside it), expected some, of which the best are kept" in fault(
        capsys, "align", "network.yaml", *V100, "--into", "x"
    )
    answer(capsys, "align", "network.yaml", *V100, "--into", "x", "--untrained")


def test_what_would_not_come_back_is_refused_before_it_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert "building it again from its weights gave another network" in fault(capsys, *own("scaled_by_numpy"), "--into", "x")
    assert not Path("runs").exists()
