"""Turn a volume's axes to named directions of the patient, by flips and swaps alone: no value is computed anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.recipe.image import Geometry, Image

_AXES = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
"""The patient axis that each letter lies on in LPS, and the sign of its direction."""
_LETTERS = {place: letter for letter, place in _AXES.items()}


def axis_codes(affine: NDArray[np.float64]) -> str:
    """For slices, rows and columns the side of the patient that a growing index comes closest to, e.g. `SPL`.

    Args:
        affine: `(4, 4)`, see `Geometry`.

    Raises:
        InputError: the axes cannot be told apart.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    codes, taken = ["", "", ""], set()
    for index in np.argsort(-np.abs(directions), axis=None):  # the clearest axis chooses first
        patient, axis = divmod(int(index), 3)
        if not codes[axis] and patient not in taken:
            codes[axis] = _LETTERS[patient, 1 if directions[patient, axis] > 0 else -1]
            taken.add(patient)
    if not all(codes) or not np.isfinite(directions).all():
        raise InputError("The volume's axes cannot be told apart.", "Correct the geometry of the file.")
    return "".join(codes)


def valid_codes(codes: str) -> bool:
    """Whether `codes` are three letters of L/R, P/A and S/I, one of each pair."""
    return len(codes) == 3 and {_AXES[c][0] for c in codes if c in _AXES} == {0, 1, 2}


@dataclass(frozen=True)
class Turn:
    """How axes change places: axis `a` becomes what was axis `source[a]`, reversed where `flipped[a]`."""

    source: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]


def turn_to(image: Image, codes: str) -> Turn:
    """What makes slices, rows and columns of a volume grow towards `codes`, e.g. `SPL`.

    Raises:
        InputError: not a volume with geometry.
    """
    if image.geometry is None or not image.stacked:
        raise InputError("The image has no geometry to orient it by.", "Give a volume: a DICOM series or NIfTI.")
    now = axis_codes(image.geometry.affine)
    first, second, third = (
        next(i for i, code in enumerate(now) if _AXES[code][0] == _AXES[wanted][0]) for wanted in codes
    )
    source = (first, second, third)
    return Turn(source, (now[first] != codes[0], now[second] != codes[1], now[third] != codes[2]))


def oriented(image: Image, codes: str) -> Image:
    """A view of a volume whose slices, rows and columns grow towards `codes`; raises what `turn_to` raises."""
    turn = turn_to(image, codes)
    assert image.geometry is not None, "`turn_to` has seen it"
    source, flipped = turn.source, turn.flipped
    turned = image.geometry.affine[:, [*source, 3]].copy()
    for axis, flip in enumerate(flipped):
        if flip:
            turned[:3, 3] += turned[:3, axis] * (image.pixels.shape[source[axis]] - 1)
            turned[:3, axis] *= -1
    spacing = np.linalg.norm(turned[:3, :3], axis=0)
    pixels = _moved(image.pixels, source, flipped)
    facts = replace(
        image.facts,
        frames=pixels.shape[0],
        rows=pixels.shape[1],
        columns=pixels.shape[2],
        spacing=(float(spacing[1]), float(spacing[2])),
        slice_spacing=float(spacing[0]),
    )
    return replace(
        image,
        pixels=pixels,
        valid=None if image.valid is None else _moved(image.valid, source, flipped),
        facts=facts,
        geometry=Geometry(turned, image.geometry.frame_of_reference),
    )


def _moved(array: NDArray[Any], source: tuple[int, ...], flipped: tuple[bool, ...]) -> NDArray[Any]:
    moved = np.transpose(array, [*source, *range(3, array.ndim)])
    return moved[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]
