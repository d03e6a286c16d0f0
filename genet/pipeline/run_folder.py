"""The run folder: the pipeline on disk. A file that is present is complete, as each is written atomically."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from genet.arch.external import ModelSpec
from genet.arch.network import Network
from genet.config.reader import read_kept_recipe, to_yaml
from genet.config.recipe import APART, Data, Recipe
from genet.errors import GenetError, RunError, StorageError, first_of
from genet.names import quoted
from genet.search.outcome import TrainedNetwork
from genet.storage import Derived, Journal, Record, write_atomic
from genet.training.image_identity import NOTE, EarlierImages, ImageContents, ImageNote, note_of, relocated

DIFFERENCES_TOLD = 3
R = TypeVar("R", bound=Record)
D = TypeVar("D", bound=Derived)

COMMAND_THAT_WRITES = {
    "staircase.json": "genet profile RUN",
    "master.json": "genet master RUN",
    "regression.json": "genet fit RUN",
    "selection.json": "genet select RUN",
    "results.json": "genet race RUN",
}


class RunFolder:
    """Names of the files in a run folder, and how to read them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.environment = path / "environment.json"
        self.staircase = path / "staircase.json"
        self.tournament = path / "tournament.json"
        self.master = path / "master.json"
        self.regression = path / "regression.json"
        self.selection = path / "selection.json"
        self.entrants = path / "entrants.json"
        self.race = Journal(path / "race.jsonl")
        self.race_under_way = path / "race"
        self.roof = path / "roof.json"
        self.results = path / "results.json"
        self.report = path / "report.html"
        self.latency = Journal(path / "latency.jsonl")
        self.trials = Journal(path / "trials.jsonl")
        self.trials_under_way = path / "trials"
        self.trials_pace = path / "trials.pace.json"
        self.more_trials = path / "trials.more.json"
        self.validation = path / "validation.json"

    def network(self, network: ModelSpec) -> Path:
        """Return the folder of a fully trained network."""
        return self.path / "networks" / network_name(network)

    def validated(self, network: Network, repeat: int) -> Path:
        """Return the file about a network trained to check the predictions, one for every repeat."""
        return self.path / "validation" / f"{network_name(network)}-{repeat}.json"

    def read(self, file: Path, record: type[R]) -> R:
        """Read a step's result; if it is missing, RunError names the command that makes it."""
        if not file.exists():
            raise RunError(f"{file}: does not exist, but this step needs it; `{COMMAND_THAT_WRITES[file.name]}` writes it")
        return record.load(file)

    def if_there(self, file: Path, record: type[R]) -> R | None:
        """Read a step's result; None if it is missing."""
        return record.load(file) if file.exists() else None

    def read_current(self, file: Path, record: type[D], inputs: str) -> D | None:
        """Read a result if it exists and was made from exactly these inputs; else None, and the caller makes it again."""
        if not file.exists():
            return None
        try:
            found = record.load(file)
        except StorageError:  # damaged, or of an earlier version
            return None
        return found if found.inputs == inputs else None

    def recipe(self) -> Recipe:
        """Return the recipe the run follows; RunError if the folder is no run folder."""
        if not self.recipe_file.exists():
            raise RunError(f"{self.path}: got a folder without recipe.yaml, expected a run folder; `genet run RECIPE` makes one")
        recipe = read_kept_recipe(self.recipe_file)
        return recipe.model_copy(update={"data": relocated(recipe.data, self.path)})

    def note_of(self, data: Data, contents: ImageContents) -> ImageNote:
        """Return the note that the folder keeps of these images; RunError if its results were made from others."""
        results, begun = (
            any(any(self.path.glob(f"{name}{suffix}")) for name in ("master", "networks/*/model"))
            for suffix in (".json", ".*.checkpoint*")
        )
        made = None
        if results or begun or self.trials.path.exists():
            images = TrainedNetwork.load(self.master).images if self.master.exists() else None
            made = EarlierImages(read_kept_recipe(self.recipe_file).data.root, images, tested=results)
        return note_of(self.path, data, contents, made, "put them back, or give --new-run for a new folder")

    def check_free_for(self, recipe: Recipe) -> None:
        """Raise RunError if the folder holds another recipe's trials, or files that do not belong to a run."""
        if self.recipe_file.exists():
            if not self._is_of(recipe):
                differ = first_of(_differences(recipe, self.recipe()), DIFFERENCES_TOLD)
                again = f"genet run {quoted(self.recipe_file)} --run {quoted(self.path)}"
                raise RunError(
                    f"{self.path}: got a run of another recipe ({differ}), expected one of this recipe; use --new-run for a new "
                    f"folder, or --run FOLDER; `{again}` resumes that run"
                )
        elif self.path.exists() and (
            not self.path.is_dir() or any(file.name not in (".lock", NOTE) for file in self.path.iterdir())
        ):
            raise RunError(f"{self.path}: got other files in it, expected an empty folder or a run folder; use --run FOLDER")

    def _is_of(self, recipe: Recipe) -> bool:
        """Return whether the recipe's trials are those here. As long as there are none, the MasterNet's training may differ."""
        ours = self.recipe()
        if not self.trials.path.exists() and not self.trials_under_way.exists():
            free = {name: getattr(recipe, name) for name in ("augment", "master", "distill")}
            ours = ours.model_copy(update=free)
        return ours.evidence_digest == recipe.evidence_digest

    def adopt(self, recipe: Recipe) -> None:
        """Make this the recipe's folder. Other budgets, another device or another final training keep the trials."""
        self.check_free_for(recipe)
        if not self.recipe_file.exists() or read_kept_recipe(self.recipe_file) != recipe:
            write_atomic(self.recipe_file, to_yaml(recipe).encode())

    def delete_race_checkpoints(self) -> None:
        """Delete the checkpoints of a race that is over; its journal and its networks stay."""
        shutil.rmtree(self.race_under_way, ignore_errors=True)


def _differences(recipe: Recipe, earlier: Recipe) -> list[str]:
    """Return the keys that trials depend on and whose values differ, with both values."""
    ours, theirs = (dict(_leaves("", each.model_dump(mode="json", by_alias=True, exclude=APART))) for each in (recipe, earlier))
    keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    return [f"{key}: {ours.get(key)} here, {theirs.get(key)} in the run" for key in keys] or ["master.from"]


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values in a tree by their keys, such as `master.epochs`."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not below:
        yield key, value
    for name, each in below:
        yield from _leaves(f"{key}.{name}" if key else str(name), each)


def network_name(network: ModelSpec) -> str:
    """Return the name of a network of a run: its space or design, its resolution and the start of its digest."""
    return f"{network.name}-r{network.input.resolution}-{network.digest[:6]}"


def default_folder(name: str, fresh: bool) -> Path:
    """Return `runs/NAME`, or the newest of `runs/NAME-2`, `runs/NAME-3`...; with `fresh` the next one that does not exist."""
    numbered = {1: Path("runs") / name}
    for folder in Path("runs").glob(f"{name}-*"):
        found = re.fullmatch(re.escape(name) + r"-(\d+)", folder.name)
        if found and _is_run_of(folder, name):
            numbered[int(found[1])] = folder
    newest = max(numbered)
    if not fresh or not numbered[newest].exists():
        return numbered[newest]
    return next(folder for n in itertools.count(newest + 1) if not (folder := Path("runs") / f"{name}-{n}").exists())


def _is_run_of(folder: Path, name: str) -> bool:
    """Return whether the folder's recipe has this name; a recipe called NAME-2 has folders of its own."""
    try:
        return RunFolder(folder).recipe().name == name
    except GenetError:
        return False
