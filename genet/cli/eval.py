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
from genet.training.accuracy import EVALUATION_BATCH, top
from genet.training.inventory import images_named
from genet.training.splits import load_test


def run(arguments: argparse.Namespace) -> Answer:
    """Print top-1 and top-5 accuracy of a trained network."""
    device = open_device(arguments.device)
    opened = open_network(arguments.what, device, arguments.format)
    images = load_test(images_named(arguments.data), opened.reads, opened.shown, opened.labels, progress())
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
