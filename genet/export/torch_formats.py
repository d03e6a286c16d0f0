"""The network for torch: safetensors with its network.yaml, a torch.export program, and the GENet paper's own notation."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch

from genet.arch.paper_notation import from_genet_string, to_genet_string
from genet.config.reader import read_network, to_yaml
from genet.errors import StorageError, first_line
from genet.export.format import Format, Forward, TrainedModel, quiet, refused_by
from genet.models.weights import LABELS_FILE, NETWORK_FILE, WEIGHTS_FILE, labels_bytes, load, load_weights, weights_bytes
from genet.storage import read_bytes, read_checked

SWITCH = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
PROGRAM_FILE, STRING_FILE = "model.pt2", "network.txt"


def _own(subject: TrainedModel) -> dict[str, bytes]:
    labels = {LABELS_FILE: labels_bytes(subject.labels)} if subject.labels else {}
    return {**labels, NETWORK_FILE: to_yaml(subject.network).encode(), WEIGHTS_FILE: weights_bytes(subject.module)}


def _program(subject: TrainedModel) -> dict[str, bytes]:
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(subject.program, buffer)
    return {PROGRAM_FILE: buffer.getvalue()}


def open_program(data: bytes, name: str) -> torch.export.ExportedProgram:
    """Return a torch.export program; StorageError if the bytes are not one, or would unpickle more than tensors."""
    try:
        with quiet(), tensors_alone():
            return torch.export.load(io.BytesIO(data))
    except Exception as fault:  # any error of its zip, JSON and graph readers
        raise StorageError(
            f"{name}: got a file that torch.export cannot load ({first_line(fault)}), expected one of its programs"
        ) from None


@contextmanager
def tensors_alone() -> Iterator[None]:
    """Set torch's own switch to unpickle tensors only, since its loader of programs falls back to more."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def _program_forward(folder: Path) -> Forward:
    file = folder / PROGRAM_FILE
    return cast("Forward", open_program(read_checked(file), str(file)).module())


def _string(subject: TrainedModel) -> dict[str, bytes]:
    return {STRING_FILE: (to_genet_string(subject.superblock_network) + "\n").encode()}


def _string_forward(folder: Path) -> Forward:
    """Return the network that the line reads back to, with the weights beside it."""
    input_ = read_network(folder / NETWORK_FILE).input
    text = read_bytes(folder / STRING_FILE).decode()
    return load_weights(from_genet_string(text, input_.resolution, input_.classes), folder / WEIGHTS_FILE)


SAFETENSORS = Format(
    name="safetensors",
    purpose="genet itself, for further work",
    place=".",
    files=_own,
    forward=load,
    loading='import genet\nnetwork = genet.load("FOLDER")',
    tolerance=0.0,
)
PT2 = Format(
    name="pt2",
    purpose="torch alone; batch normalisation fused, any batch size",
    place=PROGRAM_FILE,
    files=_program,
    forward=_program_forward,
    loading='import torch\nnetwork = torch.export.load("FOLDER/model.pt2").module()',
    tolerance=1e-4,
)
STRING = Format(
    name="genet-string",
    purpose="the notation of the GENet paper's own code; the structure only",
    place=STRING_FILE,
    files=_string,
    forward=_string_forward,
    loading="",
    tolerance=0.0,
    refuses=refused_by(_string),
)
