"""What identifies in pixels themselves: text burned in, and overlays in unused bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.imaging.dicom.color import read_palette
from edgemed.imaging.dicom.file import DicomFile
from edgemed.imaging.dicom.limits import MAX_IMAGE_BYTES
from edgemed.imaging.dicom.modality import stored_values
from edgemed.imaging.dicom.module import PALETTE, PixelModule
from edgemed.imaging.dicom.pixels import color_pixels

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataset import FileDataset

_OVERLAY_BIT_POSITION: Final = 0x0102
_OVERLAY_GROUPS: Final = range(0x6000, 0x6020, 2)


def blank_pixels(opened: DicomFile, file: FileDataset, mask: NDArray[np.bool_]) -> None:
    """Decode every frame of `opened`, blank where `mask` is true, and store the frames uncompressed in `file`.

    What is blanked becomes black: the smallest value of the rest for signed pixels, the largest for MONOCHROME1, the
    darkest entry of a palette. Colour becomes RGB.

    Args:
        opened: the original.
        file: takes the pixels; a compressed transfer syntax becomes Explicit VR Little Endian.
        mask: `(rows, columns)`.

    Raises:
        InputError: the pixels are damaged, are floats, or are more than 4 GiB.
    """
    module = opened.module
    if module.is_float:
        raise InputError("Its pixels are floats.", "Such pixels are computed; leave the region rule out.")
    if module.frames * module.pixels * module.samples * max(1, module.allocated // 8) > MAX_IMAGE_BYTES:
        raise InputError(f"Its {module.frames} frames are too large to blank at once.", "Split the file.")
    blanked = [_blanked(frame, opened, mask) for frame in _stored(opened)]
    _store(file, blanked, module)


def _stored(opened: DicomFile) -> Iterator[NDArray[Any]]:
    """Each frame as the file stores it: no palette, no rescaling, not turned over; colour is RGB, 8 bits."""
    module = opened.module
    for index in range(module.frames):
        samples = opened.samples(index)
        if module.is_color:
            yield color_pixels(samples, module)
        else:
            yield np.array(stored_values(samples.pixels, module, samples.precision))


def _blanked(frame: NDArray[Any], opened: DicomFile, mask: NDArray[np.bool_]) -> NDArray[Any]:
    frame[mask] = _black(frame[~mask], opened)
    return frame


def _black(kept: NDArray[Any], opened: DicomFile) -> Any:
    module = opened.module
    if module.photometric == PALETTE:
        entries = read_palette(opened.dataset, signed=module.signed)(np.arange(1 << module.stored))
        return int(entries.sum(axis=-1, dtype=np.int64).argmin())
    low, high = module.stored_range
    if module.photometric == "MONOCHROME1":
        return kept.max(initial=low)
    return kept.min(initial=high) if module.signed else 0


def _store(file: FileDataset, frames: list[NDArray[Any]], module: PixelModule) -> None:
    uid = require("pydicom.uid", extra="imaging", purpose="write DICOM")
    syntax, bits = file.file_meta.TransferSyntaxUID, frames[0].dtype.itemsize * 8
    order: Literal["<", ">"] = "<" if syntax.is_little_endian else ">"
    stack = np.stack(frames)
    if module.allocated == 1:
        data, bits = np.packbits(stack.astype(bool), axis=None, bitorder="little").tobytes(), 1
    else:
        data = stack.astype(stack.dtype.newbyteorder(order), copy=False).tobytes()
    file.add_new(0x7FE00010, "OB" if bits <= 8 else "OW", data + b"\0" * (len(data) % 2))
    if module.is_color:
        file.PlanarConfiguration, file.PhotometricInterpretation = 0, "RGB"
    stored = 8 if module.is_color else module.stored
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, stored, stored - 1
    if syntax.is_encapsulated:
        file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in file:
            delattr(file, keyword)


def drop_high_bits(source: Dataset, file: FileDataset) -> bool:
    """Clear overlays that old devices wrote into the unused bits of pixels (retired; PS3.5-2004 8.1.2).

    Returns:
        whether there were any.

    Raises:
        InputError: there are, and the pixels are compressed.
    """
    positions = [source.get((group, _OVERLAY_BIT_POSITION)) for group in _OVERLAY_GROUPS]
    if not any(position is not None and position.value for position in positions) or "PixelData" not in file:
        return False
    stored, high, allocated = (int(source.get(key, 0) or 0) for key in ("BitsStored", "HighBit", "BitsAllocated"))
    syntax = file.file_meta.TransferSyntaxUID
    if allocated != 16 or not 0 < stored <= high + 1 <= 16:
        raise InputError("It has overlays in its pixels, whose bits the header does not describe.", "Check the file.")
    if syntax.is_encapsulated:
        raise InputError("It has overlays in the bits of compressed pixels.", "Store it uncompressed.")
    order = "<u2" if syntax.is_little_endian else ">u2"
    mask = ((1 << stored) - 1) << (high + 1 - stored)
    values = (np.frombuffer(file.PixelData, order) & mask).astype(np.int32)
    if source.get("PixelRepresentation") == 1:  # the bits above repeat the sign, as they should have done
        values = (values ^ (1 << high)) - (1 << high)
    file.PixelData = values.astype(order).tobytes()
    return True
