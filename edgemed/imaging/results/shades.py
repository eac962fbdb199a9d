"""Pixels as they are seen: 8-bit red, green and blue, by the file's own window where it has one that shows anything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.recipe.image import Image
from edgemed.recipe.operations.intensity import limits_of, looked_up, percentiles, ramp, windowed


def shown(image: Image) -> NDArray[np.uint8]:
    """One image as `(rows, columns, 3)`."""
    if image.is_color:
        return image.pixels
    gray = np.rint(_unit(image) * 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


def levels(image: Image) -> tuple[float, float]:
    """The gray values of an image that are shown black and white."""
    pixels = image.pixels
    for window in image.windows[:1]:
        seen = windowed(pixels[None], window)
        if pixels.min() == pixels.max() or seen.min() < seen.max():
            return limits_of(window)  # but for one that lies beside all pixels, and would show one shade
    bits = image.facts.bits
    if bits is not None and bits <= 8 and image.stored_range is not None:
        return image.stored_range
    inside = pixels if image.valid is None or not image.valid.any() else pixels[image.valid]
    return percentiles(inside, (0.5, 99.5))


def _unit(image: Image) -> NDArray[np.float32]:
    shades: NDArray[np.float32] = _shades(image, image.pixels[None])[0]  # of a volume: in strips of many rows
    return shades


def _shades(image: Image, pixels: NDArray[Any]) -> NDArray[np.float32]:
    for table in image.tables[:1]:
        if table.data.size:
            return looked_up(pixels, table)
    low, high = levels(image)
    if image.windows and limits_of(image.windows[0]) == (low, high):
        return windowed(pixels, image.windows[0])
    return ramp(pixels, low, high)
