"""Encapsulated pixel data: which bytes of the file belong to which frame (PS3.5 section A.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.limits import MAX_FRAGMENTS
from edgemed.imaging.dicom.source import MemorySource, Source, Span, read_spans
from edgemed.imaging.dicom.syntaxes import Codec

_ITEM, _DELIMITER = 0xFFFEE000, 0xFFFEE0DD
_TAG = struct.Struct("<HHL")
_HINT = "Fetch the file again; it is damaged."
# how a compressed frame begins: SOI of JPEG and JPEG-LS, SOC of JPEG 2000, signature box of JP2
_STARTS = (b"\xff\xd8", b"\xff\x4f", b"\x00\x00\x00\x0c")


@dataclass(frozen=True)
class Fragments:
    """The fragments of each frame, as (offset, length) in the source."""

    frames: tuple[tuple[Span, ...], ...]

    def read(self, source: Source | MemorySource, index: int) -> NDArray[np.uint8]:
        """The compressed bytes of one frame."""
        return read_spans(source, self.frames[index])


def index_fragments(
    source: Source, offset: int, frames: int, codec: Codec, extended: tuple[bytes, bytes] | None
) -> Fragments:
    """Walk the items and give each frame its own.

    Args:
        source: the file.
        offset: of the first item, the Basic Offset Table.
        frames: Number of Frames.
        codec: what they are coded with.
        extended: Extended Offset Table and its lengths, as they are in the file (PS3.3 C.7.6.3.1.8).

    Raises:
        InputError: items missing, overlapping, beyond the end or too many, or more or fewer frames than claimed.
    """
    table, spans = walk(source, offset)
    if extended is not None:
        return Fragments(_by_extended(extended, spans, frames))
    if frames == 1 and spans:
        return Fragments((tuple(spans),))
    if len(spans) == frames:
        return Fragments(tuple((span,) for span in spans))
    if len(spans) < frames or codec == "rle":  # a frame of RLE is one fragment (PS3.5 section 8.2.2)
        raise InputError(f"it has {len(spans)} fragments of pixel data for {frames} frames.", _HINT)
    firsts = _by_table(table, spans) if table else _by_content(source, spans)
    if len(firsts) != frames or firsts[0] != 0 or sorted(set(firsts)) != firsts:
        raise InputError(f"its {len(spans)} fragments cannot be told apart into {frames} frames.", _HINT)
    ends = [*firsts[1:], len(spans)]
    return Fragments(tuple(tuple(spans[first:end]) for first, end in zip(firsts, ends, strict=True)))


def walk(source: Source, offset: int) -> tuple[tuple[int, ...], list[Span]]:
    """The Basic Offset Table, and all fragments.

    Raises:
        InputError: the chain of fragments breaks off.
    """
    spans: list[Span] = []
    with source.open() as file:
        while True:
            file.seek(offset)
            head = file.read(_TAG.size)
            if not head and len(spans) > 1:
                break  # only the delimiter at the end is missing: all fragments are whole
            if len(head) < _TAG.size:
                raise InputError("its pixel data break off.", _HINT)
            group, element, length = _TAG.unpack(head)
            tag = group << 16 | element
            if tag == _DELIMITER:
                break
            if tag != _ITEM or length == 0xFFFFFFFF:
                raise InputError("its pixel data are not a chain of fragments.", _HINT)
            offset += _TAG.size
            if offset + length > source.size:
                raise InputError("its pixel data break off inside a fragment.", _HINT)
            spans.append((offset, length))
            if len(spans) > MAX_FRAGMENTS:
                raise InputError(f"it has more than {MAX_FRAGMENTS:,} fragments.", "Check the file.")
            offset += length
    if len(spans) < 2:
        raise InputError("its pixel data hold no frame.", _HINT)
    start, length = spans.pop(0)
    table = read_spans(source, [(start, length - length % 4)]).view("<u4")
    return tuple(table.tolist()), spans


def _by_table(table: tuple[int, ...], spans: list[Span]) -> list[int]:
    """The first fragment of each frame, by the Basic Offset Table; fewer if it points beside them."""
    number = {start - spans[0][0]: i for i, (start, _) in enumerate(spans)}
    return [number[at] for at in table if at in number]


def _by_content(source: Source, spans: list[Span]) -> list[int]:
    """Fragments that start like a frame: what is left to go by when the offset table is empty."""
    heads = read_spans(source, [(at, min(length, 4)) for at, length in spans]).tobytes()
    firsts, done = [], 0
    for i, (_, length) in enumerate(spans):
        if heads[done : done + min(length, 4)].startswith(_STARTS):
            firsts.append(i)
        done += min(length, 4)
    return firsts


def _by_extended(extended: tuple[bytes, bytes], spans: list[Span], frames: int) -> tuple[tuple[Span, ...], ...]:
    """By the Extended Offset Table: each frame is one fragment, whose padding its length leaves out."""
    offsets, lengths = (np.frombuffer(table[: len(table) // 8 * 8], "<u8").tolist() for table in extended)
    by_start = {start - spans[0][0]: (start, length) for start, length in spans}
    if len(offsets) != frames or len(lengths) != frames or len(set(offsets)) != frames:
        raise InputError(f"its Extended Offset Table lists {len(offsets)} frames instead of {frames}.", _HINT)
    found: list[tuple[Span, ...]] = []
    for at, wanted in zip(offsets, lengths, strict=True):
        start, length = by_start.get(at, (0, -1))
        if not 0 < wanted <= length:
            raise InputError("its Extended Offset Table points beside the fragments.", _HINT)
        found.append(((start, wanted),))
    return tuple(found)
