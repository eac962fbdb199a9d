"""Whether two files hold the same object, written in different ways: another transfer syntax, padding, group lengths.

A modality that repeats an image may have negotiated another transfer syntax. What counts is what the object says: every
element before the pixel data, and every sample of every frame, decoded. What is compressed with loss is not the same,
unless its samples are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgemed.imaging.dicom.file import open_dicom
from edgemed.imaging.dicom.header import Header, read_header

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PADDED: Final = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
)
_PADDING: Final = 0xFFFCFFFC
_END: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"  # Sequence Delimitation Item, after the last fragment


def same_object(one: Path, other: Path) -> bool:
    """Whether two files say the same. What cannot be read or decoded is not the same as anything."""
    try:
        first, second = read_header(one), read_header(other)
        if not (_is_last(first) and _is_last(second) and _same(first.dataset, second.dataset)):
            return False
        if first.pixels is None or second.pixels is None:
            return first.pixels is second.pixels
        return _same_pixels(one, other)
    except Exception:  # hostile files may raise anything inside the decoders
        return False


def _is_last(header: Header) -> bool:
    """Whether nothing but padding follows the pixel data: what does is not compared."""
    if header.pixels is None:
        return True
    with header.source.open() as file:
        if header.pixels.length is None:
            file.seek(-len(_END), 2)
            return file.read() == _END
        file.seek(header.pixels.offset + header.pixels.length)
        return file.read(4) in (b"", b"\xfc\xff\xfc\xff")


def _same(one: Dataset, other: Dataset) -> bool:
    tags = _tags(one)
    return tags == _tags(other) and all(_same_element(one, other, tag) for tag in tags)


def _tags(dataset: Dataset) -> list[int]:
    """All but group lengths and padding, in order."""
    return sorted(tag for tag in map(int, dataset.keys()) if tag & 0xFFFF and tag != _PADDING)


def _same_element(one: Dataset, other: Dataset, tag: int) -> bool:
    from pydicom.dataelem import RawDataElement

    raw: list[Any] = [dataset.get_item(tag) for dataset in (one, other)]
    if all(isinstance(element, RawDataElement) and element.is_little_endian for element in raw):
        values = [element.value or b"" for element in raw]
        if values[0] == values[1]:
            return True
        return one[tag].VR in _PADDED and values[0].rstrip(b" \0") == values[1].rstrip(b" \0")
    first, second = one[tag], other[tag]
    if first.VR == second.VR == "SQ":
        items: list[Any] = [list(first.value), list(second.value)]
        return len(items[0]) == len(items[1]) and all(map(_same, *items))
    return bool(first.VR == second.VR and first.value == second.value)


def _same_pixels(one: Path, other: Path) -> bool:
    first, second = open_dicom(one), open_dicom(other)
    if first.frames != second.frames:
        return False
    return all(
        np.array_equal(first.samples(index).pixels, second.samples(index).pixels) for index in range(first.frames)
    )
