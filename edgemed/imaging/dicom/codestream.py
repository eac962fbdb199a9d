"""What a compressed frame says of itself: read before it is decoded, so that a lying one never allocates.

JPEG (ITU-T T.81 B.2), JPEG-LS (T.87 C.2) and JPEG 2000 (T.800 A.5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from edgemed.base.errors import InputError

_HINT = "Fetch the file again, or convert it."
_SOF_HUFFMAN = frozenset((0xC0, 0xC1, 0xC3))  # baseline, extended sequential, lossless: those of DICOM
_SOF_LS = 0xF7
_SOF_OTHER = frozenset((0xC2, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_APP0, _APP14, _SOS = 0xE0, 0xEE, 0xDA
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"


@dataclass(frozen=True)
class Codestream:
    """The header of a codestream.

    Attributes:
        rows: of the image.
        columns: of the image.
        components: 1 or 3.
        precision: bits a sample.
        signed: JPEG 2000 only.
        lossless: JPEG only: process 14, which transforms no colours.
        color: what its markers say that three components are, `None` where they say nothing.
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False
    lossless: bool = False
    color: Literal["RGB", "YBR"] | None = None


def jpeg_header(data: bytes | memoryview, *, ls: bool) -> Codestream:
    """The header of a JPEG or JPEG-LS codestream.

    Raises:
        InputError: damaged, or of a process that DICOM does not have.
    """
    at, adobe, jfif = 2, None, False
    if bytes(data[:2]) != b"\xff\xd8":
        raise damaged("has no start of image")
    while True:
        marker, body, at = _segment(data, at)
        if marker == _APP14 and bytes(body[:5]) == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker == _APP0 and bytes(body[:5]) == b"JFIF\0":
            jfif = True
        elif marker == _SOF_LS if ls else marker in _SOF_HUFFMAN:
            break
        elif marker in _SOF_OTHER or marker in _SOF_HUFFMAN or marker in (_SOF_LS, _SOS):
            raise damaged(f"is of a process that its transfer syntax does not have (marker FF{marker:02X})")
    if len(body) < 6:
        raise damaged("has a short frame header")
    precision, rows, columns, components = struct.unpack(">BHHB", body[:6])
    if len(body) < 6 + 3 * components:
        raise damaged("has a short frame header")
    ids = bytes(body[6 : 6 + 3 * components : 3])
    return Codestream(
        rows, columns, components, precision, lossless=marker == 0xC3, color=_jpeg_color(ids, adobe, jfif)
    )


def _jpeg_color(ids: bytes, adobe: int | None, jfif: bool) -> Literal["RGB", "YBR"] | None:
    """Adobe's marker is the only one made to say it; names of components and JFIF say it less loudly."""
    if adobe in (0, 1):
        return "YBR" if adobe else "RGB"
    if ids in (b"RGB", b"rgb"):
        return "RGB"
    return "YBR" if jfif else None


def _segment(data: bytes | memoryview, at: int) -> tuple[int, memoryview, int]:
    """The next marker with its parameters, and where the one after it begins."""
    while True:
        if at + 4 > len(data):
            raise damaged("ends before its frame header")
        if data[at] != 0xFF:
            raise damaged("has bytes between its markers")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            break
    (length,) = struct.unpack(">H", data[at + 2 : at + 4])
    end = at + 2 + length
    if length < 2 or end > len(data):
        raise damaged("ends inside a marker segment")
    return marker, memoryview(data)[at + 4 : end], end


def jpeg2k_codestream(data: bytes | memoryview) -> bytes | memoryview:
    """The bare codestream: DICOM wants no JP2 boxes around it, and some writers leave them there.

    Raises:
        InputError: neither a codestream nor a box that holds one.
    """
    if bytes(data[:12]) != _JP2_SIGNATURE:
        return data
    at = 12
    while at + 8 <= len(data):
        length, kind = struct.unpack(">L4s", data[at : at + 8])
        start = 8
        if length == 1 and at + 16 <= len(data):
            (length,) = struct.unpack(">Q", data[at + 8 : at + 16])
            start = 16
        end = len(data) if length == 0 else at + length
        if kind == b"jp2c":
            return data[at + start : end]
        if length != 0 and length < start:
            break
        at = end
    raise damaged("has JP2 boxes without a codestream")


def jpeg2k_header(data: bytes | memoryview) -> Codestream:
    """The SIZ segment of a JPEG 2000 codestream.

    Raises:
        InputError: damaged, or with components of different size or precision.
    """
    if bytes(data[:4]) != b"\xff\x4f\xff\x51" or len(data) < 45:
        raise damaged("has no start of codestream")
    right, bottom, left, top, tile_width, tile_height = struct.unpack(">6L", data[8:32])
    (components,) = struct.unpack(">H", data[40:42])
    if not (1 <= components <= 4) or len(data) < 42 + 3 * components:
        raise damaged(f"has {components} components")
    parts = [bytes(data[42 + 3 * i : 45 + 3 * i]) for i in range(components)]
    if any(part != parts[0] for part in parts) or parts[0][1:] != b"\x01\x01":
        raise damaged("has components of different size or precision")
    if right <= left or bottom <= top or not tile_width or not tile_height:
        raise damaged("has no pixels")
    _walk_tiles(data)
    return Codestream(bottom - top, right - left, components, (parts[0][0] & 0x7F) + 1, signed=bool(parts[0][0] & 0x80))


def _walk_tiles(data: bytes | memoryview) -> None:
    """All tile-parts are there, up to the end of codestream: OpenJPH decodes what is left of a file that is cut."""
    at = 2
    while data[at : at + 2] != b"\xff\x90":  # the main header: marker segments up to the first SOT
        if at + 4 > len(data) or data[at] != 0xFF:
            raise damaged("has a damaged main header")
        at += 2 + int(struct.unpack(">H", data[at + 2 : at + 4])[0])
    while data[at : at + 2] == b"\xff\x90":
        if at + 12 > len(data):
            raise damaged("is cut short")
        (length,) = struct.unpack(">L", data[at + 6 : at + 10])
        if length == 0:  # the last tile-part may leave its length open (T.800 A.4.2)
            if not bytes(data[-64:]).rstrip(b"\0").endswith(b"\xff\xd9"):
                raise damaged("is cut short")
            return
        if length < 14:
            raise damaged("has an impossible tile-part")
        at += length
    if bytes(data[at : at + 2]) != b"\xff\xd9":
        raise damaged("is cut short")


def damaged(what: str) -> InputError:
    """A refusal of a compressed frame."""
    return InputError(f"a compressed frame {what}.", _HINT)
