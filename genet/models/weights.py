"""A network's weights on disk: safetensors with their SHA-256 beside them, and its network.yaml to build it from."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn

from genet.arch.external import ModelSpec
from genet.arch.network import Network
from genet.config.reader import no_network_in, read_structure
from genet.errors import GenetError, SpecError, StorageError, first_line
from genet.models.build import GENet
from genet.models.external import build_structure
from genet.names import quoted, some_of
from genet.storage import read_bytes, read_checked, write_atomic, write_checked

NETWORK_FILE, WEIGHTS_FILE, LABELS_FILE = "network.yaml", "model.safetensors", "labels.txt"


def weights_bytes(module: nn.Module) -> bytes:
    """Return the module's weights as a safetensors file."""
    from safetensors.torch import save

    tensors = module.state_dict().items()  # cloned, as a layer may have two names
    return save({name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors})


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the module's weights as safetensors with a SHA-256 beside it."""
    write_checked(path, weights_bytes(module))


def load_weights(network: Network, path: Path) -> GENet:
    """Return the network with the weights in `path`, in eval mode; StorageError if the checksum differs."""
    return cast("GENet", load_structure(network, path))


def load_structure(network: ModelSpec, path: Path) -> nn.Module:
    """Return the same for a network of super-blocks or one that other code builds."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    module = build_structure(network)
    try:
        module.load_state_dict(load_tensors(read_checked(path)))
    except SafetensorError as fault:
        raise StorageError(
            f"{path}: got a file that cannot be read as safetensors ({fault}), expected a safetensors file"
        ) from None
    except RuntimeError as fault:
        raise StorageError(f"{path}: got another network's weights ({first_line(fault)}), expected those of {network}") from None
    return module.eval()


@torch.inference_mode()
def check_rebuildable(module: nn.Module, structure: ModelSpec) -> None:
    """Check that the network can be rebuilt from its structure and its weights; GenetError if it cannot.

    Other code may build a network with tensors that are not saved, or draw its weights anew at every call.
    """
    images = torch.randn(2, *structure.input.image, generator=torch.Generator().manual_seed(0))
    again = build_structure(structure)
    try:
        tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        again.load_state_dict(tensors)
        wanted, found = (_answer(each, images) for each in (module, again))
        same = torch.allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()), equal_nan=True)
        why = "its outputs differ"
    except Exception as fault:  # any error of a module's own saving
        same, why = False, first_line(fault)
    if not same:
        raise GenetError(
            f"{structure.name}: building it again from its weights gave another network ({why}); keep everything that its "
            "output depends on in parameters and buffers, and build it the same way at every call"
        )


@torch.inference_mode()
def check_repeatable(module: nn.Module, structure: ModelSpec) -> None:
    """Check that a network gives an image the same finite logits twice, alone or not; GenetError if it does not."""
    images = torch.randn(2, *structure.input.image, generator=torch.Generator().manual_seed(0))
    mode = module.training
    first, second, alone = (module.eval()(each.clone()) for each in (images, images, images[:1]))
    module.train(mode)
    if not first.isfinite().all():
        bad = [name for name, tensor in module.state_dict().items() if not tensor.isfinite().all()]
        why = f"its weights are not finite either: {some_of(bad)}" if bad else "its weights are finite"
        raise GenetError(f"{structure.name}: got logits that are not finite, expected finite ones; {why}")
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max())):
        raise GenetError(
            f"{structure.name}: got two outputs for one image in eval mode, expected the same each time; draw no random "
            "numbers there, as with training=self.training in F.dropout"
        )
    if not torch.allclose(first[:1], alone, rtol=1e-3, atol=1e-3 * float(first.abs().max())):
        raise GenetError(
            f"{structure.name}: got an output that depends on the other images of the batch, expected none; compute "
            "nothing over the batch in eval mode, as BatchNorm2d does with track_running_stats=False"
        )
    if first.shape[-1] > 1 and bool((first >= 0).all()) and torch.allclose(first.sum(-1), torch.ones(len(first)), atol=1e-4):
        raise GenetError(
            f"{structure.name}: got probabilities, which sum to 1 for each image, expected logits, as training applies the "
            "softmax itself; leave it out of forward"
        )


def unsaved_random_weights(module: nn.Module, structure: ModelSpec) -> tuple[str, ...]:
    """Return the names of matrices and kernels that are random at every build of the structure, as nothing loads them."""
    again = build_structure(structure, seed=1).state_dict()
    return tuple(name for name in weight_matrices(module) if not torch.equal(module.get_parameter(name), again[name]))


def weight_matrices(module: nn.Module) -> tuple[str, ...]:
    """Return the parameters of two dimensions or more by name; others often start as ones or zeros."""
    return tuple(name for name, tensor in module.named_parameters() if tensor.dim() > 1)


def _answer(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return its answers in eval mode, with a fixed seed for any random numbers."""
    mode = module.training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        answer: torch.Tensor = module.eval()(images)
    module.train(mode)
    return answer


def load(folder: str | Path) -> nn.Module:
    """Return the network in a folder that holds network.yaml and model.safetensors, in eval mode."""
    folder = Path(folder)
    if not (folder / NETWORK_FILE).exists():
        raise SpecError([no_network_in(folder)])
    if not (folder / WEIGHTS_FILE).exists():
        raise StorageError(
            f"{folder}: got a network without weights, expected trained ones; genet train {quoted(folder / NETWORK_FILE)} "
            f"--recipe R --into {quoted(folder)} trains it"
        )
    return load_structure(read_structure(folder / NETWORK_FILE), folder / WEIGHTS_FILE)


def check_vacant(folder: Path, *names: str) -> None:
    """Raise GenetError if a folder holds a file that a network written there would replace, or one of `names`."""
    there = [name for name in (NETWORK_FILE, WEIGHTS_FILE, LABELS_FILE, *names) if (folder / name).exists()]
    if there:
        raise GenetError(
            f"{folder}: got {', '.join(there)} in it, expected a folder without a network; give another --into FOLDER"
        )


def write_labels(folder: Path, labels: Sequence[str] | None) -> None:
    """Write the classes' names in the order of the logits, one per line, if they are known."""
    if labels:
        write_atomic(folder / LABELS_FILE, labels_bytes(labels))


def labels_bytes(labels: Sequence[str]) -> bytes:
    """Return the names as a file."""
    return "".join(f"{label}\n" for label in labels).encode()


def read_labels(folder: Path) -> tuple[str, ...] | None:
    """Return the classes' names if the folder has them, composed as `by_class` does; StorageError if they are not UTF-8."""
    file = folder / LABELS_FILE
    try:
        text = read_bytes(file).decode("utf-8-sig") if file.is_file() else None
    except UnicodeDecodeError:
        raise StorageError(f"{file}: got bytes that are not UTF-8, expected a class name a line; save it in UTF-8") from None
    return None if text is None else tuple(unicodedata.normalize("NFC", text).splitlines())
