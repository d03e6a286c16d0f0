"""Trained networks opened again, whatever they were saved as."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import onnx
import pytest
import torch

from genet.config.preprocessing import preprocessing_at
from genet.errors import GenetError
from genet.export.exports import FORMATS
from genet.export.format import TrainedModel
from genet.export.opening import open_network
from genet.models.build import GENet
from tests.fixtures.small import NETWORK

CPU = torch.device("cpu")
RUNNABLE = ["safetensors", "timm", "onnx", "onnx-fp16", "onnx-int8", "pt2"]


@pytest.mark.parametrize("form", RUNNABLE)
@pytest.mark.parametrize("above", [False, True])
def test_a_format_is_opened_from_its_folder_or_the_one_above(exported, module: GENet, form: str, above: bool) -> None:
    folder = exported[0].parent if above else exported[0]
    if above and form == "safetensors":
        pytest.skip("the folder above holds the network itself, where it is one's")
    opened = open_network(str(folder), CPU, form)
    images = TrainedModel(module).images(3)
    with torch.inference_mode():
        assert opened.forward(images).shape == (3, 10)
    assert opened.input == NETWORK.input


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx", "model.pt2", "timm", "."])
def test_a_file_says_itself_what_it_reads(exported, file: str) -> None:
    assert open_network(str(exported[0] / file), CPU).input == NETWORK.input


def test_a_timm_model_is_shown_images_its_own_way(exported, tmp_path: Path) -> None:
    assert open_network(str(exported[0] / "timm"), CPU).preprocessing == preprocessing_at(1, 12)
    shutil.copytree(exported[0] / "timm", tmp_path / "timm")
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": [0.1], "std": [0.2], "crop_pct": 0.9, "interpolation": "bicubic"}
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config))
    assert open_network(str(tmp_path / "timm"), CPU).preprocessing == ((0.1,), (0.2,), 0.9, "bicubic", "center")


def test_weights_beside_an_onnx_file_are_read_from_there_wherever_the_command_is_given(
    exported, module: GENet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = TrainedModel(module).images(2)
    expected = open_network(str(exported[0] / "model.onnx"), CPU).forward(images)
    for folder, factor in (("good", 1.0), ("bad", -1.0)):
        model = onnx.load(exported[0] / "model.onnx")
        for weight in model.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) == 4:
                weight.CopyFrom(onnx.numpy_helper.from_array(factor * onnx.numpy_helper.to_array(weight), weight.name))
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "model.onnx"
        onnx.save(model, file, save_as_external_data=True, location="model.onnx.data", size_threshold=100)
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(file, tmp_path / "alone" / "model.onnx")
    with pytest.raises(GenetError, match=r"got no model\.onnx\.data, expected its weights beside it; copy it into"):
        open_network(str(alone), CPU)
    monkeypatch.chdir(tmp_path / "bad")  # where another network's weights have the same name
    torch.testing.assert_close(open_network("../good/model.onnx", CPU).forward(images), expected)


def test_an_onnx_file_for_one_image_at_a_time_is_told_the_way_out(exported, tmp_path: Path) -> None:
    model = onnx.load(exported[0] / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    with pytest.raises(GenetError, match=r"\(its batch is fixed at 1\); export it with a dynamic batch$"):
        open_network(str(tmp_path / "one.onnx"), CPU)


def test_a_file_from_elsewhere_needs_no_checksum_but_one_beside_it_must_hold(exported, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    shutil.copy(exported[0] / "model.onnx", file)
    assert open_network(str(file), CPU).input == NETWORK.input
    (tmp_path / "model.onnx.sha256").write_text(f"{'0' * 64}  model.onnx\n")
    with pytest.raises(GenetError, match="does not match its SHA-256"):
        open_network(str(file), CPU)


@pytest.mark.parametrize(
    ("name", "law"), [("a.onnx", "ONNX Runtime failed to open .*a.onnx"), ("a.pt2", "a.pt2: got a file that torch.export cannot")]
)
@pytest.mark.parametrize("data", [b"", b"no model", b"PK\x03\x04 and more"])
def test_a_file_that_is_no_model_is_refused_and_never_unpickled(tmp_path: Path, name: str, law: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(GenetError, match=law):
        open_network(str(tmp_path / name), CPU)


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.file,)


def test_a_program_that_hides_a_pickle_is_refused_and_the_pickle_not_read(exported, tmp_path: Path) -> None:
    buffer, caught = io.BytesIO(), tmp_path / "caught"
    torch.save(Trap(caught), buffer)
    with zipfile.ZipFile(exported[0] / "model.pt2") as whole, zipfile.ZipFile(tmp_path / "a.pt2", "w") as trapped:
        inside = [name for name in whole.namelist() if "sample_inputs" in name]
        assert inside
        for name in whole.namelist():
            trapped.writestr(name, buffer.getvalue() if name in inside else whole.read(name))
    with pytest.raises(GenetError, match=r"got a file that torch\.export cannot load .*, expected one of its programs"):
        open_network(str(tmp_path / "a.pt2"), CPU)
    assert not caught.exists()


def test_a_flipped_byte_in_timms_weights_is_noticed(exported, tmp_path: Path) -> None:
    shutil.copytree(exported[0] / "timm", tmp_path / "timm")
    data = bytearray((tmp_path / "timm" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "timm" / "model.safetensors").write_bytes(data)
    with pytest.raises(GenetError, match="does not match its SHA-256"):
        open_network(str(tmp_path / "timm"), CPU)


@pytest.mark.parametrize("change", [{"model_args": {"blocks": [{"nonsense": 1}]}}, {"num_classes": 3}, {"architecture": "none"}])
def test_a_timm_folder_whose_config_describes_another_model_is_refused(exported, tmp_path: Path, change: dict) -> None:
    shutil.copytree(exported[0] / "timm", tmp_path / "timm")
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(GenetError, match=r"timm: loading its weights into the model that its config\.json describes failed"):
        open_network(str(tmp_path / "timm"), CPU)


@pytest.mark.parametrize("kind", ["half", "two inputs", "one class"])
def test_a_foreign_onnx_file_that_is_no_classifier_of_images_is_one_line(tmp_path: Path, kind: str) -> None:
    kinds = onnx.TensorProto.FLOAT16 if kind == "half" else onnx.TensorProto.FLOAT
    images = onnx.helper.make_tensor_value_info("images", kinds, ["n", 1, 8, 8])
    answer = onnx.helper.make_tensor_value_info("answer", kinds, None)
    more = [onnx.helper.make_tensor_value_info("more", kinds, ["n", 1, 8, 8])] if kind == "two inputs" else []
    node = onnx.helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0)
    last = onnx.helper.make_node("Identity", ["mean"], ["answer"])
    graph = onnx.helper.make_graph([node, last], "graph", [images, *more], [answer])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(
        GenetError, match=r"a\.onnx: (must read square fp32 images of one size|got \d+, expected at least two classes)"
    ):
        open_network(str(tmp_path / "a.onnx"), CPU)


def test_the_notation_alone_cannot_run(exported) -> None:
    with pytest.raises(GenetError, match="got genet-string, which has no weights"):
        open_network(str(exported[0]), CPU, "genet-string")


def test_what_is_no_network_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(GenetError, match=r"must be a network's folder \(network.yaml, .* or timm:MODEL"):
        open_network(str(tmp_path), CPU)


def test_a_format_that_is_not_there_names_the_command_that_writes_it(exported, tmp_path: Path) -> None:
    for name in ("network.yaml", "model.safetensors", "model.safetensors.sha256"):
        shutil.copy(exported[0] / name, tmp_path / name)
    with pytest.raises(GenetError, match=r"does not hold the format onnx; `genet export .* --format onnx` writes it"):
        open_network(str(tmp_path), CPU, "onnx")


def test_every_format_but_the_notation_can_be_opened() -> None:
    assert {*RUNNABLE, "genet-string"} == set(FORMATS)


def test_labels_that_are_not_as_many_as_the_logits_are_told_by_their_file(exported, tmp_path: Path) -> None:
    shutil.copytree(exported[0], tmp_path / "net")
    (tmp_path / "net" / "labels.txt").write_text("red circle\nrare\n")
    with pytest.raises(GenetError, match=r"net/labels\.txt: got 2 names, expected one for each of the network's 10 logits"):
        open_network(str(tmp_path / "net"), torch.device("cpu"))
