"""The images of a folder before a training decodes them: classes, counts, sizes and channels, and how they are divided.

The names of all are read and the heads of some files: it takes a second or two, and for folders torch is not loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from genet.arch.space import SpaceInput
from genet.config.recipe import Data
from genet.errors import DataError
from genet.names import check_utf8, counted, some_of
from genet.progress import SILENT, Progress
from genet.storage import Record
from genet.training.class_folders import FolderReader, in_order
from genet.training.image_sources import (
    DOWNLOADED,
    check_class_count,
    check_digits,
    check_enough,
    check_located,
    check_same_classes,
    listed_images,
    open_split,
    split_place,
)

LOOKED_AT = 400  # files of a set whose heads are read
GREY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")  # modes of Pillow


class Division(NamedTuple):
    """The images of a class: to train on, held out for the search, and to test on."""

    train: int
    held_out: int
    test: int


class Inventory(Record):
    """The images of a folder: how many there are of every class, and what the heads of some files tell."""

    root: str
    train: dict[str, int]  # those held out among them
    test: dict[str, int]
    edges: tuple[int, ...]  # shorter edges in pixels of the training images that were looked at, ascending
    grey: bool  # whether all of these are

    @property
    def edge(self) -> int:
        """The shorter edge of the middle one of the images that were looked at."""
        return self.edges[len(self.edges) // 2]

    def divided(self, share: float, seed: int) -> dict[str, Division]:
        """Return the division of every class, with a share of the training images held out as a job of this seed does."""
        names = in_order(self.train)
        labels = np.repeat(np.arange(len(names)), [self.train[name] for name in names])
        train, held_out = (np.bincount(labels[part], minlength=len(names)).tolist() for part in hold_out(labels, share, seed))
        return {name: Division(train[k], held_out[k], self.test[name]) for k, name in enumerate(names)}


def take_stock(root: Path, progress: Progress = SILENT) -> Inventory:
    """Look at an image folder, and report what is left out. DataError with all that a job would refuse, a line each."""
    if not root.exists():
        raise DataError(f"{root} does not exist, expected the folder of the images; give --data FOLDER, where they are now")
    found: dict[str, Any] = {}
    heads: dict[str, list[_Head]] = {}
    faults: list[str] = []
    for split in ("train", "validation"):
        try:
            place = split_place(root, split)
            images = FolderReader(place) if place.is_dir() else open_split("folder", str(root), split, None, progress).reader
        except DataError as fault:
            faults += map(str, fault.args)
            continue
        found[split], heads[split] = images, _heads(images, place, faults)
        if left_out := getattr(images, "left_out", None):
            progress.say(f"  {left_out}")
    if len(found) == 2:
        try:
            check_same_classes(found["train"], found["validation"], str(root))
        except DataError as fault:
            faults += map(str, fault.args)
    if faults:
        raise DataError(*dict.fromkeys(faults))
    train, test = ({name: each.images for name, each in listed_images(found[split], str(root)).items()} for split in found)
    return Inventory(
        root=str(root),
        train=train,
        test=test,
        edges=tuple(sorted(head.edge for head in heads["train"])),
        grey=all(head.grey for head in heads["train"]),
    )


def check_images(data: Data, input_: SpaceInput | None, seed: int, progress: Progress = SILENT) -> Inventory | None:
    """Look at a recipe's images, if it names an image folder; for a search they must be those of its space.

    DataError with all that a job would refuse, a line each. Nothing is downloaded.
    """
    if data.name == "digits" and input_:
        check_digits(input_)
    if data.name != "folder" or data.root is None:
        return None
    found = take_stock(Path(data.root), progress)
    faults: list[str] = []
    division = found.divided(data.nas_validation, seed).values()
    counts = [sum(each[place] for each in division) for place in range(len(Division._fields))]
    checks: list[Callable[[], object]] = [lambda: check_enough(*counts)]
    if input_:
        checks += [lambda: check_class_count(len(found.train), input_, found.root), lambda: check_located(data, input_)]
    for check in checks:
        try:
            check()
        except DataError as fault:
            faults += map(str, fault.args)
    if faults:
        raise DataError(*faults)
    return found


class _Head(NamedTuple):
    edge: int
    grey: bool


def _heads(images: Any, place: Path, faults: list[str]) -> list[_Head]:
    """Return the heads of some files, evenly spread over the set; those that are no images are added to the faults."""
    count, heads, broken = min(LOOKED_AT, len(images)), [], []
    for index in (number * len(images) // count for number in range(count)):
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(images[index][0]) as image:
                heads.append(_Head(min(image.size), image.mode in GREY))
        except Exception:  # whatever Pillow's readers raise
            broken.append(images.filename(index))
    if broken:
        failure = f"{len(broken):,} of {counted(count, 'file')} cannot be opened as images: {some_of(broken)}"
        faults.append(f"{place}: {failure}; repair or remove them")
    return heads


def hold_out(targets: np.ndarray, share: float, seed: int, part: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return positions to train on and positions held out: a share of every class, one more or less, and never all of one.

    Of classes too small for a share of one image, some have one held out, so that the total share is right. Every `part` holds
    out other images, as far as a class has any.
    """
    rng = np.random.default_rng(seed)
    labels, sizes = np.unique(targets, return_counts=True)
    by_label = np.split(np.argsort(targets, kind="stable"), np.cumsum(sizes)[:-1])
    members = dict(zip(labels.tolist(), by_label, strict=False))  # without any image there is one part, and no label
    by_class, before, seen = [], 0, 0
    for label, size in rng.permutation(np.stack([labels, sizes], 1)):
        seen += size
        count = round(seen * share) - before
        before += count
        count = min(count, size - 1)
        by_class.append(np.roll(rng.permutation(members[label]), -part * count)[:count])
    held_out = np.sort(np.concatenate(by_class)) if by_class else np.array([], dtype=np.int64)
    return np.setdiff1d(np.arange(len(targets)), held_out), held_out


def images_named(text: str) -> Data:
    """Return the images in a folder, or the embedded digits."""
    return Data(name="digits") if text == "digits" and not Path(text).exists() else Data(name="folder", root=text)


def images_in(data: Data, folder: str) -> Data:
    """Return a recipe's images, in this folder: one folder per class under `train`, or the files of the recipe's dataset."""
    root = Path(folder).absolute()
    classes = data.name.startswith(DOWNLOADED) and any((root / name).exists() for name in ("train", "train.tar"))
    return Data.model_validate({**data.model_dump(), "root": check_utf8(str(root)), **({"name": "folder"} if classes else {})})
