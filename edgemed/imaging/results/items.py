"""Data sets as plain dictionaries, and as bytes in Explicit VR Little Endian (PS3.5 7.1.2).

pydicom writes any data set in any transfer syntax, and validates and converts each value; a report has six hundred
elements that are right by construction. What is no plain text or number is still written by pydicom.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

_LONG: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
"""Value representations whose length has 32 bits."""
_WORDS: Final = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_NUMBERS: Final = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H"}
_BYTES: Final = frozenset({"OB", "OW"})
_ITEM: Final = struct.Struct("<HHL")
_SHORT_HEADER: Final = struct.Struct("<HH2sH")
_LONG_HEADER: Final = struct.Struct("<HH2sHL")


class Item(dict[int, tuple[str, Any]]):
    """A data set or an item of a sequence: value representation and value by tag.

    Values are `str`, `bytes`, numbers, lists of them, lists of items, or what pydicom has for others.
    """

    def __init__(self, **values: Any) -> None:
        super().__init__()
        self.put(**values)

    def put(self, **values: Any) -> None:
        """Set elements by keyword."""
        for keyword, value in values.items():
            tag, vr = _element(keyword)
            self[tag] = vr, value

    def but(self, **values: Any) -> Item:
        """A copy with other elements."""
        made = Item()
        made.update(self)
        made.put(**values)
        return made

    def value(self, keyword: str) -> Any:
        """Of an element; `None` where there is none."""
        found = self.get(_element(keyword)[0])
        return None if found is None else found[1]

    def items_of(self) -> Iterator[Item]:
        """The items of all its sequences."""
        for vr, value in self.values():
            if vr == "SQ":
                yield from value


def plain(dataset: Dataset) -> Item:
    """The same data set, which pydicom or highdicom has made."""
    from pydicom.filewriter import correct_ambiguous_vr

    return _plain(correct_ambiguous_vr(dataset, is_little_endian=True))


def _plain(dataset: Dataset) -> Item:
    made = Item()
    for element in dataset:
        made[int(element.tag)] = element.VR, _simple(element)
    return made


def _simple(element: DataElement) -> Any:
    """The value of an element; the element itself where its length stands open, as of compressed pixels."""
    from pydicom.multival import MultiValue

    value = element.value
    if element.is_undefined_length:
        return element
    if element.VR == "SQ":
        return [_plain(item) for item in value]
    several = list(value) if isinstance(value, MultiValue) else [value]
    if element.VR in ("DS", "IS"):  # numbers that remember how they are written
        several = ["" if each is None else getattr(each, "original_string", None) or str(each) for each in several]
    return several if isinstance(value, MultiValue) else several[0]


def encoded(item: Item, encodings: list[str]) -> bytes:
    """All elements, in the order of their tags; see `pieces`."""
    return b"".join(pieces(item, encodings))


def pieces(item: Item, encodings: list[str]) -> Iterator[bytes]:
    """The same in parts, for pixels that need not be copied.

    Args:
        item: the data set.
        encodings: of texts that are not ASCII, as `pydicom.charset.convert_encodings` names them.
    """
    for tag in sorted(item):
        vr, value = item[tag]
        data = _items(value, encodings) if vr == "SQ" else _value(vr, value)
        if data is None:
            yield _by_pydicom(tag, vr, value, encodings)
            continue
        if len(data) > 0xFFFF and vr not in _LONG:  # PS3.5 6.2.2
            vr = "UN"
        if vr in _LONG:
            yield _LONG_HEADER.pack(tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(data))
        else:
            yield _SHORT_HEADER.pack(tag >> 16, tag & 0xFFFF, vr.encode(), len(data))
        yield data


def _items(items: list[Item], encodings: list[str]) -> bytes:
    parts = [encoded(item, encodings) for item in items]
    return b"".join([piece for part in parts for piece in (_ITEM.pack(0xFFFE, 0xE000, len(part)), part)])


def _value(vr: str, value: Any) -> bytes | None:
    """Of an element that is simple to write; `None` of others."""
    if value is None:
        return b""
    if vr in _WORDS:
        text = "\\".join(value) if type(value) is list else value
        if not isinstance(text, str) or not text.isascii():
            return None
        data = text.encode("ascii")
        return data if len(data) % 2 == 0 else data + (b"\0" if vr == "UI" else b" ")
    if vr in _NUMBERS:
        several = value if type(value) is list else [value]
        known = all(type(number) in (int, float) for number in several)
        return struct.pack(f"<{len(several)}{_NUMBERS[vr]}", *several) if known else None
    if vr in _BYTES and type(value) is bytes:
        return value if len(value) % 2 == 0 else value + b"\0"
    return None


def _by_pydicom(tag: int, vr: str, value: Any, encodings: list[str]) -> bytes:
    from pydicom.dataelem import DataElement
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    element = value if isinstance(value, DataElement) else DataElement(tag, vr, value)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, encodings)
    return buffer.getvalue()


@lru_cache(maxsize=512)
def _element(keyword: str) -> tuple[int, str]:
    """Tag and value representation."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag, dictionary_VR(tag)
