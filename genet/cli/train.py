"""`genet train`, of a run or of any network."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import Network
from genet.cli.console import Answer, progress
from genet.config.reader import read_structure, read_training
from genet.config.recipe import TrainingRecipe
from genet.device import open_device
from genet.errors import GenetError, RunError
from genet.models.weights import NETWORK_FILE, WEIGHTS_FILE
from genet.names import quoted
from genet.pipeline.context import open_run, read_run
from genet.pipeline.train import train_network
from genet.pipeline.train_selected import train_selected
from genet.progress import Progress
from genet.search.outcome import percent
from genet.storage import FolderLock
from genet.training.distributed import ProcessGroup, join
from genet.training.inventory import images_in
from genet.training.loop import Execution


def run(arguments: argparse.Namespace) -> Answer:
    """Train the selected networks of a run, one of them, or any network by a recipe.

    By this process, or by several that torchrun started, of which the first writes and prints.
    """
    world = join()
    arguments.json = arguments.json and world.first
    try:
        if arguments.recipe:
            return _train_network(arguments, world)
        if (Path(arguments.what) / "network.yaml").exists():
            raise RunError(
                f"{arguments.what}: got the folder of one network, expected a run folder; genet train "
                f"{quoted(Path(arguments.what) / NETWORK_FILE)} --recipe R --into {quoted(Path(arguments.what))} trains it, or "
                "resumes that training"
            )
        if not Path(arguments.what).is_dir():
            raise RunError(f"{arguments.what}: got no folder, expected a run folder; to train a network, give --recipe R too")
        options = {"into": arguments.into, "data": arguments.data, "device": arguments.device, "from": arguments.start}
        given = [f"--{name}" for name, value in options.items() if value]
        if given:
            remedy = f"leave {'it' if len(given) == 1 else 'them'} out"
            raise GenetError(
                f"{' and '.join(given)}: got {arguments.what}, which is a run, expected a network with --recipe; {remedy}"
            )
        return _train_run(Path(arguments.what), arguments.network, world)
    finally:
        world.leave()


def _train_run(folder: Path, name: str | None, world: ProcessGroup) -> Answer:
    with open_run(folder, progress()) if world.first else nullcontext(read_run(folder, Progress())) as job:
        trained = train_selected(job, name, world)
        if world.first:
            for each, found in trained.items():
                print(f"{each}: test accuracy {percent(found.test_accuracy)}")
            print(f"genet race {folder} trains the other entrants too, and names the winners")
        return {"trained": {each: found.model_dump(mode="json") for each, found in trained.items()}}


def _train_network(arguments: argparse.Namespace, world: ProcessGroup) -> Answer:
    if arguments.network:
        raise GenetError(
            "--network: got --recipe too, expected one of them: --network for a run folder, --recipe for a single "
            "network; leave one out"
        )
    network, recipe = _network(arguments.what), recipe_with(arguments.recipe, arguments.data, arguments.device)
    start = _start(arguments.start, network) if arguments.start else None
    folder = arguments.into or Path("runs") / f"{network.name}-{recipe.name}"
    visible_progress = progress() if world.first else Progress()
    execution = Execution(open_device(recipe.device), world=world, progress=visible_progress)
    with FolderLock(folder) if world.first else nullcontext():
        trained = train_network(folder, network, recipe, execution, start)
    if world.first:
        print(f"{folder}: test accuracy {percent(trained.test_accuracy)}; weights and network.yaml are in it")
    return {"folder": str(folder), **trained.model_dump(mode="json")}


def _start(folder: Path, network: ModelSpec) -> Path:
    """Return the weights in a folder; RunError if it holds another network's."""
    if not (folder / WEIGHTS_FILE).is_file() or not (folder / NETWORK_FILE).is_file():
        raise RunError(f"--from: got {folder}, expected a folder with {NETWORK_FILE} and {WEIGHTS_FILE}; name another")
    theirs = read_structure(folder)
    if isinstance(theirs, ExternalModel) and isinstance(network, ExternalModel) and None in (theirs.computes, network.computes):
        theirs = theirs.model_copy(update={"computes": network.computes})  # an earlier version did not record it
    if str(theirs.at(network.input.resolution)) != str(network):
        raise RunError(f"--from: got {folder} with the weights of {theirs}, expected those of {network}")
    return folder / WEIGHTS_FILE


def _network(text: str) -> ModelSpec:
    """Return a network by file, name or notation; one by notation is named after its digest, as its folder is."""
    if "|" not in text:
        return read_structure(text)
    network = Network.parse(text)
    return network.model_copy(update={"name": f"{network.name}-{network.digest[:6]}"})


def recipe_with(name: str, images: str | None, device: str | None) -> TrainingRecipe:
    """Return a recipe by file or name, with the image folder and the device of the command line."""
    recipe = read_training(name)
    if images:
        if recipe.data.name == "digits":
            raise GenetError(
                f"--data: got recipe {recipe.name}, which uses digits, expected one for images in a folder; leave it out"
            )
        recipe = recipe.model_copy(update={"data": images_in(recipe.data, images)})
    return recipe.model_copy(update={"device": device}) if device else recipe
