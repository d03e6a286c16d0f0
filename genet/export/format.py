"""The definition of a format: files made of a trained network, and the way to load them again."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from genet.arch.network import Network
from genet.config.preprocessing import Preprocessing, preprocessing_at
from genet.errors import GenetError
from genet.models.blocks import fused
from genet.models.external import structure_of
from genet.training.splits import Splits

Forward = Callable[[Tensor], Tensor]  # images (N, channels, h, w) in fp32 to logits (N, classes), on the CPU


def refused_by(write: Callable[[TrainedModel], object]) -> Callable[[TrainedModel], str | None]:
    """Return a format's refusal: the message if `write` raises GenetError."""

    def refuses(subject: TrainedModel) -> str | None:
        try:
            write(subject)
        except GenetError as fault:
            return str(fault)
        return None

    return refuses


@dataclass(frozen=True)
class Format:
    """One way to write a network.

    `place` is the file to open. Its logits may differ from the network's by `tolerance`, as a share of the largest. `loading`
    holds the lines of Python that load it as `network`, in which `Exports.loading` fills in FOLDER and more. `refuses` returns
    why a network cannot be written in it, None if it can.
    """

    name: str
    purpose: str
    place: str
    files: Callable[[TrainedModel], dict[str, bytes]]
    forward: Callable[[Path], Forward]
    loading: str
    tolerance: float
    refuses: Callable[[TrainedModel], str | None] = lambda subject: None

    @property
    def runs(self) -> bool:
        """Return whether it can answer images by itself; a structure alone cannot."""
        return bool(self.loading)


class TrainedModel:
    """A network to export, with its weights, and images, if there are some, to calibrate, compare and test with.

    `source` names the images: an export with other images is another export. `preprocessing` is their preparation, `labels` are
    the names of the network's classes, unknown for images that it was not trained on.
    """

    def __init__(
        self,
        module: nn.Module,
        splits: Splits | None = None,
        source: str = "",
        preprocessing: Preprocessing | None = None,
        labels: tuple[str, ...] | None = None,
    ) -> None:
        self.module = copy.deepcopy(module).cpu().to(memory_format=torch.contiguous_format).eval()
        self.network, self.splits, self.source, self.labels = structure_of(module), splits, source, labels
        self.preprocessing = preprocessing or preprocessing_at(self.network.input.channels, self.network.input.resolution)
        self._compared: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def superblock_network(self) -> Network:
        """The network, if it is one of super-blocks; GenetError if other code builds it."""
        if not isinstance(self.network, Network):
            raise GenetError(f"this format needs a network made of super-blocks, got {self.network.source}")
        return self.network

    def images(self, batch: int) -> Tensor:
        """Return images to compare logits on, the same every time: of the training set, or random ones."""
        if self.splits and self.splits.train.size >= batch:
            return next(self.splits.train.batches(batch, self.network.input.resolution, shuffle_seed=batch))[0]
        return torch.randn(batch, *self.network.input.image, generator=torch.Generator().manual_seed(batch))

    def images_and_logits(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return these images and the network's own logits, computed once for all formats."""
        if batch not in self._compared:
            images = self.images(batch)
            logits = self.module(images)
            if not logits.isfinite().all():
                name = self.network.name
                raise GenetError(f"{name}: got logits that are not finite, expected finite ones; look for NaN in its weights")
            self._compared[batch] = images, logits
        return self._compared[batch]

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The fused network, traced for any batch size. The example has two images: one would be taken for a constant."""
        with quiet():
            return torch.export.export(fused(self.module), (self.images(2),), dynamic_shapes=self.dynamic_shapes)

    @cached_property
    def onnx(self) -> bytes:
        """The fused network as one self-contained ONNX file."""
        with quiet():
            found = torch.onnx.export(
                self.program,
                dynamo=True,
                dynamic_shapes=self.dynamic_shapes,
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
        if found is None:
            raise GenetError("torch.onnx.export returned no program; check the torch version")
        data: bytes = found.model_proto.SerializeToString()
        return data

    @cached_property
    def dynamic_shapes(self) -> tuple[dict[int, torch.export.Dim]]:
        """Return the free dimension of the images' shape: the batch."""
        return ({0: torch.export.Dim("batch", min=1, max=65536)},)


class quiet(warnings.catch_warnings):  # noqa: N801 (used as a function)
    """A context that silences the deprecations and steps that exporters report."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *fault: object) -> None:
        logging.disable(self._level)
        super().__exit__(*fault)  # type: ignore[arg-type]
