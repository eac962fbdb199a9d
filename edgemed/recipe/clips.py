"""Which frames of a cine make one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

from edgemed.base.errors import InputError
from edgemed.recipe.image import Image
from edgemed.recipe.parts import Time

Clip = tuple[int, ...]


@dataclass(frozen=True)
class Clips(Sequence[Clip]):
    """Frame indices of each clip, made when they are asked for: a file of a megabyte can claim a million of them.

    Attributes:
        total: frames of the cine.
        time: what the recipe says.
        starts: first frames of the clips.
        more: first frame of one more clip, for the frames left over.
    """

    total: int
    time: Time
    starts: range
    more: int | None

    def __len__(self) -> int:
        return len(self.starts) + (self.more is not None)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        """Frames of one clip, or of several."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        start = self.starts[index] if index < len(self.starts) else self.more
        assert start is not None
        return tuple(min(start + k * self.time.step, self.total - 1) for k in range(self.time.frames))


def clip_frames(count: int, time: Time) -> Clips:
    """Frame indices of each sample of a cine of `count` frames, in order.

    With `last = "shift"` every frame that a whole sample can hold is in one; with `"repeat"` the last frame fills up.

    Raises:
        InputError: fewer frames than one sample takes, unless the last may be repeated.
    """
    span = (time.frames - 1) * time.step + 1
    stride = time.stride or time.frames * time.step
    if count < (1 if time.last == "repeat" else span):
        raise InputError(
            f"The cine has {count} frames; one sample takes {span}.",
            'Give longer cines, or repeat the last frame: last = "repeat".',
        )
    starts = range(0, max(count - span, 0) + 1, stride)
    left = starts[-1] + span < count
    more = {"shift": count - span, "repeat": starts[-1] + stride, "drop": count}[time.last] if left else count
    return Clips(count, time, starts, more if more < count else None)


def clip_of(image: Image, clip: Clip) -> Image:
    """The frames of one clip; an image that is not stacked is a cine of one frame."""
    image = image if image.stacked else replace(image, pixels=image.pixels[None], stacked=True)
    chosen = list(clip)
    valid = None if image.valid is None else image.valid[chosen]
    return replace(image, pixels=image.pixels[chosen], valid=valid)
