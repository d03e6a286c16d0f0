"""The commands that measure."""

from __future__ import annotations

from pathlib import Path

from genet.cli.options import NETWORK, Add, add_measure, positive


def add_measuring_commands(add: Add) -> None:
    """Add the commands that time networks, and those that read timings."""
    latency = add("latency", "measure or estimate a network's latency, whole and per layer")
    latency.add_argument("networks", nargs="*", metavar="NETWORK", help=NETWORK)
    latency.add_argument("--size", type=positive, metavar="PIXELS", help="resolution (default: the network's own)")
    latency.add_argument(
        "--sweep", metavar="NAME=RANGE", help="sweep over batch, size or width: batch=1..128, width=32..512:8, size=7,14"
    )
    latency.add_argument(
        "--repeatability",
        action="store_true",
        help="find the smallest difference that this machine can resolve",
    )
    latency.add_argument(
        "--calibrate",
        action="append",
        metavar="NETWORK=MS",
        help="for an estimate: a network's measured ms per batch, or a latency.jsonl of that GPU",
    )
    change = add("latency diff", "compare two evidence files: which latencies changed, and how their settings differ")
    change.add_argument("files", nargs=2, metavar="EVIDENCE", type=Path, help="a latency.jsonl, as in a run folder")

    stairs = add("staircase", "find the widths at the edges of a device's latency staircase")
    stairs.add_argument("what", nargs="?", metavar="BLOCK", help="a block, layer or super-block such as 'XX k3 c256 @14'")
    stairs.add_argument("--widths", metavar="RANGE", help="widths to sweep: 32..512:8 (default: 8 to twice the block's)")
    stairs.add_argument("--from", dest="csv", metavar="CSV", help="a sweep with columns width,latency_ms[,sigma]")
    stairs.add_argument(
        "--compare", nargs=2, metavar="EVIDENCE", type=Path, help="find widths aligned on both devices, and their cost"
    )
    stairs.add_argument("--evidence", metavar="FILE", type=Path, help="a journal that keeps the measurements, for later runs")
    for command in (latency, stairs):
        add_measure(command)
        command.add_argument("--plot", metavar="FILE", type=Path, help="draw the result as SVG")
