"""Conversion of decoded images of any kind to 8-bit grey or colour, according to their format."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

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
    told = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE)
    if told and told[0] <= 16:
        return int(told[0])
    if image.mode == "I" and image.format not in OF_16_BITS:
        raise ValueError("its pixels are 32-bit numbers of unknown range; save it with 8 or 16 bits")
    return 16
