"""Decoded images of any kind as 8-bit grey or colour, converted as their format means."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
OF_ONE_IN_16_BITS = 257  # 65535 / 255


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to `L` or `RGB`: turned as its EXIF tag says, 16 bits scaled to 8, transparent places on white.

    ValueError if its numbers have no known range.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in SIXTEEN_BITS:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > OF_ONE_IN_16_BITS * 255:
            raise ValueError(f"its pixels go from {values.min()} to {values.max()}, beyond 16 bits")
        image = Image.fromarray(np.round(values / OF_ONE_IN_16_BITS).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are fractions of unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
