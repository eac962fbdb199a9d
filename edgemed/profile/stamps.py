"""Every frame's stamps: one row of integers in a file mapped into memory, however long the run.

The file is an ordinary `.npy` of shape (frames, 11) and dtype int64, so anything can read it. Row i is the i-th frame
that was meant to arrive. Times are `time.monotonic_ns`; 0 says that a stamp was not taken, which is no duration of 0.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, from_os_error

COLUMNS: Final = (
    "status",
    "intended",
    "taken",
    "filled",
    "copy_in_start",
    "copy_in_end",
    "compute_start",
    "compute_end",
    "copy_out_start",
    "copy_out_end",
    "done",
)
STATUS, INTENDED, TAKEN, FILLED = range(4)
COPY_IN_START, COPY_IN_END, COMPUTE_START, COMPUTE_END, COPY_OUT_START, COPY_OUT_END, DONE = range(4, 11)

# the status of a row: what became of the frame (low bits), and marks
OPEN, ANSWERED, DROPPED, FAILED = 0, 1, 2, 3
OUTCOME: Final = 0b11
WARMUP: Final = 1 << 4
AFTER_GAP: Final = 1 << 5  # first frame after an idle gap, or of the run
REASON_SHIFT: Final = 8  # of a dropped frame: index into DROP_REASONS, plus 1
DROP_REASONS: Final = ("superseded", "every-n", "late", "closed")

# stages add up to the latency, to the nanosecond: `queue` is what lies between the others
STAGES: Final = ("wait", "pre", "queue", "copy-in", "compute", "copy-out", "post")

_DEVICE: Final = {
    "copy-in": (COPY_IN_START, COPY_IN_END),
    "compute": (COMPUTE_START, COMPUTE_END),
    "copy-out": (COPY_OUT_START, COPY_OUT_END),
}

ROW: Final = struct.Struct(f"<{len(COLUMNS)}q")
CHUNK: Final = 1 << 16  # rows mapped at a time: 5.5 MiB
_HEADER: Final = 4096


class StampFile:
    """Writes rows by their index, in any order, from one thread at a time; the file grows by chunks.

    Two chunks are mapped at a time: of frames in flight in a ring, the oldest may lie before a chunk's end and the
    newest behind it. A row further back than that cannot be written any more.

    Args:
        path: the `.npy` to write; replaced if it is there.

    Raises:
        ResourceError: it cannot be written, or the disk is full, which is known before a chunk is used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._pack = ROW.pack_into
        # pages of 64 KiB: a mapping begins at the page that its first row lies in
        self._shift = _HEADER % mmap.ALLOCATIONGRANULARITY
        self._chunks: dict[int, mmap.mmap] = {}
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            self._map(0)
        except OSError as error:
            raise from_os_error(error, path) from error

    def put(self, index: int, *row: int) -> None:
        """Write one row, in the order of `COLUMNS`.

        Raises:
            ResourceError: the disk is full.
        """
        chunk = self._chunks.get(index >> 16)
        if chunk is None:
            chunk = self._advance(index >> 16)
        self._pack(chunk, self._shift + (index & 0xFFFF) * ROW.size, *row)
        if index >= self.rows:
            self.rows = index + 1

    def read(self, first: int, end: int) -> NDArray[np.int64]:
        """Rows written so far, (end - first, columns): a copy, read from the file, whose pages the mapping shares."""
        data = os.pread(self._fd, (end - first) * ROW.size, _HEADER + first * ROW.size)
        return np.frombuffer(data, dtype="<i8").reshape(-1, len(COLUMNS))

    def _advance(self, number: int) -> mmap.mmap:
        for old in [n for n in self._chunks if n < number - 1]:
            self._chunks.pop(old).close()
        try:
            return self._map(number)
        except OSError as error:
            raise from_os_error(error, self.path) from error

    def _map(self, number: int) -> mmap.mmap:
        size = CHUNK * ROW.size
        offset = _HEADER + number * size
        os.posix_fallocate(self._fd, offset, size)
        self._chunks[number] = mmap.mmap(self._fd, self._shift + size, offset=offset - self._shift)
        return self._chunks[number]

    def close(self) -> Samples:
        """Write the header, cut the file to its rows, and open it for reading. Doing it twice does no harm."""
        if self._fd >= 0:
            try:
                for chunk in self._chunks.values():
                    chunk.close()
                self._chunks.clear()
                os.ftruncate(self._fd, _HEADER + self.rows * ROW.size)
                os.pwrite(self._fd, _npy_header(self.rows), 0)
            except OSError as error:
                raise from_os_error(error, self.path) from error
            finally:
                os.close(self._fd)
                self._fd = -1
        return Samples(self.path)

    def __enter__(self) -> StampFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _npy_header(rows: int) -> bytes:
    """Format version 1.0 (NumPy Enhancement Proposal 1), padded to `_HEADER` bytes."""
    text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({rows}, {len(COLUMNS)}), }}".encode()
    body = text.ljust(_HEADER - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


class Samples:
    """Reads a file of stamps in chunks: its size in memory is that of a chunk, and of the columns that are asked for.

    Raises:
        InputError: it is no such file.
        ResourceError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                header = file.read(_HEADER)
        except OSError as error:
            raise from_os_error(error, path) from error
        self.rows = max(0, size - _HEADER) // ROW.size
        if header != _npy_header(self.rows) or size != _HEADER + self.rows * ROW.size:
            raise InputError(f"{path} does not hold the stamps of a profile.", "Give the file that it wrote.")

    def __len__(self) -> int:
        return self.rows

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """Rows in order, (≤ `CHUNK`, columns) at a time; each is good until the next is asked for."""
        buffer = np.empty((min(CHUNK, self.rows), len(COLUMNS)), dtype="<i8")
        with self.path.open("rb", buffering=0) as file:
            file.seek(_HEADER)
            for start in range(0, self.rows, CHUNK):
                part = buffer[: min(CHUNK, self.rows - start)]
                if file.readinto(part.data.cast("B")) != part.nbytes:
                    raise InputError(f"{self.path} was cut short while it was read.", "Do not change it meanwhile.")
                yield part

    def column(self, index: int) -> NDArray[np.int64]:
        """One column of all rows, e.g. `column(INTENDED)`."""
        out = np.empty(self.rows, dtype=np.int64)
        start = 0
        for chunk in self.chunks():
            out[start : start + len(chunk)] = chunk[:, index]
            start += len(chunk)
        return out


def stage_of(rows: NDArray[np.int64], name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Durations of one stage in `rows` (ns), and where they were stamped at all.

    Args:
        rows: of answered frames, (n, columns).
        name: one of `STAGES`.
    """
    if name == "wait":
        return rows[:, TAKEN] - rows[:, INTENDED], np.ones(len(rows), dtype=bool)
    if name == "pre":
        return _between(rows, TAKEN, FILLED)
    if name in _DEVICE:
        return _between_device(rows, *_DEVICE[name])
    last = np.minimum(rows[:, TAKEN : COPY_OUT_END + 1].max(axis=1), rows[:, DONE])
    if name == "post":
        return rows[:, DONE] - last, np.ones(len(rows), dtype=bool)
    if name == "queue":
        known = sum((stage_of(rows, stage)[0] for stage in STAGES if stage != "queue"), np.zeros(len(rows), np.int64))
        return rows[:, DONE] - rows[:, INTENDED] - known, rows[:, COMPUTE_START] > 0
    raise ValueError(f"there is no stage {name}")


def _between_device(rows: NDArray[np.int64], start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The same of stamps that may be a device's, as far as they lie between the host's own.

    A device's events lie on the host's clock only to some ten microseconds (see `runtime.device_clock`): one of them
    may seem to come before the frame was handed over, or after its answer, and no stage may be negative for that.
    """
    taken = (rows[:, start] > 0) & (rows[:, end] > 0)
    first, done = np.maximum(rows[:, TAKEN], rows[:, FILLED]), rows[:, DONE]
    begin, stop = (np.minimum(np.maximum(rows[:, column], first), done) for column in (start, end))
    return np.where(taken, stop - begin, 0), taken


def _between(rows: NDArray[np.int64], start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    taken = (rows[:, start] > 0) & (rows[:, end] > 0)
    return np.where(taken, rows[:, end] - rows[:, start], 0), taken
