"""`genet align` as a user meets it, and what becomes of its networks: trained on, evaluated, exported."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from genet import load
from genet.arch.external import ExternalModel
from genet.arch.network import Input, Network
from genet.cli import main as cli
from genet.config.reader import read_recipe, read_structure, to_yaml
from genet.latency.table import LatencyTable, settings
from genet.models.build import build
from genet.models.external import build_structure
from genet.models.weights import save_weights
from genet.pipeline.run_folder import RunFolder
from genet.storage import Journal
from tests.fixtures import align_networks as nets
from tests.fixtures.commands import answer, fault
from tests.fixtures.tiny import RECIPE, write_recipe

V100 = ("--device", "estimate:v100", "--dtype", "fp16", "--runtime", "cudagraph", "--batch", "512")
VGG = ("align", "genet.models.cifar:vgg16", "--example", "1,3,32,32")
NETS = "tests.fixtures.align_networks"
TANGLED = ("align", f"{NETS}:tangled", "--example", "1,3,16,16")
OURS = "@32x3 | Conv k3 c24 s1 | XX k3 c72 s2 d2 | BL k3 c200 s2 d2 r0.4 | Conv k1 c320 | 10"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `runs/align` is written."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_hranks_vgg_has_its_authors_parameters_and_becomes_faster_with_as_many(capsys: pytest.CaptureFixture[str]) -> None:
    """Tail-effect paper, table 2: HRank's VGG16 has 1.90 M parameters."""
    found = answer(capsys, *VGG, "--pruned", "hrank-vgg16", *V100)
    assert found["parameters"][0] / 1e6 == pytest.approx(1.90, abs=0.005)
    assert found["ratio"] < 0.95
    assert abs(found["parameter_gain"]) <= 0.05
    assert found["estimate"] is True
    exact = answer(capsys, *VGG, "--pruned", "hrank-vgg16", *V100, "--solver", "exact")
    assert found["optimum"] == pytest.approx(exact["predicted"])
    assert exact["predicted"] <= found["predicted"]


@pytest.mark.slow
def test_hranks_resnet_has_its_authors_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    """Tail-effect paper, tables 2 and 5: 0.48 M; ours has projections in place of padded shortcuts."""
    found = answer(capsys, "align", "genet.models.cifar:resnet56", "--example", "1,3,32,32", "--pruned", "hrank-resnet56", *V100)
    assert found["parameters"][0] / 1e6 == pytest.approx(0.48, abs=0.015)


@pytest.mark.slow
def test_a_reduction_is_met_by_the_whole_network_or_the_best_there_is_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (*VGG, "--pruned", "hrank-vgg16", *V100, "--target-ratio")
    assert answer(capsys, *arguments, "0.9")["ratio"] <= 0.9
    assert cli.main([*arguments, "0.2", "--into", "best", "--json"]) == 0
    *_, said, written, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["reached"] is False
    assert found["ratio"] < 0.9
    law = "vgg16: --target-ratio: got 0.2, expected a ratio that neighbouring edges reach with certainty; their best is "
    assert said.startswith(f"{law}{found['ratio']:.3f}, with ")
    assert said.endswith(" parameters; the result is the best network found")  # the exact choice would be the same
    assert written.startswith("best: network written")
    assert load("best")(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.slow
def test_where_the_exact_choice_may_do_better_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    other = ("--device", "estimate:v100", *V100[2:6], "--batch", "1024")
    assert cli.main([*VGG, *other, "--param-tolerance", "0.002", "--target-ratio", "0.2"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1].endswith("; --solver exact may do better; the result is the best network found")
    )


def test_what_each_edge_would_give_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*VGG, "--pruned", "hrank-vgg16", *V100]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("features.10 ")]
    assert any("inside" in line for line in lines)
    assert any("70 -> 64: -9% filters, -" in line for line in lines)


@pytest.mark.slow
def test_widths_and_latencies_are_drawn_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, *VGG, *V100, "--plot", "widths.svg")
    drawn = Path("widths.svg").read_text()
    assert drawn.startswith("<svg")
    assert drawn.count('<g id="patch_') > 4 * len(found["places"])  # a bar before and one after, of width and of time


