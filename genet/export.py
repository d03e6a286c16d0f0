"""A trained network as files that run elsewhere: safetensors with its network.yaml, and ONNX.

Each export is loaded again and compared before it counts; a failed one is an error and leaves nothing behind.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from genet.errors import GenetError, StorageError
from genet.files import Record, read_checked, write_atomic, write_checked, written_atomically
from genet.nets.build import GENet, build
from genet.spec.network import Network
from genet.spec.reader import read_network, to_yaml

CHECKED_BATCHES = (1, 7)
TOLERANCE = 1e-4  # of the logits' largest magnitude; fp32 sums in another order stay far below it


class ExportCheck(Record):
    """Largest difference between the torch and the ONNX logits, over the largest torch logit, per batch size."""

    batches: tuple[int, ...]
    relative_error: tuple[float, ...]


def save_weights(module: nn.Module, path: Path) -> None:
    """The module's weights as safetensors with a SHA-256 beside it."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_checked(path, save(tensors))


def load_weights(network: Network, path: Path) -> GENet:
    """The network with the weights in `path`, in eval mode; StorageError where the checksum differs."""
    from safetensors.torch import load as load_tensors

    module = build(network)
    try:
        module.load_state_dict(load_tensors(read_checked(path)))
    except RuntimeError:
        raise StorageError(f"{path}: must hold the weights of {network}, and holds another network's") from None
    return module.eval()


def load(folder: str | Path) -> GENet:
    """The network that `export` wrote into `folder`, in eval mode."""
    folder = Path(folder)
    return load_weights(read_network(folder / "network.yaml"), folder / "model.safetensors")


def export(module: GENet, folder: Path) -> ExportCheck:
    """Write `folder` whole or not at all; GenetError where an export does not reproduce the module's logits."""
    module = module.cpu().eval()
    with written_atomically(folder) as temporary:
        write_atomic(temporary / "network.yaml", to_yaml(module.network).encode())
        save_weights(module, temporary / "model.safetensors")
        write_checked(temporary / "model.onnx", _onnx(module))
        check = _compare(module, load(temporary), (temporary / "model.onnx").read_bytes())
        check.save(temporary / "check.json")
    return check


def _onnx(module: GENet) -> bytes:
    """One self-contained ONNX file with a free batch size. The example has two images: one would be taken for a constant."""
    example = _images(module.network, 2)
    batch = torch.export.Dim("batch", min=1, max=65536)
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    if program is None:
        raise GenetError("torch.onnx.export must return a program, and returned none; check the torch version")
    return program.model_proto.SerializeToString()


@torch.inference_mode()
def _compare(module: GENet, loaded: GENet, onnx: bytes) -> ExportCheck:
    """Both files against the module, at two batch sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    errors = []
    for batch in CHECKED_BATCHES:
        images = _images(module.network, batch)
        wanted = module(images).numpy()
        if not np.array_equal(loaded(images).numpy(), wanted):
            raise GenetError("the exported safetensors must give the module's logits bit for bit, and does not")
        (got,) = session.run(["logits"], {"images": images.numpy()})
        error = float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-12))
        if not error <= TOLERANCE:
            raise GenetError(
                f"the exported ONNX must give the module's logits within {TOLERANCE:g}, and differs by {error:g} at batch {batch}"
            )
        errors.append(error)
    return ExportCheck(batches=CHECKED_BATCHES, relative_error=tuple(errors))


def _images(network: Network, batch: int) -> torch.Tensor:
    size = network.input.resolution
    return torch.randn(batch, network.input.channels, size, size, generator=torch.Generator().manual_seed(batch))


class _quiet(warnings.catch_warnings):  # noqa: N801 (used as a function)
    """torch's exporter reports its own deprecations and steps; none of them is the user's."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *fault: object) -> None:
        logging.disable(self._level)
        super().__exit__(*fault)  # type: ignore[arg-type]
