"""Clips of a stream for models of cines: what a stored cine would give, as soon as its frames are there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgemed.base.errors import InputError
from edgemed.recipe.clips import clip_frames
from edgemed.recipe.image import Image, plain
from edgemed.recipe.parts import Time
from edgemed.runtime.frames import Frame, Source
from edgemed.runtime.sources.around import SourceAround
from edgemed.runtime.sources.base import PIXELS, finish


class ClipSource(SourceAround):
    """Another source's frames, several at a time: `image` of a frame is the stacked clip.

    A clip carries the time, the deadline and the number of its newest frame. Frames are copied and given back at once;
    at most one clip's span of them is kept.

    Args:
        source: entered and left with this one.
        time: what the recipe says.
    """

    def __init__(self, source: Source, time: Time) -> None:
        super().__init__(source)
        self._time = time
        self._span = (time.frames - 1) * time.step + 1
        self._stride = time.stride or time.frames * time.step

    def __iter__(self) -> Iterator[Frame]:
        kept: deque[tuple[Frame, Image]] = deque(maxlen=self._span)
        count = clips = 0
        for frame in self.source:
            kept.append((frame, _copied(frame)))
            finish(frame)
            count += 1
            if count >= self._span and (count - self._span) % self._stride == 0:
                chosen = range(0, self._span, self._time.step)
                yield _clip([kept[index] for index in chosen], clips)
                clips += 1
        if count:
            first = count - len(kept)
            for clip in clip_frames(count, self._time)[clips:]:
                yield _clip([kept[index - first] for index in clip], clips)
                clips += 1


def _copied(frame: Frame) -> Image:
    pixels = frame.data[PIXELS]
    if frame.done is not None:
        pixels = pixels.copy()
    return plain(pixels) if frame.image is None else replace(frame.image, pixels=pixels)


def _clip(frames: Sequence[tuple[Frame, Image]], number: int) -> Frame:
    """One frame of several.

    Raises:
        InputError: the picture changed its size or kind in between.
    """
    newest, first = frames[-1][0], frames[0][1]
    kinds = {(image.pixels.shape, image.pixels.dtype.str) for _, image in frames}
    if len(kinds) > 1:
        raise InputError("The stream changes the size of its pictures within a clip.", "Give streams of one size.")
    pixels = np.stack([image.pixels for _, image in frames])
    valid = None if first.valid is None else np.stack([np.asarray(image.valid) for _, image in frames])
    stacked = replace(first, pixels=pixels, valid=valid, stacked=True)
    return Frame(number, {PIXELS: pixels}, newest.captured_ns, newest.deadline_ns, newest.sequence, image=stacked)
