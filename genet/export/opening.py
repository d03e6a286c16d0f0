"""Trained networks opened from disk or from timm, ready to answer: the network of a folder, one format of it, or a file."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from genet.arch.external import FUNCTION
from genet.arch.network import Input
from genet.config.file_kinds import kind_of
from genet.config.preprocessing import Preprocessing
from genet.config.reader import no_network_in
from genet.errors import GenetError, SpecError, first_line
from genet.export.exports import FORMATS, check_formats
from genet.export.format import Forward
from genet.export.onnx_formats import open_session, session_forward
from genet.export.timm_form import CONFIG_FILE, open_timm, timm_preprocessing
from genet.export.torch_formats import open_program
from genet.models.external import structure_of
from genet.models.hub import pretrained_model
from genet.models.weights import LABELS_FILE, NETWORK_FILE, load, read_labels
from genet.names import quoted
from genet.storage import read_from_elsewhere

CPU = torch.device("cpu")


@dataclass(frozen=True)
class OpenedNetwork:
    """A network ready to answer images on `device`, and its input.

    `preprocessing` is None for this project's own preparation of images, `labels` if its folder does not name the classes.
    """

    forward: Forward
    input: Input
    runtime: str
    device: torch.device = CPU
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None


def open_network(what: str, device: torch.device, form: str | None = None) -> OpenedNetwork:
    """Return a network's folder, or a format in an export's; a .onnx or .pt2 file; the folder of a timm model, or timm:MODEL.

    GenetError for anything else, or if it is damaged.
    """
    if what.startswith("timm:"):
        return _timm(what, pretrained_model(what.removeprefix("timm:")), device)
    place = _place_of(Path(what), form) if form else Path(what)
    beside = place if (place / NETWORK_FILE).is_file() else place.parent  # of a file, or of timm's folder in an export
    opened, labels = _opened(what, place, device), read_labels(beside)
    if labels is not None and len(labels) != opened.input.classes:
        raise GenetError(
            f"{beside / LABELS_FILE}: got {len(labels)} names, expected one for each of the network's {opened.input.classes} "
            "logits; give a line to each"
        )
    return dataclasses.replace(opened, labels=labels)


def _opened(what: str, place: Path, device: torch.device) -> OpenedNetwork:
    if place.suffix == ".onnx":
        return _onnx(place)
    if place.suffix == ".pt2":
        return _program(place)
    if (place / CONFIG_FILE).is_file():
        return _timm(what, open_timm(place), device)
    if (place / NETWORK_FILE).is_file():
        module = load(place).to(device)
        return OpenedNetwork(module, structure_of(module).input, "torch", device)
    expected = "a network's folder (network.yaml, or a timm model's config.json), a .onnx or .pt2 file, or timm:MODEL"
    if re.fullmatch(FUNCTION, what):
        raise GenetError(
            f"{what}: got MODULE:FUNCTION, expected {expected}; genet import {what} --into FOLDER makes a folder of it"
        )
    if (place / "recipe.yaml").is_file() or (place / "networks").is_dir():
        raise GenetError(no_network_in(place))
    kind = kind_of(place)
    raise GenetError(f"{what}: got {kind.what}, expected {expected}; {kind.remedy}" if kind else f"{what}: must be {expected}")


def _place_of(folder: Path, form: str) -> Path:
    """Return the path of a format in an export's folder, or in the one above it."""
    check_formats([form])
    name = FORMATS[form].place
    if not FORMATS[form].runs:
        raise GenetError(f"--format: got {form}, which has no weights, expected a format that can run; leave it out")
    if not folder.exists():
        raise GenetError(f"{folder} does not exist, expected the folder of a network; name one that does")
    if folder.is_file():
        raise GenetError(f"{folder}: got a file, expected the folder of an export, which has formats; leave --format out")
    for place in (folder / name, folder / "export" / name):
        if place.exists():
            return place
    command = f"genet export {quoted(folder)} --format {form}"
    raise GenetError(f"{folder} does not hold the format {form}; `{command}` writes it")


def _onnx(file: Path) -> OpenedNetwork:
    read_from_elsewhere(file)  # its checksum, if it has one
    session = open_session(file, str(file))
    shapes = [given.shape for given in session.get_inputs() if given.type == "tensor(float)"]
    forward = session_forward(session)
    return OpenedNetwork(forward, _input_of_file(file, shapes if len(session.get_inputs()) == 1 else [], forward), "onnxruntime")


def _program(file: Path) -> OpenedNetwork:
    program = open_program(read_from_elsewhere(file), str(file))
    forward = cast("Forward", program.module())
    images = program.example_inputs[0] if program.example_inputs else ()
    shapes = [["batch", *image.shape[1:]] for image in images if isinstance(image, torch.Tensor)]
    return OpenedNetwork(forward, _input_of_file(file, shapes, forward), "torch.export")


@torch.inference_mode()
def _input_of_file(file: Path, shapes: list[list[Any]], forward: Forward) -> Input:
    """Return a file's input, as it declares it and as one run confirms."""
    rule = f"{file}: must read square fp32 images of one size in batches of any size, and return logits"
    if len(shapes) != 1 or len(shapes[0]) != 4 or not all(isinstance(size, int) for size in shapes[0][1:]):
        raise SpecError([f"{rule} (it reads {shapes})"])
    images, channels, height, width = shapes[0]
    if isinstance(images, int):
        raise SpecError([f"{rule} (its batch is fixed at {images}); export it with a dynamic batch"])
    try:
        logits = forward(torch.zeros(3, channels, height, width))
    except Exception as fault:  # any error of a runtime
        raise SpecError([f"{rule} ({first_line(fault)})"]) from None
    if height != width or logits.ndim != 2 or len(logits) != 3:
        raise SpecError([f"{rule} (it returns {tuple(logits.shape)} for {(3, channels, height, width)})"])
    return input_of(str(file), channels, logits.shape[1], height)


def input_of(what: str, channels: int, classes: int, resolution: int) -> Input:
    """Return a network's input and classes; SpecError if there are fewer than two classes."""
    if classes < 2:
        raise SpecError([f"{what}: got {classes}, expected at least two classes"])
    return Input(channels=channels, classes=classes, resolution=resolution)


def _timm(what: str, model: Any, device: torch.device) -> OpenedNetwork:
    """Return a timm model, opened with the preprocessing in its own configuration."""
    channels, height, width = model.pretrained_cfg["input_size"]
    if height != width:
        raise SpecError([f"{what}: must read square images of one size (got {height} x {width})"])
    return OpenedNetwork(
        model.to(device), input_of(what, channels, model.num_classes, height), "torch", device, timm_preprocessing(model)
    )
