"""Images for the search and for the last word: a training set, a NAS validation set cut from it, and a test set.

The NAS validation images are never trained on; the test images are read by the final evaluation only.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from genet.errors import DataError
from genet.spec.network import Input
from genet.spec.recipe import Data
from genet.spec.shown import SMALL, Shown, shown_at
from genet.spec.space import SpaceInput

Batch = tuple[Tensor, Tensor]  # images (N, channels, resolution, resolution) in fp32, labels (N,)


class View(NamedTuple):
    """How training images are augmented beyond crops and flips, which part of every batch a process sees, and how images

    are shown to a network that was trained elsewhere.
    """

    augment: str | None = None  # timm's name of a policy
    erasing: float = 0.0  # share of the images that a rectangle is erased of
    rank: int = 0
    ranks: int = 1
    shown: Shown | None = None  # this project's way where it is None


PLAIN = View()


class ImageSet(Protocol):
    """A set of labelled images at any resolution."""

    size: int  # of all processes together

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        """All images once, but for the first `skip` batches. With a seed: shuffled and augmented by it, and a last short

        batch dropped; what an image looks like then depends on the seed and the image alone.
        """
        ...

    def shuffled(self, seed: int) -> ImageSet:
        """The same images in another order, which the seed decides."""
        ...


@dataclass(frozen=True, slots=True)
class Splits:
    """The three sets of a job, and what their classes are called."""

    train: ImageSet
    nas_validation: ImageSet
    test: ImageSet
    labels: tuple[str, ...] | None = None  # the classes' names in their order, where the images tell them


def load_data(data: Data, reads: Input | SpaceInput, seed: int, view: View = PLAIN) -> Splits:
    """The images a recipe asks for; which training images are held out depends on the seed alone.

    DataError where images or classes are missing, or do not fit the space's channels and classes.
    """
    if view.augment:
        _check_policy(view.augment, reads.channels)
    splits = (_digits if data.name == "digits" else _timm_dataset)(data, reads, seed, view)
    if splits.train.size < 2 or splits.nas_validation.size == 0 or splits.test.size == 0:
        raise DataError(
            f"there must be two images to train and one in every other set, got {splits.train.size} to train, "
            f"{splits.nas_validation.size} for the search's validation and {splits.test.size} to test; "
            "give more images or another nas_validation"
        )
    return splits


def load_test(
    data: Data, reads: Input | SpaceInput, shown: Shown | None = None, labels: tuple[str, ...] | None = None
) -> ImageSet:
    """The test images alone, shown in a way of its own if one is given. DataError as for `load_data`, and for other labels."""
    if data.name == "digits":
        return _digits(data, reads, 0, PLAIN).test
    root = _check_located(data, reads)
    images = _open(data.name, root, "validation")
    _check_class_count(images, reads.classes, root)
    check_labels(labels, tuple(_class_names(images) or ()), root)
    if not len(images):
        raise DataError(f"{root}: must hold at least one image to test with, and holds none")
    return FileImages(images, np.arange(len(images)), reads.channels, data.workers, View(shown=shown))


def _check_policy(policy: str, channels: int) -> None:
    from timm.data import create_transform

    if channels != 3:
        raise DataError(f"augment must have images of three channels, and these have {channels} (got {policy!r}); leave it out")
    try:
        create_transform((3, 32, 32), is_training=True, auto_augment=policy)
    except Exception as fault:
        raise DataError(
            f"augment must be a policy by timm's name, such as original or rand-m9 (got {policy!r}: {fault})"
        ) from None


class TensorImages:
    """Images held in memory, resized bilinearly."""

    def __init__(self, images: Tensor, labels: Tensor, view: View = PLAIN) -> None:
        self._images, self._labels, self._view = images, labels, view
        self.size = len(labels)

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        """See `ImageSet`."""
        order = _order(self.size, batch, shuffle_seed, skip, self._view)
        for chosen in order.split(batch // self._view.ranks) if len(order) else ():
            small = self._images[chosen]
            resized = torch.nn.functional.interpolate(small, (resolution, resolution), mode="bilinear")
            if shuffle_seed is not None and self._view.erasing:
                resized = self._erased(resized, shuffle_seed, chosen)
            yield resized, self._labels[chosen]

    def shuffled(self, seed: int) -> TensorImages:
        """See `ImageSet`."""
        order = _permuted(self.size, seed)
        return TensorImages(self._images[order], self._labels[order], self._view)

    def _erased(self, images: Tensor, seed: int, chosen: Tensor) -> Tensor:
        from timm.data.random_erasing import RandomErasing

        erase, images = RandomErasing(self._view.erasing, device="cpu"), images.clone()
        for image, index in zip(images, chosen.tolist(), strict=True):
            _seed_augmentation(seed + index)
            image.copy_(erase(image))
        return images


def _order(size: int, batch: int, shuffle_seed: int | None, skip: int, view: View = PLAIN) -> Tensor:
    """Positions of the images in the order in which this process shows them; `batch` is all processes' together.

    Of a training batch a process gets as many images from the front as from the back, mirrored, for mixup mixes the first
    with the last: so pairs stay together however many processes there are.
    """
    if shuffle_seed is None:
        return torch.arange(size)[skip * batch :][view.rank :: view.ranks]
    order = _permuted(size, shuffle_seed)
    order = order[skip * batch : max(size // batch * batch, min(batch, size))]
    if view.ranks == 1 or not len(order):
        return order
    if batch % (2 * view.ranks) or size < batch:
        raise DataError(
            f"a batch must divide evenly among {view.ranks} processes, in pairs, and be no larger than the {size} training "
            f"images (got {batch}); change the schedule's batch"
        )
    half = batch // (2 * view.ranks)
    steps, front = order.view(-1, batch), view.rank * half
    return torch.cat([steps[:, front : front + half], steps[:, batch - front - half : batch - front]], dim=1).flatten()


def _permuted(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


@dataclass
class FirstImages:
    """The first batches of a set, with `size` images or a few more: enough to time something."""

    images: ImageSet
    size: int

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        """See `ImageSet`."""
        count = max(0, math.ceil(self.size / batch) - skip)
        return itertools.islice(self.images.batches(batch, resolution, shuffle_seed, skip), count)

    def shuffled(self, seed: int) -> FirstImages:
        """See `ImageSet`."""
        return FirstImages(self.images.shuffled(seed), self.size)


class FileImages:
    """Images that timm's readers or torchvision's datasets deliver, transformed by timm: random crops and flips to train,

    centre crops else.
    """

    def __init__(self, dataset: Any, chosen: np.ndarray, channels: int, workers: int, view: View = PLAIN) -> None:
        self._dataset, self._channels, self._workers, self._view = dataset, channels, workers, view
        self.positions = chosen  # of these images in the dataset
        self.size = len(chosen)

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        """See `ImageSet`."""
        chosen = self.positions[_order(self.size, batch, shuffle_seed, skip, self._view).numpy()]
        decoded = Subset(_Decoded(self._dataset, self._channels, resolution, shuffle_seed, self._view), chosen.tolist())
        loader: DataLoader[Batch] = DataLoader(
            decoded, batch // self._view.ranks, num_workers=self._workers, pin_memory=torch.cuda.is_available()
        )
        try:
            yield from loader
        except DataError as fault:  # a worker sends its traceback along; the last line is the message
            raise DataError(str(fault).strip().splitlines()[-1].split("DataError: ")[-1]) from None

    def shuffled(self, seed: int) -> FileImages:
        """See `ImageSet`."""
        order = _permuted(self.size, seed).numpy()
        return FileImages(self._dataset, self.positions[order], self._channels, self._workers, self._view)


class _Decoded(Dataset[Batch]):
    """Decodes and transforms. An image that does not decode is named, where timm would show the next one in its place."""

    def __init__(self, dataset: Any, channels: int, resolution: int, seed: int | None, view: View) -> None:
        from timm.data import create_transform

        self._dataset, self._mode, self._seed = dataset, "L" if channels == 1 else "RGB", seed
        shown = view.shown or shown_at(channels, resolution)
        self._transform = create_transform(
            (channels, resolution, resolution),
            is_training=seed is not None,
            interpolation=shown.interpolation,
            scale=(0.5, 1.0) if resolution <= SMALL else None,
            crop_pct=shown.crop,
            crop_mode=shown.crop_mode,
            auto_augment=view.augment,
            re_prob=view.erasing,
            mean=shown.mean,
            std=shown.std,
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Batch:
        reader = getattr(self._dataset, "reader", None)
        try:
            source, label = (reader or self._dataset)[index]
            with source if reader else nullcontext():  # timm's readers give open files, torchvision decoded images
                image = (Image.open(source) if reader else source).convert(self._mode)
        except Exception as fault:
            name = self._dataset.filename(index, absolute=True) if reader else f"image {index}"
            raise DataError(f"{name}: must be an image that decodes ({fault}); repair or remove it") from None
        if self._seed is not None:
            _seed_augmentation(self._seed + index)
        return self._transform(image), label


def _seed_augmentation(seed: int) -> None:
    """timm's augmentations draw from Python's and numpy's global generators as well as from torch's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def _digits(data: Data, reads: Input | SpaceInput, seed: int, view: View) -> Splits:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels; a fifth is the test set, whatever the seed."""
    from sklearn.datasets import load_digits

    if (reads.channels, reads.classes) != (1, 10):
        raise DataError(
            f"digits have 1 channel and 10 classes, and the network has {reads.channels} and {reads.classes}; change its input, "
            "or give other images"
        )
    pixels, targets = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8)
    images = (images - images.mean()) / images.std()
    labels = torch.tensor(targets)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    test, training = order.split([len(labels) // 5, len(labels) - len(labels) // 5])
    train, held_out = _hold_out(len(training), data.nas_validation, seed)
    parts = (training[train], training[held_out], test)
    trained, kept, tested = (TensorImages(images[part], labels[part], view) for part in parts)
    return Splits(trained, kept, tested, tuple(map(str, range(10))))


def _hold_out(size: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions to train on and positions held out for the search."""
    order = np.random.default_rng(seed).permutation(size)
    held_out = round(size * share)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _timm_dataset(data: Data, reads: Input | SpaceInput, seed: int, view: View) -> Splits:
    """An image folder, or a dataset by timm's name; the test set is what timm calls its validation split."""
    root = _check_located(data, reads)
    train_set, test_set = (_open(data.name, root, split) for split in ("train", "validation"))
    _check_classes(train_set, test_set, reads.classes, root)
    train, held_out = _hold_out(len(train_set), data.nas_validation, seed)
    make = partial(FileImages, channels=reads.channels, workers=data.workers, view=view)
    names = _class_names(train_set)
    labels = tuple(sorted(names, key=names.__getitem__)) if names else None
    return Splits(make(train_set, train), make(train_set, held_out), make(test_set, np.arange(len(test_set))), labels)


