"""Elements of the first bytes of a data set, one after the other, without decoding their values (PS3.5 section 7)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.syntaxes import Syntax

HEAD: Final = 1 << 16
"""So many bytes of a data set hold what names and describes it, but for unusual files."""

_LONG: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEEPEST: Final = 16


class Element(NamedTuple):
    """One element.

    Attributes:
        tag: group and number.
        vr: its value representation; empty where the transfer syntax leaves it out.
        value: where its value begins.
        length: of its value, in bytes; 0xFFFFFFFF where it is not told.
    """

    tag: int
    vr: bytes
    value: int
    length: int


def elements(head: bytes, syntax: Syntax) -> Iterator[Element]:
    """The elements, up to the first whose value is not all there; sequences are passed over.

    Args:
        head: the first bytes of a data set, inflated.
        syntax: how it is written.

    Raises:
        InputError: the bytes are no data set of that transfer syntax.
    """
    walk = _Walk(head, syntax)
    position: int | None = 0
    while position is not None and position <= len(head):
        element = walk.element(position, syntax.implicit)
        if element is None:
            return
        yield element
        position = walk.after(element, syntax.implicit)


def inflated(head: bytes, syntax: Syntax) -> bytes:
    """The first bytes of a data set that may be deflated, `HEAD` of them.

    Raises:
        InputError: they are not deflated, and should be.
    """
    if not syntax.deflated:
        return head
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, HEAD)
    except zlib.error as error:
        raise InputError("It is not deflated, as its transfer syntax says.", "Send it again.") from error


class _Walk:
    def __init__(self, data: bytes, syntax: Syntax) -> None:
        self._data = data
        self._most = len(data) - 12
        order = "<" if syntax.little else ">"
        self._tag = struct.Struct(f"{order}HH").unpack_from
        self._length = struct.Struct(f"{order}L").unpack_from
        self._half = struct.Struct(f"{order}H").unpack_from

    def element(self, position: int, implicit: bool) -> Element | None:
        """The one that begins there; `None` where the bytes end before its value."""
        if position > self._most:
            return None
        data = self._data
        group, number = self._tag(data, position)
        tag = group << 16 | number
        if implicit or group == 0xFFFE:
            return Element(tag, b"", position + 8, self._length(data, position + 4)[0])
        vr = data[position + 4 : position + 6]
        if vr in _SHORT:
            return Element(tag, vr, position + 8, self._half(data, position + 6)[0])
        if vr in _LONG:
            return Element(tag, vr, position + 12, self._length(data, position + 8)[0])
        raise InputError("It is not written in its transfer syntax.", "Send it again.")

    def after(self, element: Element, implicit: bool, depth: int = 0) -> int | None:
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
