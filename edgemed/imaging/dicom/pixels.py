"""One frame's samples become the pixels of an `Image`: RGB, or gray values of which greater is brighter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.color import Palette, to_8_bits, ybr_to_rgb
from edgemed.imaging.dicom.decode import Samples
from edgemed.imaging.dicom.modality import Modality, read_padding, stored_values
from edgemed.imaging.dicom.module import PixelModule
from edgemed.imaging.dicom.values import value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Valid = NDArray[np.bool_]


@dataclass(frozen=True)
class Padding:
    """Stored values from `low` to `high` mean "no pixel"; NaN ends stand for NaN."""

    low: float
    high: float

    def mask(self, values: NDArray[Any]) -> Valid:
        """Where `values` are pixels."""
        valid: Valid
        if math.isnan(self.low):
            valid = np.logical_not(np.isnan(values))
        elif self.low == self.high:
            valid = np.not_equal(values, values.dtype.type(self.low))
        else:
            valid = np.logical_or(values < self.low, values > self.high)
        return valid

    def fits(self, span: tuple[float, float]) -> bool:
        """Whether values within `span` can be padding."""
        return self.low <= span[1] and self.high >= span[0]


def find_padding(dataset: Dataset, module: PixelModule) -> Padding | None:
    """What the file says is no pixel (PS3.3 C.7.5.1.1.2 and C.7.6.24).

    Raises:
        InputError: it is no number.
    """
    if not module.is_float:
        found = read_padding(dataset, module)
        return None if found is None else Padding(*found)
    prefix = "Float" if module.allocated == 32 else "DoubleFloat"
    first = value(dataset, f"{prefix}PixelPaddingValue")
    limit = value(dataset, f"{prefix}PixelPaddingRangeLimit")
    if first is None:
        return None
    if not isinstance(first, float) or not isinstance(limit, float | None):
        raise InputError("its Pixel Padding Value is no number.", "Correct it, or leave the file out.")
    limit = first if limit is None else limit
    return Padding(min(first, limit), max(first, limit))


def color_pixels(samples: Samples, module: PixelModule) -> NDArray[np.uint8]:
    """RGB, `(rows, columns, 3)`."""
    pixels = samples.pixels
    if pixels.dtype.itemsize > 1:
        pixels = stored_values(pixels, module, samples.precision)
    stored = module.stored if samples.precision is None else min(module.stored, samples.precision)
    rgb = to_8_bits(pixels, stored)
    return ybr_to_rgb(rgb) if samples.is_ybr else rgb


def palette_pixels(samples: Samples, module: PixelModule, palette: Palette) -> NDArray[np.uint8]:
    """RGB of a PALETTE COLOR image, `(rows, columns, 3)`."""
    return palette(stored_values(samples.pixels, module, samples.precision))


def gray_pixels(
    samples: Samples, module: PixelModule, modality: Modality, padding: Padding | None
) -> tuple[NDArray[Any], Valid | None]:
    """Values after the Modality LUT, turned over for MONOCHROME1, and where they are pixels (`None`: everywhere).

    Raises:
        InputError: float pixels with NaN or infinity that are no padding.
    """
    values, valid = _values(samples, module, padding)
    if module.is_float:
        pixels = modality.apply(np.where(True if valid is None else valid, values, 0), (0, 0))
        if not np.isfinite(pixels).all():
            raise InputError("its pixels hold NaN, infinity, or more than float32 can.", "Correct it, or leave it out.")
    else:
        pixels = modality.apply(values, module.stored_range)
    if module.photometric == "MONOCHROME1":
        np.subtract(_as_scalar(total(modality, module), pixels.dtype), pixels, out=pixels)
    if valid is not None:
        if valid.all():
            return pixels, None
        np.copyto(pixels, pixels.min(where=valid, initial=pixels.max()), where=~valid)
    return pixels, valid


def total(modality: Modality, module: PixelModule) -> float:
    """The lowest plus the highest value: MONOCHROME1 is turned over by subtracting from it."""
    low, high = modality.span(module.stored_range)
    return low + high


def _as_scalar(number: float, dtype: np.dtype[Any]) -> Any:
    """In the arithmetic of integers of that width: the sum of the ends may not fit, the difference does."""
    if dtype.kind not in "iu":
        return dtype.type(number)
    unsigned = np.array(int(number) % (1 << (8 * dtype.itemsize)), f"u{dtype.itemsize}")
    return unsigned.view(dtype)[()]


def _values(samples: Samples, module: PixelModule, padding: Padding | None) -> tuple[NDArray[Any], Valid | None]:
    """Stored values, and where they are pixels."""
    pixels, valid = samples.pixels, None
    if module.is_float:
        return pixels, None if padding is None else padding.mask(pixels)
    if padding is not None and samples.precision is None and not padding.fits(module.stored_range):
        # written with all allocated bits, against the standard: the mask would hide it
        container = pixels.view(f"i{pixels.dtype.itemsize}") if module.signed else pixels
        limits = np.iinfo(container.dtype)
        if padding.fits((limits.min, limits.max)):
            valid = padding.mask(container)
    values = stored_values(pixels, module, samples.precision)
    if valid is None and padding is not None and padding.fits(module.stored_range):
        valid = padding.mask(values)
    return values, valid
