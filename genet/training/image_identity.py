"""The identity of images, independent of their place: the note that a folder keeps of the images behind its results."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from genet.config.recipe import Data
from genet.errors import RunError
from genet.progress import Progress
from genet.storage import Record, digest

NOTE = "images.json"
MOST_NAMED = 3  # changes named in a message; the others are counted


class ClassImages(Record):
    """The images of a class: how many, and a digest of their names and sizes in their order."""

    images: int
    digest: str


class ImageContents(Record):
    """The classes of both splits and their files. Other pixels under the same names, in as many bytes, are not noticed."""

    train: dict[str, ClassImages]
    validation: dict[str, ClassImages]

    @property
    def digest(self) -> str:
        """Names the images among the inputs of a result."""
        return digest(self.model_dump_json())

    def changes_since(self, before: ImageContents) -> str:
        """Return the changes of classes in words."""
        changes = []
        for name in dict.fromkeys([*self.train, *self.validation, *before.train, *before.validation]):
            train = _change(self.train.get(name), before.train.get(name))
            validation = _change(self.validation.get(name), before.validation.get(name))
            if train == validation:
                changes += [f"class {name} {train}"] if train else []
                continue
            changes += [f"{split}/{name} {change}" for split, change in (("train", train), ("validation", validation)) if change]
        return ", ".join(changes[:MOST_NAMED]) + (
            f" and {len(changes) - MOST_NAMED} more changes" if len(changes) > MOST_NAMED else ""
        )


def _change(now: ClassImages | None, then: ClassImages | None) -> str | None:
    if now == then:
        return None
    if then is None:
        return "is new"
    if now is None:
        return "is gone"
    same = now.images == then.images
    return "has images of other names or sizes" if same else f"has {now.images:,} images, had {then.images:,}"


def list_classes(files: Iterable[tuple[str, str, int]]) -> dict[str, ClassImages]:
    """Sum up images in their order, each given by its class, its name in the split and its size in bytes."""
    counts: dict[str, int] = {}
    hashes: dict[str, hashlib._Hash] = {}
    for label, name, size in files:
        if label not in hashes:
            hashes[label], counts[label] = hashlib.sha256(), 0
        line = f"{normalize('NFC', name)}\0{size}\n"  # a name keeps its meaning if a file system spells it differently
        hashes[label].update(line.encode(errors="surrogateescape"))
        counts[label] += 1
    return {label: ClassImages(images=count, digest=hashes[label].hexdigest()[:16]) for label, count in counts.items()}


class EarlierImages(NamedTuple):
    """What is known of the images of results without a note, as an earlier version wrote none."""

    root: str | None  # the place, by their recipe
    images: str | None  # the digest of the contents, None in an earlier version
    tested: bool = True  # whether a result was tested on validation images; they decide nothing before


class ImageNote(Record):
    """The images of a folder's results. `name` stands for them among the inputs of a result.

    It is the digest of the contents; for an earlier version's results it is the place of the images.
    """

    name: str | None
    place: str | None  # their last known place, None if they were downloaded
    beside: str | None  # the same place, seen from the folder
    contents: ImageContents

    def keep(self, folder: Path, progress: Progress) -> None:
        """Write the note into the folder, unless it is there."""
        file = folder / NOTE
        if file.exists() and ImageNote.load(file) == self:
            return
        if not file.exists() and self.name != self.contents.digest:
            progress.say(
                f"  {folder}: an earlier version did not record its images; those in {self.place} are assumed to be the same"
            )
        self.save(file)


def note_of(folder: Path, data: Data, contents: ImageContents, made: EarlierImages | None, remedy: str) -> ImageNote:
    """Return the record of a folder's images; `made` is None as long as there are no results.

    RunError if results were made from others, with the remedy. Validation images may be repaired until some result was tested.
    """
    place = Path(data.root).absolute() if data.root else None
    beside = os.path.relpath(place.parent.resolve() / place.name, folder.resolve()) if place else None
    found = ImageNote(name=contents.digest, place=place and str(place), beside=beside, contents=contents)
    if made is None:
        return found
    if (folder / NOTE).exists():
        known = ImageNote.load(folder / NOTE)
        if known.contents == contents or (known.contents.train == contents.train and not made.tested):
            return found.model_copy(update={"name": known.name})
        changes = contents.changes_since(known.contents)
    elif made.images:
        if made.images == contents.digest:
            return found
        changes = f"{NOTE}, which recorded them, is missing"
    elif _lie_elsewhere(made.root, place):
        changes = f"its own are {f'in {made.root}' if made.root else 'those that were downloaded'}"
    else:
        return found.model_copy(update={"name": made.root})
    raise RunError(f"{folder}: got other images ({changes}), expected those that its results were made from; {remedy}")


def _lie_elsewhere(root: str | None, place: Path | None) -> bool:
    """Return whether images that an earlier version knew by their place are still there, in another place than the given ones."""
    if root is None or place is None:
        return (root is None) != (place is None)
    return Path(root).exists() and not Path(root).samefile(place)


def relocated(data: Data, folder: Path) -> Data:
    """Return the images that a folder's recipe names: if they were moved together with the folder, in their new place."""
    if data.root is None or not (folder / NOTE).exists():
        return data
    note, root = ImageNote.load(folder / NOTE), Path(data.root)
    if note.beside is None or note.place != str(root.absolute()):
        return data
    here = Path(os.path.normpath(folder.resolve() / note.beside))
    if not here.exists() or (root.exists() and here.samefile(root)):
        return data
    return data.model_copy(update={"root": str(here)})
