"""Trained networks as they lie on disk or in timm, ready to answer: the network of a folder, one format of it, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from genet.errors import GenetError, SpecError, first_line
from genet.export.exports import check_formats
from genet.export.format import Answers
from genet.export.onnx_formats import FILES, open_session, session_answers
from genet.export.timm_form import CONFIG_FILE, FOLDER, open_timm
from genet.export.torch_formats import PROGRAM_FILE, open_program
from genet.files import checksum_file, read_bytes, read_checked
from genet.nets.data import Shown
from genet.nets.weights import NETWORK_FILE, load
from genet.spec.network import Input

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Opened:
    """A network ready to answer images on `device`, and what it reads; `shown` is None where it is this project's way."""

    answers: Answers
    reads: Input
    runtime: str
    device: torch.device = CPU
    shown: Shown | None = None


def open_network(what: str, device: torch.device, form: str | None = None) -> Opened:
    """A network's folder, or a format in an export's; a .onnx or .pt2 file; the folder of a timm model, or timm:MODEL.

    GenetError where it is none of these, or damaged.
    """
    place = Path(what)
    if form:
        check_formats([form])
        place = _place_of(place, form)
    if what.startswith("timm:"):
        return _timm(_pretrained(what.removeprefix("timm:")), device)
    if place.suffix == ".onnx":
        return _onnx(place)
    if place.suffix == ".pt2":
        return _program(place)
    if (place / CONFIG_FILE).exists():
        return _timm(open_timm(place), device)
    if (place / NETWORK_FILE).exists():
        module = load(place).to(device)
        return Opened(module, module.network.input, "torch", device)
    raise GenetError(
        f"{what}: must be a network's folder (network.yaml, or a timm model's config.json), a .onnx or .pt2 file, or timm:MODEL"
    )


def _place_of(folder: Path, form: str) -> Path:
    """Where a format lies in an export's folder, or in the one above it."""
    names = {**FILES, "pt2": PROGRAM_FILE, "timm": FOLDER}
    if form not in names:
        return folder
    for place in (folder / names[form], folder / "export" / names[form]):
        if place.exists():
            return place
    raise GenetError(f"{folder}: must hold the format {form}, and does not; `genet export {folder} --format {form}` writes it")


def _data(file: Path) -> bytes:
    """A file's bytes, checked where its checksum lies beside it."""
    return read_checked(file) if checksum_file(file).exists() else read_bytes(file)


def _onnx(file: Path) -> Opened:
    session = open_session(_data(file), str(file))
    answers = session_answers(session)
    return Opened(answers, _reads(file, session.get_inputs()[0].shape, answers), "onnxruntime")


def _program(file: Path) -> Opened:
    program = open_program(_data(file), str(file))
    answers = cast("Answers", program.module())
    images = program.example_inputs[0][0] if program.example_inputs and program.example_inputs[0] else None
    shape = list(images.shape) if isinstance(images, torch.Tensor) else []
    return Opened(answers, _reads(file, ["batch", *shape[1:]], answers), "torch.export")


@torch.inference_mode()
def _reads(file: Path, shape: list[Any], answers: Answers) -> Input:
    """What a file reads, by its own word and a try."""
    if (
        len(shape) != 4
        or isinstance(shape[0], int)
        or not all(isinstance(size, int) for size in shape[1:])
        or shape[2] != shape[3]
    ):
        raise SpecError([f"{file}: must read images of one square size at any batch size (got {shape})"])
    classes = answers(torch.zeros(2, *shape[1:])).shape[-1]
    return Input(channels=shape[1], classes=classes, resolution=shape[2])


def _pretrained(name: str) -> nn.Module:
    import timm

    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as fault:
        raise GenetError(f"timm:{name} must be a timm model with weights, and cannot be had ({first_line(fault)})") from None
    return model.eval()


def _timm(model: Any, device: torch.device) -> Opened:
    from timm.data import resolve_data_config

    config = resolve_data_config(model=model)
    channels, height, _ = config["input_size"]
    reads = Input(channels=channels, classes=model.num_classes, resolution=height)
    shown = Shown(tuple(config["mean"]), tuple(config["std"]), config["crop_pct"], config["interpolation"])
    return Opened(model.to(device), reads, "torch", device, shown)
