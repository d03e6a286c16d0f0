"""The end of a run: a note of its recipe and its files, by which the same command knows that there is nothing to do.

Reading it needs no torch, no device and no image: only the names and sizes of the images are checked.
"""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field

from genet import __version__
from genet.config.reader import read_kept_recipe
from genet.config.recipe import Data, PretrainedMaster, Recipe, TunedMaster
from genet.errors import GenetError
from genet.pipeline.run_folder import RunFolder
from genet.progress import SILENT
from genet.search.known_designs import designs_of
from genet.search.race import Entrants
from genet.storage import FolderLock, Record, digest, read_bytes
from genet.training.class_folders import FolderReader
from genet.training.image_identity import NOTE, ImageContents, ImageNote
from genet.training.image_sources import split_place
from genet.training.log import FOLDER as LOG
from genet.trials.results import TRIED_AGAIN, read_results

FINISH = "finished.json"
ELSEWHERE = (FINISH, NOTE, "recipe.yaml", "environment.json", "report.html", LOG)  # of places and times, or judged by itself
NETWORK_FILES = ("network.yaml", "model.safetensors", "labels.txt")  # the files in a network's folder that decide its outputs
SMALL = 2**20  # bytes: larger files are known by their sizes


class Finish(Record):
    """When a run ended, with digests of its recipe and of its files then, and of others that the recipe names, by their place."""

    when: str
    recipe: str
    files: str
    sources: dict[str, str] = Field(default_factory=dict)  # none in a note of an earlier version


def mark_finished(files: RunFolder, recipe: Recipe, failed: bool) -> None:
    """Note that the run is at its end, unless its next command tries again what failed, or what could not be decided."""
    again = [each for each in read_results(files.trials).values() if each.failure and each.failure.kind in TRIED_AGAIN]
    entrants = Entrants.load(files.entrants)
    if failed or again or not entrants.inputs or entrants.undecided:
        return
    found = Finish(
        when=time.strftime("%Y-%m-%d %H:%M"),
        recipe=_recipe_digest(recipe),
        files=_files_digest(files.path),
        sources=_source_digests(recipe),
    )
    known = files.if_there(files.path / FINISH, Finish)
    if known is None or known.model_copy(update={"when": found.when}) != found:
        found.save(files.path / FINISH)


def finish_of(files: RunFolder, recipe: Recipe) -> Finish | None:
    """Return the note if the run has ended with this very recipe, and neither its files nor what it read have changed since.

    A file elsewhere that is gone by now counts as unchanged, for the run does not need it any more.
    """
    try:
        found = files.if_there(files.path / FINISH, Finish)
        if found is None or not files.report.exists() or not files.recipe_file.exists():
            return None
        if not _same_images(recipe.data, files.path / NOTE):
            return None
        if (found.recipe, found.files) != (_recipe_digest(recipe), _files_digest(files.path)):
            return None
        return found if _source_digests(recipe).items() <= found.sources.items() else None
    except (GenetError, OSError):  # something is missing or damaged, which the run itself will tell
        return None


def finished_before(files: RunFolder, recipe: Recipe) -> Finish | None:
    """Return the note of a run that has nothing left to do, once it names the place of its images; None if there is work."""
    finish = finish_of(files, recipe)
    if finish:
        note_place(files, recipe)
    return finish


def note_place(files: RunFolder, recipe: Recipe) -> None:
    """Record in a finished run where its images are now, so that later commands find them."""
    if read_kept_recipe(files.recipe_file).data.root == recipe.data.root:
        return
    with FolderLock(files.path):
        if (files.path / NOTE).exists():
            contents = ImageNote.load(files.path / NOTE).contents
            files.note_of(recipe.data, contents).keep(files.path, SILENT)
        files.adopt(recipe)


def _recipe_digest(recipe: Recipe) -> str:
    """Return a digest of the recipe, wherever the images lie, with the networks of its own designs."""
    own = [str(design.network) for design in designs_of(recipe)] if recipe.race.designs else []
    plain = recipe.model_dump_json(exclude={"data": {"root", "workers"}, "log": True})
    return digest("/".join([__version__, plain, *own]))


def _source_digests(recipe: Recipe) -> dict[str, str]:
    """Return digests of the files that the recipe names and that are there: of MasterNet, teacher and evidence."""
    teacher, evidence = recipe.train.teacher, recipe.measure.latency_file
    folders = [recipe.master.folder] if isinstance(recipe.master, PretrainedMaster | TunedMaster) else []
    folders += [teacher] if teacher and not teacher.startswith("timm:") else []
    files = [Path(folder, name) for folder in folders for name in NETWORK_FILES]
    files += [Path(evidence)] if evidence else []
    return {str(file): digest(read_bytes(file)) for file in files if file.is_file()}


def _files_digest(folder: Path) -> str:
    """Return a digest of the names and sizes of a run's files, and of the content of small ones."""
    lines = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or name.parts[0] in ELSEWHERE or any(part.startswith(".") for part in name.parts):
            continue
        size = path.stat().st_size
        lines.append(f"{name} {size} {digest(read_bytes(path)) if size <= SMALL else ''}")
    return digest("\n".join(lines))


def _same_images(data: Data, note: Path) -> bool:
    """Return whether image folders hold what was noted; other images are told apart by the run itself."""
    if data.name != "folder":
        return True
    places = [split_place(Path(data.root or ""), split) for split in ("train", "validation")]
    if not all(place.is_dir() for place in places):
        return False
    train, validation = (FolderReader(place).contents for place in places)
    return note.exists() and ImageNote.load(note).contents == ImageContents(train=train, validation=validation)
