"""Small DICOM files, written byte by byte as a test wants them: right ones by pydicom, wrong ones by hand."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.imaging.dicom.samples import pydicom

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
JPEG, LOSSLESS, J2K, HTJ2K = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 70, 90, 201))


def dataset(**elements: Any):
    """A gray 8-bit image of 4 rows and 6 columns, unless `elements` say otherwise; `None` leaves one out."""
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    values: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "SOPInstanceUID": "1.2.3.4",
        "Modality": "OT",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 4,
        "Columns": 6,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": bytes(range(24)),
    }
    for keyword, value in (values | elements).items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def save(made: Any, path: Path, uid: str = EXPLICIT) -> Path:
    """Write it with its preamble and meta header."""
    from pydicom.uid import UID

    made.file_meta.TransferSyntaxUID = uid
    made.file_meta.MediaStorageSOPClassUID = made.get("SOPClassUID", "1.2.3")
    made.file_meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", "1.2.3")
    if "PixelData" in made:
        wide = made.get("BitsAllocated", 8) > 8 or UID(uid).is_implicit_VR
        made["PixelData"].VR = "OB" if UID(uid).is_encapsulated or not wide else "OW"
    made.save_as(path, enforce_file_format=True)
    return path


def encapsulated(made: Any, path: Path, uid: str, items: bytes) -> Path:
    """Write it with pixel data of `items` as they are, right or wrong."""
    made = pydicom.Dataset(made)
    made.file_meta = pydicom.dataset.FileMetaDataset()
    if "PixelData" in made:
        del made.PixelData
    save(made, path, uid)
    head = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    path.write_bytes(path.read_bytes() + head + items)
    return path


def item(data: bytes = b"", length: int | None = None) -> bytes:
    """A fragment, or an offset table; `length` may lie."""
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(data) if length is None else length) + data


END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def packed(values: np.ndarray, *, allocated: int, stored: int, high: int, junk: int, order: str = "<") -> bytes:
    """Stored values as they lie in a file: below `high`, with bits of `junk` around them."""
    mask = (1 << stored) - 1
    shift = high + 1 - stored
    field = mask << shift
    words = ((values.astype(object) & mask) << shift) | (junk & ~field & ((1 << allocated) - 1))
    return np.asarray(words.tolist(), np.uint64).astype(f"{order}u{allocated // 8}").tobytes()
