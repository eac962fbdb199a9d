"""Steps that move pixels, as tables for one axis: which source pixels a new one is made of, and by what weights.

Weights are read off the recipe's own resampling, which is given combs of single bright pixels: the filter is the same
by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemed.recipe.operations.resample import Method, resample

Indices = NDArray[np.int32]
Weights = NDArray[np.float32]

_REACH = {"antialias": 1, "bicubic": 2, "lanczos": 3, "area": 1, "bilinear": 1}  # new pixels to either side
_MOST = 1 << 22  # values of combs that are made at once
NEAREST = ("nearest", "pillow-nearest")


@dataclass(frozen=True)
class Axis:
    """One axis of the image as it is by now.

    Attributes:
        index: `(n, taps)`: source pixels; below 0 the number of a padding that was there before resampling.
        weight: `(n, taps)`.
        pad: `(n,)`: number of the padding that a pixel belongs to, 0 for none.
    """

    index: Indices
    weight: Weights
    pad: Indices

    @staticmethod
    def of(count: int) -> Axis:
        """Of an image that nothing has been done to."""
        index = np.arange(count, dtype=np.int32)[:, None]
        return Axis(index, np.ones((count, 1), np.float32), np.zeros(count, np.int32))

    def __len__(self) -> int:
        return len(self.pad)

    def taken(self, order: NDArray[np.intp] | slice) -> Axis:
        """Some of its pixels, in some order."""
        return Axis(self.index[order], self.weight[order], self.pad[order])

    def padded(self, before: int, count: int, number: int) -> Axis:
        """`count` pixels, `before` of them ahead of the first; what is added belongs to padding `number`."""
        around = (before, count - before - len(self))
        return Axis(
            np.pad(self.index, (around, (0, 0))),
            np.pad(self.weight, (around, (0, 0))),
            np.pad(self.pad, around, constant_values=number),
        )

    def resampled(self, index: Indices, weight: Weights) -> Axis:
        """Sums of its pixels; what is padding by now is a pixel like others from here on."""
        flat = np.where(self.pad > 0, -self.pad, self.index[:, 0]).astype(np.int32)
        return Axis(flat[index], weight, np.zeros(len(index), np.int32))


def nearest(old: int, new: int, how: Method) -> NDArray[np.intp]:
    """`(new,)`: the old pixel that each new one is."""
    found = resample(np.arange(old, dtype=np.float32)[None, :, None], (1, new, 1), how)
    return found.reshape(-1).astype(np.intp)


def taps(old: int, new: int, how: Method) -> tuple[Indices, Weights]:
    """`(new, taps)` indices and weights of a filter; weights of 0 fill up."""
    if old == new:
        return np.arange(old, dtype=np.int32)[:, None], np.ones((old, 1), np.float32)
    reach = 2 * math.ceil(_REACH[how] * max(old / new, 1)) + 4
    stride = min(reach, old)  # no filter sees two bright pixels of one comb
    weights = np.empty((new, stride), np.float32)
    at_once = max(1, _MOST // old)
    for first in range(0, stride, at_once):
        count = min(at_once, stride - first)
        lit = np.arange(first, old)
        lit = lit[(lit - first) % stride < count]
        combs = np.zeros((1, old, count), np.float32)
        combs[0, lit, (lit - first) % stride] = 1
        weights[:, first : first + count] = resample(combs, (1, new, count), how)[0]
    centre = np.floor((np.arange(new) + 0.5) * (old / new)).astype(np.int64)
    begin = np.clip(centre - stride // 2, 0, old - stride)[:, None]
    index = begin + (np.arange(stride) - begin) % stride  # the one source pixel near the centre that lit this comb
    order = np.argsort(np.where(weights != 0, index, old), axis=1, kind="stable")
    most = int((weights != 0).sum(axis=1).max())
    order = order[:, :most]
    weights = np.take_along_axis(weights, order, 1)
    index = np.where(weights != 0, np.take_along_axis(index, order, 1), 0)
    return index.astype(np.int32), weights


def is_block_mean(old: tuple[int, int], new: tuple[int, int], how: Method) -> bool:
    """Whether `area` takes the mean of whole blocks, which the recipe sums before it divides."""
    return how == "area" and not old[0] % new[0] and not old[1] % new[1]
