"""Apply a recipe: pixels in, one sample of the model's input out. The same code calibrates, evaluates and serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.base.runner import TensorSpec
from edgemed.recipe.schema import Contract, Layout, Recipe

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, what Pillow and Keras use for "grayscale"


@dataclass(frozen=True)
class Preprocessor:
    """Turns images into samples for one input of a model.

    Args:
        recipe: what to do.
        spec: the model's input; a varying dimension is `None`.
        layout: where the channels stand in `spec`: `"NHWC"` or `"NCHW"`.
    """

    recipe: Recipe
    spec: TensorSpec
    layout: Layout = "NHWC"

    def __post_init__(self) -> None:
        if len(self.spec.shape) != 4:
            raise InputError(
                f"Input {self.spec} is not an image (batch, rows, columns, channels).",
                "Give samples as NPY files that hold the model's input as it is.",
            )
        if self.channels not in (1, 3):
            raise InputError(
                f"Input {self.spec} takes {self.channels} channels; images have 1 or 3.",
                "Give samples as NPY files that hold the model's input as it is.",
            )
        size = self.recipe.input.size
        if size is not None and any(want not in (None, side) for side, want in zip(size, self._fixed, strict=True)):
            raise InputError(
                f"The recipe resizes images to {size[0]}x{size[1]}, and the model takes {self.spec}.",
                "Correct the size in the recipe, or leave it out.",
            )

    @property
    def channels(self) -> int | None:
        """Channels the model takes."""
        return self.spec.shape[3 if self.layout == "NHWC" else 1]

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of the sample; `None` keeps the image's own."""
        if self.recipe.input.size is not None:
            return self.recipe.input.size
        rows, columns = self._fixed
        return None if rows is None or columns is None else (rows, columns)

    @property
    def _fixed(self) -> tuple[int | None, int | None]:
        """Rows and columns that the model takes; `None` where they may vary."""
        first = 1 if self.layout == "NHWC" else 2
        return self.spec.shape[first], self.spec.shape[first + 1]

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """One sample with a batch dimension of 1, in the input's dtype.

        Args:
            pixels: `(rows, columns)` or `(rows, columns, 3)`.

        Raises:
            InputError: the contract refuses the image, or its depth does not fit an assumed recipe.
        """
        _check_contract(self.recipe.input.contract, pixels)
        if self.recipe.assumed and pixels.dtype != np.uint8:
            raise InputError(
                f"The image has {pixels.dtype} pixels; without a recipe only 8-bit ones have a known range.",
                "Write a recipe with the scaling, see docs/recipes.md.",
            )
        image = _with_channels(self._coloured(pixels.astype(np.float32)), self.channels or 1)
        image = self._resized(image)
        image = self._scaled(image)
        sample = image[None] if self.layout == "NHWC" else np.moveaxis(image, -1, 0)[None]
        return np.ascontiguousarray(self._cast(sample))

    def _coloured(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.recipe.input.color == "rgb" and image.ndim == 2:
            raise InputError(
                "The image is gray; the recipe asks for colour.", 'Give colour images, or drop color = "rgb".'
            )
        return _with_channels(image, 1)[..., 0] if self.recipe.input.color == "gray" else image

    def _resized(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        size = self.size
        if size is None or image.shape[:2] == size:
            return image
        if self.recipe.input.resize == "none":
            raise InputError(f"The image is {image.shape[0]}x{image.shape[1]}, not {size[0]}x{size[1]}.", "Resize it.")
        pil = require("PIL.Image", extra="imaging", purpose="resize images")
        how = pil.Resampling.NEAREST if self.recipe.input.resize == "nearest" else pil.Resampling.BILINEAR
        planes = [
            np.asarray(pil.fromarray(np.ascontiguousarray(image[..., c])).resize(size[::-1], how))
            for c in range(image.shape[-1])
        ]
        return np.stack(planes, axis=-1)

    def _scaled(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        scaling = self.recipe.input.scaling
        with np.errstate(all="ignore"):  # what overflows is refused by `_cast`
            offset, divisor = np.array(scaling.offset, np.float32), np.array(scaling.divisor, np.float32)
            for name, values in (("offset", offset), ("divisor", divisor)):
                if values.ndim and values.size not in (1, image.shape[-1]):
                    raise InputError(
                        f"The recipe's scaling.{name} has {values.size} values for {image.shape[-1]} channels.",
                        "Give one value, or one per channel.",
                    )
            scaled: NDArray[np.float32] = (image - offset) / divisor
        return scaled

    def _cast(self, sample: NDArray[np.float32]) -> NDArray[Any]:
        dtype = np.dtype(self.spec.dtype)
        with np.errstate(all="ignore"):
            cast = sample.astype(dtype, copy=False) if dtype.kind == "f" else _rounded(sample, dtype)
        if not (np.isfinite(sample).all() and np.isfinite(cast).all()):
            raise InputError("The recipe makes NaN or infinity of the image.", "Correct the scaling in the recipe.")
        return cast


def _rounded(sample: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Integers, saturated; a bool is what is not 0."""
    if dtype.kind == "b":
        return sample.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(sample), limits.min, limits.max).astype(dtype)


def _check_contract(contract: Contract, pixels: NDArray[Any]) -> None:
    rows, columns = pixels.shape[:2]
    limits = (
        ("rows", rows, contract.min_rows, contract.max_rows),
        ("columns", columns, contract.min_columns, contract.max_columns),
    )
    for name, value, low, high in limits:
        if (low is not None and value < low) or value > high:
            raise InputError(
                f"The image has {value} {name}; the recipe's contract takes {low or 1} to {high}.",
                "Give images that fit the contract.",
            )


def _with_channels(image: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Gray becomes RGB by repetition; RGB becomes gray by luma, exactly where the three are equal."""
    if image.ndim == 2:
        return np.repeat(image[..., None], channels, axis=-1)
    if channels == image.shape[-1]:
        return image
    if channels == 1 and image.shape[-1] == 3:
        if (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all():
            return image[..., :1]
        return (image @ _LUMA)[..., None]
    return np.repeat(image, channels, axis=-1)
