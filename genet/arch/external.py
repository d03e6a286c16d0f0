"""A network that other code builds, with some of its layers at other widths: the result of aligning or pruning any network."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from genet.arch.network import Count, Input, Name, Network, broken_rule
from genet.storage import Record, digest

FUNCTION = r"\w+(\.\w+)*:\w+"
REMOVED = " removed"  # behind a block's name in a notation
COMPUTED = r"\d+x\d+(:[-+.\da-z]+){3}"


def _source(text: str) -> str:
    if not (text.startswith("timm:") or re.fullmatch(FUNCTION, text)):
        raise broken_rule("must be timm:MODEL or MODULE:FUNCTION")
    return text


def _computes(text: str) -> str:
    if not re.fullmatch(COMPUTED, text):
        raise broken_rule("must be what genet import wrote, or be left out")
    return text


class LayerWidths(Record):
    """Output channels of single layers of some network, by the layers' names: the result of a pruning method."""

    name: str
    widths: Annotated[dict[str, Count], Field(min_length=1)]


class ExternalModel(Record):
    """The network a function builds (`timm:MODEL`, or `MODULE:FUNCTION` without arguments), and the layers that differ from it.

    `layers` gives the channels that each of them writes and reads, `removed` the residual blocks without which it runs: what they
    read passes on. `computes` names what the function computed when it was imported, as it may have been edited since; it is the
    network's name as much as the function's.
    """

    name: Name = "network"
    source: Annotated[str, AfterValidator(_source)]
    computes: Annotated[str, AfterValidator(_computes)] | None = None
    input: Input
    layers: dict[str, tuple[Count, Count]] = {}  # noqa: RUF012 (a field of a frozen record)
    removed: tuple[str, ...] | None = None

    def __str__(self) -> str:
        input_ = self.input
        computes = f"#{self.computes}" if self.computes else ""
        entries = [f"{self.source}{computes} @{input_.resolution}x{input_.channels}"]
        entries += [f"{block}{REMOVED}" for block in self.removed or ()]
        entries += [f"{layer} c{read}>{written}" for layer, (written, read) in self.layers.items()]
        return " | ".join([*entries, str(input_.classes)])

    @property
    def changed(self) -> bool:
        """Return whether it differs from what its function builds."""
        return bool(self.layers or self.removed)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the structure."""
        return digest(str(self))[:12]

    def at(self, resolution: int) -> Self:
        """Return the same network for images of another resolution."""
        return self.model_copy(update={"input": self.input.model_copy(update={"resolution": resolution})})


ModelSpec = Network | ExternalModel


def read_notation(notation: str, name: str) -> ModelSpec:
    """Read a network of either kind back from its `str`."""
    first, *middle, classes = notation.split(" | ")
    source, _, size = first.rpartition(" @")
    if not source:
        return Network.parse(notation, name)
    resolution, channels = map(int, size.split("x"))
    layers, removed = {}, tuple(entry.removesuffix(REMOVED) for entry in middle if entry.endswith(REMOVED))
    for entry in middle[len(removed) :]:
        layer, _, widths = entry.rpartition(" c")
        read, written = map(int, widths.split(">"))
        layers[layer] = (written, read)
    input_ = Input(channels=channels, classes=int(classes), resolution=resolution)
    function, _, computes = source.partition("#")
    return ExternalModel(
        name=name, source=function, computes=computes or None, input=input_, layers=layers, removed=removed or None
    )
