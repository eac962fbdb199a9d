"""Comments in compressed frames: cameras and workstations write there what they like, names too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgemed.base.errors import InputError
from edgemed.base.lazy import require

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_JPEG, _J2K = b"\xff\xd8", b"\xff\x4f\xff\x51"
_JPEG_COMMENT, _J2K_COMMENT = 0xFE, 0x64
_APPLICATION: Final = range(0xE0, 0xF0)
_NEEDED: Final = {0xE0: b"JFIF\0", 0xE8: b"mrfx", 0xEE: b"Adobe"}
"""Application data that decide how colours are read: JFIF, the colour transform of JPEG-LS, Adobe's."""
_LONGEST_NEEDED: Final = 16  # bytes with length; JFIF without a thumbnail has 16, Adobe's 14, mrfx 7
_JPEG_SCAN, _JPEG_END, _J2K_TILE = 0xDA, 0xD9, 0x90


def strip_comments(file: FileDataset) -> int:
    """Take comments and application data out of the headers of JPEG, JPEG-LS and JPEG 2000 frames.

    The image itself is not touched, nor is what decides how its colours are read.

    Returns:
        how many were taken out.

    Raises:
        InputError: the frames cannot be told apart.
    """
    syntax = file.file_meta.TransferSyntaxUID
    if "PixelData" not in file or not syntax.is_encapsulated:
        return 0
    encaps = require("pydicom.encaps", extra="imaging", purpose="read compressed pixels")
    try:
        count = int(file.get("NumberOfFrames", 1) or 1)
        frames = [stripped(frame) for frame in encaps.generate_frames(file.PixelData, number_of_frames=count)]
    except Exception as error:  # pydicom raises whatever damaged bytes provoke
        raise InputError("Its compressed frames cannot be told apart.", "Check the file.") from error
    taken = sum(number for _, number in frames)
    if taken:
        file.PixelData = encaps.encapsulate([frame for frame, _ in frames])
        file["PixelData"].is_undefined_length = True
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):  # their offsets hold no longer
            if keyword in file:
                delattr(file, keyword)
    return taken


def stripped(frame: bytes) -> tuple[bytes, int]:
    """A compressed frame without comments in its header, and how many it had; other formats come back as they are."""
    if frame.startswith(_JPEG):
        return _without(frame, start=2, comment=_JPEG_COMMENT, ends=(_JPEG_SCAN, _JPEG_END), applications=True)
    if frame.startswith(_J2K):
        return _without(frame, start=2, comment=_J2K_COMMENT, ends=(_J2K_TILE, _JPEG_END), applications=False)
    return frame, 0


def _without(frame: bytes, *, start: int, comment: int, ends: tuple[int, ...], applications: bool) -> tuple[bytes, int]:
    """Walk the marker segments (T.81 B.1.1, T.800 A.1) up to the first scan or tile; a broken header stays as it is."""
    parts, taken, at = [frame[:start]], 0, start
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in ends:
            break
        stop = at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        segment = frame[at:stop]
        if marker == comment or (applications and marker in _APPLICATION and not _is_needed(marker, segment)):
            taken += 1
        else:
            parts.append(segment)
        at = stop
    if not taken:
        return frame, 0
    return b"".join(parts) + frame[at:], taken


def _is_needed(marker: int, segment: bytes) -> bool:
    identifier = _NEEDED.get(marker)
    return identifier is not None and segment[4:].startswith(identifier) and len(segment) <= _LONGEST_NEEDED + 2
