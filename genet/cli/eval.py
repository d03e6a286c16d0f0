"""`genet eval`: the accuracy of any trained network on test images."""

from __future__ import annotations

import argparse
import math
import time

import torch

from genet.cli.console import Answer, progress
from genet.device import open_device
from genet.export.opening import open_network
from genet.search.outcome import percent
from genet.training.accuracy import EVALUATION_BATCH, top_k_accuracy
from genet.training.inventory import images_named
from genet.training.splits import load_test


def run(arguments: argparse.Namespace) -> Answer:
    """Print top-1 and top-5 accuracy of a trained network."""
    device = open_device(arguments.device)
    opened = open_network(arguments.what, device, arguments.format)
    images = load_test(images_named(arguments.data), opened.input, opened.preprocessing, opened.labels, progress())
    began = time.monotonic()
    with progress().track("images", math.ceil(images.size / EVALUATION_BATCH)) as tracker:

        def forward(pixels: torch.Tensor) -> torch.Tensor:
            found = opened.forward(pixels)
            tracker.advance()
            return found

        first, fifth = top_k_accuracy(forward, (1, 5), images, opened.input.resolution, opened.device)
    seconds = time.monotonic() - began
    top_5 = "" if opened.input.classes <= 5 else f", top-5 {percent(fifth)}"
    form = f" as {arguments.format}" if arguments.format else ""
    print(
        f"{arguments.what}{form}: top-1 {percent(first)}{top_5} of {images.size:,} images at {opened.input.resolution} "
        f"pixels, in {opened.runtime} on {opened.device}, {images.size / seconds:.0f} images/s including decoding"
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
