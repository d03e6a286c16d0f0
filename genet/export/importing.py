"""Import of networks from elsewhere, with their weights if they have any."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genet.arch.external import FUNCTION, ExternalModel, ModelSpec
from genet.arch.network import Input, Network
from genet.arch.paper_notation import from_genet_string
from genet.config.file_kinds import kind_of
from genet.config.preprocessing import Preprocessing
from genet.config.reader import read_structure
from genet.errors import GenetError, SpecError, first_line
from genet.export.timm_form import CONFIG_FILE, PICKLED, from_timm, open_timm, read_config, timm_preprocessing
from genet.latency.trace import structure_cost
from genet.models.build import build
from genet.models.external import build_structure, count_logits, import_attribute, mark_structure, structure_of, with_fingerprint
from genet.models.hub import pretrained_model
from genet.models.weights import (
    LABELS_FILE,
    NETWORK_FILE,
    WEIGHTS_FILE,
    check_rebuildable,
    check_repeatable,
    load,
    read_labels,
    unsaved_random_weights,
)
from genet.names import fits_on_a_line, some_of
from genet.storage import read_bytes

CLOSE = 1e-5  # of the largest logit
STRING = "ConvKX("  # start of a GENet string
RULE = f"timm:MODEL, a folder with {CONFIG_FILE} or {NETWORK_FILE}, MODULE:FUNCTION, or a GENet string or its file"


@dataclasses.dataclass(frozen=True)
class ImportedNetwork:
    """A network, its weights or why there are none; and the preparation of its images and the names of its classes, if known.

    `random_weights` names the weights that are random because a function loads none.
    """

    network: ModelSpec
    module: nn.Module | None
    why_no_weights: str | None = None
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    random_weights: tuple[str, ...] = ()


def import_network(what: str, input_: Input, name: str) -> ImportedNetwork:
    """Return the network that a user names: timm:MODEL, a folder, MODULE:ATTRIBUTE, or a GENet string or its file.

    The attribute is a ByoModelCfg of timm's, or a function that builds a network. `input_` gives the input that a structure alone
    does not determine. SpecError lists everything unsupported.
    """
    if what.startswith(STRING):
        return ImportedNetwork(from_genet_string(what, input_.resolution, input_.classes, name), None, "the notation holds none")
    if what.startswith("timm:"):
        return _from_model(what.removeprefix("timm:"), name)
    if file := re.fullmatch(r"(.+)/(\w+)\.py:(\w+)", what):
        where, module, name = file.groups()
        raise GenetError(f"{what}: got a file, expected MODULE:FUNCTION; write {module}:{name}, with {where} in PYTHONPATH")
    if re.fullmatch(FUNCTION, what):
        return _from_module(what, input_, name)
    folder = Path(what)
    try:
        folder.exists()
    except OSError as fault:  # a name that is too long, or a folder that this user cannot read
        raise GenetError(f"{what:.60}: looking for it failed ({fault.strerror}), expected {RULE}") from None
    if (folder / CONFIG_FILE).is_file():
        return _from_timm_folder(folder, name)
    if (folder / NETWORK_FILE).is_file():
        if not (folder / WEIGHTS_FILE).exists():
            return ImportedNetwork(read_structure(folder / NETWORK_FILE), None, "the folder holds none")
        module = load(folder)
        return ImportedNetwork(structure_of(module), module, labels=read_labels(folder))
    if folder.is_file():
        return import_network(_text(folder), input_, name)
    if folder.is_dir():
        raise GenetError(f"{what}: got a folder without a network, expected {RULE}{_folder_hint(folder)}")
    raise GenetError(f"{what}: got no file or folder of that name here, expected {RULE}")


def _text(file: Path) -> str:
    """Return a file's GENet string; SpecError with the kind of the file if it holds something else."""
    if kind := kind_of(file):
        raise SpecError([f"{file}: got {kind.what}, expected {RULE}; {kind.remedy}"])
    try:
        text = read_bytes(file).decode().strip()
    except UnicodeDecodeError:
        raise SpecError(
            [f"{file}: got a file that is not text, expected {RULE}; name the function that builds the network"]
        ) from None
    if file.name in (NETWORK_FILE, CONFIG_FILE):
        raise SpecError([f"{file}: got the {file.name} of a network, expected {RULE}; name its folder, {file.parent}"])
    if not text.startswith(STRING):
        raise SpecError(
            [f"{file}: got a text that begins with {text[:40]!r}, expected {RULE}; name the function that builds the network"]
        )
    return text


