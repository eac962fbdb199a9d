"""What identifies in pixel data itself: text burned in, overlays in unused bits, comments in compressed frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.lazy import require

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataset import FileDataset

MAX_BYTES: Final = 4 << 30
_OVERLAY_BIT_POSITION: Final = 0x0102
_OVERLAY_GROUPS: Final = range(0x6000, 0x6020, 2)


def blank_pixels(source: Dataset, file: FileDataset, mask: NDArray[np.bool_]) -> None:
    """Decode every frame of `source`, blank where `mask` is true, and store the frames uncompressed in `file`.

    Args:
        source: with its pixels and transfer syntax.
        file: takes the pixels; its transfer syntax becomes Explicit VR Little Endian.
        mask: `(rows, columns)`.

    Raises:
        InputError: the pixels cannot be decoded, or are more than 4 GiB.
    """
    if "PixelData" not in source:
        raise InputError("It has no Pixel Data to blank.", "Check the file.")
    _refuse_huge(source)
    frames = _decoded(source)
    color = int(source.get("SamplesPerPixel", 1) or 1) > 1
    frames = frames.reshape(-1, *mask.shape, frames.shape[-1] if color else 1)
    frames[:, mask] = _black(source, frames, mask)
    _store(file, frames)


def _refuse_huge(source: Dataset) -> None:
    sizes = [source.get(key, 1) or 1 for key in ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")]
    try:
        count = int(np.prod([int(size) for size in sizes], dtype=object)) * (int(source.BitsAllocated) + 7) // 8
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError("Its header does not describe its pixels.", "Check the file.") from error
    if not 0 < count <= MAX_BYTES:
        raise InputError(f"Its header claims {count:,} bytes of pixels, more than allowed.", "Check the file.")


def _decoded(source: Dataset) -> NDArray[Any]:
    """Frames as the file has them: no palette, no rescaling; JPEG colour becomes RGB."""
    pixels = require("pydicom.pixels", extra="imaging", purpose="decode pixels")
    try:
        decoded: NDArray[Any] = pixels.pixel_array(source)
    except Exception as error:  # decoders raise whatever damaged bytes provoke
        raise InputError(f"Its pixels cannot be decoded: {type(error).__name__}.", "Check the file.") from error
    return np.array(decoded)  # what pydicom returns may be read-only


def _black(source: Dataset, frames: NDArray[Any], mask: NDArray[np.bool_]) -> Any:
    photometric = str(source.get("PhotometricInterpretation", ""))
    if photometric == "PALETTE COLOR":
        return _darkest_entry(source)
    if photometric == "MONOCHROME1":
        return frames[:, ~mask].max(initial=np.iinfo(frames.dtype).min)
    if frames.shape[-1] == 1 and frames.dtype.kind == "i":
        return frames[:, ~mask].min(initial=np.iinfo(frames.dtype).max)
    return 0


def _darkest_entry(source: Dataset) -> int:
    """The index that is shown darkest; table entries before the first and behind the last repeat these."""
    first = int(source.RedPaletteColorLookupTableDescriptor[1])
    names = ("Red", "Green", "Blue")
    width = 1 if int(source.RedPaletteColorLookupTableDescriptor[2]) == 8 else 2
    try:
        tables = [np.frombuffer(source[f"{n}PaletteColorLookupTableData"].value, f"<u{width}") for n in names]
        return first + int(np.sum(np.stack(tables).astype(np.int64), axis=0).argmin())
    except (KeyError, ValueError, TypeError) as error:
        raise InputError("Its palette cannot be read.", "Check the file.") from error


def _store(file: FileDataset, frames: NDArray[Any]) -> None:
    uid = require("pydicom.uid", extra="imaging", purpose="read DICOM")
    little = frames.astype(frames.dtype.newbyteorder("<"))
    data = little.tobytes()
    file.add_new(0x7FE00010, "OB" if frames.dtype.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))
    if frames.shape[-1] > 1:
        file.PlanarConfiguration = 0
        file.PhotometricInterpretation = "RGB"
    file.BitsAllocated = frames.dtype.itemsize * 8
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
    if syntax.is_compressed and not syntax.is_deflated:
        raise InputError("It has overlays in the bits of compressed pixels.", "Store it uncompressed.")
    shift = high + 1 - stored
    values = np.frombuffer(file.PixelData, "<u2" if syntax.is_little_endian else ">u2") & (((1 << stored) - 1) << shift)
    if source.get("PixelRepresentation") == 1:  # the bits above repeat the sign, as they should have done
        sign = 1 << high
        values = (values.astype(np.int32) ^ sign) - sign
    file.PixelData = values.astype("<i4").astype("<u2" if syntax.is_little_endian else ">u2").tobytes()
    return True
