"""A connection whose every byte has a deadline: who is slower than that does not hold a thread for ever."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edgemed.base.quantity import SECOND

_SLICE_S: Final = 0.5  # so often somebody is asked whether to go on waiting
_PATIENT_S: Final = 0.05  # so long the kernel may collect segments before it wakes us
SLOWEST_BYTES_PER_S: Final = 1024
_HEADER: Final = struct.Struct(">BxL")
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
_MUCH: Final = 1 << 12
_LINGER_NS: Final = 5 * SECOND
_LINGER_BYTES: Final = 16 << 20


class Closed(Exception):
    """There is no more to read."""


class Lost(Closed):
    """The peer closed the connection, or the network did."""


class TooSlow(Closed):
    """Its time is over."""


class Ending(Closed):
    """The daemon ends."""


class Malformed(Exception):
    """What came is not DICOM's protocol.

    Attributes:
        reason: of an A-ABORT by the service provider (PS3.8 table 9-26).
    """

    UNRECOGNISED, UNEXPECTED, PARAMETER = 1, 2, 6

    def __init__(self, what: str, reason: int = UNEXPECTED) -> None:
        super().__init__(what)
        self.what = what
        self.reason = reason


class Wire:
    """Reads PDUs from a socket through one buffer; a PDU is a view of it that is good until the next is read.

    Args:
        sock: connected; this closes it.
        idle_ns: how long it may be silent.
    """

    def __init__(self, sock: socket.socket, idle_ns: int) -> None:
        self.socket = sock
        self._idle_ns = idle_ns
        self._buffer = bytearray(1 << 18)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        sock.settimeout(_SLICE_S)

    def header(self, deadline_ns: int | None = None, keep_on: Callable[[], bool] | None = None) -> tuple[int, int]:
        """Wait for a PDU.

        Args:
            deadline_ns: `time.monotonic_ns` until which it must have begun; `None`: as long as may be silent.
            keep_on: asked twice a second while there is not a byte; `False` is the end.

        Returns:
            Its type and the length of what follows.

        Raises:
            Closed: in one of its kinds.
        """
        if deadline_ns is None:
            deadline_ns = time.monotonic_ns() + self._idle_ns
        self._fill(1, deadline_ns, keep_on)
        self._fill(_HEADER.size, time.monotonic_ns() + self._idle_ns)
        kind, length = _HEADER.unpack_from(self._view, self._start)
        self._start += _HEADER.size
        return kind, length

    def body(self, length: int, deadline_ns: int | None = None) -> memoryview:
        """The rest of a PDU, whose length was found to be allowed.

        Raises:
            Closed: it did not come, or not in time.
        """
        self._fill(length, deadline_ns or time.monotonic_ns() + self._idle_ns)
        view = self._view[self._start : self._start + length]
        self._start += length
        return view

    def in_time(self, began_ns: int, received: int) -> None:
        """Hold a message to the least speed.

        Raises:
            TooSlow: since it began, less came than a kilobyte a second, beyond what may be silent.
        """
        allowed_ns = self._idle_ns + received * SECOND // SLOWEST_BYTES_PER_S
        if time.monotonic_ns() - began_ns > allowed_ns:
            raise TooSlow

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            Lost: the connection is closed.
            TooSlow: the peer does not read.
        """
        left = memoryview(data)
        deadline_ns = time.monotonic_ns() + self._idle_ns
        while left:
            try:
                left = left[self.socket.send(left) :]
            except TimeoutError as error:  # noqa: PERF203 - each piece has its own
                if time.monotonic_ns() > deadline_ns:
                    raise TooSlow from error
            except OSError as error:
                raise Lost from error
        self._option(socket.IPPROTO_TCP, _QUICKACK, 1)  # lost by sending

    def linger(self) -> None:
        """Nothing more is said: let the peer read it and close first, but not for long (PS3.8: Sta13, ARTIM)."""
        end_ns = time.monotonic_ns() + min(_LINGER_NS, self._idle_ns)
        left = _LINGER_BYTES
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic_ns() < end_ns:
                try:
                    read = self.socket.recv_into(self._view)
                except TimeoutError:
                    continue
                if not read:
                    return
                left -= read

    def close(self) -> None:
        """At once."""
        with suppress(OSError):
            self.socket.close()

    def _fill(self, need: int, deadline_ns: int, keep_on: Callable[[], bool] | None = None) -> None:
        """Have so many bytes at `_start`."""
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + need > len(self._view):
            self._make_room(need)
        patient = need - (self._end - self._start) > _MUCH and not isinstance(self.socket, ssl.SSLSocket)
        if patient:  # waked once for it, not for each segment
            self._wake_at(need - (self._end - self._start), _PATIENT_S)
        try:
            self._receive(need, deadline_ns, keep_on)
        finally:
            if patient:
                self._wake_at(1, _SLICE_S)

    def _wake_at(self, size: int, timeout_s: float) -> None:
        self._option(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        self.socket.settimeout(timeout_s)

    def _receive(self, need: int, deadline_ns: int, keep_on: Callable[[], bool] | None) -> None:
        while self._end - self._start < need:
            try:
                read = self.socket.recv_into(self._view[self._end :])
            except TimeoutError:
                # many small segments fill the kernel's buffer, by its count of their overhead, before so many bytes
                # are in it: the sender's window is shut, and nothing would ever wake us
                self._wake_at(1, _SLICE_S)
                read = -1
            except OSError as error:
                raise Lost from error
            if read == 0:
                raise Lost
            if read > 0:
                self._end += read
                if read < _MUCH:  # who collects small segments waits for this, 40 ms for each image
                    self._option(socket.IPPROTO_TCP, _QUICKACK, 1)
            if self._end - self._start >= need:
                return
            if time.monotonic_ns() > deadline_ns:
                raise TooSlow
            if read < 0 and keep_on is not None and not keep_on():
                raise Ending

    def _option(self, level: int, option: int | None, value: int) -> None:
        if option is not None:
            with suppress(OSError):  # the next read or write will tell
                self.socket.setsockopt(level, option, value)

    def _make_room(self, need: int) -> None:
        left = bytes(self._view[self._start : self._end])
        if need > len(self._buffer):  # views of the old one stay good
            self._buffer = bytearray(need + (1 << 12))
            self._view = memoryview(self._buffer)
        self._view[: len(left)] = left
        self._start, self._end = 0, len(left)
