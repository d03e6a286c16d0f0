"""The commands that design a network: the whole job, and its steps on a run folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from genet.cli.options import Add, add_runner, add_workers, positive


def add_design_commands(add: Add) -> None:
    """Add the commands, in the order in which one needs them."""
    init = add("init", "write a commented search space and recipe to start from")
    init.add_argument("file", type=Path, help="the recipe to write, such as my.yaml")
    init.add_argument("--data", metavar="FOLDER", help="folder of images; recipe and space are chosen to suit them")
    _add_served(init)

    check = add("check", "check a recipe, a search space or a network, and show its cost")
    check.add_argument("file", help="a YAML file, the name of one that comes with genet, or a network's notation in quotes")
    check.add_argument("--designs", action="store_true", help="list the known designs that a race compares the search with")
    _add_recipe_values(check)

    _add_run(add)
    _add_step(add, "profile", "measure the latency of every block on offer and find the staircases")
    master = _add_step(add, "master", "train the MasterNet; if the space names several designs, first find it among them")
    add_workers(master)
    trials = _add_step(add, "distill", "run the trials: fine-tune perturbed networks")
    for step in (master, trials):
        step.add_argument("--status", action="store_true", help="show the progress so far, from any terminal")
    trials.add_argument("--extra", type=positive, metavar="N", help="run the N trials that genet select --suggest N suggests")
    trials.add_argument("--retry", action="store_true", help="also run failed trials again, if their loss was finite")
    add_runner(trials)

    fit = _add_step(add, "fit", "fit the effects of each super-block's depth, width and type to the trials")
    fit.add_argument(
        "--model",
        choices=("auto", "paper"),
        help="the model that the selection uses from now on; paper: the paper's own form (default: the recipe's fit.model)",
    )
    _add_select(add)
    contest = _add_step(add, "race", "train the selected networks and known designs alike, and name the winners")
    add_workers(contest)
    _add_step(add, "report", "write report.html about the results so far")

    proof = _add_step(add, "validate", "train networks that the regression never saw, and compare its predictions with them")
    proof.add_argument("--n", type=positive, default=20, help="number of networks (default: 20)")
    proof.add_argument("--epochs", type=positive, help="epochs of each training (default: a quarter of the recipe's)")
    proof.add_argument("--trainings", type=positive, default=1, help="trainings of each, with different seeds (default: 1)")


def _add_run(add: Add) -> None:
    whole = add("run", "do the whole job, or resume it")
    whole.add_argument("recipe", help="a recipe file, or the name of one that comes with genet")
    whole.add_argument("--new-run", action="store_true", help="start over in a new folder")
    whole.add_argument("--run", metavar="FOLDER", type=Path, help="the run folder (default: runs/NAME)")
    whole.add_argument(
        "--remeasure", action="store_true", help="measure again if threads, runtime or device differ from the run's"
    )
    _add_recipe_values(whole)
    add_runner(whole)


def _add_recipe_values(command: argparse.ArgumentParser) -> None:
    """Add the options that replace values of a recipe, as if they were in its file."""
    command.add_argument("--data", metavar="FOLDER", help="the folder of the images")
    command.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="a value of the recipe, in YAML, as if it were in the file: train.epochs=5",
    )
    _add_served(command)
    command.add_argument("--device", help="auto, cpu, cuda, cuda:N, or estimate:GPU for a GPU that this machine lacks")
    command.add_argument("--latency", metavar="FILE", help="another machine's latency.jsonl, used instead of measurements")


def _add_served(command: argparse.ArgumentParser) -> None:
    """Add the options for how a network will serve, and how fast."""
    command.add_argument(
        "--budget",
        action="append",
        metavar="B",
        help="5ms per batch, 0.2ms/image, or 0.5x the MasterNet's latency; may be repeated",
    )
    command.add_argument("--runtime", help="the runtime that serves: eager, cudagraph, compile, onnxruntime, tensorrt")
    command.add_argument("--batch", metavar="N", help="images per batch when serving")
    command.add_argument("--threads", metavar="N", help="CPU threads when serving")


def _add_step(add: Add, name: str, text: str) -> argparse.ArgumentParser:
    """Add a step of the job, which works in a run folder."""
    step = add(name, text)
    step.add_argument("run", type=Path, help="a run folder")
    return step


def _add_select(add: Add) -> None:
    select = _add_step(add, "select", "select the best network for each budget")
    select.add_argument(
        "--budget",
        action="append",
        metavar="B",
        help="5ms per batch, 0.2ms/image or 0.5x the MasterNet's; answered from the files on disk, nothing is written",
    )
    select.add_argument(
        "--suggest", metavar="N", type=positive, help="select, and name the N trials that would make the choice more certain"
    )
    select.add_argument(
        "--latency", metavar="FILE", type=Path, help="select for the device of this latency.jsonl; nothing is written"
    )
