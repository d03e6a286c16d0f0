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
from genet.models.weights import (
    LABELS_FILE,
    NETWORK_FILE,
    WEIGHTS_FILE,
    check_vacant,
    save_weights,
    weight_matrices,
    write_labels,
)
from genet.names import some_of
from genet.storage import FolderLock, write_atomic


def _preprocessing_in_words(preprocessing: Preprocessing) -> str:
    mean, deviation = (" ".join(map("{:g}".format, each)) for each in (preprocessing.mean, preprocessing.std))
    colours = f"mean {mean}, deviation {deviation}"
    return f"{preprocessing.interpolation}, {100 * preprocessing.crop:g} % of the {preprocessing.crop_mode}, {colours}"


def run(arguments: argparse.Namespace) -> Answer:
    """Import a network from elsewhere into a folder, with its weights if it has any."""
    folder: Path = arguments.into
    check_vacant(folder)
    input_ = input_of("--classes", arguments.channels, arguments.classes, arguments.size)
    found = import_network(arguments.what, input_, legal_name(folder.absolute().name))
    with FolderLock(folder):
        if found.module is not None:
            save_weights(found.module, folder / WEIGHTS_FILE)
            write_labels(folder, found.labels)
        write_atomic(folder / NETWORK_FILE, to_yaml(found.network).encode())
    weights = f"without weights: {found.why_no_weights}" if found.why_no_weights else "with its weights"
    random = found.module is not None and bool(found.random_weights) and found.random_weights == weight_matrices(found.module)
    if random:
        weights = "its weights are random: the function loads none"
    elif found.random_weights:
        weights = f"with its weights, but random ones in {some_of(found.random_weights)}: the function loads none for them"
    print(f"{folder}: {found.network}, {weights}")
    if found.module is not None and not random and not found.labels:
        file = folder / LABELS_FILE
        print(
            "  its classes have no names, so logits stand for the class folders in order of name; to name them, write "
            f"{file}, a line per logit"
        )
    if found.module is not None and (remark := baked(found.module)):
        print(f"  {remark}")
    usual = preprocessing_at(found.network.input.channels, found.network.input.resolution)
    if found.preprocessing not in (None, usual):
        print(
            "  its accuracy may differ: it was trained on images prepared by "
            f"{_preprocessing_in_words(found.preprocessing)}, but genet prepares them by {_preprocessing_in_words(usual)}"
        )
    return {"folder": str(folder), "network": str(found.network), "weights": found.module is not None}
