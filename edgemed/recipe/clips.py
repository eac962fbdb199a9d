"""Which frames of a cine make one sample."""

from __future__ import annotations

from edgemed.base.errors import InputError
from edgemed.recipe.parts import Time

Clip = tuple[int, ...]


def clip_frames(count: int, time: Time) -> list[Clip]:
    """Frame indices of each sample of a cine of `count` frames, in order.

    With `last = "shift"` every frame that a whole sample can hold is in one; with `"repeat"` the last frame fills up.

    Raises:
        InputError: fewer frames than one sample takes, unless the last may be repeated.
    """
    span = (time.frames - 1) * time.step + 1
    stride = time.stride or time.frames * time.step
    if count < span and time.last != "repeat":
        raise InputError(
            f"The cine has {count} frames; one sample takes {span}.",
            'Give longer cines, or repeat the last frame: last = "repeat".',
        )
    starts = list(range(0, max(count - span, 0) + 1, stride))
    if starts[-1] + span < count:
        if time.last == "shift":
            starts.append(count - span)
        elif time.last == "repeat":
            starts.append(starts[-1] + stride)
    return [
        tuple(min(start + k * time.step, count - 1) for k in range(time.frames)) for start in starts if start < count
    ]
