"""Images for the search and the final evaluation: a training set, a NAS validation set cut from it, and a test set.

No training sees the NAS validation images that judge it; the test images are read by the final evaluation only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch

from genet.arch.network import Input
from genet.arch.space import SpaceInput
from genet.config.augment import SMALL, Augment, augment_at
from genet.config.preprocessing import Preprocessing
from genet.config.recipe import Data
from genet.device import total_bytes
from genet.errors import DataError
from genet.names import some_of
from genet.progress import SILENT, Progress
from genet.training.class_folders import in_order
from genet.training.image_identity import ImageContents
from genet.training.image_sets import CPU, PLAIN, FileImages, ImageSet, TensorImages, View
from genet.training.image_sources import (
    check_class_count,
    check_classes,
    check_digits,
    check_enough,
    check_labels,
    check_located,
    listed_images,
    open_split,
    ordered_labels,
    targets_of,
)
from genet.training.inventory import hold_out

PARTS = 3  # of the training images that can be held out in turn, at most
NAMED = 20  # images that do not decode named in a message; the others are counted
SHARE_OF_MEMORY = 0.25  # share of the device's memory that decoded images may take


@dataclass(frozen=True, slots=True)
class Splits:
    """The three sets of a job, and the names of their classes.

    `others` are the pairs of training and held-out images that hold out another part of the training set each.
    """

    train: ImageSet
    nas_validation: ImageSet
    test: ImageSet
    labels: tuple[str, ...] | None = None  # the classes' names in their order, if the images have them
    contents: ImageContents | None = None  # None for the embedded digits
    name: str | None = None  # stands for them among the inputs of a result
    others: tuple[tuple[ImageSet, ImageSet], ...] = ()

    @property
    def sizes(self) -> str:
        """The number of images in each set, in words."""
        train, held_out, test = (f"{images.size:,}" for images in (self.train, self.nas_validation, self.test))
        return f"{train} images to train on, {held_out} held out from the training set, {test} to test on"

    def shortened(self, batch: int) -> str | None:
        """A remark if a training's batch is larger than the training set; None if it is not."""
        size = self.train.size
        return f"  batch {batch:,} is reduced to {size:,}, as there are no more images to train on" if batch > size else None

    def with_view(self, view: View) -> Splits:
        """Return the same sets in another view."""
        train, nas_validation, test = (images.with_view(view) for images in (self.train, self.nas_validation, self.test))
        others = tuple((shown.with_view(view), held_out.with_view(view)) for shown, held_out in self.others)
        return dataclasses.replace(self, train=train, nas_validation=nas_validation, test=test, others=others)

    @property
    def parts(self) -> int:
        """Number of parts of the training set that can be held out in turn."""
        return 1 + len(self.others)

    def holding_out(self, part: int) -> Splits:
        """Return the sets with this part of the training set held out; part 0 is the one that the search is judged by."""
        if part == 0:
            return self
        train, nas_validation = self.others[part - 1]
        return dataclasses.replace(self, train=train, nas_validation=nas_validation)

    def check(self, resolution: int) -> None:
        """Check that every image decodes, before hours are spent on some; DataError with all images that do not.

        Images to train on that are decoded anew in every epoch are opened only: the first epoch decodes them.
        """
        faults: list[str] = []
        for images in (self.train, self.nas_validation, self.test):
            if isinstance(images, FileImages):
                faults += images.faults(resolution, thorough=images is not self.train)
        if faults:
            more = [f"and {len(faults) - NAMED:,} more images do not decode"] if len(faults) > NAMED else []
            raise DataError(*faults[:NAMED], *more)


def load_data(
    data: Data,
    input_: Input | SpaceInput,
    seed: int,
    view: View = PLAIN,
    device: torch.device = CPU,
    labels: tuple[str, ...] | None = None,
    progress: Progress = SILENT,
) -> Splits:
    """Load the images a recipe asks for; which training images are held out depends on the seed alone.

    Images are kept on the `device` if it has room for them, once the sets are asked for batches `on` it. With `labels`, a
    network's own, classes are numbered as it does. Files left out, and surprises, are reported.

    DataError if images or classes are missing, do not fit the space's channels and classes or the labels, or cannot be augmented
    as wanted.
    """
    check_augment(view.augment, data, input_)
    opened = _digits(data, input_, view) if data.name == "digits" else _files(data, input_, view, device, labels, progress)
    check_labels(labels, opened.labels, data.root or data.name)
    splits = opened.split(data.nas_validation, seed, progress)
    check_enough(splits.train.size, splits.nas_validation.size, splits.test.size)
    return splits


