"""Datasets as timm opens them: folders, archives and downloads; their classes and the order of these."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tarfile import TarInfo
from typing import Any

import numpy as np

from genet.arch.network import Input
from genet.arch.space import SpaceInput
from genet.config.recipe import Data
from genet.errors import DataError, first_line
from genet.names import by_class, name_differences, some_of
from genet.progress import Progress
from genet.training.class_folders import FolderReader, in_order
from genet.training.image_identity import ClassImages, list_classes

DOWNLOADED = "torch/"  # datasets that torchvision can download


def listed_images(images: Any, root: str) -> dict[str, ClassImages]:
    """Return the content of a split: the files of folders and archives, else the number of images per class and their order."""
    source = getattr(images, "reader", images)
    if isinstance(source, FolderReader):
        return source.contents
    names = {label: name for name, label in (_class_names(images, root) or {}).items()}
    files: Iterable[tuple[str, int]] = ((str(position), 0) for position in range(len(images)))
    members = [sample[0] for sample in getattr(source, "samples", ())]
    if members and isinstance(members[0], TarInfo):
        files = ((os.path.normpath(member.path), member.size) for member in members)
    labels = (names.get(label, str(label)) for label in targets_of(images).tolist())
    return list_classes((label, *file) for label, file in zip(labels, files, strict=True))


def targets_of(images: Any) -> np.ndarray:
    """Return the label of every image; the same for all if a dataset does not give labels without decoding."""
    source = getattr(images, "reader", images)
    targets = getattr(source, "targets", None)
    if targets is None and hasattr(source, "samples"):
        targets = [label for _, label in source.samples]
    return np.zeros(len(images), dtype=np.int64) if targets is None else np.asarray(targets, dtype=np.int64)


def check_located(data: Data, input_: Input | SpaceInput) -> str:
    """Return the place of a dataset, and download it if it is one of torchvision's; DataError if it has no place."""
    if data.root is None and not data.name.startswith(DOWNLOADED):
        what = "the images" if data.name == "folder" else data.name
        raise DataError(f"data.root: got none, expected the folder of {what}; give --data FOLDER or set it in the recipe")
    if data.root and (data.name == "folder" or data.name.startswith(DOWNLOADED)) and not Path(data.root).exists():
        failure = f"{data.root} does not exist, expected the folder of the images"
        raise DataError(f"{failure}; give --data FOLDER, where they are now")
    if input_.channels not in (1, 3):
        raise DataError(f"input.channels: got {input_.channels}, expected 1 (grey) or 3 (colour); change it")
    return data.root or _download(data.name)


def _download(name: str) -> str:
    """Have torchvision download a dataset into the user's cache, unless it is there; returns the folder."""
    from timm.data import create_dataset

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "genet" / name.removeprefix(DOWNLOADED)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints its progress; the answer of --json is the only line there
            create_dataset(name, str(root), split="train", search_split=False, download=True)
    except Exception as fault:
        raise DataError(
            f"{name}: got no images in {root} and no download ({first_line(fault)}), expected either; give --data FOLDER with "
            "train/CLASS/* and test/CLASS/*, or try again with a network"
        ) from None
    return str(root)


def open_split(name: str, root: str, split: str, labels: Sequence[str] | None, progress: Progress) -> Any:
    """Return a split as timm opens it; its classes are numbered like `labels`, else in one order for all processes."""
    from timm.data import ImageDataset, create_dataset

    place = split_place(Path(root), split) if name == "folder" else Path(root)
    if name == "folder" and place.is_dir():
        reader = FolderReader(place, labels)
        if reader.left_out:
            progress.say(f"  {reader.left_out}")
        return ImageDataset(str(place), reader=reader)
    try:
        if place.suffix != ".tar":
            return create_dataset(name, str(place), split=split, search_split=False)
        opened = create_dataset("", str(place), split=split, cache_tarinfo=False)  # timm would keep its list of files in a pickle
        names = opened.reader.class_name_to_idx
        written = by_class({name: name for name in names}, place)
        ordered = labels if labels and set(labels) == set(written) else in_order(written)
        order = {written[each]: label for label, each in enumerate(ordered)}
        return opened if order == names else create_dataset("", str(place), split=split, cache_tarinfo=False, class_map=order)
    except DataError:
        raise
    except Exception as fault:
        if name.startswith(DOWNLOADED):
            raise DataError(
                f"{name} in {place}: got no {split} images, expected train/CLASS/* and test/CLASS/*, or the files that "
                "torchvision downloads; give another --data, or none to download them"
            ) from None
        raise DataError(f"{name} in {place}: its {split} split must be readable ({fault})") from None


SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid", "test")}


