"""A network as timm's ByobNet: the same tensors under the same names, in a model that runs without this project; and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genet.arch.network import Network, blocks
from genet.config.preprocessing import Preprocessing
from genet.errors import GenetError, SpecError, StorageError, first_line
from genet.export.format import Format, Forward, TrainedModel, refused_by
from genet.models.weights import WEIGHTS_FILE, weights_bytes
from genet.storage import read_bytes, read_from_elsewhere

FOLDER = "timm"
CONFIG_FILE = "config.json"
PICKLED = "pytorch_model.bin"  # the weights as torch saves them, which timm writes by default
ARCHITECTURE = "gernet_l"  # of timm's: any with this stem, downsampling and head would do
STEMS = {3: "3x3", 7: "7x7"}
LARGEST_STRIDE = 32  # beyond it timm dilates, unless the stride is given


def timm_arguments(network: Network) -> dict[str, Any]:
    """Return the arguments for timm's model of a network, with blocks as plain values. GenetError if timm has no such network."""
    stem, stages = network.stem, len(network.stages)
    lacking = [f"a stem of stride {stem.stride}"] if stem.stride != 2 else []
    lacking += [f"a stem of kernel {stem.kernel}"] if stem.kernel not in STEMS else []
    lacking += ["a single super-block"] if stages == 1 else ["no super-block"] if not stages else []
    if lacking:
        raise GenetError(
            f"plain timm cannot build this network: got {' and '.join(lacking)}, expected a stem of stride 2 and kernel 3 "
            "or 7 and at least two super-blocks; the other formats hold the same network"
        )
    stride = stem.stride * math.prod(superblock.stride for superblock in network.stages)
    features = network.head.width if network.head else 0  # 0: no convolution
    frame = {"stem_type": STEMS[stem.kernel], "stem_chs": stem.width, "num_features": features}
    return {**frame, **({"output_stride": stride} if stride > LARGEST_STRIDE else {}), "blocks": _blocks(network)}


def _blocks(network: Network) -> list[dict[str, Any]]:
    """Return every super-block that has blocks as the fields of timm's ByoBlockCfg."""
    return [
        {
            "type": "basic" if block.type == "XX" else "bottle",
            "d": block.depth,
            "c": block.width,
            "s": block.stride,
            "gs": 1 if block.type == "DW" else 0,
            "br": block.ratio or 1.0,
            **({} if block.kernel == 3 else {"block_kwargs": {"kernel_size": block.kernel}}),
        }
        for block in network.stages
    ]


def from_timm(arguments: Mapping[str, Any], resolution: int, channels: int, classes: int, name: str) -> Network:
    """Return the network that timm's ByobNet builds from these ByoModelCfg fields; SpecError lists everything unsupported."""
    blocks = [_plain(block) for block in arguments.get("blocks", ())]
    faults = [
        f"{field} of a timm model must be {' or '.join(map(repr, legal))} to be a network here (got {arguments[field]!r})"
        for field, legal in {**FIELDS, "stem_type": tuple(STEMS.values())}.items()
        if field in arguments and arguments[field] not in legal
    ]
    kernels = {form: kernel for kernel, form in STEMS.items()}
    entries = [
        f"@{resolution}x{channels}",
        f"Conv k{kernels.get(arguments.get('stem_type', '3x3'), 3)} c{arguments.get('stem_chs', 32)} s2",
    ]
    for place, block in enumerate(blocks, start=1):
        fault, entry = _entry(block)
        faults += [f"block {place} of a timm model {fault}"] * bool(fault)
        entries.append(entry)
    if not blocks:
        faults.append("a timm model must have blocks to be a network here")
    if faults:
        raise SpecError(faults)
    features = arguments.get("num_features", 0)
    entries += [f"Conv k1 c{features}"] if features else []
    return Network.parse(" | ".join([*entries, str(classes)]), name)


FIELDS: dict[str, tuple[Any, ...]] = {  # fields of ByoModelCfg, with their values for networks here
    "downsample": ("conv1x1",),
    "stem_pool": (None, ""),
    "width_factor": (1.0,),
    "act_layer": ("relu",),
    "norm_layer": ("batchnorm",),
    "aa_layer": ("", None),
    "head_type": ("classifier",),
    "attn_layer": (None,),
    "self_attn_layer": (None,),
    "block_kwargs": ({},),
}


def _plain(block: Any) -> dict[str, Any]:
    return block if isinstance(block, dict) else vars(block)


def _entry(block: Mapping[str, Any]) -> tuple[str, str]:
    """Return the fault of a block of timm's, or its entry in the notation."""
    kind, group, ratio = block.get("type"), block.get("gs") or 0, float(block.get("br", 1.0))
    extra = {key: value for key, value in (block.get("block_kwargs") or {}).items() if key != "kernel_size"}
    if block.get("attn_layer") or block.get("self_attn_layer") or extra:
        return f"must have neither attention nor other settings than its kernel (got {dict(block)})", ""
    if not block["d"]:
        return "must have a depth of 1 or more (got d=0)", ""
    kernel = (block.get("block_kwargs") or {}).get("kernel_size", 3)
    size = f"k{kernel} c{block['c']} s{block.get('s', 2)} d{block['d']}"
    match kind, group:
        case "basic", 0 if ratio == 1:
            return "", f"XX {size}"
        case "bottle", 0 | 1:
            return "", f"{'DW' if group else 'BL'} {size} r{ratio!r}".removesuffix(".0")
    return f"must be basic with ratio 1, or bottle, full or depthwise (got {kind}, ratio {ratio:g}, group size {group})", ""


