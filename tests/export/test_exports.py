"""Exports: whole or not at all, kept as long as they are the network's own, compared before they count."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import genet
from genet.arch.network import Network
from genet.config.reader import read_network
from genet.errors import GenetError, StorageError
from genet.export import exports as writing
from genet.export.exports import FORMATS, export
from genet.export.format import TrainedModel
from genet.export.format_latency import RUNTIMES
from genet.export.manifest import EVIDENCE_FILE, Exports
from genet.models.build import GENet, build
from genet.models.weights import load_weights, save_weights
from genet.training.splits import Splits
from tests.fixtures.small import NETWORK, with_own_statistics


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def logits(module: torch.nn.Module, batch: int) -> np.ndarray:
    images = torch.randn(batch, 1, 12, 12, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        return module(images).numpy()


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_an_export_replaces_the_whole_folder_by_its_files_and_leaves_nothing_beside_it(exported) -> None:
    folder, found = exported
    files = {name for each in found.exported for name in each.files}
    assert contents(folder).keys() == files | {f"{name}.sha256" for name in files} | {EVIDENCE_FILE}
    assert [path.name for path in folder.parent.iterdir()] == ["export"]
    assert [each.format for each in found.exported] == list(FORMATS)
    assert Exports.load(folder / EVIDENCE_FILE) == found


def test_the_network_reads_back_as_it_was_with_its_name(exported) -> None:
    network = read_network(exported[0] / "network.yaml")
    assert network == NETWORK
    assert network.name == "small"


def test_a_network_without_a_head_or_a_super_blocks_blocks_is_exported_and_loaded_again(splits: Splits, tmp_path: Path) -> None:
    notation = "@12x1 | Conv k3 c8 s2 | DW k3 c24 s1 d0 r3 | XX k3 c16 s1 d1 | BL k3 c24 s2 d1 r1 | 10"
    headless = with_own_statistics(build(Network.parse(notation))).eval()
    found = export(TrainedModel(headless, splits, "digits"), tmp_path / "export")  # which compares the logits of each
    assert [each.format for each in found.exported] == list(FORMATS)
    assert genet.load(tmp_path / "export").network.head is None
    assert json.loads((tmp_path / "export/timm/config.json").read_text())["num_features"] == 24


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_loaded_network_gives_the_modules_logits_bit_for_bit(module: GENet, exported, batch: int) -> None:
    loaded = genet.load(str(exported[0]))
    assert not loaded.training
    assert np.array_equal(logits(loaded, batch), logits(module, batch))


@pytest.mark.parametrize("name", ["onnx", "onnx-fp16", "onnx-int8"])
def test_an_onnx_file_holds_its_weights_itself_and_leaves_the_batch_free(exported, name: str) -> None:
    (file,) = next(each.files for each in exported[1].exported if each.format == name)
    model = onnx.load(exported[0] / file, load_external_data=False)
    onnx.checker.check_model(model)
    assert [tensor.name for tensor in model.graph.initializer if tensor.external_data] == []
    (given,), (answer,) = model.graph.input, model.graph.output
    assert (given.name, answer.name) == ("images", "logits")
    assert [size.dim_value for size in given.type.tensor_type.shape.dim] == [0, 1, 12, 12]
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def kinds(folder: Path, file: str) -> set[str]:
    return {node.op_type for node in onnx.load(folder / file).graph.node}


def weight_types(folder: Path, file: str) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(folder / file).graph.initializer if len(tensor.dims) == 4}


def test_batch_normalisation_is_fused_in_all_onnx_files(exported) -> None:
    for file in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        assert "BatchNormalization" not in kinds(exported[0], file)
        assert "Conv" in kinds(exported[0], file)


def test_fp16_and_int8_files_hold_weights_of_their_type(exported) -> None:
    assert weight_types(exported[0], "model.onnx") == {onnx.TensorProto.FLOAT}
    assert weight_types(exported[0], "model.fp16.onnx") == {onnx.TensorProto.FLOAT16}
    assert weight_types(exported[0], "model.int8.onnx") == {onnx.TensorProto.INT8}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds(exported[0], "model.int8.onnx")


def test_int8_is_symmetric_as_tensorrt_wants_it(exported) -> None:
    graph = onnx.load(exported[0] / "model.int8.onnx").graph
    zeros = {node.input[2] for node in graph.node if node.op_type == "DequantizeLinear" and len(node.input) > 2}
    found = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in zeros]
    assert found
    assert all((zero == 0).all() for zero in found)
    assert {zero.dtype for zero in found} == {np.dtype(np.int8)}, "biases stay fp32"


def test_the_accuracy_of_every_format_that_runs_is_told_with_its_images(exported, splits: Splits) -> None:
    accuracies = {each.format: each.accuracy for each in exported[1].exported}
    assert {each.test_images for each in exported[1].exported if each.accuracy is not None} == {splits.test.size}
    assert [name for name, share in accuracies.items() if share is None] == ["genet-string"]


def test_without_images_int8_is_left_out_with_the_reason(module: GENet, tmp_path: Path) -> None:
    found = export(TrainedModel(module), tmp_path / "export", ("genet-string",))
    assert [each.format for each in found.exported] == ["safetensors", "genet-string"]
    assert set(export(TrainedModel(module), tmp_path / "all").left_out) == {"onnx-int8"}
    with pytest.raises(GenetError, match="the format onnx-int8 cannot be written: it needs training images to calibrate on"):
        export(TrainedModel(module), tmp_path / "export", ("onnx-int8",))


def test_what_is_there_of_this_very_network_is_not_made_again(module: GENet, splits: Splits, copy: Path) -> None:
    before = stamps(copy)
    export(TrainedModel(module, splits, "digits", labels=splits.labels), copy)
    assert stamps(copy) == before


def test_a_format_more_keeps_the_others(module: GENet, tmp_path: Path) -> None:
    export(TrainedModel(module), tmp_path / "export", ("timm",))
    before = contents(tmp_path / "export")
    found = export(TrainedModel(module), tmp_path / "export", ("genet-string",))
    after = contents(tmp_path / "export")
    assert [each.format for each in found.exported] == ["safetensors", "timm", "genet-string"]
    assert {name: data for name, data in before.items() if name != EVIDENCE_FILE}.items() <= after.items()


def test_files_that_no_export_wrote_stay(module: GENet, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    (folder / "timm").mkdir(parents=True)
    (folder / "timm" / "notes.md").write_text("mine")
    (folder / "engine.plan").write_text("mine too")
    (folder / "latest").symlink_to("nowhere")
    for form in ("timm", "genet-string"):
        export(TrainedModel(module), folder, (form,))
        assert contents(folder).items() >= {"timm/notes.md": b"mine", "engine.plan": b"mine too"}.items()
        assert (folder / "latest").is_symlink()
    (folder / "labels.txt").write_text("mine\n" * 10)
    found = export(TrainedModel(module), folder, ("pt2",))
    assert [each.format for each in found.exported] == ["safetensors", "timm", "pt2", "genet-string"]
    before = contents(folder)
    (folder / "model.onnx").write_text("mine")
    with pytest.raises(StorageError, match=r"model.onnx: got a file that genet did not write, .* move it away"):
        export(TrainedModel(module), folder, ("onnx",))
    assert contents(folder) == {**before, "model.onnx": b"mine"}


@pytest.mark.slow
def test_what_images_were_used_for_stays_without_images_and_is_made_again_with_others(
    module: GENet, splits: Splits, copy: Path
) -> None:
    before = stamps(copy)
    export(TrainedModel(module, labels=splits.labels), copy, ("timm",))
    assert stamps(copy) == before
    found = export(TrainedModel(module, splits, "others", labels=splits.labels), copy, ("onnx-int8",))
    sources = {each.format: each.source for each in found.exported}
    assert sources == {name: None if name == "genet-string" else "others" for name in FORMATS}, "all stay, tested on them"


def test_the_same_weights_at_another_resolution_are_another_network(exported, tmp_path: Path) -> None:
    weights = exported[0] / "model.safetensors"
    shutil.copytree(exported[0], tmp_path / "export")
    larger = load_weights(NETWORK.at(16), weights)
    found = export(TrainedModel(larger), tmp_path / "export", ("genet-string",))
    assert found.network == str(NETWORK.at(16))
    assert read_network(tmp_path / "export" / "network.yaml") == NETWORK.at(16)
    assert [each.format for each in found.exported] == ["safetensors", "genet-string"]


def test_what_a_librarys_exporter_raises_is_one_line(module: GENet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise TypeError("no such operator\nand much more")

    monkeypatch.setattr(torch.export, "save", broken)
    with pytest.raises(GenetError, match=r"writing the format pt2 and loading it again failed \(no such operator\)"):
        export(TrainedModel(module), tmp_path / "export", ("pt2",))
    monkeypatch.setitem(sys.modules, "onnxruntime.transformers.float16", None)
    with pytest.raises(
        GenetError,
        match=r"the format onnx-fp16 needs the package onnxruntime.*, which cannot be imported; pip install onnxruntime",
    ):
        export(TrainedModel(module), tmp_path / "export", ("onnx-fp16",))
    assert not (tmp_path / "export").exists()


def test_weights_that_are_no_numbers_are_said_to_be_the_fault(tmp_path: Path) -> None:
    module = build(NETWORK)
    module.head.fc.bias.data.fill_(float("nan"))
    with pytest.raises(
        GenetError, match=r"^small: got logits that are not finite, expected finite ones; look for NaN in its weights$"
    ):
        export(TrainedModel(module), tmp_path / "export", ("safetensors",))


def test_a_damaged_file_is_made_anew(module: GENet, splits: Splits, copy: Path) -> None:
    good = (copy / "network.txt").read_bytes()
    (copy / "network.txt").write_bytes(b"ConvKX")
    (copy / "model.pt2.sha256").unlink()
    export(TrainedModel(module, splits, "digits", labels=splits.labels), copy)
    assert (copy / "network.txt").read_bytes() == good
    assert (copy / "model.pt2.sha256").exists()


def test_the_formats_of_other_weights_are_not_kept(copy: Path) -> None:
    other = with_own_statistics(build(NETWORK, seed=5), seed=6).eval()
    found = export(TrainedModel(other), copy, ("genet-string",))
    assert [each.format for each in found.exported] == ["safetensors", "genet-string"]
    assert not (copy / "model.onnx").exists()


def test_of_all_formats_one_that_does_not_reproduce_the_network_is_left_out_and_the_others_are_kept(
    module: GENet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: FORMATS[name] for name in ("safetensors", "timm", "genet-string")}
    monkeypatch.setattr(writing, "FORMATS", few | {"timm": dataclasses.replace(FORMATS["timm"], tolerance=-1.0)})
    found = export(TrainedModel(module), tmp_path / "export")
    assert [each.format for each in found.exported] == ["safetensors", "genet-string"]
    assert found.failed == ("timm",)
    assert found.failures[0].startswith("timm is left out: the logits of the exported timm differ from the network's by ")
    assert found.failures[0].endswith(", expected at most -1")
    assert not (tmp_path / "export" / "timm").exists()
    assert export(TrainedModel(module), tmp_path / "export", ("genet-string",)).failures == found.failures, "it is not forgotten"
    monkeypatch.setattr(writing, "FORMATS", few)
    assert not export(TrainedModel(module), tmp_path / "export").left_out


def test_the_networks_own_format_is_never_left_out(module: GENet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(writing.FORMATS, "safetensors", dataclasses.replace(writing.SAFETENSORS, tolerance=-1.0))
    monkeypatch.setattr(writing, "SAFETENSORS", writing.FORMATS["safetensors"])
    with pytest.raises(GenetError, match="the logits of the exported safetensors differ"):
        export(TrainedModel(module), tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_without_onnx_runtime_the_formats_that_need_it_are_left_out_and_say_what_to_install(
    module: GENet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FORMATS", {name: FORMATS[name] for name in ("safetensors", "onnx-fp16", "genet-string")})
    for name in {"onnxruntime", *(name for name in sys.modules if name.partition(".")[0] == "onnxruntime")}:
        monkeypatch.setitem(sys.modules, name, None)
    found = export(TrainedModel(module), tmp_path / "export")
    assert [each.format for each in found.exported] == ["safetensors", "genet-string"]
    assert "pip install onnxruntime" in found.left_out["onnx-fp16"]
    assert "onnxruntime" not in found.exported[0].packages


@pytest.mark.parametrize("existed", [False, True])
def test_an_export_that_fails_its_comparison_leaves_what_was_there_before(module, tmp_path: Path, monkeypatch, existed) -> None:
    strict = dataclasses.replace(FORMATS["genet-string"], tolerance=-1.0)
    monkeypatch.setitem(writing.FORMATS, "genet-string", strict)
    folder = tmp_path / "export"
    if existed:
        folder.mkdir()
        (folder / "network.yaml").write_text("of an older export")
    with pytest.raises(
        GenetError, match=r"exported genet-string differ from the network's by .* of the largest at batch .*, expected at most -1"
    ):
        export(TrainedModel(module), folder, ("genet-string",))
    assert sorted(path.name for path in tmp_path.rglob("*")) == (["export", "network.yaml"] if existed else [])


def test_logits_that_are_not_finite_are_refused_whatever_the_format_allows(tmp_path: Path) -> None:
    broken = with_own_statistics(build(NETWORK)).eval()
    with torch.no_grad():
        broken.head.fc.bias[0] = torch.inf
    with pytest.raises(GenetError, match="got logits that are not finite, expected finite ones"):
        export(TrainedModel(broken), tmp_path / "export", ("safetensors",))


def test_a_format_that_is_none_is_told_with_the_nearest(module: GENet, tmp_path: Path) -> None:
    with pytest.raises(GenetError, match=r"--format must be one of safetensors, .* \(got onx-int8\); nearest: onnx-int8"):
        export(TrainedModel(module), tmp_path / "export", ("onx-int8",))


@pytest.mark.parametrize("place", [0.1, 0.9])
def test_a_flipped_byte_in_the_weights_is_noticed_when_loading(copy: Path, place: float) -> None:
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"model\.safetensors does not match its SHA-256"):
        genet.load(copy)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("model.safetensors", "got a network without weights, expected trained ones; genet train"),
        ("model.safetensors.sha256", r"model\.safetensors\.sha256: cannot be read"),
    ],
)
def test_a_missing_file_of_the_weights_is_named(copy: Path, name: str, law: str) -> None:
    (copy / name).unlink()
    with pytest.raises(StorageError, match=law):
        genet.load(copy)


def test_weights_of_another_network_are_refused_with_the_file(copy: Path) -> None:
    other = Network.parse(str(NETWORK).replace("c24", "c32"))
    with pytest.raises(GenetError, match=r"model\.safetensors"):
        load_weights(other, copy / "model.safetensors")


def test_saved_weights_load_bit_for_bit(tmp_path: Path) -> None:
    module = with_own_statistics(build(NETWORK, seed=2), seed=3)
    save_weights(module, tmp_path / "weights.safetensors")
    ours, theirs = module.state_dict(), load_weights(NETWORK, tmp_path / "weights.safetensors").state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_every_format_that_runs_is_timed_in_a_runtime() -> None:
    assert set(RUNTIMES) == {each.name for each in FORMATS.values() if each.runs}
