"""Images of any kind as a network reads them: converted to 8-bit grey or colour by their format, resized, normalised."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from genet.arch.network import Input
from genet.config.preprocessing import Preprocessing, mode_of, preprocessing_at
from genet.errors import DataError, first_line
from genet.names import printable

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")
OF_16_BITS = ("PNG", "PPM")  # formats whose deep pixels have this depth, or are given it by Pillow, in mode I too
BITS_PER_SAMPLE = 258  # a TIFF's tag


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to `L` or `RGB`: turned as its EXIF tag says, up to 16 bits scaled to 8, transparent places on white.

    ValueError if its numbers have no known range.
    """
    bits = _bits(image) if image.mode in DEEP else None
    image = ImageOps.exif_transpose(image)
    if bits:
        values, largest = np.asarray(image).astype(np.int64), 2**bits - 1
        if values.min() < 0 or values.max() > largest:
            raise ValueError(f"its pixels go from {values.min()} to {values.max()}, beyond {bits} bits")
        image = Image.fromarray(np.round(values / (largest / 255)).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are fractions of unknown range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _bits(image: Image.Image) -> int:
    """Return the number of bits in the pixels of an image with deep pixels, by its file; ValueError if that tells no range."""
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE)
    if bits and bits[0] <= 16:
        return int(bits[0])
    if image.mode == "I" and image.format not in OF_16_BITS:
        raise ValueError("its pixels are 32-bit numbers of unknown range; save it with 8 or 16 bits")
    return 16


def whole_transform(how: Preprocessing, channels: int, resolution: int, normalise: bool = True) -> Callable[[Any], Any]:
    """Return the preparation of an image that is not augmented; it ends with bytes if it is normalised later."""
    from timm.data import create_transform

    transform: Callable[[Any], Any] = create_transform(
        (channels, resolution, resolution),
        interpolation=how.interpolation,
        crop_pct=how.crop,
        crop_mode=how.crop_mode,
        mean=how.mean,
        std=how.std,
        normalize=normalise,
    )
    return transform


class Preprocess:
    """From image files, or images of Pillow, to the batch that a network reads: as its test images were prepared."""

    def __init__(self, input_: Input) -> None:
        self._mode = mode_of(input_.channels)
        how = preprocessing_at(input_.channels, input_.resolution)
        self._transform = whole_transform(how, input_.channels, input_.resolution)

    def __call__(self, *images: str | Path | Image.Image) -> torch.Tensor:
        """Return a tensor of (images, channels, height, width); DataError that names an image that cannot be read."""
        if not images:
            raise DataError("preparing images failed: got none, expected files or images of Pillow; give one or more")
        return torch.stack([self._prepared(image) for image in images])

    def _prepared(self, image: str | Path | Image.Image) -> torch.Tensor:
        if not isinstance(image, str | Path | Image.Image):
            raise DataError(
                f"preparing images failed: got a {type(image).__name__}, expected files or images of Pillow, each an argument of "
                "its own; PIL.Image.fromarray makes one of an array"
            )
        name = "an image of Pillow" if isinstance(image, Image.Image) else printable(str(image))
        try:
            with nullcontext(image) if isinstance(image, Image.Image) else Image.open(image) as opened:
                prepared: torch.Tensor = self._transform(in_mode(opened, self._mode))
                return prepared
        except FileNotFoundError:
            why, remedy = "no such file", "check the path"
        except UnidentifiedImageError:
            why, remedy = "Pillow does not read it", "repair it or give another"
        except Exception as fault:  # whatever Pillow's readers raise
            why, remedy = first_line(fault), "repair it or give another"
        raise DataError(f"preparing {name} failed ({why}): expected an image that decodes; {remedy}")
