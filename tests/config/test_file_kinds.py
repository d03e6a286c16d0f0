"""What a file is that people take for a network, told without running anything in it."""

from __future__ import annotations

import argparse
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from genet.config.file_kinds import kind_of
from genet.config.reader import read_any
from genet.errors import SpecError

STATE = nn.Linear(2, 2).state_dict()


def torch_file(value: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def program() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), buffer)
    return buffer.getvalue()


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for name in names:
            written.writestr(name, "{}")
    return buffer.getvalue()


class Trap:
    """Ends the process when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exit, (7,)


PYTORCH: list[tuple[Callable[[], bytes], str, str]] = [
    (lambda: torch_file(STATE), "a PyTorch file of weights, without the network", "load_state_dict(torch.load('it')) and return"),
    (
        lambda: torch_file(STATE, legacy=True),
        "a PyTorch file of weights, without",
        "load_state_dict(torch.load('it')) and return",
    ),
    (lambda: torch_file({"epoch": 3, "state_dict": STATE}), "weights under 'state_dict'", "(torch.load('it')['state_dict'])"),
    (lambda: torch_file({"model": STATE, "epoch": 3}, legacy=True), "weights under 'model'", "(torch.load('it')['model'])"),
    (
        lambda: torch_file({"args": argparse.Namespace(), "model": STATE}),
        "weights under 'model', without the network, with objects such as argparse.Namespace",
        "(torch.load('it', weights_only=False)['model'])",
    ),
    (lambda: torch_file(nn.Linear(2, 2)), "of a whole torch.nn.modules.linear.Linear", "return torch.load('it', weights_only=F"),
    (
        lambda: torch_file(nn.Linear(2, 2), legacy=True),
        "a whole torch.nn.modules.linear.Linear",
        "return torch.load('it', weights_",
    ),
    (lambda: pickle.dumps(nn.Linear(2, 2)), "a pickle of a whole torch.nn.modules.linear.Linear", "return pickle.load(open('it'"),
    (lambda: torch_file({"epoch": 3}), "a PyTorch file without tensors", "genet import --help"),
    (lambda: torch_file(Trap()), "a PyTorch file of a whole ", "return torch.load('it', weights_only=False)"),
    (lambda: torch_file(STATE)[:-40], "a damaged or truncated archive", "save or download it again"),
    (lambda: save(STATE), "a safetensors file of 2 tensors", "load_state_dict(safetensors.torch.load_file('it'))"),
    (lambda: save(STATE)[:40], "a damaged or truncated safetensors file", "save or download it again"),
    (program, "a TorchScript program", "import the function that built its network"),
    (exported, "a program of torch.export", "genet eval it --data D runs it as it is"),
]
OTHERS: list[tuple[Callable[[], bytes], str, str]] = [
    (lambda: b"", "an empty file", "save or download it again"),
    (lambda: b" \n\xef\xbb\xbf<!DOCTYPE HTML>\n<title>404</title>", "a web page", "download the file again"),
    (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer", "git lfs pull"),
    (lambda: b"\x08\x0a\x12\x07pytorch", "an ONNX file", "genet eval it --data D"),
    (lambda: b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file, as Keras writes", "genet reads PyTorch networks"),
    (lambda: archive("config.json", "model.weights.h5"), "a Keras file", "genet reads PyTorch networks"),
    (lambda: archive("a.npy", "b.npy"), "arrays of numpy", "genet reads PyTorch networks"),
    (lambda: archive("best.pth"), "a zip archive", "unpack it"),
    (lambda: b"\x1f\x8b\x08\0", "a gzip archive", "genet reads PyTorch networks"),
]


@pytest.mark.parametrize(("data", "what", "way"), [*PYTORCH, *OTHERS])
def test_a_file_is_told_by_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Callable[[], bytes], what: str, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("it").write_bytes(data())
    kind = kind_of(Path("it"))
    assert kind is not None
    assert what in kind.what
    assert way in kind.remedy
    assert (kind.what + kind.remedy).isprintable()


def test_weights_beside_their_network_are_named_by_their_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(save(STATE))
    (tmp_path / "config.json").write_text("{}")
    kind = kind_of(tmp_path / "model.safetensors")
    assert kind is not None
    assert kind.remedy == f"name its folder, {tmp_path}"


@pytest.mark.parametrize(
    "text", ["name: it\n", " " * 9999 + "a: 1", "PK: 1\n", "{}", "Not Found", 'padding:{"a": 1}', "\x08\x09"]
)
def test_text_and_what_is_missing_are_of_no_kind(tmp_path: Path, text: str) -> None:
    (tmp_path / "it").write_text(text)
    assert kind_of(tmp_path / "it") is None
    assert kind_of(tmp_path / "nowhere") is None
    assert kind_of(tmp_path) is None


def test_a_checkpoint_is_no_yaml_and_none_of_it_is_printed(tmp_path: Path) -> None:
    (tmp_path / "best.pth").write_bytes(torch_file(STATE))
    with pytest.raises(SpecError, match=r"best\.pth: got a PyTorch file of weights.*, expected a text file of YAML") as refused:
        read_any(tmp_path / "best.pth")
    assert str(refused.value).isprintable()
