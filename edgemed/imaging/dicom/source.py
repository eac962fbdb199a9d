"""Where the bytes come from: a file, or a data set inflated in memory; and the reader that pydicom parses through."""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, ResourceError
from edgemed.imaging.dicom.limits import MAX_ELEMENTS, MAX_HEADER_BYTES, MAX_INFLATED_BYTES

_TRUNCATED = "Fetch the file again; it is cut short or damaged."
_ELEMENT_HEADER = 8
_PIECE = 1 << 15  # bytes read ahead: most headers of single slices are shorter
_PYDICOM_CHUNK = 8192  # of pydicom's search for a delimiter: it expects a short read at the end


Span = tuple[int, int]


@dataclass(frozen=True)
class FileSource:
    """Bytes of a file, which must stay what it was when it was opened."""

    path: Path
    size: int
    identity: tuple[int, ...]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file, if it is still the same.

        Raises:
            InputError: it was replaced or written to.
            OSError: it cannot be read.
        """
        with self.path.open("rb", buffering=0) as file:
            if identify(file) != self.identity:
                raise InputError("it changed while it was read.", "Try again when it is complete.")
            yield cast(BinaryIO, file)


@dataclass(frozen=True)
class MemorySource:
    """Bytes of a data set that was inflated."""

    data: bytes

    @property
    def size(self) -> int:
        """Of the data set."""
        return len(self.data)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The data set as a file."""
        yield io.BytesIO(self.data)


Source = FileSource | MemorySource


def read_spans(source: Source, spans: Iterable[Span]) -> NDArray[np.uint8]:
    """The bytes of several (offset, length), one after the other, writable.

    Raises:
        InputError: the file is shorter, or was replaced meanwhile.
        OSError: it cannot be read.
    """
    spans = list(spans)
    for offset, length in spans:
        if offset < 0 or length < 0 or offset + length > source.size:
            raise InputError(f"it ends at byte {source.size}, and points to byte {offset + length}.", _TRUNCATED)
    data = np.empty(sum(length for _, length in spans), np.uint8)
    view, done = data.data, 0
    with source.open() as file:
        for offset, length in spans:
            file.seek(offset)
            end = done + length
            while done < end:
                count = cast(io.RawIOBase, file).readinto(view[done:end])
                if not count:
                    raise InputError("it became shorter while it was read.", "Try again when it is complete.")
                done += count
    return data


def identify(file: BinaryIO) -> tuple[int, ...]:
    """What tells an open regular file from another, or from its own later content.

    Raises:
        InputError: a pipe, a device or a directory: it may never end.
    """
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise InputError("it is not a regular file.", "Store the image in a file.")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclass
class Budget:
    """What one header has used up of its limits."""

    elements: int = 0
    bytes: int = 0


class HeaderReader:
    """What pydicom reads a header through: it counts bytes and elements, and knows where the file ends.

    pydicom itself takes a value that is cut short as it is, and has no limits. It asks for a few bytes at a time and
    for its place in between, which a file answers with a system call each; here a piece of the file is kept.
    """

    def __init__(self, file: BinaryIO, size: int, budget: Budget) -> None:
        self.size = size
        self._budget = budget
        self._file = file
        self._place = file.tell()
        self._first, self._piece = self._place, b""

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        """Like a file's."""
        self._place = max(0, offset + (0, self._place, self.size)[whence])
        return self._place

    def read(self, count: int) -> bytes:
        """Like a file's, but a value must be whole."""
        if count == _ELEMENT_HEADER:
            self._budget.elements += 1
            if self._budget.elements > MAX_ELEMENTS:
                raise InputError(f"its header has more than {MAX_ELEMENTS:,} elements.", "Check the file.")
        elif count > _ELEMENT_HEADER:
            self._count(count)
        start = self._place - self._first
        if start < 0 or start + count > len(self._piece):
            self._fetch(count)
            start = 0
        found = self._piece[start : start + count]
        self._place += len(found)
        return found

    def _count(self, count: int) -> None:
        if count > self.size - self._place and count != _PYDICOM_CHUNK:
            raise truncated()
        self._budget.bytes += count
        if self._budget.bytes > MAX_HEADER_BYTES:
            raise InputError(f"its header exceeds {MAX_HEADER_BYTES >> 20} MiB.", "Check the file.")

    def _fetch(self, count: int) -> None:
        self._file.seek(self._place)
        self._first, self._piece = self._place, self._file.read(max(count, _PIECE))


def truncated() -> InputError:
    """The file is shorter than its header says."""
    return InputError("it ends inside an element of its header.", _TRUNCATED)


def inflate(data: bytes, limit: int = MAX_INFLATED_BYTES) -> bytes:
    """A deflated data set (PS3.5 section A.5), or frame, in full.

    Raises:
        InputError: damaged, cut short, or larger than `limit`.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise InputError(f"its deflated part is damaged: {error}.", _TRUNCATED) from error
    except MemoryError as error:
        raise ResourceError("Out of memory.", "Close other programs or add swap, then try again.") from error
    if len(inflated) > limit:
        raise InputError(f"its deflated part becomes larger than {limit:,} bytes.", "Check the file.")
    if not stream.eof:
        raise InputError("its deflated part is cut short.", _TRUNCATED)
    return inflated
