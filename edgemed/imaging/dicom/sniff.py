"""Is it DICOM at all? Judged by the first bytes, never by the name."""

from __future__ import annotations

import struct
from pathlib import Path

from edgemed.base.errors import InputError, from_os_error
from edgemed.imaging.dicom.source import open_regular

PREAMBLE = 128
MAGIC = b"DICM"
_HEAD = PREAMBLE + len(MAGIC)

# what people find behind a .dcm by mistake
_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "an NPY array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x5c\x01\x00\x00", "a NIfTI image"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"<", "an HTML or XML page"),
    (b"{", "a JSON document"),
)
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_MAX_FIRST_VALUE = 1 << 16


def is_dicom(path: Path) -> bool:
    """Whether the file starts with a preamble and `DICM`, or, as old files do, with a sane first element.

    Raises:
        ResourceError: the file cannot be opened.
    """
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
    except InputError:
        return False
    except OSError as error:
        raise from_os_error(error, path) from error
    return has_magic(head) or starts_with_element(head)


def has_magic(head: bytes) -> bool:
    """Whether the first 132 bytes are a preamble and `DICM` (PS3.10 section 7.1)."""
    return head[PREAMBLE:_HEAD] == MAGIC


def starts_with_element(head: bytes) -> bool:
    """Whether the first bytes are an element of group 0002 or 0008, in any byte order, with a plausible length."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, _, vr, short = struct.unpack(f"{order}HH2sH", head[:8])
        if group not in (0x0002, 0x0008):
            continue
        if vr in _VRS:
            return vr in _LONG_VRS or short <= _MAX_FIRST_VALUE
        (length,) = struct.unpack(f"{order}L", head[4:8])
        return bool(order == "<" and length <= _MAX_FIRST_VALUE)
    return False


def refuse_others(head: bytes) -> None:
    """Say what a file is that is not DICOM.

    Raises:
        InputError: always, unless the first 132 bytes are DICOM's.
    """
    if has_magic(head) or starts_with_element(head):
        return
    if not head:
        raise InputError("it is empty (0 bytes).", "Replace or remove it.")
    for magic, name in _OTHERS:
        if head.startswith(magic):
            raise InputError(f"it is {name}, not a DICOM file.", "Give the DICOM file, or name it by what it is.")
    raise InputError("it is not a DICOM file.", "Remove it, or give a file that starts as PS3.10 says.")
