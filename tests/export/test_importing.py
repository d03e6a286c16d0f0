"""Networks taken in from elsewhere: the same structure, the same weights, or one line why not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf
from timm.models.byobnet import model_cfgs

from genet.arch.network import Input
from genet.arch.paper_notation import to_genet_string
from genet.config.reader import read_network
from genet.errors import GenetError, SpecError
from genet.export.format import TrainedModel
from genet.export.importing import import_network
from genet.models.build import GENet
from tests.config.test_file_kinds import torch_file
from tests.fixtures.small import NETWORK

READS = Input(channels=1, classes=10, resolution=12)
LARGE = model_cfgs["gernet_l"]  # named by a test as MODULE:ATTRIBUTE


@pytest.mark.parametrize("part", ["timm", "."])
def test_a_folder_of_timms_or_of_our_own_comes_with_its_weights(exported, module: GENet, part: str) -> None:
    found = import_network(str(exported[0] / part), READS, "small")
    assert found.network == NETWORK
    assert found.why_no_weights is None
    assert found.module is not None
    images = TrainedModel(module).images(4)
    with torch.inference_mode():
        assert np.array_equal(found.module.eval()(images).numpy(), module(images).numpy())


def test_class_names_from_elsewhere_that_no_line_can_hold_are_refused(exported, tmp_path: Path) -> None:
    shutil.copytree(exported[0] / "timm", tmp_path / "timm")
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    config["label_names"] = ["a\nb", "\udcfc", *map(str, range(8))]
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        SpecError, match=r"got label_names 'a\\nb', '\\xfc', expected names that each stand on a line of labels.txt"
    ):
        import_network(str(tmp_path / "timm"), READS, "small")


@pytest.mark.parametrize("as_file", [False, True])
def test_a_genet_string_is_a_structure_alone(tmp_path: Path, as_file: bool) -> None:
    text = to_genet_string(NETWORK)
    (tmp_path / "it.txt").write_text(text)
    found = import_network(str(tmp_path / "it.txt") if as_file else text, READS, "small")
    assert found.network == NETWORK
    assert found.module is None
    assert found.why_no_weights == "the notation holds none"


@pytest.mark.parametrize("part", ["timm", "."])
def test_a_folder_without_weights_is_a_structure_alone(exported, tmp_path: Path, part: str) -> None:
    shutil.copytree(exported[0] / part, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    found = import_network(str(tmp_path / "bare"), READS, "small")
    assert (found.network, found.module, found.why_no_weights) == (NETWORK, None, "the folder holds none")


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_that_timm_wrote_itself_is_taken_with_its_weights(tmp_path: Path, safe: bool) -> None:
    model = timm.create_model("gernet_s", num_classes=4).eval()
    save_for_hf(model, tmp_path / "it", safe_serialization=safe)
    found = import_network(str(tmp_path / "it"), READS, "it")
    assert found.network.input.classes == 4
    assert found.module is not None
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(found.module(images), model(images), rtol=1e-3, atol=1e-4)


def test_a_string_longer_than_a_file_name_may_be_is_read() -> None:
    named = to_genet_string(NETWORK).replace("ConvKX(", f"ConvKX({'uuid' * 80}|", 1)
    assert import_network(named, READS, "small").network == NETWORK


def test_a_byomodelcfg_is_named_by_its_module() -> None:
    found = import_network("tests.export.test_importing:LARGE", Input(channels=3, classes=1000, resolution=256), "large")
    assert found.network == read_network("genet-large")
    assert found.module is None


def test_weights_that_are_anothers_are_refused(exported, tmp_path: Path) -> None:
    shutil.copytree(exported[0] / "timm", tmp_path / "timm")
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    config["model_args"]["blocks"][0]["c"] = 32
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config))
    with pytest.raises(GenetError, match=r"timm: loading its weights into the model that its config.json describes failed"):
        import_network(str(tmp_path / "timm"), READS, "small")


@pytest.mark.parametrize(
    ("what", "law"),
    [
        ("timm:resnet50", r"must be one of its ByobNets, such as gernet_l, .*\(got resnet50\)"),
        ("timm:gernet_xl", "is not the name of a timm model"),
        ("timm:gernet_l.no_such_tag", "is not the name of a timm model"),
        ("nowhere", "expected timm:MODEL, a folder with config.json"),
        ("tests.export.test_importing:READS", "got a Input, expected timm's ByoModelCfg or a function that builds a network"),
        ("ConvKX(3,8", "a GENet string must be made of"),
        ("best.pth", r"best\.pth: got no file or folder of that name here, expected timm:MODEL, a folder with "),
        ("x" * 400, r"^x{60}: looking for it failed \(File name too long\), expected timm:MODEL, "),
        (
            "tests/fixtures/others.py:plain",
            r"got a file, expected MODULE:FUNCTION; write others:plain, with tests/fixtures in PYTHONPATH",
        ),
        ("others.py:plain", r"got a file, expected MODULE:FUNCTION; write others:plain$"),
        ("nowhere.net:plain", r"got no module nowhere in /.* or on PYTHONPATH; go to the folder of nowhere\.py, or"),
        (
            "tests.fixtures.others:Draws",
            r"got two outputs for one image in eval mode, expected the same each time; .* training=self\.training in F\.dropout",
        ),
        (
            "tests.fixtures.others:broken",
            r"got logits that are not finite, expected finite ones; its weights are not finite either: mid\.0\.weight$",
        ),
        (
            "tests.fixtures.others:Probable",
            r"got probabilities, which sum to 1 for each image, expected logits, .*; leave it out",
        ),
        (
            "tests.fixtures.others:OverTheBatch",
            r"got an output that depends on the other images of the batch, expected none",
        ),
        ("tests.fixtures.others:scaled_by_numpy", "building it again from its weights gave another network"),
    ],
)
def test_what_cannot_be_taken_in_says_what_can(what: str, law: str) -> None:
    with pytest.raises(GenetError, match=law):
        import_network(what, READS, "it")


def test_a_text_that_is_no_genet_string_is_named_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "it.txt").write_text("timm:gernet_l")
    with pytest.raises(
        SpecError, match=r"it\.txt: got a text that begins with 'timm:gernet_l', expected .* a GENet string or its file;"
    ):
        import_network(str(tmp_path / "it.txt"), READS, "it")


@pytest.mark.parametrize(
    ("name", "data", "law"),
    [
        ("best.pth", torch_file({"state_dict": {}, "w": torch.ones(1)}), "got a PyTorch file of weights under 'state_dict'"),
        ("best.pth", b"<html>404</html>", "got a web page, as left by a failed download, .*; download the file again"),
        ("best.pth", b"", "got an empty file"),
        ("best.pth", b"\x00\xff\x1b[31m", "got a file that is not text, .*; name the function that builds the network"),
        ("network.yaml", b"name: it", r"got the network\.yaml of a network, .*; name its folder"),
    ],
)
def test_a_file_that_is_no_text_of_ours_is_said_to_be_what_it_is(tmp_path: Path, name: str, data: bytes, law: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SpecError, match=r"expected timm:MODEL, .*MODULE:FUNCTION, or a GENet string or its file; ") as refused:
        import_network(str(tmp_path / name), READS, "it")
    assert re.search(law, str(refused.value))
    assert str(refused.value).isprintable()


def test_a_folder_without_a_network_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(GenetError, match=r"got a folder without a network, expected timm:MODEL, .* or its file$"):
        import_network(str(tmp_path), READS, "it")
    (tmp_path / "best.pth").write_bytes(torch_file({"w": torch.ones(1)}))
    with pytest.raises(
        GenetError, match=r"got a folder without a network, .*; best\.pth in it is a PyTorch file of weights, without the network"
    ):
        import_network(str(tmp_path), READS, "it")
    (tmp_path / "networks").mkdir()
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(GenetError, match=r"it is a run: name one of the folders in .*networks"):
        import_network(str(tmp_path), READS, "it")


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"architecture": "gernet_l", "model_args": null}'])
def test_a_config_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SpecError, match=r"config\.json: got .*, expected the config\.json of a timm model"):
        import_network(str(tmp_path), READS, "it")
