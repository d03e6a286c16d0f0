"""The commands with their names, arguments and options."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NoReturn

from genet import __version__

STEPS = {
    "profile": "measure the latency of every block on offer and find the staircases",
    "master": "train the MasterNet",
    "distill": "run the trials: fine-tunes of perturbed networks",
}
EXITS = (
    "exit codes: 0 done; 2 refused or failed, with the reason in a line; 3 no budget can be met, with the smallest "
    "possible one in a line; 130 interrupted, 143 terminated: the same command resumes the work"
)
NETWORK = "a network file, a notation, blocks such as 'BL k3 c64 r0.25 @14', or a timm model such as timm:resnet50"
RENAMED = {
    "--f": "--images-per-fold",
    "--fresh": "--new-run",
    "--more": "--extra",
    "--next": "--suggest",
    "--picture": "--plot",
    "--reduce": "--target-ratio",
    "--tau": "--param-tolerance",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors give the new name of a renamed option."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and an error message."""
        words = re.split(r"[ =]", message)
        renamed = [f"{old} is called {new} now" for old, new in RENAMED.items() if old in words]
        super().error("; ".join([message, *renamed]))


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each is carried out by `run` in the module of its name."""
    found = Parser(
        prog="genet", description="Designs convolutional networks for your device and your latency budget.", epilog=EXITS
    )
    found.add_argument("--version", action="version", version=f"genet {__version__}")
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON line at the end")
    common.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    commands = found.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common], allow_abbrev=False
        )
        sub.set_defaults(command=name)
        return sub

    _add_job_commands(add)
    _add_network_commands(add)
    _add_latency_commands(add)
    _add_studies(add)
    return found


def _add_job_commands(add) -> None:  # type: ignore[no-untyped-def]
    whole = add("run", "do the whole job, or resume it")
    whole.add_argument("recipe", help="a recipe file, or the name of one that comes with genet")
    whole.add_argument("--new-run", action="store_true", help="start over in a new folder")
    whole.add_argument("--run", metavar="FOLDER", type=Path, help="the run folder (default: runs/NAME)")
    whole.add_argument("--data", metavar="FOLDER", help="the folder of the images")
    whole.add_argument("--device", help="auto, cpu, cuda, cuda:N, or estimate:GPU for a GPU that this machine lacks")
    whole.add_argument("--latency", metavar="FILE", help="another machine's latency.jsonl, used instead of measurements")

    check = add("check", "check a recipe, a search space or a network, and show its cost")
    check.add_argument("file", help="a YAML file, or the name of one that comes with genet")

    check.add_argument("--designs", action="store_true", help="list the known designs that a race compares the search with")

    init = add("init", "write a commented search space and recipe to start from")
    init.add_argument("file", type=Path, help="the recipe to write, such as my.yaml")

    for name, text in STEPS.items():
        step = add(name, text)
        step.add_argument("run", type=Path, help="a run folder")
        if name == "distill":
            step.add_argument("--status", action="store_true", help="show the progress of the trials, from any terminal")
            step.add_argument("--extra", type=_positive, metavar="N", help="run the N trials that select --suggest N names")
            step.add_argument("--retry", action="store_true", help="run failed trials again too, if their loss was finite")
            _add_runner(step)
    _add_runner(whole)

    contest = add("race", "train the selected networks and known designs alike, and name the winners")
    contest.add_argument("run", type=Path, help="a run folder")
    _add_workers(contest)

    report = add("report", "write report.html about the results so far")
    report.add_argument("run", type=Path, help="a run folder")

    fit = add("fit", "fit the effects of each super-block's depth, width and type to the trials")
    fit.add_argument("run", type=Path, help="a run folder")
    fit.add_argument(
        "--model",
        choices=("auto", "paper"),
        help="the model that the selection uses from now on; paper: the paper's own form (default: the recipe's fit.model)",
    )

    select = add("select", "select the best network for each budget")
    select.add_argument("run", type=Path, help="a run folder")
    select.add_argument(
        "--budget",
        action="append",
        metavar="B",
        help="ms per image or a multiple of the MasterNet's such as 0.5x; answered from the files on disk, nothing is written",
    )
    select.add_argument(
        "--suggest", metavar="N", type=_positive, help="select, and name the N trials that would make the choice more certain"
    )
    select.add_argument(
        "--latency", metavar="FILE", type=Path, help="select for the device of this latency.jsonl; nothing is written"
    )

    proof = add("validate", "train networks that the regression never saw, and compare its predictions with them")
    proof.add_argument("run", type=Path, help="a run folder")
    proof.add_argument("--n", type=_positive, default=20, help="number of networks (default: 20)")
    proof.add_argument("--epochs", type=_positive, help="epochs of each training (default: a quarter of the recipe's)")
    proof.add_argument("--trainings", type=_positive, default=1, help="trainings of each, with different seeds (default: 1)")


def _add_network_commands(add) -> None:  # type: ignore[no-untyped-def]
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
        type=_positive,
        metavar="PIXELS",
        default=224,
        help="resolution of images for MODULE:FUNCTION, MODULE:BYOMODELCFG or a GENet string (default: 224)",
    )
    take.add_argument("--classes", type=_positive, metavar="N", default=1000, help="classes of the same (default: 1000)")
    take.add_argument("--channels", type=_positive, metavar="N", default=3, help="channels, but for a GENet string (default: 3)")


def _add_runner(command: argparse.ArgumentParser) -> None:
    """Add the options for the runner of the trials and for their MasterNet."""
    command.add_argument("--any-master", action="store_true", help="go on with a MasterNet that has learnt nothing")
    command.add_argument("--trials-per-gpu", type=_positive, metavar="N", default=1, help="trials side by side on a GPU")
    _add_workers(command)


def _add_workers(command: argparse.ArgumentParser) -> None:
    """Add the options for the runner of trials and trainings."""
    command.add_argument(
        "--runner",
        choices=("auto", "in-process", "processes", "ray"),
        default="auto",
        help="the runner of trials and trainings; auto: one process per GPU, or this process for a single device",
    )
    command.add_argument(
        "--workers", type=_positive, metavar="N", help="with --runner processes: their number (default: one per GPU, or 2)"
    )
    command.add_argument("--address", metavar="A", help="address of a running Ray cluster (default: one on this machine)")


def _add_latency_commands(add) -> None:  # type: ignore[no-untyped-def]
    latency = add("latency", "measure or estimate a network's latency, whole and per layer")
    latency.add_argument("networks", nargs="*", metavar="NETWORK", help=f"{NETWORK}; or: diff EVIDENCE EVIDENCE")
    latency.add_argument("--size", type=_positive, metavar="PIXELS", help="resolution (default: the network's own)")
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
        help="for an estimate: a network's measured ms per batch; or a latency.jsonl of that GPU",
    )
    stairs = add("staircase", "find the widths at the edges of a device's latency staircase")
    stairs.add_argument("what", nargs="?", metavar="BLOCK", help="a block, layer or super-block such as 'XX k3 c256 @14'")
    stairs.add_argument("--widths", metavar="RANGE", help="widths to sweep: 32..512:8 (default: 8 to twice the block's)")
    stairs.add_argument("--from", dest="csv", metavar="CSV", help="a sweep with columns width,latency_ms[,sigma]")
    stairs.add_argument(
        "--compare", nargs=2, metavar="EVIDENCE", type=Path, help="find widths aligned on both devices, and their cost"
    )
    stairs.add_argument("--evidence", metavar="FILE", type=Path, help="a journal that keeps the measurements, for later runs")
    for command in (latency, stairs):
        _add_measure(command)
        command.add_argument("--plot", metavar="FILE", type=Path, help="draw it as SVG")


def _add_studies(add) -> None:  # type: ignore[no-untyped-def]
    _add_align(add)
    _add_fold(add)
    _add_rank(add)
    _add_filter(add)
    _add_survey(add)


def _add_survey(add) -> None:  # type: ignore[no-untyped-def]
    survey = add("survey", "measure how well networks use a device, and find those that no other beats")
    survey.add_argument("networks", nargs="*", metavar="NETWORK", help=f"{NETWORK}, timm's by a pattern too: 'timm:resnet*'")
    survey.add_argument("--preset", choices=("paper",), help="the networks of the utilization paper's survey")
    survey.add_argument("--from", dest="csv_from", metavar="CSV", type=Path, help="a survey made before, or by someone else")
    survey.add_argument("--peak", type=float, metavar="TFLOPS", help="for --from: the device's peak")
    survey.add_argument(
        "--accuracy", metavar="CSV", type=Path, help="columns model and top1_percent, or timm's own results-imagenet.csv"
    )
    survey.add_argument(
        "--size",
        type=_positive,
        metavar="PIXELS",
        help="resolution (default: the network's own; for timm's: as trained)",
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
    _add_measure(survey)


def _add_fold(add) -> None:  # type: ignore[no-untyped-def]
    fold = add("fold", "see several images as one in a wider network, and measure the effect on throughput")
    fold.add_argument(
        "networks", nargs="+", metavar="NETWORK", help="timm:MODEL, MODULE:FUNCTION, a network's file, name or notation"
    )
    fold.add_argument("--images-per-fold", type=_positive, default=4, metavar="F", help="images that become one (default: 4)")
    _add_reading(fold)
    fold.add_argument("--recipe", help="train one network, unfolded and folded, by this file or recipe of genet")
    fold.add_argument("--into", metavar="FOLDER", type=Path, help="for --recipe: folder for both")
    fold.add_argument("--data", metavar="FOLDER", help="for --recipe: the folder of the images")
    fold.add_argument("--plot", metavar="FILE", type=Path, help="draw throughput and utilization before and after as SVG")
    fold.add_argument("--calibrate", action="append", metavar="NETWORK=MS", help="for an estimate, as in genet latency")
    _add_measure(fold)


def _add_rank(add) -> None:  # type: ignore[no-untyped-def]
    rank = add("rank", "find the intrinsic rank of a trained network's stages, and the block types to build them of")
    rank.add_argument("what", metavar="NETWORK|RUN", help="a run, for its MasterNet; a trained network's folder; or timm:MODEL")
    rank.add_argument("--random", action="store_true", help="use fresh weights, whose rank is that of noise")
    _add_reading(rank)
    rank.add_argument("--plot", metavar="FILE", type=Path, help="draw the singular values as SVG")


def _add_filter(add) -> None:  # type: ignore[no-untyped-def]
    study = add("filter", "test if utilization can replace accuracy in a search of a space")
    study.add_argument(
        "table",
        nargs="?",
        metavar="CSV",
        type=Path,
        help="every network of a space: network (as 8:16:64), top1_percent, images_per_sec, macs, train_sec[, time_sec]",
    )
    study.add_argument("--nats", metavar="FILE", type=Path, help="NATS-Bench's size space, by its own package")
    study.add_argument(
        "--budget", type=float, metavar="S", help="seconds of a search (default: the time of filtering by utilization)"
    )
    study.add_argument("--seeds", type=_positive, metavar="N", default=9, help="seeds of every method (default: 9)")
    study.add_argument("--target", type=float, metavar="G", help="images/s that rewards are relative to (default: the median)")
    study.add_argument(
        "--weight",
        type=float,
        metavar="W",
        default=0.07,
        help="a reward is accuracy times (throughput / G) to the power W (default: 0.07)",
    )
    study.add_argument("--plot", metavar="FILE", type=Path, help="draw the results as SVG")


def _add_align(add) -> None:  # type: ignore[no-untyped-def]
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
        "--target-ratio",
        type=float,
        metavar="SHARE",
        help="the wanted latency over the present one, such as 0.85; if it is out of reach, the result is the fastest found",
    )
    align.add_argument(
        "--param-tolerance",
        type=float,
        metavar="SHARE",
        default=0.05,
        help="allowed change of the parameters; doubled until --target-ratio is met",
    )
    align.add_argument("--solver", choices=("greedy", "exact"), default="greedy", help="the paper's algorithm, or the optimum")
    align.add_argument("--scale", metavar="WHAT", help="with --mode accuracy: grow width, resolution or width,resolution at once")
    align.add_argument(
        "--pruned",
        metavar="FILE",
        help="widths from a pruning method, 'name: mine' and 'widths: {LAYER: CHANNELS, ...}'; or a name: hrank-vgg16",
    )
    _add_reading(align)
    align.add_argument(
        "--criterion",
        choices=("l1", "l2", "rank"),
        default="l1",
        help="score of the channels to keep in a cut (default: l1)",
    )
    align.add_argument(
        "--include", action="append", metavar="PATTERN", help="move only layers or modules with such names, as in 'layer3.*'"
    )
    align.add_argument("--exclude", action="append", metavar="PATTERN", help="do not move layers or modules with such names")
    align.add_argument(
        "--data",
        metavar="FOLDER",
        help="images, or digits: for the accuracy before and after, and for the ranks of --criterion rank",
    )
    align.add_argument("--untrained", action="store_true", help="write fresh weights if there are no trained ones")
    align.add_argument("--into", metavar="FOLDER", type=Path, help="folder for the network with the new widths")
    align.add_argument(
        "--evidence", metavar="FILE", type=Path, help="the journal of measurements (default: runs/align/latency.jsonl)"
    )
    align.add_argument("--calibrate", action="append", metavar="NETWORK=MS", help="for an estimate, as in genet latency")
    _add_measure(align)
    align.add_argument("--plot", metavar="FILE", type=Path, help="draw widths and latencies before and after as SVG")
    align.set_defaults(device=None, runtime=None, dtype=None, memory_format=None, batch=None)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on (got {text!r})")
    return int(text)


def _add_reading(command: argparse.ArgumentParser) -> None:
    """Add the options for a network's input, if its name does not determine it or another one is wanted."""
    command.add_argument("--size", type=_positive, metavar="PIXELS", help="resolution (default: the network's own)")
    command.add_argument("--example", metavar="N,C,H,W", help="the input of a network of your own, such as 1,3,224,224")


def _add_measure(command: argparse.ArgumentParser) -> None:
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
