"""Sets of labelled images at any resolution, with their order and augmentation in a training.

Small images are decoded once into one tensor, which lies on the device of the training and is augmented there; larger ones
are decoded anew each time they are shown.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from genet.config.augment import Augment, augment_at
from genet.config.preprocessing import Preprocessing, mode_of, preprocessing_at
from genet.device import cpus
from genet.errors import DataError
from genet.names import printable
from genet.training.augmentation import cropped, erased, hashed_bits, seed_augmentation, training_transform
from genet.training.class_folders import FolderReader
from genet.training.pixels import in_mode, whole_transform

Transform = Callable[[Image.Image], Tensor]
Batch = tuple[Tensor, Tensor]  # images (N, channels, resolution, resolution) in fp32, labels (N,)

DECODED_AT_ONCE = 256
CPU = torch.device("cpu")


class View(NamedTuple):
    """The augmentation of training images, a process's part of every batch, and the preparation for external networks."""

    augment: Augment | None = None  # the default for the images if None
    erasing: float = 0.0  # share of the images with a rectangle erased
    rank: int = 0
    ranks: int = 1
    preprocessing: Preprocessing | None = None  # this project's way if None
    data_name: str | None = None  # decides the default augmentation; none without a name


PLAIN = View()


class ImageSet(Protocol):
    """A set of labelled images at any resolution."""

    size: int  # of all processes together

    def on(self, device: torch.device) -> ImageSet:
        """Return the same images with batches on the device if the set is kept in memory."""
        ...

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        """Yield all images once, except for the first `skip` batches.

        With a seed they are shuffled and augmented by it, and a last short batch is dropped; the look of an image then depends on
        the seed and the image alone.
        """
        ...

    def shuffled(self, seed: int) -> ImageSet:
        """Return the same images in another order, given by the seed."""
        ...

    def with_view(self, view: View) -> ImageSet:
        """Return the same images in another view; decoded images are shared."""
        ...


class TensorImages:
    """Images in memory, (N, C, H, W) in bytes or floats: resized bilinearly once per resolution, then augmented batch by batch.

    `normalise` holds a scale and a shift per channel; `keys` name the images, to seed their augmentation.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        view: View = PLAIN,
        normalise: tuple[Tensor, Tensor] | None = None,
        keys: Tensor | None = None,
    ) -> None:
        self._images, self._labels, self._view, self._normalise = images, labels, view, normalise
        self._keys = torch.arange(len(labels), device=labels.device) if keys is None else keys
        self._resized: dict[int, Tensor] = {}  # by resolution: (N, resolution + 2 crop, resolution + 2 crop, C)
        self.size = len(labels)

    def on(self, device: torch.device) -> TensorImages:
        """See `ImageSet`."""
        if device == self._labels.device:
            return self
        normalise = self._normalise and (self._normalise[0].to(device), self._normalise[1].to(device))
        return TensorImages(self._images.to(device), self._labels.to(device), self._view, normalise, self._keys.to(device))

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        """See `ImageSet`."""
        order = _order(self.size, batch, shuffle_seed, skip, self._view).to(self._labels.device)
        for chosen in order.split(batch // self._view.ranks) if len(order) else ():
            yield self._augmented(chosen, resolution, shuffle_seed), self._labels[chosen]

    def _augmented(self, chosen: Tensor, resolution: int, seed: int | None) -> Tensor:
        augment = _augment(self._view, resolution)
        padded, crop = self._at(resolution, augment.crop), augment.crop
        if seed is None:
            plain = padded[chosen, crop : crop + resolution, crop : crop + resolution]
            return self._normalised(plain.permute(0, 3, 1, 2))
        random_bits = hashed_bits(self._keys[chosen] + seed)
        return erased(self._normalised(cropped(padded, chosen, random_bits, augment)), random_bits, augment, self._view.erasing)

    def _normalised(self, pixels: Tensor) -> Tensor:
        if self._normalise is None:
            return pixels
        scale, shift = self._normalise
        return pixels * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    def shuffled(self, seed: int) -> TensorImages:
        """See `ImageSet`."""
        order = _permuted(self.size, seed).to(self._labels.device)
        return TensorImages(self._images[order], self._labels[order], self._view, self._normalise, self._keys[order])

    def with_view(self, view: View) -> TensorImages:
        """See `ImageSet`."""
        view = view._replace(data_name=self._view.data_name)
        return self if view == self._view else TensorImages(self._images, self._labels, view, self._normalise, self._keys)

    def _at(self, resolution: int, crop: int) -> Tensor:
        """Return the images at a resolution, padded with the darkest value for the crop."""
        if resolution not in self._resized:
            images = self._images
            if images.shape[-2:] != (resolution, resolution):
                images = torch.nn.functional.interpolate(images, (resolution, resolution), mode="bilinear")
            if crop:
                dark = 0.0 if self._normalise else images.min().item()
                images = torch.nn.functional.pad(images, (crop,) * 4, value=dark)
            self._resized[resolution] = images.permute(0, 2, 3, 1).contiguous()
        return self._resized[resolution]


def _augment(view: View, resolution: int) -> Augment:
    return augment_at(view.augment, view.data_name, resolution)


def _order(size: int, batch: int, shuffle_seed: int | None, skip: int, view: View = PLAIN) -> Tensor:
    """Return the positions of the images in the order in which this process shows them; `batch` is the size over all processes.

    Of a training batch a process gets as many images from the front as from the back, mirrored, as mixup mixes the first with the
    last: so pairs stay together for any number of processes.
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

    def on(self, device: torch.device) -> FirstImages:
        """See `ImageSet`."""
        return FirstImages(self.images.on(device), self.size)

    def shuffled(self, seed: int) -> FirstImages:
        """See `ImageSet`."""
        return FirstImages(self.images.shuffled(seed), self.size)

    def with_view(self, view: View) -> FirstImages:
        """See `ImageSet`."""
        return FirstImages(self.images.with_view(view), self.size)


