"""Where the bytes come from: a file, or what is deflated in one; and the readers that pydicom parses through."""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.limits import MAX_ELEMENTS, MAX_HEADER_BYTES, MAX_INFLATED_BYTES

_TRUNCATED = "Fetch the file again; it is cut short or damaged."
_ELEMENT_HEADER = 8
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # (FFFE,E000) in both byte orders
_ITEM_COST = 4  # more elements: each item becomes a data set of its own
_DEFLATED_PIECE = 1 << 12  # what zlib does not take of it is copied each time
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
        with open_regular(self.path, buffering=0) as file:
            if identify(file) != self.identity:
                raise InputError("it changed while it was read.", "Try again when it is complete.")
            yield file


class Inflation:
    """A deflated data set (PS3.5 section A.5) as a file that is read from its begin to its end: nothing of it stays.

    Whatever reads raises InputError where it is damaged or cut short.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._place = 0

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._place

    def seek(self, offset: int) -> int:
        """Go forward to a place, or to the end if that comes before."""
        if offset < self._place:
            raise io.UnsupportedOperation("What is deflated is read forward.")
        while self._some(offset - self._place):
            pass
        return self._place

    def read(self, count: int) -> bytes:
        """Fewer bytes only at the end."""
        data = bytearray()
        while piece := self._some(count - len(data)):
            data += piece
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """At least one byte, but at the end."""
        piece = self._some(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _some(self, most: int) -> bytes:
        while most and not self._stream.eof:
            data = self._stream.unconsumed_tail or self._file.read(_DEFLATED_PIECE)
            try:
                piece = self._stream.decompress(data, min(most, _PIECE))
            except zlib.error as error:
                raise InputError(f"its deflated part is damaged: {error}.", _TRUNCATED) from error
            if piece:
                self._place += len(piece)
                return piece
            if not (data or self._stream.eof):
                raise InputError("its deflated part is cut short.", _TRUNCATED)
        return b""


@dataclass(frozen=True)
class DeflatedSource:
    """Bytes of a data set that is deflated in a file: inflated whenever they are read, and not kept.

    Attributes:
        file: that it is in.
        start: where it begins there.
    """

    file: FileSource
    start: int

    @cached_property
    def size(self) -> int:
        """Of the data set, inflated.

        Raises:
            InputError: damaged, cut short, or beyond the limit.
            OSError: it cannot be read.
        """
        with self.open() as file:
            size = file.seek(MAX_INFLATED_BYTES + 1)
        if size > MAX_INFLATED_BYTES:
            raise InputError(f"its deflated part becomes larger than {MAX_INFLATED_BYTES:,} bytes.", "Check the file.")
        return size

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The data set as a file that is read forward; raises what `FileSource.open` raises."""
        with self.file.open() as file:
            file.seek(self.start)
            yield cast(BinaryIO, Inflation(file))


@dataclass(frozen=True)
class MemorySource:
    """Bytes that were inflated, and stay."""

    data: NDArray[np.uint8]

    @property
    def size(self) -> int:
        """Of all."""
        return len(self.data)


Source = FileSource | DeflatedSource


def read_spans(source: Source | MemorySource, spans: Iterable[Span]) -> NDArray[np.uint8]:
    """The bytes of several (offset, length), one after the other, writable.

    Raises:
        InputError: the file is shorter, or was replaced meanwhile.
        OSError: it cannot be read.
    """
    spans = list(spans)
    for offset, length in spans:
        if offset < 0 or length < 0 or offset + length > source.size:
            raise InputError(f"it ends at byte {source.size}, and points to byte {offset + length}.", _TRUNCATED)
    if isinstance(source, MemorySource):
        return np.concatenate([source.data[offset : offset + length] for offset, length in spans])
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


def open_regular(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a file to read; what may never end, or never begin, is none.

    Raises:
        InputError: a pipe or a device.
        OSError: it cannot be opened.
    """
    # without O_NONBLOCK, opening a pipe waits for somebody to write; regular files do not care
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError("it is not a regular file.", "Store the image in a file.")
    return file


def identify(file: BinaryIO) -> tuple[int, ...]:
    """What tells an open file from another, or from its own later content."""
    status = os.fstat(file.fileno())
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
        if count == _ELEMENT_HEADER and found[:4] in _ITEM_TAGS:
            self._budget.elements += _ITEM_COST
        return found

    def has(self, count: int) -> bool:
        """Whether so many bytes follow."""
        return count <= self.size - self._place

    def _count(self, count: int) -> None:
        if count != _PYDICOM_CHUNK and not self.has(count):
            raise truncated()
        self._budget.bytes += count
        if self._budget.bytes > MAX_HEADER_BYTES:
            raise _too_large()

    def _fetch(self, count: int) -> None:
        self._file.seek(self._place)
        self._first, self._piece = self._place, self._file.read(max(count, _PIECE))


class InflatingReader(HeaderReader):
    """The same of a data set that is inflated no further than it is read: of its pixels, no more than a piece."""

    def __init__(self, inflation: Inflation, budget: Budget) -> None:
        self._inflation = inflation
        super().__init__(io.BytesIO(), 0, budget)

    def has(self, count: int) -> bool:
        """Whether so many bytes follow; they are inflated for that."""
        self._inflate(self._place + count)
        return super().has(count)

    def _fetch(self, count: int) -> None:
        self._inflate(self._place + max(count, _PIECE))
        super()._fetch(count)

    def _inflate(self, end: int) -> None:
        if end > MAX_HEADER_BYTES + 2 * _ELEMENT_HEADER * MAX_ELEMENTS:
            raise _too_large()
        self._file.seek(0, io.SEEK_END)
        while self.size < end and (piece := self._inflation.read(min(_PIECE, end - self.size))):
            self.size += self._file.write(piece)


def _too_large() -> InputError:
    return InputError(f"its header exceeds {MAX_HEADER_BYTES >> 20} MiB.", "Check the file.")


def truncated() -> InputError:
    """The file is shorter than its header says."""
    return InputError("it ends inside an element of its header.", _TRUNCATED)