def test_measurements_are_kept_and_a_second_time_takes_none(capsys: pytest.CaptureFixture[str]) -> None:
    first = answer(capsys, *TANGLED, *V100)
    rows = Path("runs/align/latency.jsonl").read_bytes()
    assert answer(capsys, *TANGLED, *V100) == first
    assert Path("runs/align/latency.jsonl").read_bytes() == rows


def test_a_network_of_ours_is_aligned_by_its_spec(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "align", OURS, *V100, "--into", "aligned")
    network = read_structure("aligned")
    assert isinstance(network, Network)
    assert network.name == "network-aligned"
    assert str(network) != OURS
    assert found["widths"]["stages.0"] == network.superblocks[0].width


@pytest.mark.parametrize("name", ["model.safetensors", "labels.txt", "alignment.json"])
def test_a_file_that_an_aligned_network_would_replace_is_left_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine", name).write_bytes(b"mine")
    said = fault(capsys, *TANGLED, *V100, "--param-tolerance", "0.9", "--untrained", "--into", "mine")
    assert said == f"mine: got {name} in it, expected a folder without a network; give another --into FOLDER"
    assert Path("mine", name).read_bytes() == b"mine"


@pytest.mark.slow
def test_a_network_of_a_run_is_aligned_as_the_run_measured_and_with_what_it_measured(
    finished: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = next(path for path in (finished.path / "networks").iterdir() if path.is_dir())
    assert cli.main(["align", str(folder), "--mode", "accuracy"]) in (0, 2)  # this machine may show steps or not
    setting = next(iter(settings(finished.latency).values()))
    assert str(setting) in capsys.readouterr().out.splitlines()[0]
    theirs, ours = (LatencyTable(journal, setting) for journal in (finished.latency, Journal(Path("runs/align/latency.jsonl"))))
    assert {row.block for row in theirs.block_rows} <= {row.block for row in ours.block_rows}


def network_of_a_run(measured: str) -> str:
    """The folder of a network in a run that measured so."""
    write_recipe(Path(), RECIPE.replace("device: cpu", measured))
    RunFolder(Path("run")).adopt(read_recipe("tiny.yaml"))
    folder = Path("run/networks/one")
    folder.mkdir(parents=True)
    (folder / "network.yaml").write_text(to_yaml(Network.parse(OURS)))
    return str(folder)


def test_what_the_command_line_does_not_say_is_measured_as_the_networks_run_did(capsys: pytest.CaptureFixture[str]) -> None:
    folder = network_of_a_run("device: 'estimate:v100', dtype: fp16, batch: 512")
    for extra, setting in ((), "batch 512, fp16"), (("--batch", "256"), "batch 256, fp16"):
        assert cli.main(["align", folder, *extra]) in (0, 2)
        assert setting in capsys.readouterr().out.splitlines()[0]


def test_a_run_on_the_evidence_of_another_machine_does_not_say_where_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    folder = network_of_a_run("device: cuda, latency_file: theirs.jsonl, batch: 512")
    assert cli.main(["align", folder]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("--device: got none, expected one, as the run's latencies come from theirs")
    )
    assert cli.main(["align", folder, *V100]) in (0, 2)
    assert "on estimate:v100" in capsys.readouterr().out.splitlines()[0]


def test_a_trained_timm_network_is_aligned_with_its_own_weights(capsys: pytest.CaptureFixture[str]) -> None:
    reads = Input(channels=3, classes=7, resolution=64)
    timms = ExternalModel(name="tuned", source="timm:test_resnet", input=reads)
    module = build_structure(timms)
    save_weights(module, Path("tuned/model.safetensors"))
    Path("tuned/network.yaml").write_text(to_yaml(timms))
    grown = ("--mode", "accuracy", "--scale", "width", "--runtime", "eager", "--batch", "1")
    answer(capsys, "align", "tuned", *V100, *grown, "--into", "wide")
    images = torch.randn(3, 3, 64, 64)
    assert torch.allclose(load("wide").eval()(images), module.eval()(images), atol=1e-4)


@pytest.mark.slow
def test_a_cut_network_keeps_its_best_filters_and_is_trained_on_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = ExternalModel(
        name="dense", source="tests.cli.test_align:digit_net", input=Input(channels=1, classes=10, resolution=8)
    )
    Path("dense").mkdir()
    Path("dense/network.yaml").write_text(to_yaml(dense))
    Path("quick.yaml").write_text(
        "name: quick\ndata: {name: digits, nas_validation: 0.25}\ntrain: {epochs: 2, batch: 32, learning_rate: 0.1}\n"
    )
    Path("widths.yaml").write_text("name: cut\nwidths:\n  a.0: 35\n  b.0: 70\n")
    trained = answer(capsys, "train", "dense/network.yaml", "--recipe", "quick.yaml", "--into", "trained")
    answer(
        capsys, "align", "trained", "--pruned", "widths.yaml", *V100, "--into", "cut", "--criterion", "rank", "--data", "digits"
    )
    answer(capsys, "align", "trained", "--pruned", "widths.yaml", *V100, "--into", "by-norm", "--criterion", "l2")
    cut = read_structure("cut")
    assert isinstance(cut, ExternalModel)
    assert cut.layers["a.0"] == (32, 1)
    tuned = answer(capsys, "train", "cut/network.yaml", "--recipe", "quick.yaml", "--from", "cut", "--into", "tuned")
    anew = answer(capsys, "train", "cut/network.yaml", "--recipe", "quick.yaml", "--into", "anew")
    assert tuned["test_accuracy"] > max(anew["test_accuracy"], trained["test_accuracy"])
    exported = answer(capsys, "export", "tuned", "--data", "digits", "--format", "onnx", "--format", "pt2")
    assert exported["exports"] == ["tuned/export"]
    assert answer(capsys, "eval", "tuned/export/model.onnx", "--data", "digits")["top1"] == pytest.approx(tuned["test_accuracy"])
    assert "needs a network made of super-blocks" in fault(capsys, "export", "tuned", "--format", "timm")
    again = answer(capsys, "train", "cut/network.yaml", "--recipe", "quick.yaml", "--from", "cut", "--into", "tuned")
    assert again == tuned


def test_a_pruned_network_without_a_better_edge_is_written_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Path("widths.yaml").write_text("name: cut\nwidths:\n  a.0: 8\n  b.0: 8\n")
    asked = ("align", "tests.cli.test_align:digit_net", "--example", "1,1,8,8", "--pruned", "widths.yaml", *V100)
    assert cli.main([*asked, "--untrained", "--into", "cut"]) == 0
    *_, said, written = capsys.readouterr().out.splitlines()
    assert said.endswith("so there is nothing to gain; the result is the network as pruned")
    assert written.startswith("cut: network written")
    assert load("cut").a[0].out_channels == 8


def digit_net() -> torch.nn.Module:
    """For images of digits."""
    layers = {"a": nets.conv(1, 48), "b": nets.conv(48, 80, stride=2), "c": nets.conv(80, 80)}
    module = torch.nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    module.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    module.add_module("flat", torch.nn.Flatten())
    module.add_module("head", torch.nn.Linear(80, 10))
    return module


def test_a_widened_network_answers_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    answer(
        capsys, *TANGLED, *V100, "--mode", "accuracy", "--scale", "width", "--runtime", "eager", "--batch", "1", "--into", "wide"
    )
    wide = load("wide").eval()
    images = torch.randn(3, 3, 16, 16)
    assert sum(p.numel() for p in wide.parameters()) > sum(p.numel() for p in nets.tangled().parameters())
    assert torch.allclose(wide(images), nets.tangled().eval()(images), atol=1e-5)


@pytest.mark.parametrize("form", ["two_names", "without_scale"])
def test_whatever_is_written_is_loaded_again_and_answers_as_before(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    own, small = ("align", f"{NETS}:{form}", "--example", "1,3,16,16"), ("--runtime", "eager", "--batch", "1")
    answer(capsys, *own, *V100, *small, "--mode", "accuracy", "--scale", "width", "--into", "wide")
    images = torch.randn(3, 3, 16, 16)
    assert torch.allclose(load("wide")(images), getattr(nets, form)().eval()(images), atol=1e-5)


@pytest.mark.slow
def test_a_timm_network_grows_where_the_host_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(
        capsys, "align", "timm:test_byobnet", "--size", "64", "--mode", "accuracy", "--scale", "width,resolution",
        "--batch", "1", "--device", "estimate:v100",
    )  # fmt: skip
    assert found["best"]["measured"]["rounds"] == [pytest.approx(1.0)]
    assert found["best"]["parameters"] > 1.5 * found["parameters"]
    assert found["best"]["resolution"] > 64


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        ((*VGG, "--target-ratio", "1.5", "--param-tolerance", "0"), "0 and 1, such as 0.85 (got 1.5)\n--param-tolerance must be"),
        ((*VGG, "--mode", "accuracy", "--target-ratio", "0.9"), "--target-ratio: got --mode accuracy, which keeps the latency"),
        ((*VGG, "--scale", "depth"), "--scale: got depth, expected width, resolution or width,resolution"),
        ((*VGG, "--scale", "width"), "--scale: got --mode latency or --pruned, expected --mode accuracy"),
        (VGG[:2], "--example: got none, expected the shape of your own network's input"),
        ((*VGG[:3], "1,3,32"), "--example must be images,channels,height,width"),
        ((*VGG[:3], "1,1,32,32"), "vgg16: its module features.0 failed on images of 1 x 1 x 32 x 32"),
        (("align", "timm:resnet51"), "timm:resnet51 is not the name of a timm model; nearest: resnet5"),
        (("align", "nowhere:net", "--example", "1,3,8,8"), "importing nowhere:net as MODULE:ATTRIBUTE failed"),
        ((*TANGLED[:1], f"{NETS}:nothing", *TANGLED[2:]), "returned a int, expected a torch.nn.Module"),
        ((*TANGLED[:1], f"{NETS}:linear", *TANGLED[2:]), "linear: got no convolutions to align"),
        ((*VGG, "--mode", "accuracy", "--scale", "width", "--plot", "x.svg"), "--plot: got --scale too"),
        ((*VGG, "--criterion", "rank", "--into", "x"), "--criterion rank: got no images, expected some to score the channels by"),
        (("align", OURS, "--pruned", "hrank-vgg16"), "a network of super-blocks, expected one that other code builds"),
        (("align", OURS, "--criterion", "l2"), "--criterion: got a network of super-blocks, which is trained from scratch"),
        ((*VGG, "--data", "digits"), "digits have 1 channel and 10 classes, but the network has 3 and 10"),
        (("align", OURS, "--data", "digits"), "--data: got a network of super-blocks, which is trained from scratch"),
        ((*TANGLED, "--include", "rigth.*"), "--include: got 'rigth.*', expected a pattern that matches a layer or a "),
        ((*TANGLED, "--exclude", "left", "--include", "left"), "whose width may change, expected at least one: it is left out"),
        ((*TANGLED[:1], f"{NETS}:curious", *TANGLED[2:]), "returns one, and does not depend on the values in it"),
        (("align", "."), ".: got a folder without network.yaml, expected a network's folder"),
        ((*TANGLED, "--batch", "1"), "the bottleneck is the host, which launches its kernels: a larger --batch"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], law: str) -> None:
    assert law in fault(capsys, *arguments, "--device", "estimate:v100")


def test_a_program_that_asks_for_json_is_told_the_fault_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*VGG, "--param-tolerance", "2", "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out) == {"error": said.err.strip()}


def test_widths_that_do_not_match_the_layers_are_named_all_at_once_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(
        "name: bad\nwidths:\n  stem.0: 12\n  stem.9: 8\n  inner.0: 64\n  outer.0: 8\n  wide.0: 24\n  deep.0: 24\n"
    )
    assert fault(capsys, *TANGLED, "--pruned", "bad.yaml", *V100).splitlines() == [
        "bad.yaml:4:3: widths.stem.9: must be a convolution of the network; did you mean stem.0?",
        "bad.yaml:5:12: widths.inner.0: must be at most the present width (got 64); nearest 24",
        "bad.yaml:6:12: widths.outer.0: must equal that of stem.0, whose channels it shares (got 8); nearest 12",
    ]


def test_a_convolution_in_groups_is_cut_by_whole_groups(capsys: pytest.CaptureFixture[str]) -> None:
    Path("widths.yaml").write_text("name: bad\nwidths: {1.0: 30, 0.0: 16, 2.0: 4}\n")
    said = fault(capsys, "align", f"{NETS}:bundled", "--example", "1,3,16,16", *V100, "--pruned", "widths.yaml")
    assert said.splitlines() == [
        "widths.yaml:2:15: widths.1.0: must be a multiple of 16, as its channels come in groups (got 30); nearest 16 or 32",
        "widths.yaml:2:24: widths.0.0: must equal that of 1.0, whose channels it shares (got 16); nearest 15",
        "widths.yaml:2:33: widths.2.0: must equal that of 1.0, whose channels it shares (got 4); nearest 7",
    ]


def test_what_a_function_builds_is_imported_checked_and_timed_as_any_network(capsys: pytest.CaptureFixture[str]) -> None:
    own = ("import", f"{NETS}:tangled", "--size", "16", "--into", "own", "--classes")
    assert fault(capsys, *own, "10") == f"{NETS}:tangled: got 5 logits, expected 10; give --classes 5"
    assert not Path("own/network.yaml").exists()
    assert answer(capsys, *own, "5")["weights"] is True
    network = read_structure("own")
    assert re.fullmatch(f"{NETS}:tangled#16x3:.* @16x3 \\| 5", str(network))
    assert answer(capsys, "check", "own/network.yaml")["notation"] == str(network)
    assert answer(capsys, "latency", "own/network.yaml", *V100)["estimate"] is True
    images = torch.randn(2, 3, 16, 16)
    assert load("own")(images).shape == (2, 5)


def test_a_layer_that_is_not_there_or_has_no_width_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    text = f"name: own\nsource: {NETS}:tangled\ninput: {{channels: 3, classes: 5, resolution: 16}}\nlayers: {{LAYER: [8, 8]}}\n"
    for layer in ("nowhere", "pool"):
        Path("network.yaml").write_text(text.replace("LAYER", layer))
        said = fault(capsys, "latency", "network.yaml", *V100)
        assert said == f"layers.{layer}: must be a convolution, a linear layer or a normalisation of {NETS}:tangled"
    Path("network.yaml").write_text(text.replace(f"{NETS}:tangled", "tangled").replace("LAYER: [8, 8]", "a: [8]"))
    assert [line.split(": ")[1] for line in fault(capsys, "check", "network.yaml").splitlines()] == ["source", "layers.a[1]"]


def test_weights_of_another_network_are_no_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, width in (("one", 16), ("two", 24)):
        network = Network.parse(f"@8x1 | Conv k3 c8 s1 | XX k3 c{width} s2 d1 | Conv k1 c16 | 10", name)
        Path(name).mkdir()
        Path(f"{name}/network.yaml").write_text(to_yaml(network))
        save_weights(build(network), Path(f"{name}/model.safetensors"))
    said = fault(capsys, "train", "one/network.yaml", "--recipe", "digits", "--from", "two", "--into", "x")
    assert said.startswith("--from: got ")
    assert ", expected those of @8x1" in said
    said = fault(capsys, "train", "one/network.yaml", "--recipe", "digits", "--from", "nowhere", "--into", "x")
    assert said == "--from: got nowhere, expected a folder with network.yaml and model.safetensors; name another"
    assert not Path("x/model.json").exists()
