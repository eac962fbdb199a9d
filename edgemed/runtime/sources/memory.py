"""Frames that are in memory already, or made on the spot; at a steady rate where they play a camera."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray

from edgemed.base.errors import UsageError
from edgemed.runtime.frames import Frame
from edgemed.runtime.sources.base import FrameSource, Pace


class MemorySource(FrameSource):
    """Gives arrays as frames.

    Args:
        arrays: anything that can be iterated; taken one by one, never ahead.
        rate: frames per second. A live source is paced by it: frame `n` is due, and captured, at start + n / rate,
            whenever it is taken.
        live: play a camera, which goes on whether or not its frames are taken.
        buffers: of the camera that is played: where more frames than these wait to be taken, the oldest are lost, as in
            a driver. `None` keeps all of them.

    Raises:
        UsageError: live without a rate.
    """

    def __init__(
        self,
        arrays: Iterable[NDArray[Any]],
        *,
        rate: float | Fraction | None = None,
        live: bool = False,
        buffers: int | None = None,
    ) -> None:
        super().__init__(live=live)
        if live and rate is None:
            raise UsageError("A live source needs a rate.", "Give frames per second.")
        if buffers is not None and buffers < 1:
            raise UsageError("A camera has at least one buffer.", "Give 1 or more.")
        self._arrays = arrays
        self._rate = rate if live else None
        self._buffers = buffers
        if rate is not None:
            Pace(rate, 0)  # refused here rather than at the first frame

    def _frames(self) -> Iterator[Frame]:
        pace = None if self._rate is None else Pace(self._rate, time.monotonic_ns())
        for number, array in enumerate(self._arrays):
            if pace is None:
                yield self._frame(array, time.monotonic_ns(), sequence=number)
            elif self._overrun(pace, number):
                self._lost += 1
            elif self._until(pace.due_ns(number)):
                yield self._frame(array, pace.due_ns(number), sequence=number)
            if self._closing.is_set():
                return

    def _overrun(self, pace: Pace, number: int) -> bool:
        """Whether so many frames came after this one that a camera would have lost it."""
        return self._buffers is not None and pace.reached(time.monotonic_ns()) - number > self._buffers
