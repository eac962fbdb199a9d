"""A number and a time drawn into a picture, and read back: what a frame needs to tell its own age.

Shown on a screen that the camera under test films, or put into a stream, each frame says when it was drawn. The mark is
a grid of black and white blocks with a border, and survives scaling, compression, gray and moderate blur. It is no
general bar code: it must be upright and whole.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.lazy import require

COLUMNS: Final = 16
ROWS: Final = 8
"""Blocks of data: 32 bits of number, 64 of time, 32 of checksum."""

_BORDER = 2  # blocks: a white line around a black one around the data
_LEAST_BLOCK = 4  # pixels
_SHARES = (0.5, 0.35, 0.65)  # where black ends: other things in the picture may be darker or lighter than the mark
_NUMBERS = 1 << 32
_TIMES = 1 << 63


@dataclass(frozen=True)
class Mark:
    """What a picture says of itself."""

    number: int
    time_ns: int


def least_size(block: int = _LEAST_BLOCK) -> tuple[int, int]:
    """Rows and columns that a mark takes."""
    return (ROWS + 2 * _BORDER) * block, (COLUMNS + 2 * _BORDER) * block


def draw(pixels: NDArray[Any], *, number: int, time_ns: int, block: int | None = None) -> None:
    """Draw a mark into the upper left corner, in place.

    Args:
        pixels: `(rows, columns)` or with channels behind; integers span their type, floats 0 to 1.
        number: of the frame; its lowest 32 bits are kept.
        time_ns: of any clock that the reader shares, 0 to 2**63 - 1.
        block: pixels of a side; `None` takes what fills a third of the picture's shorter side.

    Raises:
        InputError: the picture is too small, or the time cannot be.
    """
    if not 0 <= time_ns < _TIMES:
        raise InputError(f"The time {time_ns} cannot be drawn.", "Give nanoseconds from 0 to 2**63 - 1.")
    rows, columns = pixels.shape[:2]
    if block is None:
        block = max(_LEAST_BLOCK, min(rows, columns) // 3 // (ROWS + 2 * _BORDER))
    height, width = least_size(block)
    if height > rows or width > columns or block < 1:
        raise InputError(f"A picture of {columns}x{rows} has no room for a mark of {width}x{height}.", "Enlarge it.")
    blocks = np.ones((ROWS + 2 * _BORDER, COLUMNS + 2 * _BORDER), bool)
    blocks[1:-1, 1:-1] = False
    blocks[_BORDER:-_BORDER, _BORDER:-_BORDER] = _bits(number % _NUMBERS, time_ns)
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1
    mark = np.where(blocks.repeat(block, axis=0).repeat(block, axis=1), white, 0).astype(pixels.dtype)
    pixels[:height, :width] = mark if pixels.ndim == 2 else mark[..., None]


def read(pixels: NDArray[Any]) -> Mark | None:
    """The mark of a picture, wherever it lies and however large it is; `None` where there is none, or it is damaged.

    Raises:
        MissingSoftwareError: SciPy is not installed.
    """
    ndimage = require("scipy.ndimage", extra="imaging", purpose="find marks in pictures")
    gray = pixels.astype(np.float32)
    gray = gray.mean(axis=2) if gray.ndim == 3 else gray
    if not gray.size:
        return None
    low, high = float(gray.min()), float(gray.max())
    for share in _SHARES:
        labels, _ = ndimage.label(gray < low + share * (high - low))
        # the ring of black blocks is one piece, and its data hang on it: its box is the ring's
        for box in ndimage.find_objects(labels):
            mark = _decode(gray, box) if _plausible(box) else None
            if mark is not None:
                return mark
    return None


def _plausible(box: tuple[slice, slice]) -> bool:
    """Whether a box has the ring's shape; the picture may have been stretched by a fifth."""
    rows, columns = box[0].stop - box[0].start, box[1].stop - box[1].start
    wide, high = COLUMNS + 2, ROWS + 2
    return bool(rows >= 2 * high and columns >= 2 * wide and 0.8 < columns * high / (rows * wide) < 1.25)


def _decode(gray: NDArray[np.float32], box: tuple[slice, slice]) -> Mark | None:
    """Read the blocks inside the ring; the checksum tells whether it was one."""
    rows, columns = ROWS + 2, COLUMNS + 2
    tall, wide = (box[0].stop - box[0].start) / rows, (box[1].stop - box[1].start) / columns
    # means over the middle of each block: its edges are blurred
    means = np.empty((rows, columns), np.float32)
    for row in range(rows):
        top, bottom = _middle(box[0].start + row * tall, tall)
        for column in range(columns):
            left, right = _middle(box[1].start + column * wide, wide)
            means[row, column] = gray[top:bottom, left:right].mean()
    ring = np.concatenate([means[0], means[-1], means[:, 0], means[:, -1]])
    data = means[1:-1, 1:-1]
    bits = data > (float(ring.mean()) + float(data.max())) / 2
    packed = np.packbits(bits.ravel()).tobytes()
    if zlib.crc32(packed[:-4]) != int.from_bytes(packed[-4:], "big"):
        return None
    return Mark(int.from_bytes(packed[:4], "big"), int.from_bytes(packed[4:12], "big"))


def _middle(start: float, length: float) -> tuple[int, int]:
    """Pixels of the middle half of a block; one at least."""
    first = round(start + length / 4)
    return first, max(first + 1, round(start + 3 * length / 4))


def _bits(number: int, time_ns: int) -> NDArray[np.bool_]:
    """`(ROWS, COLUMNS)`, most significant bits first."""
    body = number.to_bytes(4, "big") + time_ns.to_bytes(8, "big")
    packed = np.frombuffer(body + zlib.crc32(body).to_bytes(4, "big"), np.uint8)
    return np.unpackbits(packed).reshape(ROWS, COLUMNS).astype(bool)
