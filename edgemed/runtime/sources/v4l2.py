"""Cameras and frame grabbers through Linux's Video4Linux2.

Buffers are the driver's own, mapped: a frame whose pixels need no conversion is lent as it lies there and goes back
with `Frame.done`. Times come from the driver where it stamps on the monotonic clock, and its sequence numbers tell
exactly how many frames never reached us. Where so many frames are held that the driver would run dry, pixels are
copied instead of lent.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import DeviceStateError, EdgemedError, InputError, UsageError
from edgemed.runtime.frames import Frame
from edgemed.runtime.kernels.raw import RawFormat
from edgemed.runtime.sources import v4l2_abi as abi
from edgemed.runtime.sources.base import SECOND, FrameSource, checked_rate
from edgemed.runtime.sources.pixels import DamagedFrameError
from edgemed.runtime.sources.v4l2_formats import FORMATS, Layout, layout_of, raw_layout_of

_LEFT_TO_DRIVER = 2  # one being filled, one for the next frame: below that a driver loses frames
_MAX_BUFFERS = 32  # VIDEO_MAX_FRAME
_STUTTER_S = 0.02  # between two looks at a device that reports an error and has no frame
_RATE_TOLERANCE = 0.002  # cameras call 29.97 (30 / 1.001) 30


class V4l2Source(FrameSource):
    """Frames of one camera.

    Args:
        device: e.g. `/dev/video0`.
        size: columns and rows; `None` keeps the driver's own.
        fps: frames per second; `None` keeps the driver's own.
        pixel_format: one of `FORMATS`; `None` takes the first of them that the camera offers, uncompressed before MJPG.
        buffers: to ask the driver for; it may give others.
        timeout_s: without a frame, after which the camera counts as dead.
        raw: leave the bytes as the driver gives them, for kernels that prepare them on the GPU.

    An opened camera has its settings; it begins to stream with the first frame that is asked for.

    Attributes:
        raw: as above; may be set until the first frame is asked for, where there is a `raw_format`.
        raw_format: what raw frames are; `None` before the source is open, and where no kernel reads them (MJPG).
        driver_clock: frames carry the driver's times; `None` before the first.
    """

    def __init__(
        self,
        device: Path | str,
        *,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        pixel_format: str | None = None,
        buffers: int = 6,
        timeout_s: float = 5.0,
        raw: bool = False,
    ) -> None:
        super().__init__(live=True)
        if pixel_format is not None and pixel_format not in FORMATS:
            raise UsageError(f"{pixel_format} is no pixel format that is read.", f"Take one of {', '.join(FORMATS)}.")
        if not 2 <= buffers <= _MAX_BUFFERS:
            raise UsageError(f"{buffers} buffers are asked for.", f"A camera takes 2 to {_MAX_BUFFERS}.")
        self._path = Path(device)
        self._size, self._wanted = size, pixel_format
        self._fps = None if fps is None else checked_rate(fps)
        self._buffers = buffers
        self._timeout_ns = round(timeout_s * SECOND)
        self._fd = -1
        self._wake_fd = -1
        self._maps: list[NDArray[np.uint8]] = []
        self._buffer_lock = threading.Lock()  # of the three below: frames come back from any thread
        self._lent: set[int] = set()
        self._queued = 0
        self._streaming = False
        self._last_sequence: int | None = None
        self.raw = raw
        self._raw_layout: Layout | None = None
        self.driver_clock: bool | None = None
        self.raw_format: RawFormat | None = None

    # --- opening

    def _open(self) -> None:
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _cannot_open(self._path, error) from error
        self._require_capture()
        self._layout = self._choose_format()
        if self._fps is not None:
            self._choose_rate()
        self._map_buffers()
        for index in range(len(self._maps)):
            self._queue(index)

    def _require_capture(self) -> None:
        found = abi.Capability()
        self._ask(abi.QUERYCAP, found, "ask what it is")
        caps = found.device_caps if found.capabilities & abi.CAP_DEVICE_CAPS else found.capabilities
        if not caps & abi.CAP_VIDEO_CAPTURE:
            multi = bool(caps & abi.CAP_VIDEO_CAPTURE_MPLANE)
            raise DeviceStateError(
                f"{self._path} gives {'pictures of several planes' if multi else 'no pictures'}"
                f" ({found.card.decode('utf-8', 'replace')}).",
                f"Read it by GStreamer: gst:v4l2src device={self._path}." if multi else _other_devices(self._path),
            )
        if not caps & abi.CAP_STREAMING:
            raise DeviceStateError(f"{self._path} does not stream.", "Read it by GStreamer: gst:v4l2src.")

    def _choose_format(self) -> Layout:
        offered = self._offered()
        name = self._wanted or next((name for name in FORMATS if abi.fourcc(FORMATS[name]) in offered), None)
        if name is None or abi.fourcc(FORMATS[name]) not in offered:
            have = ", ".join(abi.fourcc_name(number).strip() for number in offered) or "none"
            raise InputError(
                f"{self._path} does not offer {name or 'a pixel format that is read'}; it has: {have}.",
                f"Read are {', '.join(FORMATS)}.",
            )
        wanted = abi.Format(type=abi.VIDEO_CAPTURE)
        wanted.fmt.pix.pixelformat = abi.fourcc(FORMATS[name])
        wanted.fmt.pix.field = abi.FIELD_ANY
        if self._size is not None:
            wanted.fmt.pix.width, wanted.fmt.pix.height = self._size
        self._ask(abi.S_FMT, wanted, "choose the picture")
        given = wanted.fmt.pix
        if given.pixelformat != abi.fourcc(FORMATS[name]):
            raise InputError(
                f"{self._path} gives {abi.fourcc_name(given.pixelformat)} instead of {name}.", "Choose that."
            )
        if self._size is not None and (given.width, given.height) != self._size:
            raise InputError(
                f"{self._path} has no {self._size[0]}x{self._size[1]} in {name}; it would give "
                f"{given.width}x{given.height}.",
                self._sizes(given.pixelformat),
            )
        try:
            self._raw_layout, self.raw_format = raw_layout_of(name, given)
        except (UsageError, DeviceStateError):
            if self.raw:
                raise
        return layout_of(name, given)

    def _offered(self) -> list[int]:
        found: list[int] = []
        for index in range(256):  # more than any driver has
            entry = abi.FmtDesc(index=index, type=abi.VIDEO_CAPTURE)
            if not self._ask(abi.ENUM_FMT, entry, "list its formats", ends=True):
                break
            found.append(entry.pixelformat)
        return found

    def _sizes(self, pixelformat: int) -> str:
        texts: list[str] = []
        for index in range(64):
            entry = abi.FrmSizeEnum(index=index, pixel_format=pixelformat)
            if not self._ask(abi.ENUM_FRAMESIZES, entry, "list its sizes", ends=True):
                break
            if entry.type != abi.FRMSIZE_DISCRETE:
                low_w, high_w, _, low_h, high_h, _ = entry.size
                return f"Sizes from {low_w}x{low_h} to {high_w}x{high_h} are offered."
            texts.append(f"{entry.size[0]}x{entry.size[1]}")
        return f"Choose one of {', '.join(texts)}." if texts else "Choose that one."

    def _choose_rate(self) -> None:
        assert self._fps is not None
        wanted = abi.StreamParm(type=abi.VIDEO_CAPTURE)
        frame = wanted.parm.capture.timeperframe
        frame.numerator, frame.denominator = self._fps.denominator, self._fps.numerator
        settable = self._ask(abi.S_PARM, wanted, "choose the rate", ends=True)
        settable = settable and bool(wanted.parm.capture.capability & abi.CAP_TIMEPERFRAME)
        given = frame.denominator / frame.numerator if settable and frame.numerator else None
        if given is None or abs(given / float(self._fps) - 1) > _RATE_TOLERANCE:
            rate = f"{float(self._fps):g} frames per second"
            what = f"would give {given:g}" if given is not None else "has a rate of its own"
            raise InputError(f"{self._path} cannot be set to {rate}; it {what}.", "Take that, or leave the rate out.")

    def _map_buffers(self) -> None:
        wanted = abi.RequestBuffers(count=self._buffers, type=abi.VIDEO_CAPTURE, memory=abi.MEMORY_MMAP)
        self._ask(abi.REQBUFS, wanted, "get its buffers")
        if not 2 <= wanted.count <= _MAX_BUFFERS:
            raise DeviceStateError(f"{self._path} gave {wanted.count} buffers.", "Choose a smaller picture.")
        for index in range(wanted.count):
            buffer = _buffer(index)
            self._ask(abi.QUERYBUF, buffer, "find its buffers")
            # an array keeps its map alive, so a frame that outlives the source still shows its pixels
            view = mmap.mmap(
                self._fd, buffer.length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=buffer.m.offset
            )
            self._maps.append(np.frombuffer(view, np.uint8))

    def _ask(self, request: int, argument: Any, what: str, *, ends: bool = False) -> bool:
        """One request; `False` for one that is not known, or beyond the end of a list, where that may be (`ends`)."""
        while True:
            try:
                fcntl.ioctl(self._fd, request, argument, True)
            except InterruptedError:
                continue
            except OSError as error:
                if ends and error.errno in (errno.EINVAL, errno.ENOTTY):
                    return False
                raise _refused(self._path, what, error) from error
            return True

    # --- streaming

    def _frames(self) -> Iterator[Frame]:
        self._ask(abi.STREAMON, ctypes.c_int(abi.VIDEO_CAPTURE), "start the camera")
        self._streaming = True
        layout = self._raw_layout if self.raw and self._raw_layout is not None else self._layout
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        last_ns = time.monotonic_ns()
        while not self._closing.is_set():
            left_ns = last_ns + self._timeout_ns - time.monotonic_ns()
            if left_ns <= 0:
                raise DeviceStateError(
                    f"{self._path} gave no picture for {self._timeout_ns / SECOND:g} s.",
                    "Check the camera's cable and signal, and that nothing else reads it.",
                )
            events = dict(poll.poll(left_ns / 1e6))
            if self._fd not in events:
                continue
            frame = self._take(layout)
            if frame is not None:
                yield frame
                last_ns = time.monotonic_ns()  # the time that the reader took is not the camera's
            elif events[self._fd] & ~select.POLLIN:  # an error that keeps the poll from waiting
                self._closing.wait(_STUTTER_S)

    def _take(self, layout: Layout) -> Frame | None:
        """The frame of the next filled buffer; `None` if there is none, or it is damaged."""
        buffer = _buffer(0)
        try:
            fcntl.ioctl(self._fd, abi.DQBUF, buffer, True)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR, errno.EIO):  # EIO: the signal was lost, it may come back
                return None
            raise _refused(self._path, "take a picture", error) from error
        if buffer.index >= len(self._maps):
            raise DeviceStateError(
                f"{self._path} gave a buffer that it does not have.", "Report it; the driver is broken."
            )
        with self._buffer_lock:
            self._queued -= 1
            spare = self._queued >= _LEFT_TO_DRIVER
        self._count(buffer.sequence)
        captured_ns = self._time(buffer)
        try:
            if buffer.flags & abi.BUF_FLAG_ERROR:
                raise DamagedFrameError
            pixels, lent = layout.pixels(self._maps[buffer.index][: buffer.bytesused])
        except DamagedFrameError:
            self._lost += 1
            self._queue(buffer.index)
            return None
        if lent and spare:
            with self._buffer_lock:
                self._lent.add(buffer.index)
            back: Callable[[], None] = partial(self._give_back, buffer.index)
            return self._frame(pixels, captured_ns, sequence=buffer.sequence, done=back)
        pixels = pixels.copy() if lent else pixels
        self._queue(buffer.index)
        return self._frame(pixels, captured_ns, sequence=buffer.sequence)

    def _count(self, sequence: int) -> None:
        """Frames between this one and the last are lost; a number that goes back starts anew."""
        if self._last_sequence is not None:
            gap = (sequence - self._last_sequence - 1) & 0xFFFFFFFF
            if gap < 1 << 31:
                self._lost += gap
        self._last_sequence = sequence

    def _time(self, buffer: abi.Buffer) -> int:
        now_ns = time.monotonic_ns()
        clock = buffer.flags & abi.BUF_FLAG_TIMESTAMP_MASK
        self.driver_clock = clock == abi.BUF_FLAG_TIMESTAMP_MONOTONIC
        if not self.driver_clock:
            return now_ns
        stamp_ns = buffer.timestamp.tv_sec * SECOND + buffer.timestamp.tv_usec * 1000
        return int(min(stamp_ns, now_ns))  # a driver that guesses times from the camera's clock can be ahead

    # --- buffers

    def _queue(self, index: int) -> None:
        """Hand a buffer to the driver."""
        with self._buffer_lock:
            self._ask(abi.QBUF, _buffer(index), "return a buffer")
            self._queued += 1

    def _give_back(self, index: int) -> None:
        """A frame is done; after the end its buffer stays what it is until the frame dies."""
        with self._buffer_lock:
            if index not in self._lent:
                return
            self._lent.remove(index)
            if self._streaming:
                try:
                    fcntl.ioctl(self._fd, abi.QBUF, _buffer(index), True)
                except OSError:  # unplugged: whoever waits for the next frame is told
                    return
                self._queued += 1

    # --- the end

    def _wake(self) -> None:
        with self._buffer_lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def _release(self) -> None:
        with self._buffer_lock:
            streaming, self._streaming = self._streaming, False
            self._lent.clear()
            fd, self._fd = self._fd, -1
            wake_fd, self._wake_fd = self._wake_fd, -1
            self._maps = []
        try:
            if streaming:
                fcntl.ioctl(fd, abi.STREAMOFF, ctypes.c_int(abi.VIDEO_CAPTURE), True)
        except OSError:
            pass  # unplugged: it has stopped by itself
        finally:
            for number in (fd, wake_fd):
                if number >= 0:
                    os.close(number)


def _buffer(index: int) -> abi.Buffer:
    return abi.Buffer(index=index, type=abi.VIDEO_CAPTURE, memory=abi.MEMORY_MMAP)


def _cannot_open(path: Path, error: OSError) -> EdgemedError:
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return DeviceStateError(f"There is no camera {path}.", _other_devices(path))
    if error.errno in (errno.EACCES, errno.EPERM):
        return DeviceStateError(
            f"You may not read the camera {path}.", "Join its group, then log in again: sudo usermod -aG video $USER."
        )
    return _refused(path, "open it", error)


def _refused(path: Path, what: str, error: OSError) -> EdgemedError:
    if error.errno == errno.ENODEV:
        return DeviceStateError(f"The camera {path} was unplugged.", "Plug it in and start again.")
    if error.errno == errno.ENOTTY:
        return DeviceStateError(f"{path} is no camera.", _other_devices(path))
    if error.errno == errno.EBUSY:
        return DeviceStateError(f"The camera {path} is in use.", f"End what uses it: fuser {path} names it.")
    reason: Final = error.strerror or str(error)
    return DeviceStateError(f"The camera {path} refused to {what}: {reason}.", "Look into the kernel's log: dmesg.")


def _other_devices(path: Path) -> str:
    others = sorted(str(other) for other in Path("/dev").glob("video*") if other != path)
    return f"There are: {', '.join(others)}." if others else "Plug one in; `v4l2-ctl --list-devices` lists them."
