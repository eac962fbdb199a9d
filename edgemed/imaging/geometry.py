"""Where slices lie in the patient: one regular grid, or a reason why there is none (PS3.3 C.7.6.2).

Positions and directions are DICOM's: mm in the patient's system, x to the Left, y to Posterior, z to Superior (LPS).
Nothing is turned or resampled here: a volume keeps its file's axes, and its affine says what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError

Vector = tuple[float, float, float]

_PARALLEL = 1e-3  # of a unit vector: what is left of directions after scanners round them to a few digits
_SAME_PLACE_MM = 1e-2  # positions are written with two digits or more
_UNEVEN = 0.1  # of the usual distance between slices: rounding and table jitter stay below, a missing slice does not
_ASIDE = 0.5  # pixels that a slice may lie beside the line of the others: a place is known no better
_TILT_MM = 1.0  # drift within the plane over the whole series that rounding does not explain: a tilted gantry


@dataclass(frozen=True)
class Plane:
    """One slice in space.

    Attributes:
        position: Image Position (Patient): centre of the first pixel, mm.
        row: direction in which the column index grows, a unit vector (first half of Image Orientation (Patient)).
        column: direction in which the row index grows, a unit vector.
        spacing: mm between rows and between columns (Pixel Spacing).
        label: what to call the slice in messages.
    """

    position: Vector
    row: Vector
    column: Vector
    spacing: tuple[float, float]
    label: str = ""

    def __post_init__(self) -> None:
        numbers = (*self.position, *self.row, *self.column, *self.spacing)
        if not np.isfinite(numbers).all():
            raise InputError(f"{self.label} has a position that is not a number.", _REPAIR)
        lengths = [float(np.linalg.norm(v)) for v in (self.row, self.column)]
        if max(abs(length - 1) for length in lengths) > _PARALLEL or abs(np.dot(self.row, self.column)) > _PARALLEL:
            raise InputError(f"{self.label} has an orientation that is not two perpendicular unit vectors.", _REPAIR)
        if min(self.spacing) <= 0:
            raise InputError(f"{self.label} has a pixel spacing of {min(self.spacing):g} mm.", _REPAIR)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Direction across the slice."""
        return np.cross(self.row, self.column)

    @property
    def depth(self) -> float:
        """Place along the normal, mm."""
        return float(np.dot(self.normal, self.position))


_REPAIR = "Correct the file's geometry, or leave it out."


@dataclass(frozen=True)
class Stack:
    """Slices in order along their normal, as one regular grid.

    Attributes:
        order: for each slice of the volume the index of its plane.
        spacing: mm between slices.
        affine: `(slice, row, column, 1)` to `(x, y, z, 1)`, see `recipe.image.Geometry`.
    """

    order: tuple[int, ...]
    spacing: float
    affine: NDArray[np.float64]


def stack(planes: Sequence[Plane]) -> Stack:
    """Order slices along their common normal, and check that they make a regular grid.

    Raises:
        InputError: fewer than two slices, slices that are not parallel or differ in spacing, two at one place, one
            missing, uneven distances, or a tilted gantry.
    """
    if len(planes) < 2:
        raise InputError("A volume needs at least two slices.", "Give the whole series.")
    _require_parallel(planes)
    depths = np.array([plane.depth for plane in planes])
    order = np.argsort(depths, kind="stable")
    steps = np.diff(depths[order])
    usual = float(np.median(steps))
    _require_even(planes, order, steps, usual)
    first, last = planes[order[0]], planes[order[-1]]
    across = (np.array(last.position) - np.array(first.position)) / (len(planes) - 1)
    _require_upright(first, across * (len(planes) - 1))
    _require_in_line([planes[i] for i in order], across)
    return Stack(tuple(int(i) for i in order), float(np.linalg.norm(across)), affine_of(first, across))


def affine_of(plane: Plane, across: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine of a stack that starts at `plane` and goes on by `across` (mm) from slice to slice."""
    affine = np.eye(4)
    affine[:3, 0] = across
    affine[:3, 1] = np.array(plane.column) * plane.spacing[0]
    affine[:3, 2] = np.array(plane.row) * plane.spacing[1]
    affine[:3, 3] = plane.position
    return affine


def _require_parallel(planes: Sequence[Plane]) -> None:
    first = planes[0]
    for plane in planes[1:]:
        turned = max(
            float(np.abs(np.subtract(one, other)).max())
            for one, other in ((plane.row, first.row), (plane.column, first.column))
        )
        if turned > _PARALLEL:
            raise InputError(
                f"{plane.label} is turned against {first.label}: the slices are not parallel.",
                "Keep localizers and other orientations in folders of their own.",
            )
        if not np.allclose(plane.spacing, first.spacing, rtol=1e-3):  # scanners round spacings to four digits
            raise InputError(
                f"{plane.label} has pixels of {_size(plane)} mm, {first.label} of {_size(first)} mm.",
                "Keep slices of different pixel size in folders of their own.",
            )


def _require_even(planes: Sequence[Plane], order: NDArray[np.intp], steps: NDArray[np.float64], usual: float) -> None:
    closest = int(np.argmin(steps))
    one, other = planes[order[closest]], planes[order[closest + 1]]
    if steps[closest] < _SAME_PLACE_MM:
        count = int((steps < _SAME_PLACE_MM).sum())
        raise InputError(
            f"{one.label} and {other.label} lie at the same place; {count} slices repeat a place in all.",
            "Keep phases, echoes and repetitions in folders of their own.",
        )
    farthest = int(np.argmax(np.abs(steps - usual)))
    if abs(steps[farthest] - usual) > _UNEVEN * usual:
        one, other = planes[order[farthest]], planes[order[farthest + 1]]
        raise InputError(
            f"{one.label} and {other.label} are {steps[farthest]:.4g} mm apart, the other slices {usual:.4g} mm.",
            "Complete the series; a volume with a gap would be read as squeezed anatomy.",
        )


def _require_upright(first: Plane, whole: NDArray[np.float64]) -> None:
    drift = whole - np.dot(whole, first.normal) * first.normal
    if float(np.linalg.norm(drift)) > _TILT_MM:
        angle = np.degrees(np.arctan2(np.linalg.norm(drift), abs(np.dot(whole, first.normal))))
        raise InputError(
            f"The slices are sheared by {angle:.1f}°, as by a tilted gantry.", "Resample the series to an upright grid."
        )


def _require_in_line(planes: Sequence[Plane], across: NDArray[np.float64]) -> None:
    first = planes[0]
    for index, plane in enumerate(planes):
        aside = np.subtract(plane.position, first.position) - index * across
        aside -= np.dot(aside, first.normal) * first.normal  # along the normal the distances were judged
        rows, columns = np.dot(aside, first.column) / first.spacing[0], np.dot(aside, first.row) / first.spacing[1]
        if max(abs(rows), abs(columns)) > _ASIDE:
            raise InputError(
                f"{plane.label} lies {np.linalg.norm(aside):.4g} mm beside the line of the other slices.", _REPAIR
            )


def _size(plane: Plane) -> str:
    return "×".join(f"{mm:.4g}" for mm in plane.spacing)
