"""The device's clock on the host's: placed times against the shim's own trace, which keeps the host's clock."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgemed.runtime import device_clock
from edgemed.runtime.cuda import open_cuda
from edgemed.runtime.device_clock import DeviceClock
from tests.runtime.fakecuda.handle import FakeCudaHandle

FLOAT32_NS = 1_000  # of a time below eight seconds in milliseconds: 2⁻¹¹ ms at most


@pytest.mark.parametrize("frames", [1, 3, 8])
def test_a_copy_is_placed_around_where_it_was(fakecuda: FakeCudaHandle, monkeypatch, frames: int) -> None:
    monkeypatch.setattr(device_clock, "ANCHOR_EVERY_NS", 2_000_000)
    fakecuda.delay("copy-in", us=1000)
    fakecuda.set(trace=1)
    cuda = open_cuda()
    with cuda.arena() as arena, cuda.current():
        clock, stream = DeviceClock(arena, frames), arena.stream()
        begin, end = arena.event(timing=True), arena.event(timing=True)
        host, device = arena.pinned((16,), np.uint8), arena.device(16)
        placed = []
        for _ in range(12):
            anchor = clock.anchor()
            begin.record(stream)
            stream.copy_in(device, host)
            end.record(stream)
            end.synchronize()
            placed.append((anchor.place(begin), anchor.place(end), anchor.uncertainty_ns + FLOAT32_NS, anchor))
        copies = [each for each in fakecuda.trace() if each.name == "copy-in"]
        assert len(copies) == 12
        for (begun, ended, within, _), copy in zip(placed, copies, strict=True):
            assert begun <= copy.start_ns + within
            assert ended >= copy.end_ns - within
        assert len({anchor for *_, anchor in placed}) > 3
        del host


def test_an_anchor_stays_good_while_frames_that_have_it_are_in_flight(fakecuda: FakeCudaHandle, monkeypatch) -> None:
    monkeypatch.setattr(device_clock, "ANCHOR_EVERY_NS", 0)
    cuda = open_cuda()
    with cuda.arena() as arena, cuda.current():
        for frames in (1, 2, 6):
            clock = DeviceClock(arena, frames)
            taken = [clock.anchor() for _ in range(20)]
            for first, anchor in enumerate(taken):
                assert all(later.event is not anchor.event for later in taken[first + 1 : first + 1 + frames])


def test_the_hosts_time_lies_within_the_uncertainty(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.arena() as arena, cuda.current():
        before_ns = time.monotonic_ns()
        anchor = DeviceClock(arena, 1).anchor()
        assert before_ns <= anchor.host_ns - anchor.uncertainty_ns
        assert anchor.host_ns + anchor.uncertainty_ns <= time.monotonic_ns() + 1
