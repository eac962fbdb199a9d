"""A large image in tiles, and the answers put together again."""

from __future__ import annotations

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
        for index in range(len(self)):
            yield self.place(index)

    def place(self, index: int) -> tuple[slice, ...]:
        """Where one tile lies in the padded image."""
        numbers = np.unravel_index(index, [len(starts) for starts in self.starts])
        corner = (starts[number] for starts, number in zip(self.starts, numbers, strict=True))
        return tuple(slice(start, start + side) for start, side in zip(corner, self.tiles.size, strict=True))

    def cut(
        self, array: NDArray[Any], first_axis: int = 0, wanted: Iterable[int] | None = None
    ) -> Iterator[NDArray[Any]]:
        """Tiles of an array whose axes from `first_axis` on are those of `shape`: all, or those `wanted`."""
        for axis, (have, new, before) in enumerate(zip(self.shape, self.padded, self.before, strict=True)):
            if array.shape[first_axis + axis] != have:
                raise InputError(
                    f"An array of the shape {array.shape} is not the image of {self.shape} that was tiled.",
                    "Tile the array itself.",
                )
            if new != have:
                array = array.take(_reflected(have, new, before), first_axis + axis)
        for index in range(len(self)) if wanted is None else wanted:
            yield np.ascontiguousarray(array[(slice(None),) * first_axis + self.place(index)])

    def stitch(self, outputs: Iterable[NDArray[Any]], first_axis: int = 0) -> NDArray[np.float32]:
        """The answers to all tiles, in order, as one map over the image; float32.

        It is a running weighted mean: where all answers agree the result is exactly their value, whatever the weights.

        Raises:
            InputError: too few answers, too many, or of another size than the tile.
        """
        stitcher = Stitcher(self, first_axis)
        for answer in outputs:
            stitcher.add(answer)
        return stitcher.finish()

    def weight(self) -> NDArray[np.float32]:
        """How much each pixel of a tile weighs, in its shape; above 0 everywhere, greatest in the middle."""
        result: NDArray[Any] = np.ones((), dtype=np.float32)
        for side in self.tiles.size:
            result = result[..., None] * _profile(side, self.tiles.blend)
        return result


class Stitcher:
    """Puts answers together as they come: only the map is in memory, see `Tiling.stitch`.

    Args:
        tiling: of the image.
        first_axis: of the answers that is not batch or channels.
    """

    def __init__(self, tiling: Tiling, first_axis: int = 0) -> None:
        self._tiling, self._weight = tiling, tiling.weight()
        self._lead = (slice(None),) * first_axis
        self._mean: NDArray[np.float32] | None = None
        self._total = np.zeros(tiling.padded, dtype=np.float32)
        self._places = tiling.slices()

    def add(self, answer: NDArray[Any]) -> None:
        """Blend in the answer to the next tile.

        Raises:
            InputError: there was one for every tile, or it is of another size than the tile.
        """
        weight, lead, padded = self._weight, self._lead, self._tiling.padded
        end = len(lead) + weight.ndim
        place = next(self._places, None)
        if place is None or answer.shape[len(lead) : end] != weight.shape:
            raise InputError(
                f"An answer of the shape {answer.shape} does not belong to tiles of {self._tiling.tiles.size}.",
                "Tile models that answer with one map of the size of their input.",
            )
        if self._mean is None:
            self._mean = np.zeros((*answer.shape[: len(lead)], *padded, *answer.shape[end:]), dtype=np.float32)
        self._total[place] += weight
        share = (weight / self._total[place]).reshape(weight.shape + (1,) * (answer.ndim - end))
        part = self._mean[lead + place]
        part += share * (answer.astype(np.float32, copy=False) - part)

    def finish(self) -> NDArray[np.float32]:
        """The map.

        Raises:
            InputError: tiles were not answered.
        """
        if self._mean is None or next(self._places, None) is not None:
            raise InputError(
                f"There are fewer answers than the {len(self._tiling)} tiles.", "Run the model on every tile."
            )
        sides = zip(self._tiling.before, self._tiling.shape, strict=True)
        return self._mean[self._lead + tuple(slice(first, first + have) for first, have in sides)]


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
