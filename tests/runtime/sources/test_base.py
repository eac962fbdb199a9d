"""A source can be ended from any thread, at any moment: the device is let go once, and never while it is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from edgemed.base.errors import DeviceStateError
from edgemed.runtime.frames import Frame
from edgemed.runtime.sources.base import FrameSource, finish


class Device(FrameSource):
    """A camera that knows what it is asked to do at a time."""

    def __init__(self, *, waits: bool = False, opens: bool = True) -> None:
        super().__init__(live=True)
        self._waits = waits
        self._opens = opens
        self._bell = threading.Event()
        self.inside = 0
        self.opened = self.released = 0
        self.faults: list[str] = []
        self.returned = 0

    def _open(self) -> None:
        if not self._opens:
            raise DeviceStateError("It does not open.", "Try another.")
        self.opened += 1

    def _frames(self) -> Iterator[Frame]:
        while not self._closing.is_set():
            self.inside += 1
            if self.released:
                self.faults.append("read after its release")
            if self._waits:
                self._bell.wait()
            self.inside -= 1
            yield self._frame(np.zeros((2, 2), np.uint8), time.monotonic_ns(), done=self._back)

    def _back(self) -> None:
        self.returned += 1

    def _wake(self) -> None:
        self._bell.set()

    def _release(self) -> None:
        if self.inside:
            self.faults.append("released while it is read")
        self.released += 1


@pytest.mark.parametrize("waits", [False, True])
def test_a_close_beside_a_read(waits: bool) -> None:
    """300 times, with readers and closers that start at once."""
    for _ in range(300):
        device = Device(waits=waits)
        start = threading.Barrier(4)
        ids: list[int] = []

        def read(device: Device = device, start: threading.Barrier = start, ids: list[int] = ids) -> None:
            start.wait()
            for frame in device:
                ids.append(frame.id)
                finish(frame)

        def close(device: Device = device, start: threading.Barrier = start) -> None:
            start.wait()
            device.close()

        threads = [threading.Thread(target=target) for target in (read, read, close, close)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        assert device.faults == []
        assert device.released == device.opened <= 1
        assert sorted(ids) == list(range(len(ids)))
        assert device.returned == device._ids  # of those that nobody was told of, too


def test_what_is_closed_stays_closed() -> None:
    device = Device()
    with device:
        assert next(device).id == 0
    assert list(device) == []
    device.open()
    device.close()
    assert (device.opened, device.released) == (1, 1)


def test_a_source_that_is_never_read_is_let_go() -> None:
    device = Device()
    with device:
        pass
    assert (device.opened, device.released) == (1, 1)
    unopened = Device()
    unopened.close()
    assert (unopened.opened, unopened.released) == (0, 0)


def test_an_iterator_that_is_kept_keeps_no_device() -> None:
    device = Device()
    kept = iter(device)
    next(kept)
    device.close()
    assert device.released == 1


def test_a_device_that_does_not_open_says_so_each_time() -> None:
    device = Device(opens=False)
    for _ in range(2):
        with pytest.raises(DeviceStateError):
            device.open()
        with pytest.raises(DeviceStateError):
            next(device)
    assert device.opened == 0


def test_a_frame_is_finished_once() -> None:
    device = Device()
    frame = next(device)
    finish(frame)
    finish(frame)
    assert device.returned == 1
