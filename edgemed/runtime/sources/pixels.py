"""Pixels as cameras give them, turned into what models are trained on: gray, or RGB with full range.

Chroma is not interpolated: each sample counts for the pixels it was taken over. Luma and chroma become RGB by the
matrices of ITU-R BT.601, BT.709 and BT.2020, in integers of 16 fractional bits, rounded once.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.lazy import require

Matrix = Literal["601", "709", "2020"]
Bytes = NDArray[np.uint8]

_LUMA: Final[dict[Matrix, tuple[float, float]]] = {  # weights of red and blue in luma
    "601": (0.299, 0.114),
    "709": (0.2126, 0.0722),
    "2020": (0.2627, 0.0593),
}
_SHIFT = 16
_BAND = 32  # rows converted at a time: what lies between stays in the cache


class DamagedFrameError(Exception):
    """A frame arrived in part, or not decodable; the stream goes on."""


@dataclass(frozen=True)
class Tables:
    """What each value of luma and chroma adds to red, green and blue, times 2**16; rounding is in the luma."""

    y: NDArray[np.int32]
    red_v: NDArray[np.int32]
    green_u: NDArray[np.int32]
    green_v: NDArray[np.int32]
    blue_u: NDArray[np.int32]


@cache
def tables(matrix: Matrix, *, full: bool) -> Tables:
    """Tables of a matrix; `full` where luma spans 0-255, not 16-235."""
    kr, kb = _LUMA[matrix]
    kg = 1 - kr - kb
    low, luma, chroma = (0.0, 255.0, 255.0) if full else (16.0, 219.0, 224.0)
    value = np.arange(256, dtype=np.float64)
    y = (value - low) * (255 / luma)
    c = (value - 128) * (255 / chroma)

    def fixed(values: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.rint(values * (1 << _SHIFT)).astype(np.int32)

    return Tables(
        y=fixed(y) + (1 << (_SHIFT - 1)),
        red_v=fixed(2 * (1 - kr) * c),
        green_u=fixed(-2 * (1 - kb) * kb / kg * c),
        green_v=fixed(-2 * (1 - kr) * kr / kg * c),
        blue_u=fixed(2 * (1 - kb) * c),
    )


def packed_to_rgb(raw: Bytes, order: Literal["YUYV", "UYVY"], by: Tables) -> Bytes:
    """4:2:2 with chroma between luma: `(rows, 2 * columns)` to `(rows, columns, 3)`."""
    first = 0 if order == "YUYV" else 1
    chroma = 1 - first
    rows, columns = raw.shape[0], raw.shape[1] // 2
    rgb = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, rows, _BAND):
        band = raw[top : top + _BAND]
        _blend(band[:, first::2], band[:, chroma::4], band[:, chroma + 2 :: 4], by, rgb[top : top + _BAND])
    return rgb


def nv12_to_rgb(luma: Bytes, chroma: Bytes, by: Tables, *, swapped: bool = False) -> Bytes:
    """4:2:0 with one plane of both chroma: `(rows, columns)` and `(rows / 2, columns)` to `(rows, columns, 3)`.

    Args:
        luma: of every pixel.
        chroma: blue and red difference in turn.
        by: from `tables`.
        swapped: red comes before blue (NV21).
    """
    rows, columns = luma.shape
    rgb = np.empty((rows, columns, 3), np.uint8)
    for top in range(0, rows, _BAND):
        pairs = np.repeat(chroma[top // 2 : (top + _BAND) // 2], 2, axis=0)
        u, v = pairs[:, int(swapped) :: 2], pairs[:, 1 - int(swapped) :: 2]
        _blend(luma[top : top + _BAND], u, v, by, rgb[top : top + _BAND])
    return rgb


def _blend(y: Bytes, u: Bytes, v: Bytes, by: Tables, rgb: Bytes) -> None:
    """Fill `rgb` from luma and from chroma of every other column."""
    luma = by.y[y]
    sums = np.empty_like(luma)
    for channel, chroma in enumerate((by.red_v[v], by.green_u[u] + by.green_v[v], by.blue_u[u])):
        np.add(luma[:, 0::2], chroma, out=sums[:, 0::2])
        np.add(luma[:, 1::2], chroma, out=sums[:, 1::2])
        np.right_shift(sums, _SHIFT, out=sums)
        np.clip(sums, 0, 255, out=sums)
        rgb[..., channel] = sums


def jpeg_decoder() -> Callable[[memoryview], NDArray[Any]]:
    """A decoder of Motion JPEG frames, whose standard Huffman tables are often left out.

    Raises:
        MissingSoftwareError: Pillow is not installed.
    """
    pil = require("PIL.Image", extra="imaging", purpose="decode the JPEG frames of a camera")

    def decode(data: memoryview) -> NDArray[Any]:
        try:
            with pil.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return np.asarray(image if image.mode == "L" else image.convert("RGB"))
        # Pillow's words for damaged files, and its own for a claim of too many pixels
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, pil.DecompressionBombError) as error:
            raise DamagedFrameError(str(error)) from error

    return decode