class FileImages:
    """Images from timm's readers or torchvision's datasets: decoded once if `kept`, else anew each time they are shown.

    Without a seed they are shown whole, as `Preprocessing` says; with one they are augmented.
    """

    def __init__(
        self, dataset: Any, chosen: np.ndarray, channels: int, workers: int, view: View = PLAIN, kept: bool = False
    ) -> None:
        self._dataset, self._channels, self._workers, self._view = dataset, channels, workers, view
        self._kept, self._device = kept, CPU
        self._decoded: dict[int, Batch] = {}  # by resolution, as bytes; shared by the sets that `on` and `with_view` return
        self._memory: dict[tuple[int, torch.device], TensorImages] = {}  # in this view; shared by those of `on`
        self.positions = chosen  # of these images in the dataset
        self.size = len(chosen)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out decoded images: another process decodes its own."""
        return {**self.__dict__, "_decoded": {}, "_memory": {}, "_device": CPU}

    def on(self, device: torch.device) -> FileImages:
        """See `ImageSet`."""
        there = FileImages(self._dataset, self.positions, self._channels, self._workers, self._view, self._kept)
        there._device, there._decoded, there._memory = device, self._decoded, self._memory
        return there

    def with_view(self, view: View) -> FileImages:
        """See `ImageSet`."""
        view = view._replace(data_name=self._view.data_name, preprocessing=self._view.preprocessing)
        if view == self._view:
            return self
        other = self.on(self._device)
        other._view, other._memory = view, {}
        return other

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        """See `ImageSet`."""
        if self._in_memory(resolution, shuffle_seed):
            yield from self._tensors(resolution).batches(batch, resolution, shuffle_seed, skip)
            return
        chosen = self.positions[_order(self.size, batch, shuffle_seed, skip, self._view).numpy()]
        transform = self._plain(resolution)
        if shuffle_seed is not None:
            augment, preprocessing = _augment(self._view, resolution), self._preprocessing(resolution)
            transform = training_transform(self._channels, resolution, augment, self._view.erasing, preprocessing)
        yield from self._read(chosen, transform, batch // self._view.ranks, shuffle_seed)

    def shuffled(self, seed: int) -> FileImages:
        """See `ImageSet`."""
        order = _permuted(self.size, seed).numpy()
        others = FileImages(self._dataset, self.positions[order], self._channels, self._workers, self._view, self._kept)
        return others.on(self._device)

    def _in_memory(self, resolution: int, seed: int | None) -> bool:
        return self._kept and (seed is None or _augment(self._view, resolution).in_memory)

    def _tensors(self, resolution: int) -> TensorImages:
        """Return all images of this set at a resolution, decoded at the first call."""
        place, preprocessing = (resolution, self._device), self._preprocessing(resolution)
        if resolution not in self._decoded:
            read = self._read(self.positions, self._plain(resolution, normalise=False), DECODED_AT_ONCE, once=True)
            pixels, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
            self._decoded[resolution] = pixels, labels
        if place not in self._memory:
            mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
            keys = torch.from_numpy(self.positions.astype(np.int64))
            images = TensorImages(*self._decoded[resolution], self._view, (1 / (255 * std), -mean / std), keys)
            self._memory[place] = images.on(self._device)
        return self._memory[place]

    def _read(
        self,
        chosen: np.ndarray,
        transform: Transform,
        batch: int,
        seed: int | None = None,
        once: bool = False,
    ) -> Iterator[Batch]:
        """Decode and transform these images in the recipe's processes, up to one per processor; `once` if they are kept."""
        decoded = Subset(_Decoded(self._dataset, self._channels, transform, seed), chosen.tolist())
        pinned = self._device.type == "cuda" and not once
        loader: DataLoader[Batch | str] = DataLoader(
            decoded, batch, num_workers=min(self._workers, cpus()), pin_memory=pinned, collate_fn=_batch_or_fault
        )
        for found in loader:
            if isinstance(found, str):
                fault = found
                break
            yield found
        else:
            return
        raise DataError(*(self._faults(whole=True) or [fault]))  # the loader is gone by now, and its processes with it

    def faults(self, resolution: int, thorough: bool) -> tuple[str, ...]:
        """Return a line for every image that does not decode.

        Images that are kept are decoded for good. Of others each process checks its part, and only the headers unless the check
        is `thorough`.
        """
        if not self._in_memory(resolution, None):
            return self._faults(whole=thorough)
        try:
            self._tensors(resolution)
        except DataError as fault:
            return fault.args
        return ()

    def _faults(self, whole: bool) -> tuple[str, ...]:
        own = self.positions[self._view.rank :: self._view.ranks].tolist()
        checked = Subset(_Faults(self._dataset, self._channels, whole), own)
        loader: DataLoader[str] = DataLoader(checked, DECODED_AT_ONCE, num_workers=min(self._workers, cpus()), collate_fn=list)
        return tuple(fault for faults in loader for fault in faults if fault)

    def _preprocessing(self, resolution: int) -> Preprocessing:
        return self._view.preprocessing or preprocessing_at(self._channels, resolution)

    def _plain(self, resolution: int, normalise: bool = True) -> Transform:
        """Prepare a whole image; as bytes if it is normalised later."""
        return whole_transform(self._preprocessing(resolution), self._channels, resolution, normalise)


