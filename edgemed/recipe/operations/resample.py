"""Another number of pixels over the same field of view. Pixels are squares, their centres at 0.5."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.recipe.base import MAX_PIXELS, MAX_SIDE
from edgemed.recipe.geometry import Shape
from edgemed.recipe.operations.state import STRIP, Floats, Pixels
from edgemed.recipe.steps import Filter

Method = Filter | Literal["pillow-nearest"]
"""Pillow's nearest rounds where the centre of a new pixel lies exactly between two old ones; ours takes the second."""

_PILLOW = {"antialias": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS", "pillow-nearest": "NEAREST"}
_REACH = {"antialias": 1, "bicubic": 2, "lanczos": 3}  # new pixels that a filter reaches to either side
_LARGE = 1 << 20


def resample(pixels: Pixels, shape: Shape, how: Method) -> Pixels:
    """`(slices, rows, columns[, channels])` at another `shape`; float32, but for `nearest`, which keeps the type.

    Raises:
        InputError: the result would be too large.
    """
    if max(shape) > MAX_SIDE or shape[0] * shape[1] * shape[2] > MAX_PIXELS:
        raise InputError(
            f"Resampling would make {shape[0]} slices of {shape[1]}x{shape[2]} pixels, more than allowed.",
            "Correct the size or spacing in the recipe.",
        )
    if pixels.shape[:3] == shape:
        return pixels
    if how == "nearest":
        return nearest(pixels, shape)
    plane = (shape[1], shape[2])
    result = np.empty((pixels.shape[0], *plane, *pixels.shape[3:]), dtype=np.float32)
    for index, piece in enumerate(pixels):
        result[index] = piece if piece.shape[:2] == plane else _plane(piece, plane, how)
    return result if len(result) == shape[0] else _slices(result, shape[0], how)


def nearest(pixels: Pixels, shape: Shape) -> Pixels:
    """The pixel that the centre of the new one lies in."""
    for axis, count in enumerate(shape):
        have = pixels.shape[axis]
        if have != count:
            centres = ((2 * np.arange(count) + 1) * have) // (2 * count)  # whole numbers: no rounding at the edges
            pixels = pixels.take(centres, axis)
    return pixels


def _plane(plane: Pixels, size: tuple[int, int], how: Method) -> Floats:
    """One slice, `(rows, columns[, channels])`."""
    if how in _PILLOW:
        return _by_pillow(plane, size, how)
    if how == "area" and not plane.shape[0] % size[0] and not plane.shape[1] % size[1]:
        return _block_mean(plane, size)
    for axis in (0, 1):  # rows first: whole rows are added, and fewer are left for the slower columns
        plane = _weighted(plane, axis, *_taps(plane.shape[axis], size[axis], how))
    return plane


def _slices(pixels: Floats, count: int, how: Method) -> Floats:
    """Resampled along the first axis only."""
    flat = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)
    if how in _PILLOW:
        flat = _by_pillow(flat, (count, flat.shape[1]), how)
    else:
        flat = _weighted(flat, 0, *_taps(len(flat), count, how))
    return flat.reshape(count, *pixels.shape[1:])


def _by_pillow(plane: Pixels, size: tuple[int, int], how: Method) -> Floats:
    pil = require("PIL.Image", extra="imaging", purpose="resize images")
    method = pil.Resampling[_PILLOW[how]]
    if plane.ndim == 3:
        planes = [_by_pillow(plane[..., channel], size, how) for channel in range(plane.shape[-1])]
        return np.stack(planes, axis=-1)
    if plane.size < _LARGE or plane.shape[0] % size[0] or how not in _REACH:
        return np.asarray(pil.fromarray(np.ascontiguousarray(plane, dtype=np.float32)).resize(size[::-1], method))
    return _by_strips(pil, method, plane, size, _REACH[how])


def _by_strips(pil: Any, method: Any, plane: Pixels, size: tuple[int, int], reach: int) -> Floats:
    """The same, a few rows at a time: Pillow copies what it is given, and a strip of it stays in cache.

    With a whole factor the weights of each row are the very same numbers, and so is the result.
    """
    factor = plane.shape[0] // size[0]
    at_once = max(1, 4 * STRIP // (plane.shape[1] * factor))
    result = np.empty(size, dtype=np.float32)
    for first in range(0, size[0], at_once):
        last = min(first + at_once, size[0])
        low = max(0, (first - reach) * factor)
        strip = pil.fromarray(np.ascontiguousarray(plane[low : (last + reach) * factor], dtype=np.float32))
        box = (0, first * factor - low, plane.shape[1], last * factor - low)
        result[first:last] = strip.resize((size[1], last - first), method, box)
    return result


def _block_mean(plane: Pixels, size: tuple[int, int]) -> Floats:
    """Mean of blocks: what `area` is where the factors are whole."""
    rows, columns = size
    down, across = plane.shape[0] // rows, plane.shape[1] // columns
    result = np.empty((*size, *plane.shape[2:]), dtype=np.float32)
    at_once = max(1, STRIP // (plane[0].size * down))
    for first in range(0, rows, at_once):
        strip = plane[first * down : (first + at_once) * down]
        summed = strip.reshape(-1, down, *plane.shape[1:]).sum(axis=1, dtype=np.float32)
        out = result[first : first + at_once]
        out[...] = summed[:, ::across]
        for offset in range(1, across):
            out += summed[:, offset::across]
        out /= np.float32(down * across)
    return result


def _taps(have: int, want: int, how: Method) -> tuple[NDArray[np.intp], Floats]:
    """Indices and weights, `(want, taps)`: new pixel `i` is the sum of old pixels `indices[i]` by `weights[i]`."""
    if how == "bilinear":
        centres = (np.arange(want) + 0.5) * (have / want) - 0.5
        low = np.floor(centres)
        indices = np.stack([np.maximum(low, 0), np.minimum(low + 1, have - 1)], axis=1).astype(np.intp)
        part = centres - low
        return indices, np.stack([1 - part, part], axis=1).astype(np.float32)
    edges = np.arange(want + 1) * have  # in units of 1/want of an old pixel: whole numbers
    first = edges[:-1] // want
    taps = int((-(-edges[1:] // want) - first).max())
    indices = first[:, None] + np.arange(taps)
    left = np.maximum(indices * want, edges[:-1, None])
    right = np.minimum((indices + 1) * want, edges[1:, None])
    shares = np.maximum(right - left, 0) / have
    return np.minimum(indices, have - 1), shares.astype(np.float32)


def _weighted(pixels: Pixels, axis: int, indices: NDArray[np.intp], weights: Floats) -> Floats:
    if len(indices) == pixels.shape[axis]:
        return pixels.astype(np.float32, copy=False)
    trailing = (1,) * (pixels.ndim - axis - 1)
    result: NDArray[Any] | None = None
    for tap in range(indices.shape[1]):
        part = pixels.take(indices[:, tap], axis).astype(np.float32, copy=False)
        part = part * weights[:, tap].reshape(-1, *trailing)
        result = part if result is None else np.add(result, part, out=result)
    assert result is not None
    return result
