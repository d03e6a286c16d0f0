"""Training images, augmented: a whole batch at once on the device that keeps the images, or one by one as they are decoded.

Both follow an `Augment`. Their draws come from different generators, so equal seeds give other crops; the look of an image
depends on the seed and the image alone in both ways, whatever the batch and the process.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from genet.config.augment import Augment
from genet.config.preprocessing import Preprocessing

ERASED_AREA, ERASED_ASPECT = (0.02, 1 / 3), (0.3, 10 / 3)  # ranges of a rectangle: defaults of timm and of the paper
GOLDEN, MIX1, MIX2 = -7046029254386353131, -4658895280553007687, -7723592293110705685  # splitmix64's constants as int64
DRAWS = 10  # per image: two for the crop, one for the flip, two for the cutout, five for the erasing
BITS = 30


def cropped(pixels: Tensor, chosen: Tensor, random_bits: Tensor, augment: Augment) -> Tensor:
    """Crop the chosen ones of the kept images (N, H + 2 crop, W + 2 crop, C), mirrored or not: (n, C, H, W) in channels_last."""
    size = pixels.shape[1] - 2 * augment.crop
    at = torch.arange(size, device=pixels.device)
    rows = at + random_bits[:, :1] % (2 * augment.crop + 1)
    columns = at.expand(len(chosen), size)
    if augment.flip:
        columns = torch.where((random_bits[:, 2:3] & 1).bool(), at.flip(0), at)
    columns = columns + random_bits[:, 1:2] % (2 * augment.crop + 1)
    return pixels[chosen[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def erased(images: Tensor, random_bits: Tensor, augment: Augment, share: float) -> Tensor:
    """Zero the cutout of every normalised image (n, C, H, W), and a random rectangle of a share of them."""
    size = images.shape[-1]
    if augment.cutout:
        corners = random_bits[:, 3:5] % size - augment.cutout // 2
        images = images.masked_fill(_rectangles(size, corners, torch.full_like(corners, augment.cutout)), 0)
    if share:
        images = images.masked_fill(_rectangles(size, *_random_rectangles(random_bits[:, 5:].float() / 2**BITS, size, share)), 0)
    return images


def hashed_bits(keys: Tensor) -> Tensor:
    """Hash int64 keys (n,) to whole numbers (n, DRAWS), uniform below 2^30, on the device of the keys (splitmix64)."""
    steps = torch.arange(1, DRAWS + 1, device=keys.device)
    return (_mixed(_mixed(keys * GOLDEN)[:, None] + steps * GOLDEN) >> 33) & (2**BITS - 1)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * MIX1  # the masks make the shifts logical
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * MIX2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _random_rectangles(random_bits: Tensor, size: int, share: float) -> tuple[Tensor, Tensor]:
    """Return corners and extents (n, 2) of the rectangles to erase; images that keep everything have rectangles of no extent."""
    least, most = ERASED_AREA
    area = size * size * (least + random_bits[:, 1] * (most - least))
    aspect = torch.exp(math.log(ERASED_ASPECT[0]) + random_bits[:, 2] * math.log(ERASED_ASPECT[1] / ERASED_ASPECT[0]))
    extents = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], 1).round().clamp(1, size)
    corners = (random_bits[:, 3:5] * (size - extents + 1)).floor()
    return corners, torch.where(random_bits[:, :1] < share, extents, 0)


def _rectangles(size: int, corners: Tensor, extents: Tensor) -> Tensor:
    """Return a mask (n, 1, size, size) of rectangles, given by their corners and extents (n, 2) in pixels."""
    at = torch.arange(size, device=corners.device)
    inside = (at >= corners[..., None]) & (at < (corners + extents)[..., None])  # (n, 2, size)
    return inside[:, :1, :, None] & inside[:, 1:, None, :]


def training_transform(
    channels: int, resolution: int, augment: Augment, erasing: float, preprocessing: Preprocessing
) -> Callable[[Image], Tensor]:
    """Return the same for one decoded image at a time, by timm and torchvision: a tensor (C, H, W) comes out, normalised.

    Seed it by `seed_augmentation`.
    """
    from timm.data import create_transform
    from torchvision.transforms import ColorJitter, Compose, RandomCrop

    cut, changed, normalised = create_transform(
        (channels, resolution, resolution),
        is_training=True,
        separate=True,
        interpolation=preprocessing.interpolation,
        scale=augment.scale or (1.0, 1.0),
        ratio=None if augment.scale else (1.0, 1.0),  # the whole middle of the image
        hflip=0.5 * augment.flip,
        color_jitter=None,  # timm drops it if there is a policy
        auto_augment=augment.policy,
        re_prob=erasing,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    padded = [RandomCrop(resolution, padding=augment.crop)] if augment.crop else []
    jitter = [ColorJitter(*[augment.color_jitter] * 3)] if augment.color_jitter else []
    cutout = [_Cutout(augment.cutout)] if augment.cutout else []
    steps = (*_parts(cut), *padded, *_parts(changed), *jitter, *_parts(normalised), *cutout)
    transform: Callable[[Image], Tensor] = Compose(list(steps))
    return transform


def _parts(composed: Any) -> list[Any]:
    return list(composed.transforms)


class _Cutout:
    """Zero a square of (C, H, W) around a random place."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: Tensor) -> Tensor:
        top, left = (int(torch.randint(extent, ())) - self._size // 2 for extent in image.shape[1:])
        image[:, max(0, top) : max(0, top + self._size), max(0, left) : max(0, left + self._size)] = 0
        return image


def seed_augmentation(seed: int) -> None:
    """Seed all generators that timm's augmentations draw from: Python's and numpy's global ones as well as torch's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