def _check_located(data: Data, reads: Input | SpaceInput) -> str:
    if data.root is None:
        raise DataError(f"data.root must say where {data.name} lies; give --data FOLDER or set it in the recipe")
    if reads.channels not in (1, 3):
        raise DataError(f"images have 1 channel (grey) or 3 (colour), the space says {reads.channels}; change input.channels")
    return data.root


def _open(name: str, root: str, split: str) -> Any:
    """A split as timm opens it."""
    from timm.data import create_dataset

    place = str(_split_place(Path(root), split)) if name == "folder" else root
    fresh = {"cache_tarinfo": False} if place.endswith(".tar") else {}  # timm would keep what it found in a pickle
    try:
        return create_dataset("" if name == "folder" else name, place, split=split, search_split=False, **fresh)
    except Exception as fault:
        raise DataError(f"{name} in {place}: its {split} split must be readable ({fault})") from None


def _split_place(root: Path, split: str) -> Path:
    """ROOT/train or ROOT/train.tar, ROOT/validation under one of the names it goes by."""
    names = {"train": ("train",), "validation": ("validation", "val", "test")}
    for name in names[split]:
        for place in (root / name, root / f"{name}.tar"):
            if place.exists():
                return place
    raise DataError(
        f"{root}: must hold {' or '.join(names[split])}, a folder with one folder of images per class or a .tar of it"
    )


