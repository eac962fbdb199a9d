"""Where the data set of a file begins (PS3.10 section 7): what is sent over the network and what is hashed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from edgemed.base.errors import InputError
from edgemed.imaging.dicom import sniff

_MOST = 1 << 20  # bytes of file meta information; real ones have a few hundred
_LONG = frozenset((b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR"))
_UIDS = {0x0002: "sop_class", 0x0003: "sop_instance", 0x0010: "syntax"}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileMeta:
    """What stands before the data set.

    Attributes:
        offset: of the first byte of the data set: after preamble, `DICM` and group 0002. The group's own length is not
            believed: many files have a wrong one.
        syntax: Transfer Syntax UID; '' where it is not told.
        sop_class: Media Storage SOP Class UID; '' where it is not told.
        sop_instance: Media Storage SOP Instance UID; '' where it is not told.
    """

    offset: int
    syntax: str = ""
    sop_class: str = ""
    sop_instance: str = ""


def read_meta(file: BinaryIO) -> FileMeta:
    """Find the data set of an open file; the file's position is anywhere afterwards.

    Raises:
        InputError: it is not DICOM, or its file meta information is damaged.
    """
    file.seek(0)
    head = file.read(sniff.PREAMBLE + len(sniff.MAGIC) + _MOST)
    sniff.refuse_others(head[: sniff.PREAMBLE + len(sniff.MAGIC)])
    place = sniff.PREAMBLE + len(sniff.MAGIC) if sniff.has_magic(head) else 0
    found: dict[str, str] = {}
    while head[place : place + 2] == b"\x02\x00":
        element, vr = struct.unpack_from("<H2s", head, place + 2) if len(head) >= place + 8 else (0, b"")
        start, form = (place + 12, "<L") if vr in _LONG else (place + 8, "<H")
        if not vr.isalpha() or len(head) < start:
            raise _damaged()
        (length,) = struct.unpack_from(form, head, start - struct.calcsize(form))
        if start + length > len(head):
            raise _damaged()
        if element in _UIDS:
            found[_UIDS[element]] = head[start : start + length].decode("ascii", "replace").strip(" \0")
        place = start + length
    return FileMeta(place, **found)


def hash_dataset(file: BinaryIO, offset: int, step: Callable[[], None] = lambda: None) -> str:
    """Hex SHA-256 of all bytes from `offset` on: the same for a file, and for what was sent over the network.

    Args:
        file: open to read.
        offset: `FileMeta.offset`.
        step: called between pieces of 1 MiB.
    """
    digest = hashlib.sha256()
    file.seek(offset)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        step()
    return digest.hexdigest()


def _damaged() -> InputError:
    return InputError("its file meta information is damaged.", "Fetch the file again.")
