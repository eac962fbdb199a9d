"""Stored values become values with a meaning: the bits that count, the Modality LUT (PS3.3 C.11.1), padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.lut import read_table
from edgemed.imaging.dicom.module import PixelModule
from edgemed.imaging.dicom.values import integer, items, number
from edgemed.recipe.image import LookupTable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_HINT = "Correct the header, or leave the file out."
_INTEGERS = tuple(np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", "i8"))  # the smallest first


@dataclass(frozen=True)
class Modality:
    """The Modality LUT of a frame: a table, or slope and intercept.

    Attributes:
        slope: not 0.
        intercept: in the unit of the result.
        table: instead of both.
    """

    slope: float = 1.0
    intercept: float = 0.0
    table: LookupTable | None = None

    def span(self, stored: tuple[int, int]) -> tuple[float, float]:
        """The smallest and the largest value that a range of stored values becomes."""
        if self.table is not None:
            return float(self.table.data.min()), float(self.table.data.max())
        ends = sorted(self.slope * end + self.intercept for end in stored)
        return ends[0], ends[1]

    @property
    def is_whole(self) -> bool:
        """Whole stored values stay whole."""
        return self.table is not None or (self.slope.is_integer() and self.intercept.is_integer())

    def dtype(self, stored: tuple[int, int]) -> np.dtype[Any]:
        """The smallest integer type that holds the result, float32 where it is not whole."""
        low, high = self.span(stored)
        if self.is_whole:
            for dtype in _INTEGERS:
                limits = np.iinfo(dtype)
                if limits.min <= low and high <= limits.max:
                    return dtype
        return np.dtype(np.float32)

    def apply(self, values: NDArray[Any], stored: tuple[int, int]) -> NDArray[Any]:
        """Stored values to values; may work in place.

        float32 results are within two units in the last place of the larger of product and intercept.
        """
        dtype = self.dtype(stored) if values.dtype.kind in "iu" else np.dtype(np.float32)
        if self.table is not None:
            index = values.astype(np.int64) - self.table.first
            return np.asarray(self.table.data[np.clip(index, 0, len(self.table.data) - 1)], dtype)
        if dtype.kind in "iu":
            if self.slope == 1 and self.intercept == 0:
                return values.astype(dtype, copy=False)
            return _whole(values, int(self.slope), int(self.intercept), dtype)
        with np.errstate(over="ignore"):  # of double float pixels; seen as infinity
            scaled: NDArray[Any] = np.multiply(values, np.float32(self.slope), dtype=np.float32)
            scaled += np.float32(self.intercept)
        return scaled


def _whole(values: NDArray[Any], slope: int, intercept: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """In modular arithmetic of the result's width: what wraps on the way is back at the end, for the result fits."""
    if dtype.itemsize >= values.dtype.itemsize:
        result = values.view(dtype) if dtype.itemsize == values.dtype.itemsize else values.astype(dtype)
        modulus = 1 << (8 * dtype.itemsize)
        unsigned = result.view(f"u{dtype.itemsize}")
        if slope != 1:
            unsigned *= unsigned.dtype.type(slope % modulus)
        unsigned += unsigned.dtype.type(intercept % modulus)
        return result
    return (values.astype(np.int64) * slope + intercept).astype(dtype)


def read_modality(dataset: Dataset, module: PixelModule) -> Modality:
    """The Modality LUT of a data set, or of a Pixel Value Transformation item.

    Raises:
        InputError: slope 0, NaN or infinity, or a damaged table.
    """
    tables = items(dataset, "ModalityLUTSequence")
    if tables:
        if module.is_float:
            raise InputError("its pixels are floats, with a Modality LUT Sequence.", _HINT)
        return Modality(table=read_table(tables[0], signed=module.signed))
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope == 0:
        raise InputError("its Rescale Slope is 0: all pixels would be equal.", _HINT)
    return Modality(1.0 if slope is None else slope, intercept or 0.0)


def stored_values(pixels: NDArray[Any], module: PixelModule, precision: int | None) -> NDArray[Any]:
    """The stored bits as numbers: others masked, the sign extended. In place.

    Args:
        pixels: unsigned integers, writable.
        module: says which bits count.
        precision: of the codestream, whose samples lie at the bottom; `None` if they lie below High Bit.
    """
    bits = module.stored if precision is None else min(module.stored, precision)
    if precision is None and module.high >= bits:
        pixels >>= pixels.dtype.type(module.high + 1 - bits)
    spare = pixels.dtype.itemsize * 8 - bits
    if not module.signed:
        if spare:
            pixels &= pixels.dtype.type((1 << bits) - 1)
        return pixels
    if spare:
        pixels <<= pixels.dtype.type(spare)
    signed = pixels.view(f"i{pixels.dtype.itemsize}")
    if spare:
        signed >>= signed.dtype.type(spare)
    return signed


def read_padding(dataset: Dataset, module: PixelModule) -> tuple[int, int] | None:
    """The range of stored values that mean "no pixel" (PS3.3 C.7.5.1.1.2), `None` if the file names none.

    Its value representation follows Pixel Representation, but is often written as the other one: the bits decide.
    """
    value = integer(dataset, "PixelPaddingValue")
    if value is None or module.is_color:
        return None
    limit = integer(dataset, "PixelPaddingRangeLimit")
    ends = [_as_stored(end, module) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, module: PixelModule) -> int:
    bits = module.allocated
    value &= (1 << bits) - 1
    return value - (1 << bits) if module.signed and value >> (bits - 1) else value
