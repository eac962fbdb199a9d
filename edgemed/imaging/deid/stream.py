"""Text in compressed frames: cameras and workstations write there what they like, names too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import InputError
from edgemed.base.lazy import require

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_JPEG, _J2K, _JP2 = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"
_JPEG_COMMENT, _J2K_COMMENT, _J2K_LENGTHS = 0xFE, 0x64, 0x55
_APPLICATION: Final = range(0xE0, 0xF0)
_NEEDED: Final = {0xE0: b"JFIF\0", 0xE8: b"mrfx", 0xEE: b"Adobe"}
"""Application data that decide how colours are read: JFIF, the colour transform of JPEG-LS, Adobe's."""
_LONGEST_NEEDED: Final = 16  # bytes with length; JFIF without a thumbnail has 16, Adobe's 14, mrfx 7
_SCAN, _END, _TILE, _TILE_DATA = 0xDA, 0xD9, 0x90, 0x93
_AFTER_SCAN: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""What ends the data of a scan: a marker but a restart. T.81 puts 0 behind FF in data, T.87 a bit of 0."""
_AFTER_TILES: Final = re.compile(rb"\xff\x91\0\x04..|(\xff\xd9)", re.DOTALL)
"""EOC; the number of a packet (SOP, T.800 A.8.1) may look like one."""

COMMENTS, WRAPPERS, TAILS = "comments", "JP2 wrappers", "tails behind the end of the image"


def strip_comments(file: FileDataset) -> Counter[str]:
    """Reduce JPEG, JPEG-LS and JPEG 2000 frames to the image: no comments, application data, boxes, or tails.

    The image itself is not touched, nor is what decides how its colours are read.

    Returns:
        how many of what were taken out.

    Raises:
        InputError: the frames cannot be told apart.
    """
    taken: Counter[str] = Counter()
    syntax = file.file_meta.TransferSyntaxUID
    if "PixelData" not in file or not syntax.is_encapsulated:
        return taken
    encaps = require("pydicom.encaps", extra="imaging", purpose="read compressed pixels")
    try:
        count = int(file.get("NumberOfFrames", 1) or 1)
        frames = [stripped(frame) for frame in encaps.generate_frames(file.PixelData, number_of_frames=count)]
    except Exception as error:  # pydicom raises whatever damaged bytes provoke
        raise InputError("Its compressed frames cannot be told apart.", "Check the file.") from error
    for _, found in frames:
        taken += found
    if taken:
        file.PixelData = encaps.encapsulate([frame for frame, _ in frames])
        file["PixelData"].is_undefined_length = True
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):  # their offsets hold no longer
            if keyword in file:
                delattr(file, keyword)
    return taken


def stripped(frame: bytes) -> tuple[bytes, Counter[str]]:
    """A compressed frame without what is no image, and how many of what it had; other formats come back as they are."""
    taken: Counter[str] = Counter()
    image = frame
    if frame.startswith(_JP2) and (image := _codestream(frame)) is not frame:
        taken[WRAPPERS] += 1
    if image.startswith(_JPEG):
        image = _jpeg(image, taken)
    elif image.startswith(_J2K):
        image = _jpeg_2000(image, taken)
    return (image, taken) if taken else (frame, taken)


def _codestream(frame: bytes) -> bytes:
    """The image in the boxes of a JP2 file (T.800 I.4); the frame itself where there is none."""
    at = 0
    while at + 8 <= len(frame):
        size, start = int.from_bytes(frame[at : at + 4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(frame[at + 8 : at + 16], "big"), at + 16
        stop = at + size if size else len(frame)
        if stop < start:
            break
        if frame[at + 4 : at + 8] == b"jp2c" and frame.startswith(_J2K, start):
            return frame[start:stop]
        at = stop
    return frame


def _segments(frame: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Marker, start and stop of marker segments (T.81 B.1.1, T.800 A.1), until something is none."""
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        stop = at + 1 if marker == 0xFF else at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker != 0xFF:  # a fill byte
            yield marker, at, stop
        at = stop


def _jpeg(frame: bytes, taken: Counter[str]) -> bytes:
    """Segments and scans up to EOI; what is no JPEG from some place on stays as it is from there."""
    parts, at = [frame[:2]], 2
    while True:
        end = frame[at : at + 2] == bytes((0xFF, _END))
        found = None if end else next(_segments(frame, at), None)
        if end:
            return b"".join(parts) + _ended(frame, at + 2, taken, keep=at)
        if found is None:
            return b"".join(parts) + frame[at:]
        marker, start, stop = found
        if marker == _SCAN:
            following = _AFTER_SCAN.search(frame, stop)
            stop = following.start() if following else len(frame)
        if marker == _JPEG_COMMENT or (marker in _APPLICATION and not _is_needed(marker, frame[start:stop])):
            taken[COMMENTS] += 1
        else:
            parts.append(frame[start:stop])
        at = stop


def _jpeg_2000(frame: bytes, taken: Counter[str]) -> bytes:
    """Main header, tile-parts, EOC (T.800 A.3); what is none from some place on stays as it is from there."""
    main, at = _header(frame, 2, (_TILE, _END), taken)
    tiles, in_main = [], taken[COMMENTS]
    while frame[at : at + 2] == bytes((0xFF, _TILE)) and at + 12 <= len(frame):
        told = int.from_bytes(frame[at + 6 : at + 10], "big")
        parts, data = _header(frame, at + 12, (_TILE_DATA,), taken)
        stop = at + told if told else _end_of_tiles(frame, data)
        if not data <= stop <= len(frame):
            break
        header = b"".join(parts)
        length = 12 + len(header) + stop - data if told else 0
        tiles += [frame[at : at + 6], length.to_bytes(4, "big"), frame[at + 10 : at + 12], header, frame[data:stop]]
        at = stop
    if taken[COMMENTS] > in_main:  # lengths of tile-parts told ahead hold no longer
        main = [part for part in main if part[1] != _J2K_LENGTHS]
    rest = _ended(frame, at + 2, taken, keep=at) if frame[at : at + 2] == bytes((0xFF, _END)) else frame[at:]
    return b"".join((frame[:2], *main, *tiles, rest))


def _header(frame: bytes, at: int, ends: tuple[int, ...], taken: Counter[str]) -> tuple[list[bytes], int]:
    """Segments of a header of JPEG 2000 without comments, and where it ends."""
    parts = []
    while frame[at : at + 1] == b"\xff" and frame[at + 1 : at + 2] and frame[at + 1] not in ends:
        found = next(_segments(frame, at), None)
        if found is None:
            break
        marker, start, stop = found
        if marker == _J2K_COMMENT:
            taken[COMMENTS] += 1
        else:
            parts.append(frame[start:stop])
        at = stop
    return parts, at


def _end_of_tiles(frame: bytes, at: int) -> int:
    return next((found.start() for found in _AFTER_TILES.finditer(frame, at) if found[1]), len(frame))


def _ended(frame: bytes, end: int, taken: Counter[str], *, keep: int) -> bytes:
    """From `keep` to the end marker; a zero behind it that makes lengths even is nothing to speak of."""
    if frame[end:].strip(b"\0"):
        taken[TAILS] += 1
    return frame[keep:end]


def _is_needed(marker: int, segment: bytes) -> bool:
    identifier = _NEEDED.get(marker)
    return identifier is not None and segment[4:].startswith(identifier) and len(segment) <= _LONGEST_NEEDED + 2
