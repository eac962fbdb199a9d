"""One load: `python -m edgemed.profile.interference.worker KIND RATE FOLDER PARENT`, RATE in bytes a second or 0.

It says `ready` once its load is on, works until stdin ends, and then tells what it managed, as JSON. Nothing of it
stays: its file has no name, its sockets are its own.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgemed.base.child import die_with_parent

_CHUNK: Final = 1 << 20
_BLOCK: Final = 64 << 20  # larger than the last-level cache of any Jetson
_FILE: Final = 256 << 20
_SYNC_EVERY: Final = 16
_SPARE: Final = 1 << 30  # a disk is never filled: so much stays free
_TURN: Final = 20_000  # additions: about a millisecond between looks at stdin

Step = Callable[[], int]


def cpu() -> Step:
    """Keep one processor busy; a step is worth the processor time that it took, in ns."""
    last = time.process_time_ns()

    def step() -> int:
        nonlocal last
        total = 0
        for number in range(_TURN):
            total += number
        now = time.process_time_ns()
        last, spent = now, now - last
        return spent

    return step


def memory() -> Step:
    """Copy between two blocks, a chunk a step."""
    source, target = memoryview(bytearray(_BLOCK)), memoryview(bytearray(_BLOCK))
    at = 0

    def step() -> int:
        nonlocal at
        target[at : at + _CHUNK] = source[at : at + _CHUNK]
        at = (at + _CHUNK) % _BLOCK
        return _CHUNK

    return step


def disk(folder: Path) -> Step:
    """Write chunks that do not compress to a file without a name, and force them to the disk."""
    file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it lives as long as the process
    chunk, written = os.urandom(_CHUNK), 0

    def step() -> int:
        nonlocal written
        if written % _FILE == 0:
            free = os.statvfs(folder)
            if free.f_bavail * free.f_frsize < _SPARE:
                raise OSError(f"less than {_SPARE >> 30} GiB is free in {folder}")
            file.seek(0)
        done = file.write(chunk)
        written += _CHUNK
        if written // _CHUNK % _SYNC_EVERY == 0:
            os.fdatasync(file.fileno())
        return done or 0

    return step


def network() -> Step:
    """Send chunks to ourselves over TCP on the loopback: the stack is loaded, the card is not."""
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname())
    receiver, _ = listener.accept()
    sender.setblocking(False)
    chunk, buffer = bytes(_CHUNK), bytearray(_CHUNK)

    def step() -> int:
        sent = sender.send(chunk)
        left = sent
        while left:
            left -= receiver.recv_into(buffer, left)
        return sent

    return step


def main(kind: str, rate: float, folder: Path) -> None:
    """Work until stdin ends."""
    makers: dict[str, Callable[[], Step]] = {
        "cpu": cpu,
        "memory": memory,
        "disk": lambda: disk(folder),
        "network": network,
    }
    step = makers[kind]()
    done = step()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    began, done = time.monotonic_ns(), 0
    while not _told_to_end(_behind_s(done, rate, began)):
        if _behind_s(done, rate, began) <= 0:
            done += step()
    sys.stdout.write(json.dumps({"done": done, "ns": time.monotonic_ns() - began}) + "\n")
    sys.stdout.flush()


def _behind_s(done: int, rate: float, began_ns: int) -> float:
    """How long to wait so that the rate is not exceeded; 0 without one."""
    return max(0.0, done / rate - (time.monotonic_ns() - began_ns) / 1e9) if rate else 0.0


def _told_to_end(patience_s: float) -> bool:
    return bool(select.select([0], [], [], patience_s)[0]) and not os.read(0, 1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[4]))
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