class _Decoded(Dataset[Batch | str]):
    """A dataset that decodes and transforms. An image that does not decode is its fault, while timm would use the next one.

    The fault is returned: one that is raised would travel between processes with its traceback, and hold their ends open.
    """

    def __init__(self, dataset: Any, channels: int, transform: Transform, seed: int | None) -> None:
        self._dataset, self._mode, self._transform, self._seed = dataset, mode_of(channels), transform, seed

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Batch | str:
        try:
            with _opened(self._dataset, index) as (picture, label):
                image = in_mode(picture, self._mode)
        except DataError as fault:
            return str(fault)
        if self._seed is not None:
            seed_augmentation(self._seed + index)
        return self._transform(image), label


def _batch_or_fault(images: list[Batch | str]) -> Batch | str:
    """Return the images as a batch, or the fault of the first that has one."""
    fault = next((image for image in images if isinstance(image, str)), None)
    batch: Batch | str = fault or default_collate(images)
    return batch


class _Faults(Dataset[str]):
    """A dataset of the fault of each image, none if it decodes; or, unless it is read `whole`, if Pillow can open it."""

    def __init__(self, dataset: Any, channels: int, whole: bool) -> None:
        self._dataset, self._mode, self._whole = dataset, mode_of(channels), whole

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> str:
        try:
            with _opened(self._dataset, index, header_alone=not self._whole) as (picture, _):
                if self._whole:
                    in_mode(picture, self._mode)
        except DataError as fault:
            return str(fault)
        return ""


@contextmanager
def _opened(dataset: Any, index: int, header_alone: bool = False) -> Iterator[tuple[Any, Any]]:
    """Open an image, with its label; DataError that names it if it does not open, or does not decode in this context."""
    reader = getattr(dataset, "reader", None)
    try:
        if header_alone and isinstance(reader, FolderReader):  # reads no more of the file than necessary
            path, label = reader.samples[index]
            with Image.open(path) as picture:
                yield picture, label
            return
        source, label = (reader or dataset)[index]
        with source if reader else nullcontext():  # timm's readers return open files, torchvision decoded images
            yield (Image.open(source) if reader else source), label
    except Exception as fault:
        name = printable(dataset.filename(index, absolute=True)) if reader else f"image {index}"
        why = "it is not an image that Pillow reads" if isinstance(fault, UnidentifiedImageError) else fault
        if isinstance(reader, FolderReader) and reader.is_empty(index):
            why = "it is empty"
        raise DataError(f"{name}: got a file that does not decode ({why}), expected an image; repair or remove it") from None
