"""A first frame that is looked at is given all the same, once."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from edgemed.base.errors import DeviceStateError
from edgemed.runtime.frames import Frame, Source
from edgemed.runtime.sources.memory import MemorySource
from edgemed.runtime.sources.peek import PeekedSource
from edgemed.runtime.sources.v4l2 import V4l2Source

ARRAYS = [np.full((2, 3), number, np.uint8) for number in range(5)]


@pytest.mark.parametrize("looks", [0, 1, 2])
@pytest.mark.parametrize("again", [None, lambda: MemorySource(ARRAYS)], ids=["kept", "opened twice"])
def test_every_frame_is_given_once(looks: int, again: Callable[[], Source] | None) -> None:
    source = PeekedSource(MemorySource(ARRAYS), again)
    for _ in range(looks):
        first = source.first()
        assert first is not None
        assert first.id == 0
    with source:
        assert [frame.id for frame in source] == list(range(5))
    assert (source.first() is None) == (again is None)


def test_the_time_of_what_can_be_opened_twice_does_not_begin_with_the_look() -> None:
    source = PeekedSource(MemorySource(ARRAYS, rate=100, live=True), lambda: MemorySource(ARRAYS))
    assert source.first() is not None
    before_ns = time.monotonic_ns()
    with source:
        assert next(iter(source)).captured_ns >= before_ns


def test_it_is_as_live_as_its_source_and_loses_what_that_loses() -> None:
    source = PeekedSource(MemorySource(ARRAYS, rate=10_000, live=True, buffers=1))
    assert source.live
    with source:
        given = len(list(source))
    assert given + source.lost == 5


def test_a_frame_that_nobody_took_goes_back() -> None:
    back: list[int] = []

    class Lending(MemorySource):
        def _frame(self, *given: object, **more: object) -> Frame:
            frame = super()._frame(*given, **more)  # type: ignore[arg-type]
            frame.done = lambda: back.append(frame.id)
            return frame

    source = PeekedSource(Lending(ARRAYS))
    source.first()
    source.close()
    source.close()
    assert back == [0]
    assert list(source) == []


def test_a_source_that_cannot_be_opened_says_so() -> None:
    source = PeekedSource(V4l2Source("/dev/video99"))
    with pytest.raises(DeviceStateError, match="no camera"):
        source.first()
