"""Exports: whole or not at all, read back bit for bit, and the same logits in a foreign runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import genet
from genet import export as exports
from genet.errors import GenetError, StorageError
from genet.export import ExportCheck, export, load_weights, save_weights
from genet.nets.build import GENet, build
from genet.spec.network import Network
from genet.spec.reader import read_network

NETWORK = Network.parse(
    "@12x3 | Conv k3 c8 s1 | XX k5 c16 s2 d1 | DW k3 c16 s1 d1 r2 | BL k7 c24 s2 d1 r1 | Conv k1 c16 | 5", name="small"
)
FILES = ["model.onnx", "model.safetensors", "network.yaml"]


def with_own_statistics(module: GENet, seed: int = 0) -> GENet:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                for tensor in (part.weight, part.bias, part.running_mean):
                    tensor.copy_(torch.rand(tensor.shape, generator=draw) - 0.3)
                part.running_var.copy_(torch.rand(part.running_var.shape, generator=draw) + 0.5)
        module.head.fc.weight.copy_(torch.rand(module.head.fc.weight.shape, generator=draw) - 0.5)
    return module


def images(batch: int, seed: int = 9) -> torch.Tensor:
    return torch.randn(batch, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def logits(module: nn.Module, batch: int) -> np.ndarray:
    with torch.inference_mode():
        return module(images(batch)).numpy()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def module() -> GENet:
    return with_own_statistics(build(NETWORK, seed=1)).train()


@pytest.fixture(scope="module")
def exported(module: GENet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportCheck]:
    """The module exported over the remains of an older export, in a folder whose parents do not exist yet."""
    folder = tmp_path_factory.mktemp("run") / "deep" / "export"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "leftover.bin").write_bytes(b"of another network")
    return folder, export(module, folder)


@pytest.fixture
def copy(exported: tuple[Path, ExportCheck], tmp_path: Path) -> Path:
    """A copy of the export that a test may damage."""
    for name, data in contents(exported[0]).items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_an_export_replaces_the_whole_folder_by_its_files_and_leaves_nothing_beside_it(exported) -> None:
    folder, _ = exported
    assert sorted(contents(folder)) == [
        "check.json",
        *FILES[:1],
        "model.onnx.sha256",
        FILES[1],
        "model.safetensors.sha256",
        FILES[2],
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("name", FILES[:2])
def test_a_models_checksum_lies_beside_it_as_sha256sum_writes_it(exported, name: str) -> None:
    folder, _ = exported
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert (folder / f"{name}.sha256").read_text() == f"{digest}  {name}\n"


def test_the_network_reads_back_as_it_was_with_its_name(exported) -> None:
    network = read_network(exported[0] / "network.yaml")
    assert network == NETWORK
    assert network.name == "small"


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_loaded_network_gives_the_modules_logits_bit_for_bit(module: GENet, exported, batch: int) -> None:
    loaded = genet.load(exported[0])
    assert not loaded.training
    assert np.array_equal(logits(loaded, batch), logits(module.eval(), batch))


def test_a_folder_may_be_given_as_text(exported) -> None:
    assert genet.load(str(exported[0])).network == NETWORK


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_onnx_file_gives_the_modules_logits_at_any_batch_size(module: GENet, exported, batch: int) -> None:
    session = onnxruntime.InferenceSession(exported[0] / "model.onnx", providers=["CPUExecutionProvider"])
    (got,) = session.run(["logits"], {"images": images(batch).numpy()})
    wanted = logits(module.eval(), batch)
    assert got.shape == (batch, 5)
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.ptp(wanted, axis=0).min() > 1e-4 * np.abs(wanted).max() or batch == 1  # the logits do depend on the image


def test_the_onnx_file_holds_its_weights_itself(exported) -> None:
    model = onnx.load(exported[0] / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model)
    assert [tensor.name for tensor in model.graph.initializer if tensor.external_data] == []
    assert not list(exported[0].glob("*.data"))


def test_the_onnx_file_has_one_input_and_one_output_with_a_free_batch_size(exported) -> None:
    graph = onnx.load(exported[0] / "model.onnx").graph
    (given,), (answer,) = graph.input, graph.output
    assert (given.name, answer.name) == ("images", "logits")
    assert [size.dim_value for size in given.type.tensor_type.shape.dim] == [0, 3, 12, 12]
    assert given.type.tensor_type.shape.dim[0].dim_param


def test_the_check_tells_how_far_the_onnx_logits_are_off(exported) -> None:
    folder, check = exported
    assert check.batches == (1, 7)
    assert all(0 <= error <= 1e-4 for error in check.relative_error)
    assert ExportCheck.load(folder / "check.json") == check


@pytest.mark.parametrize("place", [0.1, 0.9])
def test_a_flipped_byte_in_the_weights_is_noticed_when_loading(copy: Path, place: float) -> None:
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"model\.safetensors: must match its SHA-256"):
        genet.load(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.sha256"])
def test_a_missing_file_of_the_weights_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(StorageError, match=rf"{name}: cannot be read"):
        genet.load(copy)


def test_weights_of_another_network_are_refused_with_the_file(copy: Path) -> None:
    other = Network.parse(str(NETWORK).replace("c24", "c32"))
    with pytest.raises(GenetError, match=r"model\.safetensors"):
        load_weights(other, copy / "model.safetensors")


@pytest.mark.parametrize("existed", [False, True])
def test_an_export_that_fails_its_comparison_leaves_what_was_there_before(module, tmp_path: Path, monkeypatch, existed) -> None:
    monkeypatch.setattr(exports, "TOLERANCE", -1.0)
    folder = tmp_path / "export"
    if existed:
        folder.mkdir()
        (folder / "network.yaml").write_text("of an older export")
    with pytest.raises(GenetError, match="the exported ONNX must give the module's logits within -1, and differs by"):
        export(module, folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == (["export", "network.yaml"] if existed else [])


def test_saved_weights_load_bit_for_bit(tmp_path: Path) -> None:
    module = with_own_statistics(build(NETWORK, seed=2), seed=3)
    save_weights(module, tmp_path / "weights.safetensors")
    ours, theirs = module.state_dict(), load_weights(NETWORK, tmp_path / "weights.safetensors").state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
