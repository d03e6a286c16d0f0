"""The options of `genet align`."""

from __future__ import annotations

import argparse
from pathlib import Path

from genet.cli.options import Add
from genet.studies.align import TOLERANCE


def add_align(add: Add) -> argparse.ArgumentParser:
    """Add the command with its own options; those of how a network is read and measured are shared with other commands."""
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
        help="latency: faster with as many parameters; accuracy: more parameters as fast (default: latency)",
    )
    align.add_argument(
        "--objective",
        choices=("paper", "importance"),
        default="paper",
        help="paper: the fastest with as many parameters; importance: with --data and --target-ratio, the channels and residual "
        "blocks that the loss depends on most, at that latency (default: paper)",
    )
    align.add_argument(
        "--target-ratio",
        type=float,
        metavar="SHARE",
        help="the wanted latency over the present one, such as 0.85; if it is out of the reach of the paper's objective, the "
        "result is the fastest found",
    )
    align.add_argument(
        "--param-tolerance",
        type=float,
        metavar="SHARE",
        default=TOLERANCE,
        help=f"allowed change of the parameters (default: {TOLERANCE}); doubled until --target-ratio is met",
    )
    align.add_argument("--solver", choices=("greedy", "exact"), default="greedy", help="the paper's algorithm, or the optimum")
    align.add_argument("--scale", metavar="WHAT", help="with --mode accuracy: grow width, resolution or width,resolution at once")
    align.add_argument(
        "--pruned",
        metavar="FILE",
        help="widths from a pruning method, 'name: mine' and 'widths: {LAYER: CHANNELS, ...}'; or a name: hrank-vgg16",
    )
    align.add_argument(
        "--criterion",
        choices=("l1", "l2", "rank", "taylor"),
        default="l1",
        help="score of the channels to keep in a cut (default: l1; with --objective importance: taylor)",
    )
    align.add_argument(
        "--include", action="append", metavar="PATTERN", help="move only layers or modules with such names, as in 'layer3.*'"
    )
    align.add_argument("--exclude", action="append", metavar="PATTERN", help="do not move layers or modules with such names")
    align.add_argument(
        "--data",
        metavar="FOLDER",
        help="images, or digits: for the accuracy before and after, and to train on or for importance and ranks to look at",
    )
    align.add_argument("--untrained", action="store_true", help="write fresh weights if there are no trained ones")
    align.add_argument("--into", metavar="FOLDER", type=Path, help="folder for the network with the new widths")
    align.add_argument(
        "--recipe", metavar="R", help="with --into: train it on by this file or recipe of genet, on --data if given"
    )
    align.add_argument(
        "--evidence", metavar="FILE", type=Path, help="the journal of measurements (default: runs/align/latency.jsonl)"
    )
    align.add_argument("--calibrate", action="append", metavar="NETWORK=MS", help="for an estimate, as in genet latency")
    align.add_argument("--plot", metavar="FILE", type=Path, help="draw widths and latencies before and after as SVG")
    return align
