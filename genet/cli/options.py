"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable

Add = Callable[[str, str], argparse.ArgumentParser]  # a command of a name, with its help
NETWORK = "a network file, a notation, blocks such as 'BL k3 c64 r0.25 @14', or a timm model such as timm:resnet50"


def positive(text: str) -> int:
    """Return a whole number of at least 1; argparse's error for any other text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def add_reading(command: argparse.ArgumentParser) -> None:
    """Add the options for a network's input, if its name does not determine it or another one is wanted."""
    command.add_argument("--size", type=positive, metavar="PIXELS", help="resolution (default: the network's own)")
    command.add_argument("--example", metavar="N,C,H,W", help="shape of the input of your own network, such as 1,3,224,224")


def add_measure(command: argparse.ArgumentParser) -> None:
    """Add the options for measuring latency, as in a recipe."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, or estimate:GPU such as estimate:v100")
    command.add_argument(
        "--runtime",
        default="auto",
        help="eager, cudagraph, compile, onnxruntime, tensorrt; auto: cudagraph on a GPU of this machine, else eager",
    )
    command.add_argument("--dtype", default="fp32", help="fp32, fp16 or bf16; int8 for an estimate with --runtime tensorrt")
    command.add_argument("--memory-format", default="contiguous", help="contiguous or channels_last")
    command.add_argument("--batch", type=int, default=64, help="images per batch (default: 64)")
    command.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all)")


def add_runner(command: argparse.ArgumentParser) -> None:
    """Add the options for the runner of the trials and for their MasterNet."""
    unlearnt = (
        "go on even if the MasterNet has learnt nothing: networks are then chosen almost blindly, at the cost of a whole search"
    )
    command.add_argument("--any-master", action="store_true", help=unlearnt)
    command.add_argument(
        "--trials-per-gpu", type=positive, metavar="N", default=1, help="trials that run at once on a GPU (default: 1)"
    )
    add_workers(command)


def add_workers(command: argparse.ArgumentParser) -> None:
    """Add the options for the runner of trials and trainings."""
    command.add_argument(
        "--runner",
        choices=("auto", "in-process", "processes", "ray"),
        default="auto",
        help="what runs trials and trainings; auto: one process per GPU, or this process if there is a single device",
    )
    command.add_argument(
        "--workers", type=positive, metavar="N", help="for --runner processes: how many (default: one per GPU, or 2)"
    )
    command.add_argument("--address", metavar="A", help="address of a running Ray cluster (default: one on this machine)")
