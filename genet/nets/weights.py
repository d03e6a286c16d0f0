"""A network's weights on disk: safetensors with their SHA-256 beside them, and its network.yaml to build it from."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn

from genet.errors import StorageError
from genet.files import read_bytes, read_checked, write_atomic, write_checked
from genet.names import typed
from genet.nets.build import GENet
from genet.nets.foreign import build_structure
from genet.spec.foreign import Structure
from genet.spec.network import Network
from genet.spec.reader import read_structure

NETWORK_FILE, WEIGHTS_FILE, LABELS_FILE = "network.yaml", "model.safetensors", "labels.txt"


def weights_bytes(module: nn.Module) -> bytes:
    """The module's weights as a safetensors file."""
    from safetensors.torch import save

    tensors = module.state_dict().items()  # cloned, for a layer may have two names
    return save({name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors})


def save_weights(module: nn.Module, path: Path) -> None:
    """The module's weights as safetensors with a SHA-256 beside it."""
    write_checked(path, weights_bytes(module))


def load_weights(network: Network, path: Path) -> GENet:
    """The network with the weights in `path`, in eval mode; StorageError where the checksum differs."""
    return cast("GENet", load_structure(network, path))


def load_structure(network: Structure, path: Path) -> nn.Module:
    """The same for a network of ours or one that other code builds."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    module = build_structure(network)
    try:
        module.load_state_dict(load_tensors(read_checked(path)))
    except SafetensorError as fault:
        raise StorageError(f"{path}: must be a safetensors file, and is none ({fault})") from None
    except RuntimeError:
        raise StorageError(f"{path}: must hold the weights of {network}, and holds another network's") from None
    return module.eval()


def load(folder: str | Path) -> nn.Module:
    """The network in a folder that holds network.yaml and model.safetensors, in eval mode."""
    folder = Path(folder)
    if (folder / NETWORK_FILE).exists() and not (folder / WEIGHTS_FILE).exists():
        raise StorageError(
            f"{folder}: must hold trained weights, and holds a network alone; genet train {typed(folder / NETWORK_FILE)} "
            f"--recipe R --into {typed(folder)} trains it"
        )
    return load_structure(read_structure(folder / NETWORK_FILE), folder / WEIGHTS_FILE)


def write_labels(folder: Path, labels: Sequence[str] | None) -> None:
    """The classes' names in the order of the logits, one a line, where they are known."""
    if labels:
        write_atomic(folder / LABELS_FILE, labels_bytes(labels))


def labels_bytes(labels: Sequence[str]) -> bytes:
    """The names as a file."""
    return "".join(f"{label}\n" for label in labels).encode()


def read_labels(folder: Path) -> tuple[str, ...] | None:
    """The classes' names, where the folder tells them, composed as `by_class` does; StorageError if they are not UTF-8."""
    file = folder / LABELS_FILE
    try:
        text = read_bytes(file).decode("utf-8-sig") if file.is_file() else None
    except UnicodeDecodeError:
        raise StorageError(f"{file}: got bytes that are not UTF-8, expected a class name a line; save it in UTF-8") from None
    return None if text is None else tuple(unicodedata.normalize("NFC", text).splitlines())
