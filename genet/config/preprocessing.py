"""Preparation of images that a network sees whole: resized, cropped, normalised."""

from __future__ import annotations

import math
from typing import NamedTuple

from genet.config.augment import SMALL
from genet.config.recipe import Data

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the paper, torchvision and timm alike
DEFAULT_CROP = 0.875  # of ImageNet's evaluations
DIGITS_MEAN, DIGITS_STD = 0.305260, 0.376051  # of all pixels of scikit-learn's digits, from 0 (black) to 1 (16, white)


class Preprocessing(NamedTuple):
    """Preparation of images that are not augmented: resized, cropped to the centre, and normalised per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float  # the share of an image's edge that the crop keeps
    interpolation: str = "bilinear"
    crop_mode: str = "center"

    def resized(self, resolution: int) -> int:
        """Return the length of the shorter edge of an image before its middle is cropped."""
        return math.floor(resolution / self.crop)


def mode_of(channels: int) -> str:
    """Return Pillow's name of grey images or coloured ones."""
    return "L" if channels == 1 else "RGB"


def preprocessing_at(channels: int, resolution: int) -> Preprocessing:
    """Return the preparation of images of a folder or of timm's datasets in this project."""
    crop = 1.0 if resolution <= SMALL else DEFAULT_CROP
    colour = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    return Preprocessing(*colour, crop)


def preprocessing_of(data: Data, channels: int, resolution: int) -> Preprocessing:
    """Return the preparation of a recipe's images; digits are normalised all together."""
    if data.name == "digits":
        return Preprocessing((DIGITS_MEAN,) * channels, (DIGITS_STD,) * channels, 1.0)
    return preprocessing_at(channels, resolution)
