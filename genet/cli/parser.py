"""What every command is called and what it takes."""

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
    "exit codes: 0 done; 2 refused or failed, with the reason in a line; 3 no budget can be met, with the smallest that can in a "
    "line; 130 interrupted, 143 terminated: the same command goes on"
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
    """A parser that names the new name of an option that was renamed."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2, and say what is wrong."""
        words = re.split(r"[ =]", message)
        renamed = [f"{old} is called {new} now" for old, new in RENAMED.items() if old in words]
        super().error("; ".join([message, *renamed]))


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each is carried out by `run` in the module of its name."""
    found = Parser(prog="genet", description="Designs convolutional networks for one GPU and one latency budget.", epilog=EXITS)
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
    whole = add("run", "do the whole job, or go on with it")
    whole.add_argument("recipe", help="a recipe file, or the name of one that comes with genet")
    whole.add_argument("--new-run", action="store_true", help="start over in a new folder")
    whole.add_argument("--run", metavar="FOLDER", type=Path, help="the run folder (default: runs/NAME)")
    whole.add_argument("--data", metavar="FOLDER", help="where the images lie")
    whole.add_argument("--device", help="auto, cpu, cuda, cuda:N, or estimate:GPU for a GPU that is not here")
    whole.add_argument("--latency", metavar="FILE", help="another machine's latency.jsonl, used in place of measurements")

    check = add("check", "check a recipe, a search space or a network, and count what it costs")
    check.add_argument("file", help="a YAML file, or the name of one that comes with genet")

    check.add_argument("--designs", action="store_true", help="list the known designs that a race holds the search against")

    init = add("init", "write a commented search space and recipe to start from")
    init.add_argument("file", type=Path, help="the recipe to write, such as my.yaml")

    for name, text in STEPS.items():
        step = add(name, text)
        step.add_argument("run", type=Path, help="a run folder")
        if name == "distill":
            step.add_argument("--status", action="store_true", help="where the trials stand; from any terminal, while they run")
            step.add_argument("--extra", type=_positive, metavar="N", help="run the N trials that select --suggest N names")
            step.add_argument("--retry", action="store_true", help="run failed trials again too, if their loss was finite")
            _add_runner(step)
    _add_runner(whole)

    contest = add("race", "train the selected networks and known designs alike, and say which win")
    contest.add_argument("run", type=Path, help="a run folder")
    _add_workers(contest)

    report = add("report", "write report.html about what there is so far")
    report.add_argument("run", type=Path, help="a run folder")

    fit = add("fit", "learn from the trials what each super-block's depth, width and type are worth")
    fit.add_argument("run", type=Path, help="a run folder")
    fit.add_argument(
        "--model",
        choices=("auto", "paper"),
        help="what the selection predicts by from now on; paper: the paper's own form (default: the recipe's fit.model)",
    )

    select = add("select", "select the best network for each budget")
    select.add_argument("run", type=Path, help="a run folder")
    select.add_argument(
        "--budget",
        action="append",
        metavar="B",
        help="ms per image or a multiple of the MasterNet's such as 0.5x; answered from what is on disk, nothing is written",
    )
    select.add_argument(
        "--suggest", metavar="N", type=_positive, help="select, and name the N trials that would make the choice surer"
    )
    select.add_argument(
        "--latency", metavar="FILE", type=Path, help="select for the device of this latency.jsonl; nothing is written"
    )

    proof = add("validate", "train networks that the regression never saw, and hold its predictions against them")
    proof.add_argument("run", type=Path, help="a run folder")
    proof.add_argument("--n", type=_positive, default=20, help="how many networks (default: 20)")
    proof.add_argument("--epochs", type=_positive, help="of each training (default: a quarter of the recipe's)")
    proof.add_argument("--trainings", type=_positive, default=1, help="of each network, with different seeds (default: 1)")


def _add_network_commands(add) -> None:  # type: ignore[no-untyped-def]
    train = add("train", "train the selected networks of a run from scratch, or any network by a recipe")
    train.add_argument("what", help="a run folder; or with --recipe a network file, name or notation")
    train.add_argument("--network", metavar="NAME", help="of a run: this one of the selected networks only")
    train.add_argument("--recipe", help="a recipe for the training of one network: a file, or a name that comes with genet")
    train.add_argument("--into", metavar="FOLDER", type=Path, help="where a network goes (default: runs/NETWORK-RECIPE)")
    train.add_argument(
        "--from", dest="start", metavar="FOLDER", type=Path, help="of a network: begin with the weights in this folder, not anew"
    )
    train.add_argument("--data", metavar="FOLDER", help="where the images lie")
    train.add_argument("--device", help="auto, cpu, cuda or cuda:N")

    export = add("export", "write trained networks for other runtimes, each loaded again and compared")
    export.add_argument("what", type=Path, metavar="RUN|FOLDER", help="a run folder, or the folder of one trained network")
    export.add_argument("--network", metavar="NAME", help="of a run: this one of its networks only")
    export.add_argument(
        "--format",
        action="append",
        metavar="F",
        help="safetensors, timm, onnx, onnx-fp16, onnx-int8, pt2, genet-string; one that is named must come out "
        "(default: all that do)",
    )
    export.add_argument("--data", metavar="FOLDER", help="images to calibrate and test on; of a run: where its own lie now")

    evaluate = add("eval", "take the accuracy of an exported network or of a timm model on test images")
    evaluate.add_argument("what", metavar="NETWORK", help="a network's folder, a .onnx or .pt2 file, or timm:MODEL")
    evaluate.add_argument("--data", required=True, metavar="FOLDER", help="holds validation/CLASS/*.jpg; or digits")
    evaluate.add_argument("--format", metavar="F", help="of an export folder: the format to run (default: safetensors)")
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; .onnx and .pt2 files run on the processor")

    take = add("import", "take in a network from elsewhere, with its weights where there are some")
    take.add_argument(
        "what",
        metavar="NETWORK",
        help="timm:MODEL, a folder of timm's or genet's, MODULE:FUNCTION that builds one (and loads its checkpoint) or "
        "MODULE:BYOMODELCFG, a GENet string",
    )
    take.add_argument("--into", required=True, metavar="FOLDER", type=Path, help="where its network.yaml and weights go")
    take.add_argument(
        "--size",
        type=_positive,
        metavar="PIXELS",
        default=224,
        help="of images for MODULE:FUNCTION, MODULE:BYOMODELCFG or a GENet string (default: 224)",
    )
    take.add_argument("--classes", type=_positive, metavar="N", default=1000, help="of the same (default: 1000)")
    take.add_argument("--channels", type=_positive, metavar="N", default=3, help="the same but for a GENet string (default: 3)")


def _add_runner(command: argparse.ArgumentParser) -> None:
    """Add who runs the trials, and from which MasterNet."""
    command.add_argument("--any-master", action="store_true", help="go on with a MasterNet that has learnt nothing")
    command.add_argument("--trials-per-gpu", type=_positive, metavar="N", default=1, help="small networks side by side on a GPU")
    _add_workers(command)


def _add_workers(command: argparse.ArgumentParser) -> None:
    """Add who runs trials and trainings."""
    command.add_argument(
        "--runner",
        choices=("auto", "in-process", "processes", "ray"),
        default="auto",
        help="who runs trials and trainings; auto: one process per GPU, or this one where there is one device",
    )
    command.add_argument(
        "--workers", type=_positive, metavar="N", help="with --runner processes, how many in all (default: one per GPU, or 2)"
    )
    command.add_argument("--address", metavar="A", help="of a running Ray cluster (default: one on this machine)")


def _add_latency_commands(add) -> None:  # type: ignore[no-untyped-def]
    latency = add("latency", "measure or estimate a network's latency, whole and per layer")
    latency.add_argument("networks", nargs="*", metavar="NETWORK", help=f"{NETWORK}; or: diff EVIDENCE EVIDENCE")
    latency.add_argument("--size", type=_positive, metavar="PIXELS", help="resolution (default: the network's own)")
    latency.add_argument(
        "--sweep", metavar="NAME=RANGE", help="over batch, size or width: batch=1..128, width=32..512:8, size=7,14"
    )
    latency.add_argument(
        "--repeatability", action="store_true", help="time a network against itself: what this machine can tell apart"
    )
    latency.add_argument(
        "--calibrate",
        action="append",
        metavar="NETWORK=MS",
        help="for an estimate: what a network really takes, in ms per batch; or a latency.jsonl of that GPU",
    )
    stairs = add("staircase", "find the widths at the edges of a device's latency staircase")
    stairs.add_argument("what", nargs="?", metavar="BLOCK", help="a block, layer or super-block such as 'XX k3 c256 @14'")
    stairs.add_argument("--widths", metavar="RANGE", help="widths to sweep: 32..512:8 (default: 8 to twice the block's)")
    stairs.add_argument("--from", dest="csv", metavar="CSV", help="a sweep with columns width,latency_ms[,sigma]")
    stairs.add_argument(
        "--compare", nargs=2, metavar="EVIDENCE", type=Path, help="widths aligned on both devices, and what they cost"
    )
    stairs.add_argument("--evidence", metavar="FILE", type=Path, help="a journal to keep the measurements in, and to go on with")
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
    survey = add("survey", "tell how well networks use a device, and which of them no other beats")
    survey.add_argument("networks", nargs="*", metavar="NETWORK", help=f"{NETWORK}, timm's by a pattern too: 'timm:resnet*'")
    survey.add_argument("--preset", choices=("paper",), help="the networks of the utilization paper's survey")
    survey.add_argument("--from", dest="csv_from", metavar="CSV", type=Path, help="a survey made before, or by someone else")
    survey.add_argument("--peak", type=float, metavar="TFLOPS", help="of --from: what the device reaches at best")
    survey.add_argument(
        "--accuracy", metavar="CSV", type=Path, help="columns model and top1_percent, or timm's own results-imagenet.csv"
    )
    survey.add_argument(
        "--size",
        type=_positive,
        metavar="PIXELS",
        help="resolution (default: its own; timm's: as trained)",
    )
    survey.add_argument("--largest-batch", action="store_true", help="each at the largest batch that fits, not at --batch")
    survey.add_argument(
        "--evidence", metavar="FILE", type=Path, help="the journal to go on with (default: runs/survey/survey.jsonl)"
    )
    survey.add_argument("--csv", metavar="FILE", type=Path, help="write the table, which --from reads")
    survey.add_argument("--page", metavar="FILE", type=Path, help="write an HTML page with all figures")
    survey.add_argument("--plot", metavar="FILE", type=Path, help="draw the three frontiers as SVG")
    survey.add_argument("--roofline", metavar="FILE", type=Path, help="of one network: draw its layers under the roof as SVG")
    survey.add_argument("--calibrate", action="append", metavar="NETWORK=MS", help="for an estimate, as in genet latency")
    _add_measure(survey)


def _add_fold(add) -> None:  # type: ignore[no-untyped-def]
    fold = add("fold", "see several images as one in a wider network, and tell what that does to throughput")
    fold.add_argument(
        "networks", nargs="+", metavar="NETWORK", help="timm:MODEL, MODULE:FUNCTION, a network's file, name or notation"
    )
    fold.add_argument("--images-per-fold", type=_positive, default=4, metavar="F", help="images that become one (default: 4)")
    _add_reading(fold)
    fold.add_argument("--recipe", help="train one network by it as it is and folded: a file, or a name that comes with genet")
    fold.add_argument("--into", metavar="FOLDER", type=Path, help="of --recipe: where both go")
    fold.add_argument("--data", metavar="FOLDER", help="of --recipe: where the images lie")
    fold.add_argument("--plot", metavar="FILE", type=Path, help="draw throughput and utilization before and after as SVG")
    fold.add_argument("--calibrate", action="append", metavar="NETWORK=MS", help="for an estimate, as in genet latency")
    _add_measure(fold)


def _add_rank(add) -> None:  # type: ignore[no-untyped-def]
    rank = add("rank", "tell the intrinsic rank of a trained network's stages, and what to build them of")
    rank.add_argument(
        "what", metavar="NETWORK|RUN", help="a run, whose MasterNet is taken; a trained network's folder; or timm:MODEL"
    )
    rank.add_argument("--random", action="store_true", help="take fresh weights, whose rank is that of noise")
    _add_reading(rank)
    rank.add_argument("--plot", metavar="FILE", type=Path, help="draw the singular values as SVG")


def _add_filter(add) -> None:  # type: ignore[no-untyped-def]
    study = add("filter", "tell whether utilization can stand for accuracy in a search of a space")
    study.add_argument(
        "table",
        nargs="?",
        metavar="CSV",
        type=Path,
        help="every network of a space: network (as 8:16:64), top1_percent, images_per_sec, macs, train_sec[, time_sec]",
    )
    study.add_argument("--nats", metavar="FILE", type=Path, help="NATS-Bench's size space, by its own package")
    study.add_argument(
        "--budget", type=float, metavar="S", help="seconds of a search (default: what filtering by utilization takes)"
    )
    study.add_argument("--seeds", type=_positive, metavar="N", default=9, help="of every method (default: 9)")
    study.add_argument("--target", type=float, metavar="G", help="images/s that rewards count against (default: the median)")
    study.add_argument(
        "--weight",
        type=float,
        metavar="W",
        default=0.07,
        help="a reward is accuracy times (throughput / G) to the power W (default: 0.07)",
    )
    study.add_argument("--plot", metavar="FILE", type=Path, help="draw what was found as SVG")


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
        help="the latency wanted over that of now, such as 0.85; out of reach, the fastest found is what you get",
    )
    align.add_argument(
        "--param-tolerance",
        type=float,
        metavar="SHARE",
        default=0.05,
        help="how far the parameters may move; doubled until --target-ratio is met",
    )
    align.add_argument("--solver", choices=("greedy", "exact"), default="greedy", help="the paper's, or the optimum")
    align.add_argument("--scale", metavar="WHAT", help="with --mode accuracy: grow width, resolution or width,resolution at once")
    align.add_argument(
        "--pruned",
        metavar="FILE",
        help="widths as a pruning method found them, 'name: mine' and 'widths: {LAYER: CHANNELS, ...}'; or a name: hrank-vgg16",
    )
    _add_reading(align)
    align.add_argument("--criterion", choices=("l1", "l2", "rank"), default="l1", help="which channels a cut keeps (default: l1)")
    align.add_argument(
        "--include", action="append", metavar="PATTERN", help="move only layers or modules of such names, as in 'layer3.*'"
    )
    align.add_argument("--exclude", action="append", metavar="PATTERN", help="leave layers or modules of such names as they are")
    align.add_argument(
        "--data",
        metavar="FOLDER",
        help="images, or digits: tells the accuracy before and after, and takes the ranks of --criterion rank",
    )
    align.add_argument("--untrained", action="store_true", help="write fresh weights if no trained ones are at hand")
    align.add_argument("--into", metavar="FOLDER", type=Path, help="where the network with the new widths goes")
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
    """Add what a network reads, where its name does not tell, or not as wanted."""
    command.add_argument("--size", type=_positive, metavar="PIXELS", help="resolution (default: the network's own)")
    command.add_argument("--example", metavar="N,C,H,W", help="what a network of your own reads, such as 1,3,224,224")


def _add_measure(command: argparse.ArgumentParser) -> None:
    """Add how latency is measured, as in a recipe."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, or estimate:GPU such as estimate:v100")
    command.add_argument(
        "--runtime",
        default="auto",
        help="eager, cudagraph, compile, onnxruntime, tensorrt; auto: cudagraph on a GPU that is here, else eager",
    )
    command.add_argument("--dtype", default="fp32", help="fp32, fp16 or bf16")
    command.add_argument("--memory-format", default="contiguous", help="contiguous or channels_last")
    command.add_argument("--batch", type=int, default=64, help="images at a time (default: 64)")
