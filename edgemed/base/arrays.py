"""NPY and NPZ files from anywhere: what a file claims is checked before anything is allocated or inflated.

`numpy.load` allocates what a header claims, inflates before it looks, and hands on members that are no arrays. Here
every header is read first, and must fit the bytes behind it. No pickle is ever loaded.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_MAX_HEADER_BYTES = 10_012  # the longest header that numpy evaluates, behind magic, version and length
_MAX_DIMS = 32
_MAX_LENGTH = 1 << 48
_MAX_MEMBERS = 4096
_CHUNK = 1 << 20
_NUMBERS = "fiub"  # kinds of dtype


class ArrayFileError(ValueError):
    """A file holds no plain arrays of numbers; the text says why, without a full stop."""


@dataclass(frozen=True)
class ArrayHeader:
    """What an NPY file says of its array: `size` bytes of header come before the data."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


Check = Callable[[Mapping[str, ArrayHeader]], None]


def read_npy(file: IO[bytes], size: int, *, limit: int) -> NDArray[Any]:
    """The array of an NPY file.

    Args:
        file: at its beginning.
        size: length of the file in bytes.
        limit: most bytes to allocate.

    Raises:
        ArrayFileError: not NPY, not numbers, larger than the limit, or a header that does not fit the length.
    """
    header = _header(file.read(_MAX_HEADER_BYTES), size, "it")
    _check_limit(header.nbytes, limit)
    file.seek(header.size)
    return _data(file, header, "it")


def open_npy(path: Path) -> NDArray[Any]:
    """The array of an NPY file, mapped: bytes are read from the disk when they are looked at. It cannot be written to.

    Raises:
        ArrayFileError: as `read_npy`.
        OSError: the file cannot be opened.
    """
    import numpy as np

    # without O_NONBLOCK, opening a pipe waits for somebody to write
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):  # a pipe has no size, and may never end
            raise ArrayFileError("it is no regular file")
        header = _header(file.read(_MAX_HEADER_BYTES), status.st_size, "it")
        if not header.nbytes:
            raise ArrayFileError("it holds nothing")
        raw = np.memmap(file, np.uint8, mode="r", offset=header.size, shape=(header.nbytes,))
    array: NDArray[Any] = np.asarray(raw).view(header.dtype)
    return array.reshape(header.shape, order="F" if header.fortran_order else "C")


def read_npz(file: IO[bytes], *, limit: int, check: Check | None = None) -> dict[str, NDArray[Any]]:
    """All arrays of an NPZ file, by name.

    Args:
        file: seekable.
        limit: most bytes to allocate for all arrays together.
        check: is shown all headers before any data are read, and may raise.

    Raises:
        ArrayFileError: not NPZ, empty, damaged, or a member that `read_npy` would refuse.
    """
    with _zip_errors(), zipfile.ZipFile(file) as archive:
        members = _members(archive)
        headers = {}
        for name, member in members.items():
            with archive.open(member) as stream:
                headers[name] = _header(stream.read(_MAX_HEADER_BYTES), member.file_size, f"member '{name}'")
        _check_limit(sum(header.nbytes for header in headers.values()), limit)
        if check is not None:
            check(headers)
        arrays = {}
        for name, member in members.items():
            with archive.open(member) as stream:
                stream.read(headers[name].size)
                arrays[name] = _data(stream, headers[name], f"member '{name}'")
        return arrays


def write_npz(arrays: Mapping[str, NDArray[Any]], *, compressed: bool = False) -> bytes:
    """An NPZ file of arrays of any names; `numpy.savez` takes some, such as `file`, for arguments of its own."""
    import numpy as np

    buffer = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # with a date of its own kind, so that bytes repeat
            member.compress_type = how
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


@contextmanager
def _zip_errors() -> Iterator[None]:
    """What `zipfile` raises for damaged and encrypted archives; faults of the disk pass."""
    try:
        yield
    except ArrayFileError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise ArrayFileError(f"the archive is damaged: {error}") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # EINVAL: it points before its own beginning
            raise
        raise ArrayFileError("the archive is damaged") from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    entries = archive.infolist()
    if not entries:
        raise ArrayFileError("it holds no arrays")
    if len(entries) > _MAX_MEMBERS:
        raise ArrayFileError(f"it has {len(entries)} members, more than {_MAX_MEMBERS}")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise ArrayFileError("its compression is not one that numpy writes")
    members = {entry.filename.removesuffix(".npy"): entry for entry in entries}
    if len(members) < len(entries):
        raise ArrayFileError("two of its members have the same name")
    return members


def _header(start: bytes, size: int, what: str) -> ArrayHeader:
    """Parse the header that `start` begins with; `size` is the length of the whole."""
    from numpy.lib import format as npy

    stream = io.BytesIO(start)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns of headers that Python 2 wrote
            version = npy.read_magic(stream)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, fortran_order, dtype = read(stream)
    except Exception as error:  # the header is a Python literal; what evaluating a malformed one raises is not told
        raise ArrayFileError(f"{what} is not an NPY array") from error
    header = ArrayHeader(dtype, shape, fortran_order, stream.tell())
    if dtype.hasobject or dtype.kind not in _NUMBERS or dtype.subdtype is not None:
        raise ArrayFileError(f"{what} holds {dtype}, not numbers")
    if len(shape) > _MAX_DIMS or not all(0 <= length <= _MAX_LENGTH for length in shape):
        raise ArrayFileError(f"{what} claims an impossible shape")
    if header.nbytes != size - header.size:
        raise ArrayFileError(f"{what} claims {header.nbytes} bytes of data, and has {size - header.size}")
    return header


def _check_limit(nbytes: int, limit: int) -> None:
    if nbytes > limit:
        raise ArrayFileError(f"it unpacks to {nbytes / 2**30:.1f} GiB, more than {limit / 2**30:g}")


def _data(stream: IO[bytes], header: ArrayHeader, what: str) -> NDArray[Any]:
    import numpy as np

    raw = np.empty(header.nbytes, dtype=np.uint8)
    view, filled = memoryview(raw.data), 0
    while filled < len(view):
        part = stream.read(min(_CHUNK, len(view) - filled))
        if not part:
            raise ArrayFileError(f"{what} ends too early")
        view[filled : filled + len(part)] = part
        filled += len(part)
    array: NDArray[Any] = raw.view(header.dtype)
    return array.reshape(header.shape, order="F" if header.fortran_order else "C")
