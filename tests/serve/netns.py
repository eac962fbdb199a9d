"""A network of its own for a test: loopback and nothing else, so that peers can neither be reached nor reach out."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP, _IFF_RUNNING = 0x1, 0x40


@contextmanager
def private_network() -> Iterator[None]:
    """Put this thread, and the threads and processes that it starts, into a network namespace with `lo` up.

    Skips the test where that is not permitted.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("network namespaces are Linux'")
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace for this user: {os.strerror(ctypes.get_errno())}")
        try:
            _loopback_up()
            yield
        finally:
            if libc.setns(home, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "this thread does not come back to its network")
    finally:
        os.close(home)


def inside() -> bool:
    """Whether there is nothing but `lo`."""
    return [line.split(":")[0].strip() for line in Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]] == [
        "lo"
    ]


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP | _IFF_RUNNING))