def to_timm(network: Network) -> nn.Module:
    """Return timm's model of this structure, with fresh weights."""
    import timm

    input_, arguments = network.input, with_blocks(timm_arguments(network))
    model: nn.Module = timm.create_model(ARCHITECTURE, num_classes=input_.classes, in_chans=input_.channels, **arguments)
    return model


def _files(subject: TrainedModel) -> dict[str, bytes]:
    """Return its files as timm keeps its own models: a config.json and the weights."""
    network, input_, preprocessing = subject.superblock_network, subject.network.input, subject.preprocessing
    *_, last = blocks(network)
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": input_.classes,
        "num_features": last.pooled_width,
        "global_pool": "avg",
        **({"label_names": subject.labels} if subject.labels else {}),
        "model_args": {**timm_arguments(network), "in_chans": input_.channels},
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": input_.image,
            "fixed_input_size": False,
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop,
            "crop_mode": preprocessing.crop_mode,
            "mean": preprocessing.mean,
            "std": preprocessing.std,
            "num_classes": input_.classes,
            "pool_size": None,
            "first_conv": "stem.conv",
            "classifier": "head.fc",
        },
    }
    text = json.dumps(config, indent=2) + "\n"
    return {f"{FOLDER}/{CONFIG_FILE}": text.encode(), f"{FOLDER}/{WEIGHTS_FILE}": weights_bytes(subject.module)}


def open_timm(folder: Path) -> nn.Module:
    """Return the model in a folder of timm's format, in eval mode, from safetensors checked against the checksum beside them.

    A folder without them may hold what torch saves. SpecError or StorageError if the folder holds no such model.
    """
    import timm
    from safetensors.torch import load

    config, pickled = read_config(folder), folder / PICKLED
    data = b"" if not (folder / WEIGHTS_FILE).exists() and pickled.exists() else read_from_elsewhere(folder / WEIGHTS_FILE)
    try:
        arguments = {**with_blocks(config["model_args"]), "num_classes": config["num_classes"]}  # timm writes these twice
        model: nn.Module = timm.create_model(
            config["architecture"], pretrained=False, pretrained_cfg=config.get("pretrained_cfg"), **arguments
        )
        model.load_state_dict(load(data) if data else torch.load(pickled, map_location="cpu", weights_only=True))
    except Exception as fault:  # any error of timm's models or of the reader of tensors
        raise StorageError(
            f"{folder}: loading its weights into the model that its {CONFIG_FILE} describes failed ({first_line(fault)})"
        ) from None
    return model.eval()


def timm_preprocessing(model: Any) -> Preprocessing:
    """Return the preparation of images for a timm model, by its own configuration."""
    from timm.data import resolve_data_config

    config = resolve_data_config(model=model)
    means, deviations = (tuple(config[name]) for name in ("mean", "std"))
    return Preprocessing(means, deviations, config["crop_pct"], config["interpolation"], config["crop_mode"])


def with_blocks(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ByobNet's arguments as timm takes them, which are plain values in a file."""
    from timm.models.byobnet import ByoBlockCfg

    blocks = arguments.get("blocks")
    return {**arguments, **({"blocks": tuple(ByoBlockCfg(**block) for block in blocks)} if blocks else {})}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a timm model's folder: architecture, classes, arguments; SpecError if it is not one."""
    file = folder / CONFIG_FILE
    try:
        config = json.loads(read_bytes(file))
    except ValueError as fault:
        raise SpecError([f"{file}: got text that is not JSON ({fault}), expected the config.json of a timm model"]) from None
    usual = {"model_args": {}, "num_classes": 1000, **(config if isinstance(config, dict) else {})}
    if not (isinstance(usual.get("architecture"), str) and isinstance(usual["model_args"], dict)):
        raise SpecError([f"{file}: got {config!s:.60} without an architecture, expected the config.json of a timm model"])
    return usual


def _timm_forward(folder: Path) -> Forward:
    """Open a folder in the way its card shows, by timm alone."""
    import timm

    blocks = with_blocks(read_config(folder / FOLDER)["model_args"])["blocks"]
    model: nn.Module = timm.create_model(f"local-dir:{folder / FOLDER}", pretrained=True, blocks=blocks)
    return model.eval()


TIMM = Format(
    name="timm",
    purpose="plain timm, without genet",
    place=FOLDER,
    files=_files,
    forward=_timm_forward,
    loading=(
        "import json, timm\n"
        f'blocks = json.load(open("FOLDER/{FOLDER}/{CONFIG_FILE}"))["model_args"]["blocks"]\n'
        f'network = timm.create_model("local-dir:FOLDER/{FOLDER}", pretrained=True, '
        "blocks=tuple(timm.models.byobnet.ByoBlockCfg(**block) for block in blocks)).eval()"
    ),
    tolerance=1e-6,
    refuses=refused_by(lambda subject: timm_arguments(subject.superblock_network)),
)
