"""The papers' studies, on any network."""

from __future__ import annotations

from pathlib import Path

from genet.cli.options import NETWORK, Add, add_measure, add_reading, positive


def add_studies(add: Add) -> None:
    """Add the commands that repeat studies of the papers."""
    _add_survey(add)
    _add_fold(add)
    _add_rank(add)
    _add_filter(add)


def _add_survey(add: Add) -> None:
    survey = add("survey", "measure how well networks use a device, and find those that no other beats")
    survey.add_argument("networks", nargs="*", metavar="NETWORK", help=f"{NETWORK}, or a pattern of timm models: 'timm:resnet*'")
    survey.add_argument("--preset", choices=("paper",), help="the networks of the utilization paper's survey")
    survey.add_argument(
        "--from", dest="csv_from", metavar="CSV", type=Path, help="read a survey from this table instead of measuring"
    )
    survey.add_argument("--peak", type=float, metavar="TFLOPS", help="for --from: the device's peak")
    survey.add_argument(
        "--accuracy", metavar="CSV", type=Path, help="columns model and top1_percent, or timm's own results-imagenet.csv"
    )
    survey.add_argument(
        "--size",
        type=positive,
        metavar="PIXELS",
        help="resolution (default: the network's own; of a timm model: as trained)",
    )
    survey.add_argument("--largest-batch", action="store_true", help="use the largest batch that fits, not --batch")
    survey.add_argument(
        "--evidence", metavar="FILE", type=Path, help="the journal to continue (default: runs/survey/survey.jsonl)"
    )
    survey.add_argument("--csv", metavar="FILE", type=Path, help="write the table, which --from reads")
    survey.add_argument("--page", metavar="FILE", type=Path, help="write an HTML page with all figures")
    survey.add_argument("--plot", metavar="FILE", type=Path, help="draw the three frontiers as SVG")
    survey.add_argument("--roofline", metavar="FILE", type=Path, help="for one network: draw its layers under the roof as SVG")
    survey.add_argument("--calibrate", action="append", metavar="NETWORK=MS", help="for an estimate, as in genet latency")
    add_measure(survey)


def _add_fold(add: Add) -> None:
    fold = add("fold", "stack several images as one input of a wider network, and measure the effect on throughput")
    fold.add_argument(
        "networks", nargs="+", metavar="NETWORK", help="timm:MODEL, MODULE:FUNCTION, a network's file, name or notation"
    )
    fold.add_argument("--images-per-fold", type=positive, default=4, metavar="F", help="images stacked as one (default: 4)")
    add_reading(fold)
    fold.add_argument("--recipe", help="train one network, unfolded and folded, with this recipe (file or name)")
    fold.add_argument("--into", metavar="FOLDER", type=Path, help="for --recipe: folder for both")
    fold.add_argument("--data", metavar="FOLDER", help="for --recipe: the folder of the images")
    fold.add_argument("--plot", metavar="FILE", type=Path, help="draw throughput and utilization before and after as SVG")
    fold.add_argument("--calibrate", action="append", metavar="NETWORK=MS", help="for an estimate, as in genet latency")
    add_measure(fold)


def _add_rank(add: Add) -> None:
    rank = add("rank", "find the intrinsic rank of a trained network's stages, and the block types that suit them")
    rank.add_argument("what", metavar="NETWORK|RUN", help="a run, for its MasterNet; a trained network's folder; or timm:MODEL")
    rank.add_argument("--random", action="store_true", help="use random weights, whose rank is that of noise")
    add_reading(rank)
    rank.add_argument("--plot", metavar="FILE", type=Path, help="draw the singular values as SVG")


def _add_filter(add: Add) -> None:
    study = add("filter", "test whether utilization can replace accuracy when a space is searched")
    study.add_argument(
        "table",
        nargs="?",
        metavar="CSV",
        type=Path,
        help="every network of a space: network (as 8:16:64), top1_percent, images_per_sec, macs, train_sec[, time_sec]",
    )
    study.add_argument("--nats", metavar="FILE", type=Path, help="NATS-Bench's size space, read by its package")
    study.add_argument(
        "--budget", type=float, metavar="S", help="seconds per search (default: the time that filtering by utilization takes)"
    )
    study.add_argument("--seeds", type=positive, metavar="N", default=9, help="seeds per method (default: 9)")
    study.add_argument("--target", type=float, metavar="G", help="images/s that rewards are relative to (default: the median)")
    study.add_argument(
        "--weight",
        type=float,
        metavar="W",
        default=0.07,
        help="a reward is accuracy times (throughput / G) to the power W (default: 0.07)",
    )
    study.add_argument("--plot", metavar="FILE", type=Path, help="draw the results as SVG")
