"""The commands for an existing network."""

from __future__ import annotations

import argparse
from pathlib import Path

from genet.cli.options import Add, add_measure, add_reading, positive
from genet.studies.align import TOLERANCE


def add_network_commands(add: Add) -> None:
    """Add the commands: for a network from elsewhere, and for those of a run."""
    _add_import(add)
    align = add_align(add)
    add_reading(align)
    add_measure(align)
    align.set_defaults(device=None, runtime=None, dtype=None, memory_format=None, batch=None)  # a run may set others
    train = add("train", "train the selected networks of a run from scratch, or any network by a recipe")
    train.add_argument("what", help="a run folder; or with --recipe a network file, name or notation")
    train.add_argument("--network", metavar="NAME", help="for a run: train only this one of the selected networks")
    train.add_argument("--recipe", help="a recipe for the training of one network: a file, or a name that comes with genet")
    train.add_argument("--into", metavar="FOLDER", type=Path, help="folder for a network (default: runs/NETWORK-RECIPE)")
    train.add_argument(
        "--from", dest="start", metavar="FOLDER", type=Path, help="for a network: start from the weights in this folder"
    )
    train.add_argument("--data", metavar="FOLDER", help="the folder of the images")
    train.add_argument("--device", help="auto, cpu, cuda or cuda:N")

    export = add("export", "export trained networks for other runtimes; each file is loaded again and compared")
    export.add_argument("what", type=Path, metavar="RUN|FOLDER", help="a run folder, or the folder of one trained network")
    export.add_argument("--network", metavar="NAME", help="for a run: export only this one of its networks")
    export.add_argument(
        "--format",
        action="append",
        metavar="F",
        help="safetensors, timm, onnx, onnx-fp16, onnx-int8, pt2, genet-string; a named format must succeed "
        "(default: all that do)",
    )
    export.add_argument("--data", metavar="FOLDER", help="images to calibrate and test on; for a run: where its images are now")

    evaluate = add("eval", "measure the accuracy of an exported network or of a timm model on test images")
    evaluate.add_argument("what", metavar="NETWORK", help="a network's folder, a .onnx or .pt2 file, or timm:MODEL")
    evaluate.add_argument("--data", required=True, metavar="FOLDER", help="folder with validation/CLASS/*.jpg; or digits")
    evaluate.add_argument("--format", metavar="F", help="for an export folder: the format to run (default: safetensors)")
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; .onnx and .pt2 files run on the processor")


def _add_import(add: Add) -> None:
    take = add("import", "import a network from elsewhere, with its weights if it has any")
    take.add_argument(
        "what",
        metavar="NETWORK",
        help="timm:MODEL, a folder saved by timm or genet, MODULE:FUNCTION that builds the network (and loads its "
        "checkpoint), MODULE:BYOMODELCFG, or a GENet string",
    )
    take.add_argument("--into", required=True, metavar="FOLDER", type=Path, help="folder for its network.yaml and weights")
    take.add_argument(
        "--size",
        type=positive,
        metavar="PIXELS",
        default=224,
        help="resolution of images for MODULE:FUNCTION, MODULE:BYOMODELCFG or a GENet string (default: 224)",
    )
    take.add_argument("--classes", type=positive, metavar="N", default=1000, help="number of classes for these (default: 1000)")
    take.add_argument(
        "--channels", type=positive, metavar="N", default=3, help="image channels, except for a GENet string (default: 3)"
    )


def add_align(add: Add) -> argparse.ArgumentParser:
    """Add the command with its own options; those for reading and measuring a network are shared with other commands."""
    align = add("align", "move a network's widths to the edges of the device's latency staircase")
    align.add_argument(
        "what",
        metavar="NETWORK",
        help="timm:MODEL, MODULE:FUNCTION that builds one, a network file, or its folder in a run",
    )
    align.add_argument(
        "--mode",
        choices=("latency", "accuracy"),
        default="latency",
        help="latency: faster with as many parameters; accuracy: more parameters at the same latency (default: latency)",
    )
    align.add_argument(
        "--objective",
        choices=("paper", "importance"),
        default="paper",
        help="paper: the fastest network with as many parameters; importance: keep the channels and residual blocks that "
        "the loss depends on most, within --target-ratio of the latency; needs --data (default: paper)",
    )
    align.add_argument(
        "--target-ratio",
        type=float,
        metavar="SHARE",
        help="the wanted latency as a share of the present one, such as 0.85; if the paper's objective cannot reach it, "
        "the result is the fastest network found",
    )
    align.add_argument(
        "--param-tolerance",
        type=float,
        metavar="SHARE",
        default=TOLERANCE,
        help=f"allowed relative change of the number of parameters (default: {TOLERANCE}); doubled until --target-ratio is met",
    )
    align.add_argument("--solver", choices=("greedy", "exact"), default="greedy", help="the paper's algorithm, or the optimum")
    align.add_argument("--scale", metavar="WHAT", help="with --mode accuracy: grow in width, resolution or width,resolution")
    align.add_argument(
        "--pruned",
        metavar="FILE",
        help="YAML file with the widths of a pruning method, as 'name: mine' and 'widths: {LAYER: CHANNELS, ...}'; or a name: "
        "hrank-vgg16, hrank-resnet56, sfp30-resnet56, sfp40-resnet56",
    )
    align.add_argument(
        "--criterion",
        choices=("l1", "l2", "rank", "taylor"),
        default="l1",
        help="how channels are scored when some are cut (default: l1; with --objective importance: taylor)",
    )
    align.add_argument(
        "--include", action="append", metavar="PATTERN", help="move only layers or modules with such names, as in 'layer3.*'"
    )
    align.add_argument("--exclude", action="append", metavar="PATTERN", help="do not move layers or modules with such names")
    align.add_argument(
        "--data",
        metavar="FOLDER",
        help="images, or digits: to test accuracy before and after, to train on, and to compute importance and ranks",
    )
    align.add_argument("--untrained", action="store_true", help="write fresh weights if there are no trained ones")
    align.add_argument("--into", metavar="FOLDER", type=Path, help="folder for the network with the new widths")
    align.add_argument(
        "--recipe", metavar="R", help="with --into: train the result further with this recipe (file or name), on --data if given"
    )
    align.add_argument(
        "--evidence", metavar="FILE", type=Path, help="the journal of measurements (default: runs/align/latency.jsonl)"
    )
    align.add_argument("--calibrate", action="append", metavar="NETWORK=MS", help="for an estimate, as in genet latency")
    align.add_argument("--plot", metavar="FILE", type=Path, help="draw widths and latencies before and after as SVG")
    return align