def load_test(
    data: Data,
    input_: Input | SpaceInput,
    preprocessing: Preprocessing | None = None,
    labels: tuple[str, ...] | None = None,
    progress: Progress = SILENT,
) -> ImageSet:
    """Load the test images alone, prepared in their own way if one is given, numbered like `labels`.

    DataError as for `load_data`, and for other labels.
    """
    if data.name == "digits":
        digits = _digits(data, input_, PLAIN)
        check_labels(labels, digits.labels, data.name)
        return digits.test
    root = check_located(data, input_)
    images = open_split(data.name, root, "validation", labels, progress)
    ordered = ordered_labels(images, root)
    if ordered:
        check_class_count(len(ordered), input_, root)
    check_labels(labels, ordered, root)
    if ordered and not labels:
        progress.say(
            f"  the network has no labels.txt: its logits are assumed to be the classes in order of name: {some_of(ordered)}"
        )
    if not len(images):
        raise DataError(f"{root}: got no image to test with, expected at least one")
    return FileImages(images, np.arange(len(images)), input_.channels, data.workers, View(preprocessing=preprocessing))


def check_augment(augment: Augment | None, data: Data, input_: Input | SpaceInput | None = None) -> None:
    """Check that images can be augmented like this, or by their default; DataError if not, for any network or for its input."""
    if augment is None:
        usual = augment_at(None, data.name, max(_resolutions(input_))) if input_ else Augment()
        if data.loading == "device" and not usual.in_memory:
            raise DataError(
                f"data.loading: got device for images augmented by {usual} by default, expected crop, flip or cutout alone; "
                "set augment, or leave loading out"
            )
        return
    smallest = min(_resolutions(input_)) if input_ else math.inf
    for key, most in (("crop", smallest // 2), ("cutout", smallest - 1)):
        if getattr(augment, key) > most:
            raise DataError(
                f"augment.{key}: got {getattr(augment, key)} for images of {smallest} pixels, expected at most {most}; lower it"
            )
    if not augment.in_memory and (data.name == "digits" or data.loading == "device"):
        kept = "digits" if data.name == "digits" else "images kept on the device (data.loading)"
        raise DataError(f"augment: got {augment} for {kept}, expected crop, flip or cutout alone; leave the others out")
    if augment.policy is None:
        return
    if input_ and input_.channels != 3:
        raise DataError(
            f"augment.policy: got {augment.policy!r} for images of {input_.channels} channels, expected images of three; leave "
            "it out"
        )
    from timm.data import create_transform  # seconds to import, and few recipes need it

    try:
        create_transform((3, 32, 32), is_training=True, auto_augment=augment.policy)
    except Exception as fault:
        raise DataError(
            f"augment.policy: got {augment.policy!r}, expected a policy by timm's name such as original or rand-m9 ({fault})"
        ) from None


def _resolutions(input_: Input | SpaceInput) -> tuple[int, ...]:
    return input_.resolutions if isinstance(input_, SpaceInput) else (input_.resolution,)


class _Keeping(NamedTuple):
    """Whether images are kept on the device, and how many parts of the training set are held out in turn.

    Each part's images are kept apart, all together within `SHARE_OF_MEMORY`. The remark reports what may surprise.
    """

    kept: bool
    parts: int = PARTS
    remark: str | None = None


def _keeping(data: Data, input_: Input | SpaceInput, augment: Augment | None, images: int, device: torch.device) -> _Keeping:
    """Return whether so many images can be kept on the device and augmented there.

    It depends on how much memory the device has, not on how much is free, as a training must not see other images from day to
    day.
    """
    resolutions = _resolutions(input_)
    looks = [augment_at(augment, data.name, resolution) for resolution in resolutions]
    small = all(look.in_memory and resolution <= SMALL for look, resolution in zip(looks, resolutions, strict=True))
    if data.loading == "stream" or (data.loading == "auto" and not small):
        return _Keeping(False)
    edges = [resolution + 2 * look.crop for look, resolution in zip(looks, resolutions, strict=True)]
    pixels = sum(edge * edge + resolution * resolution for edge, resolution in zip(edges, resolutions, strict=True))
    needed, there = images * input_.channels * pixels, total_bytes(device)
    if there is not None and needed > there * SHARE_OF_MEMORY:
        sizes = f"{needed / 2**30:.1f} GiB decoded, and {device} has {there / 2**30:.1f} GiB"
        return _Keeping(False, remark=f"  {images:,} images take {sizes}: they are decoded again in every epoch")
    return _Keeping(True, PARTS if there is None else max(1, min(PARTS, int(there * SHARE_OF_MEMORY / needed))))


@dataclass(frozen=True, slots=True)
class _Opened:
    """The images to train on, with the label of each, and those to test on; `taking` makes a set of some positions.

    `usual` is the classes' usual order, by which images are held out, if they may be numbered differently.
    """

    targets: np.ndarray
    taking: Callable[[np.ndarray], ImageSet]
    test: ImageSet
    labels: tuple[str, ...] | None
    contents: ImageContents | None = None
    usual: tuple[str, ...] | None = None
    parts: int = PARTS  # that can be held out in turn, at most

    def split(self, share: float, seed: int, progress: Progress) -> Splits:
        """Hold a share of every class out for the search."""
        targets, labels = self.targets, self.usual or self.labels
        if self.usual and self.labels:
            targets = np.array([self.usual.index(label) for label in self.labels])[targets]
        parts = [hold_out(targets, share, seed, part) for part in range(max(1, min(self.parts, int(1 / share))))]
        _, held_out = parts[0]
        lacking = np.setdiff1d(targets, targets[held_out]).tolist()
        if lacking and len(held_out):
            names = [labels[label] if labels else str(label) for label in lacking]
            progress.say(f"  too few images to hold one out for the search: {some_of(names)}")
        name = self.contents.digest if self.contents else None
        (shown, judged), *others = ((self.taking(train), self.taking(held_out)) for train, held_out in parts)
        return Splits(shown, judged, self.test, self.labels, self.contents, name, tuple(others))


@cache
def _handwritten() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Return the digits' images and classes, and which of them are for tests and for training: every step of a job asks."""
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(targets))
    test, training = np.split(order, [len(order) // 5])
    return (images - images.mean()) / images.std(), torch.tensor(targets), test, training


def _digits(data: Data, input_: Input | SpaceInput, view: View) -> _Opened:
    """Return scikit-learn's 1,797 handwritten digits of 8x8 pixels; a fifth is the test set, whatever the seed."""
    check_digits(input_)
    images, targets, test, training = _handwritten()
    view = view._replace(data_name=data.name)

    def taking(chosen: np.ndarray) -> TensorImages:
        return TensorImages(images[chosen], targets[chosen], view)

    names = tuple(map(str, range(10)))
    return _Opened(targets[training].numpy(), lambda positions: taking(training[positions]), taking(test), names)


def _files(
    data: Data, input_: Input | SpaceInput, view: View, device: torch.device, labels: tuple[str, ...] | None, progress: Progress
) -> _Opened:
    """Return an image folder, or a dataset by timm's name; the test set is timm's validation split."""
    root = check_located(data, input_)
    train_set, test_set = (open_split(data.name, root, split, labels, progress) for split in ("train", "validation"))
    check_classes(train_set, test_set, input_, root)
    kept, parts, remark = _keeping(data, input_, view.augment, len(train_set) + len(test_set), device)
    if remark:
        progress.say(remark)
    make = partial(FileImages, channels=input_.channels, workers=data.workers, view=view._replace(data_name=data.name), kept=kept)
    ordered = ordered_labels(train_set, root)
    contents = ImageContents(train=listed_images(train_set, root), validation=listed_images(test_set, root))
    test, usual = make(test_set, np.arange(len(test_set))), in_order(ordered) if ordered and data.name == "folder" else None
    return _Opened(targets_of(train_set), partial(make, train_set), test, ordered, contents, usual, parts)
