"""Preparation of images that a network sees whole: resized, cropped, normalised."""

from __future__ import annotations

from typing import NamedTuple

from genet.config.augment import SMALL
from genet.config.recipe import Data

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the paper, torchvision and timm alike
DEFAULT_CROP = 0.875  # of ImageNet's evaluations


class Preprocessing(NamedTuple):
    """Preparation of images that are not augmented: resized, cropped to the centre, and normalised per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float  # the share of an image's edge that the crop keeps
    interpolation: str = "bilinear"
    crop_mode: str = "center"


def preprocessing_at(channels: int, resolution: int) -> Preprocessing:
    """Return the preparation of images of a folder or of timm's datasets in this project."""
    crop = 1.0 if resolution <= SMALL else DEFAULT_CROP
    colour = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    return Preprocessing(*colour, crop)


def shown_of(data: Data, channels: int, resolution: int) -> Preprocessing:
    """Return the preparation of a recipe's images. Digits are already normalised, all together."""
    if data.name == "digits":
        return Preprocessing((0.0,) * channels, (1.0,) * channels, 1.0)
    return preprocessing_at(channels, resolution)
