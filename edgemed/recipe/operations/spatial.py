"""Steps that move pixels; each keeps the way back to the source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from edgemed.base.errors import InputError
from edgemed.recipe import steps
from edgemed.recipe.base import Size
from edgemed.recipe.geometry import AXES, Shape
from edgemed.recipe.operations.resample import Method, nearest, resample
from edgemed.recipe.operations.state import Pixels, Spacing, State


def resize(step: steps.Resize, state: State) -> State:
    """Another number of pixels; see `steps.Resize`."""
    if step.size is None:
        return state
    target = _three(step.size, state)
    if step.fit == "stretch":
        return resized(state, target, step.filter)
    first = 3 - len(step.size)
    inner = (*state.shape[:first], *in_proportion(state.shape[first:], target[first:], step.fit))
    state = resized(state, (inner[0], inner[1], inner[2]), step.filter)
    if step.fit == "pad":
        return padded(state, target, step.fill, centred=True)
    return cropped(state, centred(state.shape, target), target)


def in_proportion(shape: Sequence[int], target: Sequence[int], fit: Literal["pad", "crop"]) -> list[int]:
    """`shape` in its proportions: the largest inside `target` for `pad`, the smallest around it for `crop`."""
    factors = [new / old for new, old in zip(target, shape, strict=True)]
    factor, limit = (min(factors), min) if fit == "pad" else (max(factors), max)
    return [limit(new, max(1, math.floor(old * factor + 0.5))) for new, old in zip(target, shape, strict=True)]


def resized(state: State, shape: Shape, how: Method) -> State:
    """Resampled to `shape`."""
    if shape == state.shape:
        return state
    old, mm = state.shape, state.spacing
    spacing = tuple(None if d is None else d * was / now for d, was, now in zip(mm, old, shape, strict=True))
    return replace(
        state,
        pixels=resample(state.pixels, shape, how),
        valid=None if state.valid is None else nearest(state.valid, shape),
        transform=state.transform.resized(shape),
        spacing=(spacing[0], spacing[1], spacing[2]),
    )


def spacing(step: steps.Spacing, state: State) -> State:
    """Resampled to a distance in mm.

    Raises:
        InputError: the file does not say its own.
    """
    target: Spacing = step.mm if len(step.mm) == 3 else (None, *step.mm)
    shape = list(state.shape)
    for axis, (have, want) in enumerate(zip(state.spacing, target, strict=True)):
        if want is None:
            continue
        if have is None or not 0 < have < math.inf:
            raise InputError(
                f"The file does not say how far its {AXES[axis]} lie apart, and the recipe asks for {want:g} mm.",
                "Give files with Pixel Spacing, or use resize in the recipe.",
            )
        shape[axis] = max(1, math.floor(min(shape[axis] * have / want, 1e9) + 0.5))
    return resized(state, (shape[0], shape[1], shape[2]), step.filter)


def crop(step: steps.Crop, state: State) -> State:
    """The middle, or a box; see `steps.Crop`."""
    if step.box is not None:
        row, column, rows, columns = step.box
        return cropped(state, (0, row, column), (state.shape[0], rows, columns))
    assert step.size is not None
    target = _three(step.size, state)
    return cropped(state, centred(state.shape, target), target)


def content(step: steps.Content, state: State) -> State:
    """The box of what is above a value, over all slices.

    Raises:
        InputError: nothing is.
    """
    planes = [state.pixels[..., channel] for channel in range(state.channels)] if state.is_color else [state.pixels]
    above = np.any([np.any(plane > step.above, axis=0) for plane in planes], axis=0)
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    if not rows.size:
        raise InputError(f"No pixel is above {step.above:g}: the image has no content.", "Look at the image.")
    start = tuple(max(0, int(found[0]) - step.margin) for found in (rows, columns))
    end = tuple(
        min(side, int(found[-1]) + 1 + step.margin)
        for side, found in zip(state.shape[1:], (rows, columns), strict=True)
    )
    return cropped(state, (0, *start), (state.shape[0], end[0] - start[0], end[1] - start[1]))


def pad(step: steps.Pad, state: State) -> State:
    """At least a size; see `steps.Pad`."""
    target = _three(step.size, state)
    shape = tuple(max(have, want) for have, want in zip(state.shape, target, strict=True))
    return padded(state, (shape[0], shape[1], shape[2]), step.fill, centred=step.where == "around")


def flip(step: steps.Flip, state: State) -> State:
    """One axis turned over."""
    return _flipped(state, AXES.index(step.axis))


def rotate90(step: steps.Rotate90, state: State) -> State:
    """Quarter turns against the clock."""
    for _ in range(step.turns):
        state = _flipped(_transposed(state), 1)
    return state


def cropped(state: State, start: tuple[int, ...], shape: Shape) -> State:
    """The part of `shape` that begins at `start`.

    Raises:
        InputError: it does not lie inside.
    """
    for axis, first, count in zip(range(3), start, shape, strict=True):
        if first < 0 or first + count > state.shape[axis]:
            raise InputError(
                f"The recipe crops {count} {AXES[axis]} from an image of {state.shape[axis]}.",
                "Pad before cropping, or correct the recipe.",
            )
    part = tuple(slice(first, first + count) for first, count in zip(start, shape, strict=True))
    return replace(
        state,
        pixels=state.pixels[part],
        valid=None if state.valid is None else state.valid[part],
        transform=state.transform.shifted((-start[0], -start[1], -start[2]), shape),
    )


def padded(state: State, shape: Shape, fill: float, *, centred: bool) -> State:
    """`shape`, no side of which is shorter; what is added is not valid."""
    if shape == state.shape:
        return state
    before = tuple((now - was) // 2 if centred else 0 for now, was in zip(shape, state.shape, strict=True))
    inside = tuple(slice(first, first + count) for first, count in zip(before, state.shape, strict=True))
    with np.errstate(over="ignore"):  # a fill beyond float32 is refused at the end of the recipe
        pixels: Pixels = np.full((*shape, *state.pixels.shape[3:]), fill, dtype=np.float32)
    pixels[inside] = state.pixels
    valid = np.zeros(shape, dtype=np.bool_)
    valid[inside] = True if state.valid is None else state.valid
    transform = state.transform.shifted((before[0], before[1], before[2]), shape)
    return replace(state, pixels=pixels, valid=valid, transform=transform)


def _flipped(state: State, axis: int) -> State:
    valid = None if state.valid is None else np.flip(state.valid, axis)
    return replace(state, pixels=np.flip(state.pixels, axis), valid=valid, transform=state.transform.flipped(axis))


def _transposed(state: State) -> State:
    slices, rows, columns = state.spacing
    return replace(
        state,
        pixels=np.swapaxes(state.pixels, 1, 2),
        valid=None if state.valid is None else np.swapaxes(state.valid, 1, 2),
        transform=state.transform.transposed(),
        spacing=(slices, columns, rows),
    )


def _three(size: Size, state: State) -> Shape:
    if len(size) == 2:
        return state.shape[0], size[0], size[1]
    if not state.image.stacked:
        raise InputError("The recipe counts slices, and the image has none.", "Give rows and columns only.")
    return size


def centred(shape: Sequence[int], target: Sequence[int]) -> tuple[int, ...]:
    """Where the middle `target` of `shape` begins."""
    return tuple((have - want) // 2 for have, want in zip(shape, target, strict=True))
