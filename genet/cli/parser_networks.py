"""The commands for a network that there is already."""

from __future__ import annotations

from pathlib import Path

from genet.cli.options import Add, add_measure, add_reading, positive
from genet.cli.parser_align import add_align


def add_network_commands(add: Add) -> None:
    """Add the commands: for a network from elsewhere, and for those of a run."""
    _add_import(add)
    align = add_align(add)
    add_reading(align)
    add_measure(align)
    align.set_defaults(device=None, runtime=None, dtype=None, memory_format=None, batch=None)  # a run may give others
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

    export = add("export", "write trained networks for other runtimes, each loaded again and compared")
    export.add_argument("what", type=Path, metavar="RUN|FOLDER", help="a run folder, or the folder of one trained network")
    export.add_argument("--network", metavar="NAME", help="for a run: export only this one of its networks")
    export.add_argument(
        "--format",
        action="append",
        metavar="F",
        help="safetensors, timm, onnx, onnx-fp16, onnx-int8, pt2, genet-string; a named format must succeed "
        "(default: all that do)",
    )
    export.add_argument("--data", metavar="FOLDER", help="images to calibrate and test on; for a run: its own, if moved")

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
        help="timm:MODEL, a folder of timm's or genet's, MODULE:FUNCTION that builds one (and loads its checkpoint) or "
        "MODULE:BYOMODELCFG, a GENet string",
    )
    take.add_argument("--into", required=True, metavar="FOLDER", type=Path, help="folder for its network.yaml and weights")
    take.add_argument(
        "--size",
        type=positive,
        metavar="PIXELS",
        default=224,
        help="resolution of images for MODULE:FUNCTION, MODULE:BYOMODELCFG or a GENet string (default: 224)",
    )
    take.add_argument("--classes", type=positive, metavar="N", default=1000, help="classes of the same (default: 1000)")
    take.add_argument("--channels", type=positive, metavar="N", default=3, help="channels, but for a GENet string (default: 3)")
