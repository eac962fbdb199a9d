"""Where a sample's pixels lie in the image it was made of, so that what a model finds can be shown there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]
T = TypeVar("T")
AXES = ("slices", "rows", "columns")


@dataclass(frozen=True)
class Transform:
    """From pixels of the source to pixels of the sample, axis by axis.

    Axis `a` of the sample is axis `axes[a]` of the source, and an index there is `scale[a] * source + offset[a]`.
    Indices count from 0 at the centre of the first pixel; axes are slices, rows, columns.

    Attributes:
        source: slices, rows and columns of the source.
        shape: slices, rows and columns of the sample.
    """

    source: Shape
    shape: Shape
    axes: tuple[int, int, int] = (0, 1, 2)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @staticmethod
    def identity(shape: Shape) -> Transform:
        """Of an image that nothing has been done to."""
        return Transform(shape, shape)

    def resized(self, shape: Shape) -> Transform:
        """After resampling to `shape` over the same field of view."""
        factor = tuple(new / old for new, old in zip(shape, self.shape, strict=True))
        shift = tuple((f - 1) / 2 for f in factor)  # pixel centres lie at 0.5
        return self._then(shape, factor, shift)

    def shifted(self, before: Shape, shape: Shape) -> Transform:
        """After `before` pixels were put ahead of the first one of each axis (negative: cut off), making `shape`."""
        return self._then(shape, (1.0, 1.0, 1.0), tuple(float(b) for b in before))

    def flipped(self, axis: int) -> Transform:
        """After the order along `axis` was reversed."""
        factor = tuple(-1.0 if a == axis else 1.0 for a in range(3))
        shift = tuple(float(self.shape[a] - 1) if a == axis else 0.0 for a in range(3))
        return self._then(self.shape, factor, shift)

    def turned(self, source: tuple[int, int, int], flipped: tuple[bool, bool, bool]) -> Transform:
        """After axis `a` became what was axis `source[a]`, reversed where `flipped[a]`."""
        shape = _picked(self.shape, source)
        scale = tuple(-s if flip else s for s, flip in zip(_picked(self.scale, source), flipped, strict=True))
        moved = zip(_picked(self.offset, source), shape, flipped, strict=True)
        offset = tuple(side - 1 - o if flip else o for o, side, flip in moved)
        return Transform(self.source, shape, _picked(self.axes, source), _three(scale), _three(offset))

    def transposed(self) -> Transform:
        """After rows and columns changed places."""

        def swap(values: tuple[Any, ...]) -> tuple[Any, Any, Any]:
            return values[0], values[2], values[1]

        return Transform(self.source, swap(self.shape), swap(self.axes), swap(self.scale), swap(self.offset))

    def _then(self, shape: Shape, factor: tuple[float, ...], shift: tuple[float, ...]) -> Transform:
        scale = tuple(s * f for s, f in zip(self.scale, factor, strict=True))
        offset = tuple(o * f + s for o, f, s in zip(self.offset, factor, shift, strict=True))
        return Transform(self.source, shape, self.axes, _three(scale), _three(offset))

    @property
    def affine(self) -> NDArray[np.float64]:
        """`(4, 4)`: maps `(slice, row, column, 1)` of the source to that of the sample."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for axis in range(3):
            matrix[axis, self.axes[axis]] = self.scale[axis]
            matrix[axis, 3] = self.offset[axis]
        return matrix

    def points_to_source(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Points of the sample on the source.

        Args:
            points: `(n, 2)` rows and columns, or `(n, 3)` slices, rows and columns, as indices (centres are whole).
        """
        points = np.asarray(points, dtype=np.float64)
        flat = points.shape[-1] == 2
        full = np.concatenate([np.zeros((len(points), 1)), points], axis=1) if flat else points
        found = np.empty_like(full)
        for axis in range(3):
            found[:, self.axes[axis]] = (full[:, axis] - self.offset[axis]) / self.scale[axis]
        return found[:, 1:] if flat else found

    def boxes_to_source(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """Boxes of the sample on the source, cut at its edges.

        Args:
            boxes: `(n, 4)`: first row, first column, last row, last column, as edges: a box round the very first pixel
                is 0, 0, 1, 1.
        """
        boxes = np.asarray(boxes, dtype=np.float64)
        first, last = (self.points_to_source(corner - 0.5) + 0.5 for corner in (boxes[:, :2], boxes[:, 2:]))
        limits = np.array(self.source[1:], dtype=np.float64)
        low, high = np.minimum(first, last), np.maximum(first, last)
        return np.concatenate([np.clip(low, 0, limits), np.clip(high, 0, limits)], axis=1)

    def map_to_source(
        self, values: NDArray[Any], *, how: Literal["nearest", "linear"] = "nearest", fill: float = 0
    ) -> NDArray[Any]:
        """A map of the sample (a mask, or probabilities) on the pixels of the source.

        Args:
            values: `(slices, rows, columns)` or `(slices, rows, columns, classes)`; it covers the field of view of the
                sample, at any number of pixels.
            how: nearest keeps labels whole; linear is for probabilities, and gives float32.
            fill: where the source was cut off before the model saw it.

        Returns:
            the same with the slices, rows and columns of the source.
        """
        covering = self.resized((values.shape[0], values.shape[1], values.shape[2]))
        rest = tuple(range(3, values.ndim))
        order = tuple(covering.axes.index(axis) for axis in range(3))
        result = values.transpose(*order, *rest)
        for axis, mine in enumerate(order):
            where = covering.scale[mine] * np.arange(self.source[axis], dtype=np.float64) + covering.offset[mine]
            result = _sampled(result, axis, where, how, fill)
        return result


def _sampled(values: NDArray[Any], axis: int, where: NDArray[Any], how: str, fill: float) -> NDArray[Any]:
    """`values` along `axis` at the indices `where`; `fill` beyond the edges of the first and last pixel."""
    count = values.shape[axis]
    inside = (where >= -0.5 - 1e-9) & (where <= count - 0.5 + 1e-9)  # an edge computed in floating point
    if how == "nearest":
        nearest = np.clip(np.floor(where + 0.5 + 1e-9).astype(np.intp), 0, count - 1)
        result = values.take(nearest, axis)
    else:
        bounded = np.clip(where, 0, count - 1)
        low = np.floor(bounded).astype(np.intp)
        part = (bounded - low).astype(np.float32).reshape((-1,) + (1,) * (values.ndim - axis - 1))
        first = values.take(low, axis).astype(np.float32)
        second = values.take(np.minimum(low + 1, count - 1), axis).astype(np.float32)
        result = first + (second - first) * part
    if not inside.all():
        result[(slice(None),) * axis + (~inside,)] = fill
    return result


def _picked(values: tuple[T, T, T], source: tuple[int, int, int]) -> tuple[T, T, T]:
    first, second, third = (values[axis] for axis in source)
    return first, second, third


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
