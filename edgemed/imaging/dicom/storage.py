"""Where each frame lies in the file, checked against what the header claims; and how to get it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.decode import Samples, decode_frame, native_bytes, native_frame, unpack_bits
from edgemed.imaging.dicom.fragments import Fragments, index_fragments
from edgemed.imaging.dicom.header import Header, PixelElement
from edgemed.imaging.dicom.module import PixelModule
from edgemed.imaging.dicom.room import inflate
from edgemed.imaging.dicom.source import DeflatedSource, MemorySource, Source, read_spans
from edgemed.imaging.dicom.syntaxes import Syntax
from edgemed.imaging.dicom.values import raw_bytes

_HINT = "Fetch the file again, or correct its header."
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Frames:
    """The frames of a file: `fragments` if it is encapsulated, else `length` bytes from `offset`.

    Attributes:
        source: the file; of a deflated one with several frames, their bytes.
        syntax: how it is written.
        module: what the header says.
        element: the pixel data.
        fragments: of each frame.
        held: bytes that stay in memory of a deflated file: of its header, and of its frames where it has several.
    """

    source: Source | MemorySource
    syntax: Syntax
    module: PixelModule
    element: PixelElement
    fragments: Fragments | None
    held: int = 0

    def read(self, index: int) -> Samples:
        """Read and decode one frame, and no other.

        Raises:
            InputError: damaged, or the file has changed.
            OSError: it cannot be read.
        """
        if self.fragments is not None:
            return decode_frame(self.fragments.read(self.source, index), self.module, self.syntax)
        if self.module.allocated == 1:  # frames follow without a gap, in the middle of a byte
            bit = index * self.module.pixels
            first, last = bit // 8, (bit + self.module.pixels + 7) // 8
            return unpack_bits(self._bytes(first, last), bit % 8, self.module)
        size = native_bytes(self.module)
        return native_frame(self._bytes(index * size, (index + 1) * size), self.module, little=self.syntax.little)

    def _bytes(self, first: int, last: int) -> NDArray[np.uint8]:
        offset = self.element.offset
        if self.syntax.little or self.module.allocated > 8 or self.element.vr != "OW":
            return read_spans(self.source, [(offset + first, last - first)])
        # bytes of a big-endian file lie in swapped words
        start, end = first & ~1, min(last + 1 & ~1, (self.element.length or 0) & ~1)
        words = read_spans(self.source, [(offset + start, end - start)])
        return words.view("u2").byteswap().view("u1")[first - start : last - start]


def locate_frames(header: Header, module: PixelModule, notes: list[str]) -> Frames:
    """Find the frames of a file.

    Raises:
        InputError: fewer bytes or frames than claimed, or more than can be padding.
        ResourceError: other deflated files are being read, and hold too much memory.
    """
    element, syntax, source = header.pixels, header.syntax, header.source
    if element is None:
        raise InputError("it holds no pixels.", _HINT)
    fragments = None
    if syntax.encapsulated:
        if element.length is not None:
            raise InputError(f"its pixels are {syntax.name}, and not encapsulated.", _HINT)
        tables = [raw_bytes(header.dataset, f"ExtendedOffsetTable{suffix}") for suffix in ("", "Lengths")]
        extended = (tables[0][0], tables[1][0]) if tables[0] and tables[1] else None
        fragments = index_fragments(source, element.offset, module.frames, syntax.codec, extended)
    elif element.length is None:
        raise InputError(f"its pixels are encapsulated, and {syntax.name} is not.", _HINT)
    else:
        need = _check_length(source, element.offset, element.length, module, notes)
        if isinstance(source, DeflatedSource) and module.frames > 1:  # or all were inflated again for each
            kept = inflate(source, (element.offset, need))
            place = replace(element, offset=0, length=need)
            return Frames(kept, syntax, module, place, None, element.offset + need)
    held = element.offset if isinstance(source, DeflatedSource) else 0
    return Frames(source, syntax, module, element, fragments, held)


def _check_length(source: Source, offset: int, length: int, module: PixelModule, notes: list[str]) -> int:
    """What is there must be what is claimed, and is returned; more is padding only if it is zero."""
    bits = (module.frames * module.pixels + 7) // 8  # one-bit frames follow without a gap
    need = bits if module.allocated == 1 else module.frames * native_bytes(module)
    if length < need:
        raise InputError(f"it holds {length} bytes of pixels and claims {need}.", _HINT)
    if offset + length > source.size:
        raise InputError(f"it ends inside its pixels ({source.size - offset} of {length} bytes are there).", _HINT)
    excess = length - need
    if excess > 1:
        if not _are_zero(source, offset + need, excess):
            raise InputError(f"it holds {length} bytes of pixels and claims only {need}.", _HINT)
        notes.append(f"{excess} bytes of zeros follow the pixels.")
    return need


def _are_zero(source: Source, offset: int, length: int) -> bool:
    with source.open() as file:
        file.seek(offset)
        while length and (piece := file.read(min(_CHUNK, length))):
            if piece.count(0) < len(piece):
                return False
            length -= len(piece)
    return True
