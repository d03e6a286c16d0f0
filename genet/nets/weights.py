"""A network's weights on disk: safetensors with their SHA-256 beside them, and its network.yaml to build it from."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from genet.errors import StorageError
from genet.files import read_checked, write_checked
from genet.nets.build import GENet, build
from genet.spec.network import Network
from genet.spec.reader import read_network

NETWORK_FILE, WEIGHTS_FILE = "network.yaml", "model.safetensors"


def weights_bytes(module: nn.Module) -> bytes:
    """The module's weights as a safetensors file."""
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})


def save_weights(module: nn.Module, path: Path) -> None:
    """The module's weights as safetensors with a SHA-256 beside it."""
    write_checked(path, weights_bytes(module))


def load_weights(network: Network, path: Path) -> GENet:
    """The network with the weights in `path`, in eval mode; StorageError where the checksum differs."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    module = build(network)
    try:
        module.load_state_dict(load_tensors(read_checked(path)))
    except SafetensorError as fault:
        raise StorageError(f"{path}: must be a safetensors file, and is none ({fault})") from None
    except RuntimeError:
        raise StorageError(f"{path}: must hold the weights of {network}, and holds another network's") from None
    return module.eval()


def load(folder: str | Path) -> GENet:
    """The network in a folder that holds network.yaml and model.safetensors, in eval mode."""
    folder = Path(folder)
    return load_weights(read_network(folder / NETWORK_FILE), folder / WEIGHTS_FILE)
