"""Frames from memory: paced by intended times, lost as a camera loses them, ended from any thread."""

from __future__ import annotations

import itertools
import threading
import time
from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import UsageError
from edgemed.runtime.frames import Source
from edgemed.runtime.sources.base import SECOND, Pace
from edgemed.runtime.sources.memory import MemorySource

FRAMES = [np.full((4, 6), value, np.uint8) for value in range(20)]


def test_arrays_come_as_they_are_in_order() -> None:
    with MemorySource(FRAMES) as source:
        assert isinstance(source, Source)
        frames = list(source)
    assert [frame.id for frame in frames] == list(range(20))
    assert all(frame.data["pixels"] is array for frame, array in zip(frames, FRAMES, strict=True))
    assert (source.live, source.lost) == (False, 0)


def test_arrays_are_taken_one_by_one() -> None:
    taken = []

    def endless():  # type: ignore[no-untyped-def]
        while True:
            taken.append(1)
            yield FRAMES[0]

    source = MemorySource(endless())
    for expected, _ in zip(range(5), source, strict=False):
        assert len(taken) == expected + 1
    source.close()
    assert list(source) == []


rates = st.one_of(st.integers(1, 100_000), st.fractions(Fraction(1, 1000), 100_000), st.sampled_from([29.97, 59.94]))


@given(rate=rates, start=st.integers(0, 2**62), number=st.integers(0, 10**9), late=st.integers(0, 10**12))
def test_intended_times_never_drift(rate: float | Fraction, start: int, number: int, late: int) -> None:
    pace = Pace(rate, start)
    exact = start + number * SECOND / (rate if isinstance(rate, Fraction) else Fraction(str(rate)))
    due = pace.due_ns(number)
    assert 0 <= exact - due < 1  # a nanosecond, whatever the number
    reached = pace.reached(due + late)
    assert pace.due_ns(reached - 1) <= due + late < pace.due_ns(reached)
    assert pace.reached(start - 1) == 0


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 2_000_000, "fast"])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="no rate"):
        MemorySource(FRAMES, rate=rate, live=True)


def test_a_live_source_wants_a_rate() -> None:
    with pytest.raises(UsageError, match="needs a rate"):
        MemorySource(FRAMES, live=True)
    with pytest.raises(UsageError, match="one buffer"):
        MemorySource(FRAMES, live=True, rate=5, buffers=0)


def test_live_frames_carry_their_intended_times() -> None:
    with MemorySource(FRAMES, rate=200, live=True) as source:
        frames = [(frame, time.monotonic_ns()) for frame in source]
    times = [frame.captured_ns for frame, _ in frames]
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {5_000_000}
    assert all(arrived >= frame.captured_ns for frame, arrived in frames)  # none is given early


def test_a_late_reader_finds_all_frames_or_what_a_cameras_buffers_hold() -> None:
    """After 50 ms without a look, at 1 kHz: without buffers nothing is lost, with three the oldest are."""
    patient = MemorySource(FRAMES, rate=1000, live=True)
    reader = iter(patient)
    next(reader)
    time.sleep(0.05)
    assert [frame.sequence for frame in reader] == list(range(1, 20))
    assert patient.lost == 0

    camera = MemorySource(FRAMES, rate=1000, live=True, buffers=3)
    reader = iter(camera)
    next(reader)
    time.sleep(0.05)
    numbers = [frame.sequence for frame in reader]
    assert len(numbers) <= 3
    assert camera.lost == 19 - len(numbers)


def test_a_close_from_another_thread_ends_the_wait() -> None:
    source = MemorySource(FRAMES, rate=Fraction(1, 1000), live=True)  # the second frame is due in 1000 s
    got: list[int] = []

    def read() -> None:
        got.extend(frame.id for frame in source)

    reader = threading.Thread(target=read)
    reader.start()
    while not got and reader.is_alive():
        time.sleep(0.001)
        got = got or []
        if source._ids:
            break
    source.close()
    source.close()
    reader.join(timeout=30)
    assert not reader.is_alive()
    assert got == [0]


def test_frames_may_be_taken_by_several_threads() -> None:
    source = MemorySource(iter([FRAMES[0]] * 2000))
    found: list[list[int]] = [[], [], []]

    def read(ids: list[int]) -> None:
        ids.extend(frame.id for frame in source)

    readers = [threading.Thread(target=read, args=(ids,)) for ids in found]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sorted(chain.from_iterable(found)) == list(range(2000))
    assert all(ids == sorted(ids) for ids in found)
