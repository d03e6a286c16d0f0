"""`genet import`: import a network from elsewhere, with its weights if it has any."""

from __future__ import annotations

import argparse
from pathlib import Path

from genet.arch.network import legal_name
from genet.cli.console import Answer
from genet.config.preprocessing import Preprocessing, preprocessing_at
from genet.config.reader import to_yaml
from genet.export.importing import import_network
from genet.export.opening import input_of
from genet.models.plain import baked
from genet.models.weights import LABELS_FILE, NETWORK_FILE, WEIGHTS_FILE, check_vacant, kernels, save_weights, write_labels
from genet.names import some_of
from genet.storage import FolderLock, write_atomic


def _way(shown: Preprocessing) -> str:
    mean, deviation = (" ".join(map("{:g}".format, each)) for each in (shown.mean, shown.std))
    return f"{shown.interpolation}, {100 * shown.crop:g} % of the {shown.crop_mode}, mean {mean}, deviation {deviation}"


def run(arguments: argparse.Namespace) -> Answer:
    """Import a network from elsewhere into a folder, with its weights if it has any."""
    folder: Path = arguments.into
    check_vacant(folder)
    reads = input_of("--classes", arguments.channels, arguments.classes, arguments.size)
    found = import_network(arguments.what, reads, legal_name(folder.absolute().name))
    with FolderLock(folder):
        if found.module is not None:
            save_weights(found.module, folder / WEIGHTS_FILE)
            write_labels(folder, found.labels)
        write_atomic(folder / NETWORK_FILE, to_yaml(found.network).encode())
    weights = f"without weights: {found.without}" if found.without else "with its weights"
    random = found.module is not None and bool(found.drawn) and found.drawn == kernels(found.module)
    if random:
        weights = "its weights are random: the function loads none"
    elif found.drawn:
        weights = f"with its weights, but random ones in {some_of(found.drawn)}: the function loads none for them"
    print(f"{folder}: {found.network}, {weights}")
    if found.module is not None and not random and not found.labels:
        file = folder / LABELS_FILE
        print(f"  its classes have no names: write them into {file}, a line for each logit, or logits stand for folders by name")
    if found.module is not None and (told := baked(found.module)):
        print(f"  {told}")
    usual = preprocessing_at(found.network.input.channels, found.network.input.resolution)
    if found.shown not in (None, usual):
        print(
            f"  its accuracy may differ: images were prepared for it by {_way(found.shown)}, "
            f"and are prepared here by {_way(usual)}"
        )
    return {"folder": str(folder), "network": str(found.network), "weights": found.module is not None}