def split_place(root: Path, split: str) -> Path:
    """Return ROOT/train or ROOT/train.tar, or the same for validation under its usual names; DataError if there is none.

    A folder with neither split gets one message, the same for both.
    """
    there = {each: _places(root, names) for each, names in SPLITS.items()}
    if there[split]:
        return there[split][0]
    inside = [entry.name for entry in root.glob("[!.]*") if entry.is_dir()]
    got = f"folders {some_of(in_order(inside))}" if inside else "no such folder"
    wanted, remedy = ", ".join(SPLITS[split]), "make it"
    above = root.resolve().parent
    if inside and not any(there.values()) and all(_places(above, names) for names in SPLITS.values()):
        wanted, remedy = "train and validation", f"give {root.parent}, which has both"
    elif inside and not any(there.values()):
        wanted = "train and validation"
        remedy = (
            f"if these are the classes, move them into {root / 'train'}, and every fifth image of each into "
            f"{root / 'validation'}/CLASS: docs/your-own-images.md has the commands"
        )
    raise DataError(f"{root}: got {got}, expected {wanted}, with one folder of images per class, or a .tar of it; {remedy}")


def _places(root: Path, names: Iterable[str]) -> list[Path]:
    return [place for name in names for place in (root / name, root / f"{name}.tar") if place.exists()]


def check_enough(train: int, held_out: int, test: int) -> None:
    """Raise DataError unless there are images in every set, and two to train on."""
    if train < 2 or held_out == 0 or test == 0:
        raise DataError(
            f"there must be two images to train on and one in every other set, got {train} to train, {held_out} for the "
            f"search's validation and {test} to test; give more images or another nas_validation"
        )


def check_digits(input_: Input | SpaceInput) -> None:
    """Raise DataError unless a network has the channels and classes of the embedded digits."""
    if (input_.channels, input_.classes) != (1, 10):
        raise DataError(
            f"digits have 1 channel and 10 classes, but the network has {input_.channels} and {input_.classes}; change its "
            "input, or give other images"
        )


def check_same_classes(train_set: Any, test_set: Any, root: str) -> None:
    """Raise DataError unless both splits have the same classes: a missing one would shift all labels after it."""
    ours, theirs = _class_names(train_set, root), _class_names(test_set, root)
    if ours is None or theirs is None:
        return  # datasets whose labels are numbers carry no names that could shift
    if differ := name_differences(ours, theirs):
        missing, extra, hint = differ
        parts = [f"only {split} has {names}" for split, names in (("train", missing), ("validation", extra)) if names]
        raise DataError(f"{root}: got different classes in train and validation, expected the same: {' and '.join(parts)}{hint}")


def check_classes(train_set: Any, test_set: Any, input_: Input | SpaceInput, root: str) -> None:
    """Raise DataError unless both splits have the same classes, and as many as the space."""
    check_same_classes(train_set, test_set, root)
    names = _class_names(train_set, root)
    if names is not None and _class_names(test_set, root) is not None:
        check_class_count(len(names), input_, root)


def check_class_count(classes: int, input_: Input | SpaceInput, root: str) -> None:
    """Raise DataError unless there are as many classes as the network or the space has."""
    if classes != input_.classes:
        whose, key, file = "network's", "input.classes", " in the network's file"
        if isinstance(input_, SpaceInput):
            whose, key, file = "search space's", "space.input.classes", ""
        raise DataError(
            f"{root}: got {classes} classes, expected the {whose} {input_.classes}; give others, or set {key} to {classes}{file}"
        )


def check_labels(ours: tuple[str, ...] | None, theirs: tuple[str, ...] | None, root: str) -> None:
    """Raise DataError if images have other classes than a network, or number them otherwise; unnamed ones pass."""
    if ours and theirs and (differ := name_differences(ours, theirs)):
        lacking, extra, hint = differ
        parts = [f"lack {lacking}"] if lacking else []
        parts += [f"have {extra} in addition"] if extra else []
        got = f"got images that {' and '.join(parts)}"
        raise DataError(f"{root}: {got}, expected the network's own classes{hint or '; give its images'}")
    if ours and theirs and ours != theirs:
        raise DataError(
            f"{root}: got classes in the order {some_of(theirs)}, expected the network's order, {some_of(ours)}; give its images "
            "as a folder per class"
        )


def ordered_labels(images: Any, root: str) -> tuple[str, ...] | None:
    """Return the classes' names in the order of their labels, if a dataset has names."""
    names = _class_names(images, root)
    return tuple(sorted(names, key=names.__getitem__)) if names else None


def _class_names(images: Any, root: str) -> dict[str, int] | None:
    """Return the classes' names with their labels, if a dataset has them."""
    source = getattr(images, "reader", images)
    names: dict[str, int] | None = getattr(source, "class_to_idx", None) or getattr(source, "class_name_to_idx", None)
    return by_class(names, root) if names else names
