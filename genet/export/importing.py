"""Networks from elsewhere as networks here, with their weights where there are some."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genet.errors import GenetError, SpecError, first_line
from genet.export.timm_form import CONFIG_FILE, from_timm, open_timm, read_config
from genet.files import read_bytes
from genet.nets.build import GENet, build
from genet.nets.weights import NETWORK_FILE, load
from genet.spec.genet_string import from_genet_string
from genet.spec.network import Input, Network

CLOSE = 1e-5  # of the largest logit


@dataclasses.dataclass(frozen=True)
class Imported:
    """A network, its weights where they could be had, and else why not."""

    network: Network
    module: GENet | None
    without: str | None = None


def import_network(what: str, reads: Input, name: str) -> Imported:
    """What a user names: timm:MODEL, a folder, MODULE:ATTRIBUTE that is timm's ByoModelCfg, or a GENet string or its file.

    `reads` is what a structure alone does not tell. SpecError lists what no network here can be.
    """
    if what.startswith("timm:"):
        return _from_model(what.removeprefix("timm:"), name)
    folder = Path(what)
    if (folder / CONFIG_FILE).exists():
        config = read_config(folder)
        arguments = {**_registered(config["architecture"]), **config.get("model_args", {})}
        return _with_weights(arguments, open_timm(folder), name)
    if (folder / NETWORK_FILE).exists():
        module = load(folder)
        return Imported(module.network, module)
    if folder.is_file() or what.startswith("ConvKX("):
        text = read_bytes(folder).decode(errors="replace") if folder.is_file() else what
        return Imported(from_genet_string(text, reads.resolution, reads.classes, name), None, "the notation holds none")
    if re.fullmatch(r"[\w.]+:\w+", what):
        return Imported(from_timm(_configuration(what), *_sizes(reads), name), None, "a ByoModelCfg holds none")
    raise GenetError(
        f"{what}: must be timm:MODEL, a folder with config.json or network.yaml, MODULE:ATTRIBUTE, or a GENet string or its file"
    )


def _sizes(reads: Input) -> tuple[int, int, int]:
    return reads.resolution, reads.channels, reads.classes


def _from_model(model_name: str, name: str) -> Imported:
    """A timm model by name, with its trained weights if they can be had."""
    import timm

    if not timm.is_model(model_name.split(".")[0]):
        raise SpecError([f"timm:{model_name} must be the name of a timm model, and is none"])
    arguments = _registered(model_name.split(".")[0])
    try:
        return _with_weights(arguments, timm.create_model(model_name, pretrained=True).eval(), name)
    except (OSError, RuntimeError) as fault:  # no network, or no weights
        config = timm.get_pretrained_cfg(model_name)
        channels, resolution, _ = config.input_size
        network = from_timm(arguments, resolution, channels, config.num_classes, name)
        return Imported(network, None, f"they cannot be had ({first_line(fault)})")


def _registered(architecture: str) -> dict[str, Any]:
    from timm.models.byobnet import model_cfgs

    if architecture not in model_cfgs:
        raise SpecError(
            [f"a timm model must be one of its ByobNets, such as gernet_l, to be a network here (got {architecture})"]
        )
    return dict(vars(model_cfgs[architecture]))


def _configuration(what: str) -> dict[str, Any]:
    module, attribute = what.split(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as fault:
        raise GenetError(f"{what} must be MODULE:ATTRIBUTE that can be imported, and cannot ({fault})") from None
    if not dataclasses.is_dataclass(found) or not hasattr(found, "blocks"):
        raise GenetError(f"{what} must be timm's ByoModelCfg, and is a {type(found).__name__}")
    return dict(vars(found))


@torch.inference_mode()
def _with_weights(arguments: Mapping[str, Any], model: nn.Module, name: str) -> Imported:
    """The same structure here with the same weights, and the same logits."""
    config: Any = model.pretrained_cfg
    channels, resolution, _ = config["input_size"]
    network = from_timm(arguments, resolution, model.in_chans, model.num_classes, name)  # type: ignore[arg-type]
    module = build(network)
    try:
        module.load_state_dict(model.state_dict())
    except RuntimeError as fault:
        raise GenetError(f"{name}: its weights must be those of {network}, and are not ({first_line(fault)})") from None
    images = torch.randn(2, channels, resolution, resolution, generator=torch.Generator().manual_seed(0))
    wanted, found = model(images), module.eval()(images)
    error = float((wanted - found).abs().max() / wanted.abs().max())
    if not error <= CLOSE:
        raise GenetError(f"{name}: the imported network must give its logits within {CLOSE:g}, and differs by {error:g}")
    return Imported(network, module)
