"""Frames of a stream as they are shown, kept until their answer is there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.bundle.read import Bundle
from edgemed.recipe.apply import Prepared
from edgemed.recipe.image import Image
from edgemed.runtime.fill import Memory
from edgemed.runtime.frames import Drop, Frame
from edgemed.runtime.recipe_fill import RecipeFill
from edgemed.runtime.sources.base import PIXELS


class ShownFill:
    """A `RecipeFill` that keeps the picture of each frame, and the way back to it.

    Raises:
        InputError: see `RecipeFill`.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.recipe = RecipeFill.of(bundle)
        self.recipe.keeps = True
        self._pictures: dict[int, NDArray[Any]] = {}

    def __call__(self, frame: Frame, memory: Memory) -> None:
        """See `RecipeFill`."""
        self._pictures[frame.id] = picture(frame)
        self.recipe(frame, memory)

    def taken(self, frame: int) -> tuple[NDArray[Any] | None, Prepared | None]:
        """The picture of a frame, and its way back; once."""
        return self._pictures.pop(frame, None), self.recipe.prepared(frame)

    def dropped(self, drop: Drop) -> None:
        """For the ring's `on_drop`."""
        self._pictures.pop(drop.frame, None)
        self.recipe.dropped(drop)


def picture(frame: Frame) -> NDArray[np.uint8]:
    """Of a frame; of a clip, its newest. A copy: a source takes its buffers back."""
    image, pixels = frame.image, frame.data[PIXELS]
    if image is not None:
        pixels = image.pixels[-1] if image.stacked else image.pixels
    if pixels.dtype == np.uint8:
        return np.array(pixels)
    low, high = _window(image, pixels)
    scaled = (pixels.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6))
    return np.asarray(np.clip(scaled, 0, 255), np.uint8)


def _window(image: Image | None, pixels: NDArray[Any]) -> tuple[float, float]:
    """What is shown black, and what white: the file's first window, else all that is there."""
    if image is not None and image.windows:
        window = image.windows[0]
        return window.center - window.width / 2, window.center + window.width / 2
    return float(pixels.min()), float(pixels.max())
