"""The network that `genet align` returns: written to a folder and, with a recipe, trained further there, also after a stop."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from genet.arch.external import ModelSpec
from genet.cli.console import Answer, progress
from genet.cli.train import recipe_with
from genet.config.reader import read_structure, read_training, to_yaml
from genet.config.recipe import TrainingRecipe
from genet.device import open_device
from genet.errors import GenetError, RunError, SpecError
from genet.latency.naming import weights_of
from genet.latency.table import Setting
from genet.models.weights import (
    NETWORK_FILE,
    WEIGHTS_FILE,
    check_rebuildable,
    check_vacant,
    read_labels,
    save_weights,
    write_labels,
)
from genet.names import quoted
from genet.pipeline.train import train_network
from genet.search.outcome import percent
from genet.storage import FolderLock, Record, digest, read_bytes, write_atomic
from genet.studies.align.kept import KeptWeights
from genet.studies.align.module_subject import ModuleSubject, ResizableNetwork
from genet.studies.align.subject import NetworkSubject, Widths
from genet.training.loop import Execution
from genet.training.splits import load_data

FOUND_FILE = "alignment.json"  # beside the network
ANSWER_FILE = "answer.json"  # beside a network that is trained further
CUT = "cut"  # inside the folder of the trained network: the network before training
ANYWHERE = ("into", "json", "debug", "evidence", "plot")  # options that change no network


@dataclass(frozen=True)
class Destination:
    """The folder for the network, if one is given, and the recipe of its further training; `asked` is a digest of the command."""

    folder: Path | None
    recipe: TrainingRecipe | None
    asked: str

    @property
    def network(self) -> Path | None:
        """The folder of the network before it is trained further."""
        return self.folder / CUT if self.folder and self.recipe else self.folder

    def earlier(self) -> Answer | None:
        """Return the answer of the same command if it had written the network before; RunError if another command wrote it."""
        file = self.network / ANSWER_FILE if self.network and self.recipe else None
        if file is None or not file.exists():
            return None
        kept: dict[str, Any] = json.loads(read_bytes(file))
        if kept["asked"] != self.asked:
            raise RunError(
                f"{file.parent}: got a network from another command, expected one from this command; give another --into FOLDER"
            )
        if kept["answer"]:
            print(f"{file.parent}: the network exists already")
        answer: Answer | None = kept["answer"]
        return answer

    def write(self, structure: ModelSpec, module: nn.Module | None, labels: tuple[str, ...] | None, found: Record) -> Path:
        """Write the network, with its weights if it keeps them, ready for `genet train`; return its folder."""
        folder = self.network
        assert folder is not None
        with FolderLock(folder):
            self._note(None)
            if module is not None:
                check_rebuildable(module, structure)
                save_weights(module, folder / WEIGHTS_FILE)
                write_labels(folder, labels)
            found.save(folder / FOUND_FILE)
            write_atomic(folder / NETWORK_FILE, to_yaml(structure).encode())
        kind, goes_on = "network written, without weights", ""
        if module is not None:
            kind, goes_on = "network written", f" --from {quoted(folder)}"
        next_command = f"genet train {quoted(folder / NETWORK_FILE)} --recipe R{goes_on} --into TUNED trains it"
        print(f"{folder}: {kind}" + ("" if self.recipe else f"; {next_command}"))
        return folder

    def finish(self, answer: Answer) -> Answer:
        """Train the network further if there is a recipe; return the whole answer."""
        if self.recipe is None or self.folder is None or self.network is None:
            return answer
        self._note(answer)
        structure, weights = read_structure(self.network), self.network / WEIGHTS_FILE
        with FolderLock(self.folder):
            execution = Execution(open_device(self.recipe.device), progress=progress())
            start = weights if weights.exists() else None
            trained = train_network(self.folder, structure, self.recipe, execution, start)
        before = answer.get("accuracy", ())
        accuracies = " -> ".join(map(percent, (*before, trained.test_accuracy)))
        print(f"{self.folder}: trained further by {self.recipe.name}; test accuracy {accuracies}")
        return answer | {"folder": str(self.folder), "trained": trained.model_dump(mode="json")}

    def _note(self, answer: Answer | None) -> None:
        """Record the command beside a network that is trained further, and its answer once the network is written."""
        if self.network and self.recipe:
            write_atomic(self.network / ANSWER_FILE, json.dumps({"asked": self.asked, "answer": answer}).encode())


def write_aligned(
    subject: ResizableNetwork,
    widths: Widths,
    found: Record,
    result: Destination,
    weights: KeptWeights | None,
    resolution: int | None = None,
) -> Path:
    """Write a network with other widths; one that other code builds is written with its weights."""
    name = f"{subject.name}-aligned"
    if isinstance(subject, NetworkSubject):
        structure: ModelSpec = subject.at(widths).model_copy(update={"name": name}).at(resolution or subject.resolution)
        return result.write(structure, None, None, found)
    assert isinstance(subject, ModuleSubject)
    assert weights is not None
    module = weights.build(widths)
    return result.write(subject.described(module, name, resolution), module, weights.labels, found)


def compared(kept: KeptWeights, module: nn.Module, before: float, resolution: int | None = None) -> Answer:
    """Return the accuracy before, and that of a network built from its weights without further training."""
    after = kept.accuracy(module, resolution, progress())
    print(f"test accuracy: {percent(before)} -> {percent(after)}, before any further training")
    return {"accuracy": [before, after]}


def check_destination(arguments: argparse.Namespace) -> TrainingRecipe | None:
    """Return the recipe for further training, if one is given, after checking that the result can be written.

    GenetError, before anything is measured, if the folder cannot take it, or if a recipe has no folder.
    """
    if arguments.into and arguments.into.is_file():
        raise GenetError(f"{arguments.into} exists and is a file, expected a folder or nothing; give another --into FOLDER")
    if not arguments.recipe:
        if arguments.into:
            check_vacant(arguments.into, FOUND_FILE)
        return None
    if not arguments.into:
        raise SpecError(["--recipe: got no --into, expected a folder for the trained network; give --into FOLDER"])
    if not (arguments.into / CUT / ANSWER_FILE).exists():
        check_vacant(arguments.into, FOUND_FILE)
        check_vacant(arguments.into / CUT, FOUND_FILE)
    images = None if arguments.data == "digits" or read_training(arguments.recipe).data.name == "digits" else arguments.data
    return recipe_with(arguments.recipe, images, None)


def destination(
    arguments: argparse.Namespace, recipe: TrainingRecipe | None, setting: Setting, network: ModelSpec
) -> Destination:
    """Return the place of the result; DataError if the recipe's images do not fit the network."""
    weights = weights_of(arguments.what)
    if recipe:
        load_data(recipe.data, network.input, recipe.seed, labels=read_labels(weights.parent) if weights else None)
    options = {name: value for name, value in vars(arguments).items() if name not in ANYWHERE}
    decides = [str(network), digest(read_bytes(weights)) if weights else None, setting.digest]
    asked = digest(json.dumps([*decides, options], sort_keys=True, default=str))
    return Destination(arguments.into, recipe, asked)