def _folder_hint(folder: Path) -> str:
    """Return a hint at what can be named inside a folder."""
    if (folder / "recipe.yaml").is_file() and (folder / "networks").is_dir():
        return f"; it is a run: name one of the folders in {folder / 'networks'}"
    files = (file for file in sorted(folder.iterdir()) if file.is_file())
    first = next(((file, kind) for file in files if (kind := kind_of(file))), None)
    return f"; {first[0].name} in it is {first[1].what}: {first[1].remedy}" if first else ""


def _from_model(model_name: str, name: str) -> ImportedNetwork:
    """Return a timm model by name, with its trained weights if they are available."""
    import timm

    architecture, _, tag = model_name.partition(".")
    known = timm.is_model(architecture) and (not tag or model_name in timm.list_models(f"{architecture}*", pretrained=True))
    config = timm.get_pretrained_cfg(model_name) if known else None
    if config is None:
        raise SpecError([f"timm:{model_name} is not the name of a timm model"])
    arguments, (channels, resolution, _) = _registered(architecture), config.input_size
    network = from_timm(arguments, resolution, channels, config.num_classes, name)
    try:
        model = pretrained_model(model_name)
    except GenetError as fault:
        return ImportedNetwork(network, None, str(fault).removeprefix(f"timm:{model_name}: "))
    return _with_weights(network, model)


def _from_timm_folder(folder: Path, name: str) -> ImportedNetwork:
    config = read_config(folder)
    arguments = {**_registered(config["architecture"]), **config["model_args"]}
    about = config.get("pretrained_cfg") or {}
    channels, resolution, _ = about.get("input_size", (3, 224, 224))
    network = from_timm(arguments, resolution, arguments.get("in_chans", channels), config["num_classes"], name)
    if not any((folder / name).exists() for name in (WEIGHTS_FILE, PICKLED)):
        return ImportedNetwork(network, None, "the folder holds none")
    labels = tuple(map(str, config.get("label_names") or ()))
    odd = [label for label in labels if not fits_on_a_line(label)]
    if odd:
        raise SpecError(
            [f"{folder / CONFIG_FILE}: got label_names {some_of(odd)}, expected names that each stand on a line of {LABELS_FILE}"]
        )
    return dataclasses.replace(_with_weights(network, open_timm(folder)), labels=labels or None)


def _registered(architecture: str) -> dict[str, Any]:
    from timm.models.byobnet import model_cfgs

    if architecture not in model_cfgs:
        raise SpecError(
            [f"a timm model must be one of its ByobNets, such as gernet_l, to be a network here (got {architecture})"]
        )
    return dict(vars(model_cfgs[architecture]))


def _from_module(what: str, input_: Input, name: str) -> ImportedNetwork:
    found = import_attribute(what)
    if dataclasses.is_dataclass(found) and hasattr(found, "blocks"):
        sizes = input_.resolution, input_.channels, input_.classes
        return ImportedNetwork(from_timm(dict(vars(found)), *sizes, name), None, "a ByoModelCfg holds none")
    if not callable(found):
        kind = type(found).__name__
        raise GenetError(f"{what}: got a {kind}, expected timm's ByoModelCfg or a function that builds a network")
    network = ExternalModel(name=name, source=what, input=input_)
    module = build_structure(network)
    classes = count_logits(module, input_.image, what)
    if classes != input_.classes:
        raise GenetError(f"{what}: got {classes} logits, expected {input_.classes}; give --classes {classes}")
    check_repeatable(module, network)
    check_rebuildable(module, network)
    structure_cost(network)  # a network whose kernels depend on its images' values could be trained, and never exported
    random_weights, network = unsaved_random_weights(module, network), with_fingerprint(network)
    return ImportedNetwork(network, mark_structure(module, network), random_weights=random_weights)


@torch.inference_mode()
def _with_weights(network: Network, model: nn.Module) -> ImportedNetwork:
    """Return the network with timm's weights, checked to give the same logits."""
    module = build(network)
    try:
        module.load_state_dict(model.state_dict())
    except RuntimeError as fault:
        raise GenetError(
            f"{network.name}: got weights that do not fit ({first_line(fault)}), expected those of {network}"
        ) from None
    images = torch.randn(2, *network.input.image, generator=torch.Generator().manual_seed(0))
    wanted, found = model(images), module.eval()(images)
    error = float((wanted - found).abs().max() / wanted.abs().max())
    if not error <= CLOSE:
        raise GenetError(f"{network.name}: the logits of the imported network differ by {error:g}, expected at most {CLOSE:g}")
    return ImportedNetwork(network, module, preprocessing=timm_preprocessing(model))
