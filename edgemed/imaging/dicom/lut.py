"""Lookup tables of gray values: Modality LUT and VOI LUT share their form (PS3.3 C.11.1.1 and C.11.2.1.1)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.values import raw_bytes, text
from edgemed.recipe.image import LookupTable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_HINT = "Correct the table, or leave the file out."


def read_table(item: Dataset, *, signed: bool) -> LookupTable:
    """The table of one item of a Modality LUT or VOI LUT Sequence.

    Args:
        item: of the sequence.
        signed: its input can be negative, so the first input value is two's complement.

    Raises:
        InputError: a missing, short or damaged table.
    """
    descriptor = raw_bytes(item, "LUTDescriptor")
    if descriptor is None or len(descriptor[0]) != 6:
        raise InputError("it has a lookup table without a descriptor of three values.", _HINT)
    data, little = descriptor
    entries, first, bits = struct.unpack("<3H" if little else ">3H", data)
    entries = entries or 1 << 16  # 0 stands for 65536
    if not 8 <= bits <= 16:
        raise InputError(f"it has a lookup table with entries of {bits} bits.", _HINT)
    found = raw_bytes(item, "LUTData")
    values = table_entries(*found, entries, bits) if found else np.empty(0, np.uint16)
    if len(values) < entries:
        raise InputError(f"it has a lookup table with {len(values)} entries instead of {entries}.", _HINT)
    values = values[:entries].astype(np.uint16)
    if int(values.max()) >> bits:
        raise InputError(f"it has a lookup table whose entries need more than {bits} bits.", _HINT)
    if signed and first >> 15:
        first -= 1 << 16
    return LookupTable(first, values, bits, text(item, "LUTExplanation") or "")


def table_entries(data: bytes, little: bool, entries: int, bits: int) -> NDArray[Any]:
    """Entries of a table: 16-bit words, or bytes for entries of 8 bits; the length tells.

    Args:
        data: as in the file.
        little: its byte order; bytes lie in words, and are swapped with them.
        entries: that are expected.
        bits: of an entry.
    """
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2").astype(np.uint16)
    if bits == 8 and len(data) in (entries, entries + 1):
        return np.frombuffer(data, np.uint8) if little else words.view(np.uint8)
    return words
