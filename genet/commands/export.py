"""Commands on trained networks: write them for other runtimes, take their accuracy, and take in networks from elsewhere."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch

from genet import pipeline
from genet.choose.outcome import percent
from genet.commands.naming import images_in, images_named
from genet.commands.printing import progress, table
from genet.device import open_device
from genet.errors import GenetError
from genet.export.exports import check_formats
from genet.export.importing import import_network
from genet.export.opening import input_of, open_network
from genet.export.record import EVIDENCE_FILE, Exports
from genet.files import FolderLock, write_atomic
from genet.job import open_job
from genet.names import typed
from genet.nets.data import load_test
from genet.nets.evaluation import EVALUATION_BATCH, top
from genet.nets.plain import baked
from genet.nets.weights import NETWORK_FILE, WEIGHTS_FILE, save_weights, write_labels
from genet.runfolder import RunFolder
from genet.spec.network import legal_name
from genet.spec.reader import read_training, to_yaml
from genet.spec.recipe import Data, Recipe
from genet.spec.shown import Shown, shown_at

Answer = dict[str, Any]


def export(arguments: argparse.Namespace) -> Answer:
    """`genet export`: the networks of a run, or the one in a folder."""
    what, formats = arguments.what, tuple(arguments.format or ())
    check_formats(formats)
    if (what / EVIDENCE_FILE).exists():
        raise GenetError(f"{what}: is an export already; genet export {typed(what.parent)} adds formats to it")
    if not ((what / NETWORK_FILE).exists() or RunFolder(what).recipe_file.exists()):
        raise GenetError(f"{what}: must be a run folder, or the folder of a trained network (network.yaml), and is neither")
    if RunFolder(what).results.exists() or not (what / NETWORK_FILE).exists():
        with open_job(what, progress(), _with_images(what, arguments.data) if arguments.data else None) as job:
            folders = pipeline.export_selected(job, formats, arguments.network)
            unmet = () if arguments.network else pipeline.unmet_budgets(job)
    elif what.absolute().parent.name == "networks" and RunFolder(what.absolute().parent.parent).recipe_file.exists():
        run = typed(what.parent.parent)
        raise GenetError(f"{what}: is a run's, which knows its images; genet export {run} --network {typed(Path(what.name))}")
    elif arguments.network:
        raise GenetError(f"--network must go with a run folder, and {what} holds a single network; leave it out")
    else:
        with FolderLock(what):
            RunFolder(what).remove_leftovers()
            pipeline.export_folder(what, formats, _images_for(what, arguments.data) if arguments.data else None, progress())
        folders, unmet = (what / "export",), ()
    found = [Exports.load(folder / EVIDENCE_FILE) for folder in folders]
    for folder, exports in zip(folders, found, strict=True):
        _print_exports(folder, exports)
    return {
        "exports": [str(folder) for folder in folders],
        "formats": {str(folder): each.model_dump(mode="json") for folder, each in zip(folders, found, strict=True)},
        "met": bool(folders) or not unmet,
        "shortfalls": (*unmet, *(line for each in found for line in each.failures if not formats)),
    }


def _with_images(run: Path, folder: str) -> Recipe:
    """A run's recipe with its images in this folder, to which they were moved."""
    recipe = RunFolder(run).recipe()
    if recipe.data.name == "digits":
        raise GenetError(f"--data must tell where a run's images lie now, and {run} has digits; leave it out")
    return recipe.model_copy(update={"data": images_in(recipe.data, folder)})


def _images_for(folder: Path, named: str) -> Data:
    """The images named, divided as those are that the network in the folder was trained on."""
    file, images = folder / "recipe.yaml", images_named(named)
    trained_on = read_training(file).data if file.exists() else images
    return images if "digits" in (images.name, trained_on.name) else images_in(trained_on, named)


def _print_exports(folder: Path, exports: Exports) -> None:
    print(folder)
    rows = [
        [
            each.format,
            next(reversed(each.files)),
            f"{max(each.relative_error):.1e}",
            "" if each.accuracy is None else percent(each.accuracy),
        ]
        for each in exports.exported
    ]
    table(["format", "file", "largest difference of logits", "test accuracy"], rows)
    for name, why in exports.left_out.items():
        print(f"  {name} is left out: {why}")


def evaluate(arguments: argparse.Namespace) -> Answer:
    """`genet eval`: top-1 and top-5 of any trained network."""
    device = open_device(arguments.device)
    opened = open_network(arguments.what, device, arguments.format)
    images = load_test(images_named(arguments.data), opened.reads, opened.shown, opened.labels, progress().say)
    began = time.monotonic()
    with progress().track("images", math.ceil(images.size / EVALUATION_BATCH)) as tracker:

        def answers(pixels: torch.Tensor) -> torch.Tensor:
            found = opened.answers(pixels)
            tracker.advance()
            return found

        first, fifth = top(answers, (1, 5), images, opened.reads.resolution, opened.device)
    seconds = time.monotonic() - began
    told = "" if opened.reads.classes <= 5 else f", top-5 {percent(fifth)}"
    form = f" as {arguments.format}" if arguments.format else ""
    print(
        f"{arguments.what}{form}: top-1 {percent(first)}{told} of {images.size:,} images at {opened.reads.resolution} pixels, "
        f"in {opened.runtime} on {opened.device}, {images.size / seconds:.0f} images/s with their decoding"
    )
    return {
        "top1": first,
        "top5": fifth,
        "images": images.size,
        "seconds": seconds,
        "runtime": opened.runtime,
        "format": arguments.format,
        "device": str(opened.device),
    }


def _way(shown: Shown) -> str:
    mean, deviation = (" ".join(map("{:g}".format, each)) for each in (shown.mean, shown.std))
    return f"{shown.interpolation}, {100 * shown.crop:g} % of the {shown.crop_mode}, mean {mean}, deviation {deviation}"


def import_(arguments: argparse.Namespace) -> Answer:
    """`genet import`: a network from elsewhere into a folder, with its weights where there are some."""
    folder: Path = arguments.into
    if (folder / NETWORK_FILE).exists():
        raise GenetError(f"{folder}: must hold no network yet, and does; give another --into FOLDER")
    reads = input_of("--classes", arguments.channels, arguments.classes, arguments.size)
    found = import_network(arguments.what, reads, legal_name(folder.absolute().name))
    with FolderLock(folder):
        if found.module is not None:
            save_weights(found.module, folder / WEIGHTS_FILE)
            write_labels(folder, found.labels)
        write_atomic(folder / NETWORK_FILE, to_yaml(found.network).encode())
    weights = f"without weights: {found.without}" if found.without else "with its weights"
    print(f"{folder}: {found.network}, {weights}")
    if found.module is not None and (told := baked(found.module)):
        print(f"  {told}")
    usual = shown_at(found.network.input.channels, found.network.input.resolution)
    if found.shown not in (None, usual):
        print(f"  its accuracy may differ: its images were shown by {_way(found.shown)}, and are shown here by {_way(usual)}")
    return {"folder": str(folder), "network": str(found.network), "weights": found.module is not None}