def _check_classes(train_set: Any, test_set: Any, classes: int, root: str) -> None:
    """The same classes on both sides, as many as the space says: a missing one would shift all labels after it."""
    ours, theirs = _class_names(train_set), _class_names(test_set)
    if ours is None or theirs is None:
        return  # datasets whose labels are numbers carry no names that could shift
    missing, extra = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if missing or extra:
        parts = [f"only train has {', '.join(missing)}"] if missing else []
        parts += [f"only validation has {', '.join(extra)}"] if extra else []
        raise DataError(f"{root}: train and validation must hold the same classes, but {' and '.join(parts)}")
    _check_class_count(train_set, classes, root)


def _check_class_count(images: Any, classes: int, root: str) -> None:
    names = _class_names(images)
    if names is not None and len(names) != classes:
        raise DataError(
            f"{root}: must hold the network's {classes} classes, and holds {len(names)}; give others, or change input.classes"
        )


def check_labels(ours: tuple[str, ...] | None, theirs: tuple[str, ...] | None, root: str) -> None:
    """DataError where images have other classes than a network; none where either has no names."""
    missing, extra = sorted(set(ours or ()) - set(theirs or ())), sorted(set(theirs or ()) - set(ours or ()))
    if ours and theirs and (missing or extra):
        raise DataError(
            f"{root}: must hold the network's own classes, and lacks {_named(missing)} and has {_named(extra)}; give its images"
        )


def _named(labels: list[str]) -> str:
    """The first of them."""
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "") if labels else "none"


def _class_names(images: Any) -> dict[str, int] | None:
    """The classes' names with their labels, where a dataset has them."""
    source = getattr(images, "reader", images)
    names: dict[str, int] | None = getattr(source, "class_to_idx", None) or getattr(source, "class_name_to_idx", None)
    return names
