"""An image on its way through a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.recipe.geometry import Shape, Transform
from edgemed.recipe.image import Image

Pixels = NDArray[Any]
Floats = NDArray[np.float32]
Spacing = tuple[float | None, float | None, float | None]

STRIP = 1 << 16
"""Values worked on at a time: 256 KiB of float32 stay in a core's cache."""


@dataclass(frozen=True)
class State:
    """Pixels, and what later steps must know of them.

    Attributes:
        pixels: `(slices, rows, columns)` or `(slices, rows, columns, channels)`; one slice for an image.
        image: as it was read; file windows and ranges are in its unit.
        transform: where the pixels lie in it.
        spacing: mm between slices, rows and columns.
        valid: bool, `(slices, rows, columns)`; `None` where all are.
    """

    pixels: Pixels
    image: Image
    transform: Transform
    spacing: Spacing
    valid: NDArray[np.bool_] | None = None

    @staticmethod
    def of(image: Image) -> State:
        """The beginning."""
        pixels = image.pixels if image.stacked else image.pixels[None]
        valid = image.valid if image.valid is None or image.stacked else image.valid[None]
        rows, columns = image.facts.spacing or (None, None)
        spacing = (image.facts.slice_spacing, rows, columns)
        return State(pixels, image, Transform.identity(_shape(pixels)), spacing, valid)

    @property
    def shape(self) -> Shape:
        """Slices, rows, columns."""
        return _shape(self.pixels)

    @property
    def channels(self) -> int:
        """1 for gray."""
        return int(self.pixels.shape[3]) if self.pixels.ndim == 4 else 1

    @property
    def is_color(self) -> bool:
        """Whether the last axis is colour."""
        return self.pixels.ndim == 4

    def with_pixels(self, pixels: Pixels) -> State:
        """Other values at the same places."""
        return replace(self, pixels=pixels)

    def floats(self) -> Floats:
        """The pixels as float32."""
        return self.pixels.astype(np.float32, copy=False)

    def valid_values(self) -> Pixels:
        """Values of all valid pixels; the channels of colour last, `(n, channels)`."""
        if self.valid is not None and self.valid.any():
            return np.asarray(self.pixels[self.valid])
        return self.pixels.reshape(-1, self.channels) if self.is_color else self.pixels.reshape(-1)


def _shape(pixels: Pixels) -> Shape:
    return int(pixels.shape[0]), int(pixels.shape[1]), int(pixels.shape[2])


def strips(pixels: Pixels) -> Iterator[tuple[int, slice]]:
    """Slice and rows of strips that stay in cache."""
    rows = max(1, STRIP // max(1, pixels[0, 0].size))
    for index in range(pixels.shape[0]):
        for first in range(0, pixels.shape[1], rows):
            yield index, slice(first, first + rows)


def in_strips(pixels: Pixels, work: Callable[[Pixels, Floats], object]) -> Floats:
    """`work(strip, out)` for each strip of the pixels: it writes float32 values into `out`."""
    result = np.empty(pixels.shape, dtype=np.float32)
    with np.errstate(all="ignore"):  # NaN and infinity are refused at the end of the recipe
        for index, rows in strips(pixels):
            work(pixels[index, rows], result[index, rows])
    return result
