"""Networks as users name them."""

from __future__ import annotations

import re
from pathlib import Path

from genet.arch.external import FUNCTION, ExternalModel, ModelSpec
from genet.arch.network import Input, Network
from genet.config.reader import read_structure
from genet.errors import SpecError
from genet.latency.workload import timm_workload
from genet.models.external import build_structure, count_logits, with_fingerprint
from genet.models.weights import WEIGHTS_FILE


def structure_named(what: str, size: int | None = None, example: str | None = None) -> ModelSpec:
    """Return the model that timm:MODEL, MODULE:FUNCTION with an example, a file, a folder, a name or a notation names.

    `size` is the resolution to use in place of the network's own. SpecError for any other text.
    """
    own = re.fullmatch(FUNCTION, what) and not what.startswith("timm:")
    if example and not own:
        raise SpecError(
            [f"--example: got {example} for {what}, whose input is known, expected it only with MODULE:FUNCTION; leave it out"]
        )
    if size and own:
        raise SpecError(
            [f"--size: got {size} for MODULE:FUNCTION, whose size --example gives, expected one of them; leave --size out"]
        )
    if what.startswith("timm:"):
        return _timm(what, size)
    if own:
        return _own(what, example)
    structure = Network.parse(what) if "|" in what else read_structure(what)
    return structure.at(size) if size else structure


def weights_of(what: str) -> Path | None:
    """Return the trained weights beside a network's file or in its folder, if there are any."""
    if "|" in what:
        return None
    place = Path(what)
    weights = (place if place.is_dir() else place.parent) / WEIGHTS_FILE
    return weights if place.exists() and weights.exists() else None


def _timm(what: str, size: int | None) -> ExternalModel:
    workload = timm_workload(what.removeprefix("timm:"), size)
    channels, height, width = workload.image
    if height != width:
        raise SpecError([f"{what}: must read square images (got {height} x {width}); give another network, or a size"])
    input_ = Input(channels=channels, classes=count_logits(workload.build(), workload.image, what), resolution=height)
    return ExternalModel(name=what.removeprefix("timm:"), source=what, input=input_)


def _own(what: str, example: str | None) -> ExternalModel:
    if example is None:
        raise SpecError(
            ["--example: got none, expected the shape of your own network's input; give it, as in --example 1,3,224,224"]
        )
    sizes = re.fullmatch(r"[1-9]\d*,([1-9]\d*),([1-9]\d*),\2", example)
    if not sizes:
        raise SpecError([f"--example must be images,channels,height,width of square images, as in 1,3,224,224 (got {example!r})"])
    input_ = Input(channels=int(sizes[1]), classes=2, resolution=int(sizes[2]))
    found = ExternalModel(name=what.rpartition(":")[2], source=what, input=input_)
    classes = count_logits(build_structure(found), input_.image, what)
    return with_fingerprint(found.model_copy(update={"input": input_.model_copy(update={"classes": classes})}))
