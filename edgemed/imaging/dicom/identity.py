"""Which image is it? The four UIDs in the first bytes of a data set, and the file that is put around a data set.

What is kept is hashed from the data set on (`part10.hash_dataset`): the file meta information before it is ours.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.sniff import MAGIC, PREAMBLE
from edgemed.imaging.dicom.syntaxes import Syntax

HEAD: Final = 1 << 16
"""So many bytes of a data set are enough for `find_identity`, but for unusual files, whose series is then not told."""

IMPLEMENTATION: Final = "2.25.202228424235647318612086306035252279515"
"""Implementation Class UID of edgemed."""

_UIDS: Final = {
    0x00080016: "sop_class",
    0x00080018: "sop_instance",
    0x0020000D: "study",
    0x0020000E: "series",
}
_LAST: Final = max(_UIDS)
_LONG: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEEPEST: Final = 16
_DIGITS: Final = frozenset("0123456789.")


@dataclass(frozen=True)
class Identity:
    """What names an image; '' where the first bytes do not tell."""

    sop_class: str = ""
    sop_instance: str = ""
    study: str = ""
    series: str = ""


def find_identity(head: bytes, syntax: Syntax) -> Identity:
    """Read the UIDs off the first bytes of a data set, without decoding what is between.

    Args:
        head: the first bytes of the data set, `HEAD` of them where there are so many.
        syntax: how it is written.

    Raises:
        InputError: the bytes are no data set of that transfer syntax.
    """
    if syntax.deflated:
        try:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, HEAD)
        except zlib.error as error:
            raise InputError("It is not deflated, as its transfer syntax says.", "Send it again.") from error
    walk = _Walk(head, syntax)
    found: dict[str, str] = {}
    position = 0
    while (element := walk.element(position, syntax.implicit)) is not None and element.tag <= _LAST:
        if element.tag >> 16 < 0x0008 and not found:
            raise InputError("It does not begin like a data set.", "Send it again.")
        name = _UIDS.get(element.tag)
        if name is not None:
            if name in found:
                raise InputError("It says twice who it is.", "Send it again.")
            found[name] = _uid(head[element.value : element.value + element.length])
        after = walk.after(element, syntax.implicit)
        if after is None or after > len(head):
            break
        position = after
    return Identity(**found)


def encode_meta(sop_class: str, sop_instance: str, syntax: str, source: str = "") -> bytes:
    """Preamble and file meta information of a Part 10 file (PS3.10 section 7.1): the data set follows.

    Args:
        sop_class: SOP Class UID.
        sop_instance: SOP Instance UID.
        syntax: Transfer Syntax UID.
        source: AE title of who sent it.
    """
    body = struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\x00\x01"
    for element, value in ((2, sop_class), (3, sop_instance), (0x10, syntax), (0x12, IMPLEMENTATION)):
        body += _short(element, b"UI", value.encode("ascii"), b"\0")
    body += _short(0x13, b"SH", b"EDGEMED", b" ")
    if source:
        body += _short(0x16, b"AE", source.encode("ascii"), b" ")
    return bytes(PREAMBLE) + MAGIC + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body)) + body


@dataclass(frozen=True)
class _Element:
    tag: int
    value: int  # where it begins
    length: int
    vr: bytes


class _Walk:
    """Elements of the first bytes of a data set, one after the other."""

    def __init__(self, data: bytes, syntax: Syntax) -> None:
        self._data = data
        order = "<" if syntax.little else ">"
        self._tag = struct.Struct(f"{order}HH")
        self._length = struct.Struct(f"{order}L")
        self._half = struct.Struct(f"{order}H")

    def element(self, position: int, implicit: bool) -> _Element | None:
        """The one that begins there; `None` where the bytes end before its value."""
        data = self._data
        if position + 12 > len(data):
            return None
        group, number = self._tag.unpack_from(data, position)
        tag = group << 16 | number
        if implicit or group == 0xFFFE:
            return _Element(tag, position + 8, self._length.unpack_from(data, position + 4)[0], b"")
        vr = data[position + 4 : position + 6]
        if vr in _SHORT:
            return _Element(tag, position + 8, self._half.unpack_from(data, position + 6)[0], vr)
        if vr in _LONG:
            return _Element(tag, position + 12, self._length.unpack_from(data, position + 8)[0], vr)
        raise InputError("It is not written in its transfer syntax.", "Send it again.")

    def after(self, element: _Element, implicit: bool, depth: int = 0) -> int | None:
        """Where the next one begins; `None` where the bytes end before."""
        if element.length != _UNDEFINED:
            return element.value + element.length
        if depth >= _DEEPEST:
            raise InputError("Its sequences are too deep.", "Send it again.")
        # an unknown element of undefined length is written as implicit little endian is (PS3.5 section 6.2.2)
        return self._after_items(element.value, implicit or element.vr == b"UN", depth + 1)

    def _after_items(self, position: int | None, implicit: bool, depth: int) -> int | None:
        while position is not None and (item := self.element(position, implicit)) is not None:
            if item.tag == _SEQUENCE_END:
                return item.value
            if item.tag != _ITEM:
                raise InputError("One of its sequences is damaged.", "Send it again.")
            if item.length == _UNDEFINED:
                position = self._after_elements(item.value, implicit, depth)
            else:
                position = item.value + item.length
        return None

    def _after_elements(self, position: int | None, implicit: bool, depth: int) -> int | None:
        while position is not None and (element := self.element(position, implicit)) is not None:
            if element.tag == _ITEM_END:
                return element.value
            position = self.after(element, implicit, depth)
        return None


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0 ").decode("ascii", "replace")
    return text if len(text) <= 64 and _DIGITS.issuperset(text) else ""


def _short(element: int, vr: bytes, value: bytes, padding: bytes) -> bytes:
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
