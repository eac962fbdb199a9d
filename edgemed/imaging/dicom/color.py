"""Colour becomes RGB, 8 bits a sample (PS3.3 C.7.6.3.1.2 and C.7.9)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.lut import table_entries
from edgemed.imaging.dicom.values import raw_bytes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FRACTION = 16  # bits of the fixed-point colour transform: its error, 2^-16 x 128, is far below half a level
_HALF = 1 << (_FRACTION - 1)
_MAX_ENTRIES = 1 << 16
_COLORS = ("Red", "Green", "Blue")
_HINT = "Correct the palette, or leave the file out."


def spread_chroma(flat: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """YBR_FULL_422 without compression: Y Y Cb Cr for each two pixels of a row; both take the chroma as it is.

    Raises:
        InputError: an odd number of columns.
    """
    if columns % 2:
        raise InputError(f"it is YBR_FULL_422 with {columns} columns.", "An even number is needed (PS3.3).")
    fours = flat.reshape(rows, columns // 2, 4)
    pixels = np.empty((rows, columns, 3), flat.dtype)
    pixels[:, 0::2, 0], pixels[:, 1::2, 0] = fours[..., 0], fours[..., 1]
    for chroma in (1, 2):
        pixels[:, 0::2, chroma] = pixels[:, 1::2, chroma] = fours[..., 1 + chroma]
    return pixels


def to_8_bits(pixels: NDArray[Any], stored: int) -> NDArray[np.uint8]:
    """The upper 8 of `stored` bits: exact for 8-bit colours that were widened, by zeros or by repetition."""
    if stored > 8:
        pixels = pixels >> (stored - 8)
    return np.ascontiguousarray(pixels, np.uint8)


def ybr_to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Y Cb Cr of full range to RGB, by the inverse of PS3.3 C.7.6.3.1.2, rounded to the nearest."""
    level = np.arange(-128, 128, dtype=np.float64)
    y = pixels[..., 0].astype(np.int32)
    cb, cr = pixels[..., 1], pixels[..., 2]
    rgb = np.empty_like(pixels)
    rgb[..., 0] = np.clip(y + _rounded(1.402 * level)[cr], 0, 255)
    green = _fixed(0.344136286 * level)[cb] + _fixed(0.714136286 * level)[cr]
    rgb[..., 1] = np.clip(y - ((green + _HALF) >> _FRACTION), 0, 255)
    rgb[..., 2] = np.clip(y + _rounded(1.772 * level)[cb], 0, 255)
    return rgb


def _fixed(values: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(values * (1 << _FRACTION)).astype(np.int32)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(values).astype(np.int32)


@dataclass(frozen=True)
class Palette:
    """Red, green and blue palette of a PALETTE COLOR image.

    Attributes:
        first: the pixel value of the first entry.
        table: `(entries, 3)`, 8 bits; values outside take the nearest entry.
    """

    first: int
    table: NDArray[np.uint8]

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Colours of `(rows, columns)` pixels."""
        index = pixels.astype(np.int64) - self.first
        return self.table[np.clip(index, 0, len(self.table) - 1)]


def read_palette(dataset: Dataset, *, signed: bool) -> Palette:
    """The palette of a data set, plain or segmented (PS3.3 C.7.9).

    Args:
        dataset: the file's.
        signed: pixels are, and so is the value of the first entry.

    Raises:
        InputError: a missing, short, damaged or contradictory table.
    """
    columns, firsts = [], set()
    for color in _COLORS:
        entries, first, bits = _descriptor(dataset, color)
        firsts.add((entries, first))
        columns.append(_column(dataset, color, entries, bits))
    if len(firsts) != 1:
        raise InputError("its palettes for red, green and blue differ in size.", _HINT)
    first = firsts.pop()[1]
    return Palette(first - (1 << 16) if signed and first >> 15 else first, np.stack(columns, axis=1))


def _descriptor(dataset: Dataset, color: str) -> tuple[int, int, int]:
    found = raw_bytes(dataset, f"{color}PaletteColorLookupTableDescriptor")
    if found is None or len(found[0]) != 6:
        raise InputError(f"it has no {color} Palette Color Lookup Table Descriptor of three values.", _HINT)
    entries, first, bits = struct.unpack("<3H" if found[1] else ">3H", found[0])
    if bits not in (8, 16):
        raise InputError(f"its {color} palette has entries of {bits} bits.", _HINT)
    return entries or _MAX_ENTRIES, first, bits  # 0 stands for 65536


def _column(dataset: Dataset, color: str, entries: int, bits: int) -> NDArray[np.uint8]:
    plain = raw_bytes(dataset, f"{color}PaletteColorLookupTableData")
    segmented = raw_bytes(dataset, f"Segmented{color}PaletteColorLookupTableData")
    if plain is not None:
        values = table_entries(*plain, entries, bits)
    elif segmented is not None:
        values = _expand(*segmented, bits, color)
    else:
        raise InputError(f"it has no {color} Palette Color Lookup Table Data.", _HINT)
    if len(values) < entries:
        raise InputError(f"its {color} palette has {len(values)} entries instead of {entries}.", _HINT)
    values = values[:entries]
    if bits == 16 or values.max() > 255:  # 8-bit entries are found in the upper half of words, too
        values = values >> 8
    return values.astype(np.uint8)


def _expand(data: bytes, little: bool, bits: int, color: str) -> NDArray[Any]:
    """The entries of a segmented table: discrete, linear and indirect segments (PS3.3 C.7.9.2)."""
    values: list[int] = []
    words = table_entries(data, little, len(data), bits)
    _segments(words.tolist(), 0, None, values, bits, color)
    return np.array(values, np.int64)


def _segments(words: list[int], at: int, count: int | None, values: list[int], bits: int, color: str) -> None:
    """Append the entries of `count` segments from word `at`, or of all."""
    while at + 1 < len(words) and count != 0:
        kind, length = words[at], words[at + 1]
        at += 2
        if kind == 0 and 0 < length <= len(words) - at:
            values.extend(words[at : at + length])
            at += length
        elif kind == 1 and at < len(words) and values and length:
            start, stop = values[-1], words[at]
            values.extend(int(v) for v in np.rint(np.linspace(start, stop, length + 1)[1:]))
            at += 1
        elif kind == 2 and count is None and _offset_words(bits) + at <= len(words):
            _segments(words, _offset(words, at, bits), length, values, bits, color)
            at += _offset_words(bits)
        else:
            raise InputError(f"its segmented {color} palette is damaged.", _HINT)
        if len(values) > _MAX_ENTRIES:
            raise InputError(f"its segmented {color} palette has more than {_MAX_ENTRIES} entries.", _HINT)
        count = None if count is None else count - 1


def _offset_words(bits: int) -> int:
    return 2 if bits == 16 else 4


def _offset(words: list[int], at: int, bits: int) -> int:
    """A byte offset in two words, least significant first, as an index of words."""
    offset = sum(word << (bits * i) for i, word in enumerate(words[at : at + _offset_words(bits)]))
    return offset // (bits // 8)
