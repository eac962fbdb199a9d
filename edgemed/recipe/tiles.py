"""A large image in tiles, and the answers put together again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.recipe.parts import Tiles

_GAUSSIAN_SIGMA = 1 / 8  # of the tile's side, as is usual for sliding windows; the corners still weigh above 0


@dataclass(frozen=True)
class Tiling:
    """The tiles of one image: every pixel is in at least one.

    An image smaller than a tile is reflected at its borders, evenly on both sides, and the answer is cut back.

    Attributes:
        shape: of the image, without channels: (rows, columns) or (slices, rows, columns).
        tiles: what the recipe says.
        starts: where tiles begin along each axis of the padded image.
    """

    shape: tuple[int, ...]
    tiles: Tiles
    starts: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        count = 1
        for starts in self.starts:
            count *= len(starts)
        return count

    @property
    def padded(self) -> tuple[int, ...]:
        """Shape after reflection."""
        return tuple(max(have, side) for have, side in zip(self.shape, self.tiles.size, strict=True))

    @property
    def before(self) -> tuple[int, ...]:
        """Pixels that reflection puts ahead of each axis."""
        return tuple((new - have) // 2 for new, have in zip(self.padded, self.shape, strict=True))

    def slices(self) -> Iterator[tuple[slice, ...]]:
        """Where each tile lies in the padded image, the last axis fastest."""
        for corner in itertools.product(*self.starts):
            yield tuple(slice(start, start + side) for start, side in zip(corner, self.tiles.size, strict=True))

    def cut(self, array: NDArray[Any], first_axis: int = 0) -> Iterator[NDArray[Any]]:
        """Each tile of an array whose axes from `first_axis` on are those of `shape`."""
        for axis, (have, new, before) in enumerate(zip(self.shape, self.padded, self.before, strict=True)):
            if array.shape[first_axis + axis] != have:
                raise InputError(
                    f"An array of the shape {array.shape} is not the image of {self.shape} that was tiled.",
                    "Tile the array itself.",
                )
            if new != have:
                array = array.take(_reflected(have, new, before), first_axis + axis)
        for place in self.slices():
            yield np.ascontiguousarray(array[(slice(None),) * first_axis + place])

    def stitch(self, outputs: Iterable[NDArray[Any]], first_axis: int = 0) -> NDArray[np.float32]:
        """The answers to all tiles, in order, as one map over the image; float32.

        It is a running weighted mean: where all answers agree the result is exactly their value, whatever the weights.

        Raises:
            InputError: too few answers, too many, or of another size than the tile.
        """
        weight = self.weight()
        mean: NDArray[np.float32] | None = None
        total = np.zeros(self.padded, dtype=np.float32)
        places = self.slices()
        lead = (slice(None),) * first_axis
        for answer in outputs:
            place = next(places, None)
            if place is None or answer.shape[first_axis : first_axis + weight.ndim] != weight.shape:
                raise InputError(
                    f"An answer of the shape {answer.shape} does not belong to tiles of {self.tiles.size}.",
                    "Tile models that answer with one map of the size of their input.",
                )
            if mean is None:
                rest = answer.shape[first_axis + weight.ndim :]
                mean = np.zeros((*answer.shape[:first_axis], *self.padded, *rest), dtype=np.float32)
            total[place] += weight
            trailing = answer.ndim - first_axis - weight.ndim
            share = (weight / total[place]).reshape(weight.shape + (1,) * trailing)
            part = mean[lead + place]
            part += share * (answer.astype(np.float32, copy=False) - part)
        if mean is None or next(places, None) is not None:
            raise InputError(f"There are fewer answers than the {len(self)} tiles.", "Run the model on every tile.")
        inside = tuple(slice(first, first + have) for first, have in zip(self.before, self.shape, strict=True))
        return mean[lead + inside]

    def weight(self) -> NDArray[np.float32]:
        """How much each pixel of a tile weighs, in its shape; above 0 everywhere, greatest in the middle."""
        result: NDArray[Any] = np.ones((), dtype=np.float32)
        for side in self.tiles.size:
            result = result[..., None] * _profile(side, self.tiles.blend)
        return result


def plan_tiles(shape: tuple[int, ...], tiles: Tiles) -> Tiling:
    """The tiles of an image; the last one of each row moves back to end at the image's edge.

    Raises:
        InputError: slices are wanted of an image, or none of a volume.
    """
    if len(shape) != len(tiles.size):
        raise InputError(
            f"The tiles have {len(tiles.size)} axes and the image has {len(shape)}.",
            "Give rows and columns for images, slices before them for volumes.",
        )
    starts = []
    for have, side, shared in zip(shape, tiles.size, tiles.overlaps, strict=True):
        last = max(have - side, 0)
        starts.append((*range(0, last, side - shared), last))
    return Tiling(tuple(shape), tiles, tuple(starts))


def _profile(side: int, blend: str) -> NDArray[np.float32]:
    centres = (np.arange(side) + 0.5) / side  # never 0 or 1, where a Hann window would be 0
    if blend == "hann":
        profile = np.sin(np.pi * centres) ** 2
    elif blend == "gaussian":
        profile = np.exp(-(((centres - 0.5) / _GAUSSIAN_SIGMA) ** 2) / 2)
    else:
        profile = np.ones(side)
    return profile.astype(np.float32)


def _reflected(have: int, new: int, before: int) -> NDArray[np.intp]:
    """Indices that reflect at the borders without repeating the first and last pixel, as often as it takes."""
    period = max(2 * (have - 1), 1)
    index = (np.arange(new) - before) % period
    return np.minimum(np.minimum(index, period - index), have - 1).astype(np.intp)
