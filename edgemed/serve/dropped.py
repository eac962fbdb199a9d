"""A file that somebody dropped: copied into the spool, and told what it is by its content."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_file
from edgemed.serve.intake import Arrival

_CHUNK: Final = 1 << 20
_PICTURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")

Mark = tuple[int, int, int, int]
"""Inode, bytes, and times of the last change of content and of entry: a file with the same ones is the same."""


def mark_of(status: os.stat_result) -> Mark:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def open_dropped(name: str, folder: int) -> BinaryIO | None:
    """Open a file of an open folder; `None` where it is a link, a pipe or a device, or gone.

    Raises:
        OSError: it may not be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe would wait for its writer
    try:
        file = os.fdopen(os.open(name, flags, dir_fd=folder), "rb", 0)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        return None
    return file


def copy_dropped(source: BinaryIO, mark: Mark, target: Path, limit: int, step: Callable[[], None]) -> bool:
    """Copy an open file.

    Args:
        source: the file.
        mark: that it had when it was opened.
        target: where to; part of it may be there after an error.
        limit: bytes.
        step: called between pieces of 1 MiB.

    Returns:
        Whether it stayed what it was meanwhile.

    Raises:
        InputError: it is larger than the limit.
        OSError: it could not be read, or not be written.
    """
    if mark[1] > limit:
        raise _too_large(limit)
    done = 0
    with target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            done += len(chunk)
            if done > limit:
                raise _too_large(limit)
            file.write(chunk)
            step()
    return mark_of(os.fstat(source.fileno())) == mark and done == mark[1]


def _too_large(limit: int) -> InputError:
    return InputError(f"it is larger than {limit:,} bytes.", "Raise max_file of the folder.")


@dataclass(frozen=True)
class Identity:
    """What a file is."""

    sop_class: str
    sop_instance: str
    sha256: str
    study: str = ""
    series: str = ""
    syntax: str = ""


def identify_dropped(path: Path, step: Callable[[], None] = lambda: None) -> Identity:
    """Tell a DICOM file or a picture (PNG, JPEG, TIFF) by its content.

    Raises:
        InputError: it is neither, or is cut short. The text has no name and no value of it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(max(map(len, _PICTURES)))
    if head.startswith(_PICTURES):
        whole = sha256_file(path)
        return Identity("", f"file:{whole}", whole)
    from edgemed.imaging.dicom.describe import describe
    from edgemed.imaging.dicom.part10 import hash_dataset, read_meta

    with path.open("rb") as file:
        offset = read_meta(file).offset
        found = describe(path, whole=True)
        digest = hash_dataset(file, offset, step)
    return Identity(found.sop_class, found.sop_instance, digest, found.study, found.series, found.syntax)


def arrival_of(file: Path, inlet: str, identity: Identity, first_ns: int) -> Arrival:
    """The file, as an inlet hands it to the intake."""
    return Arrival(
        file,
        inlet,
        "",
        identity.sop_class,
        identity.sop_instance,
        identity.sha256,
        file.stat().st_size,
        syntax=identity.syntax,
        study=identity.study,
        series=identity.series,
        first_ns=first_ns,
    )
