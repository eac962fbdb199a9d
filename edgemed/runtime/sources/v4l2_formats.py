"""How the bytes of a camera's buffer are read, for each pixel format that is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import DeviceStateError, UsageError
from edgemed.runtime.kernels.raw import PixelFormat, RawFormat
from edgemed.runtime.sources import v4l2_abi as abi
from edgemed.runtime.sources.pixels import (
    Bytes,
    DamagedFrameError,
    Matrix,
    Tables,
    jpeg_decoder,
    nv12_to_rgb,
    packed_to_rgb,
    tables,
)

FORMATS: Final = {
    "RGB24": "RGB3",
    "BGR24": "BGR3",
    "YUYV": "YUYV",
    "UYVY": "UYVY",
    "NV12": "NV12",
    "NV21": "NV21",
    "GREY": "GREY",
    "Y16": "Y16 ",
    "MJPG": "MJPG",
}
"""Names and the kernel's four letters; those in front are taken first where the user leaves the choice."""

_MOST_PIXELS = 1 << 28  # 16384 x 16384
_ALTERNATE = 7  # V4L2_FIELD_ALTERNATE: each buffer is half of a picture
_BYTES_ACROSS: Final = {"RGB24": 3, "BGR24": 3, "YUYV": 2, "UYVY": 2, "Y16": 2}  # of one pixel; 1 for the others

_RAW: Final[dict[str, PixelFormat]] = {
    "GREY": "gray", "Y16": "gray", "RGB24": "rgb", "BGR24": "bgr", "YUYV": "yuyv", "UYVY": "uyvy", "NV12": "nv12",
    "NV21": "nv21",
}  # fmt: skip

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How one buffer is read.

    Attributes:
        rows: of the picture.
        columns: of the picture.
        read: from the bytes that the driver filled to pixels.
        lends: the pixels lie in the buffer itself.
    """

    rows: int
    columns: int
    read: Callable[[Bytes], Pixels]
    lends: bool

    def pixels(self, filled: Bytes) -> tuple[Pixels, bool]:
        """Pixels, and whether they lie in the buffer.

        Raises:
            DamagedFrameError: the buffer holds less than a picture, or no picture.
        """
        found = self.read(filled)
        if found.shape[:2] != (self.rows, self.columns):
            raise DamagedFrameError(f"a picture of {found.shape[1]}x{found.shape[0]}")
        return found, self.lends


def layout_of(name: str, given: abi.PixFormat) -> Layout:
    """Of a format as the driver set it.

    Raises:
        DeviceStateError: a size that cannot be, or half pictures.
        MissingSoftwareError: MJPG without a decoder.
    """
    rows, columns = int(given.height), int(given.width)
    across = columns * _BYTES_ACROSS.get(name, 1)
    stride = int(given.bytesperline) or across
    odd = (columns % 2 and name in ("YUYV", "UYVY", "NV12", "NV21")) or (rows % 2 and name in ("NV12", "NV21"))
    if not 0 < rows * columns <= _MOST_PIXELS or odd or (stride < across and name != "MJPG"):
        raise DeviceStateError(f"The camera claims a picture of {columns}x{rows} in {name}.", "Choose another size.")
    if given.field == _ALTERNATE:
        raise DeviceStateError("The camera gives half pictures in turn.", "Choose a progressive mode.")
    if name == "MJPG":
        decode = jpeg_decoder()
        return Layout(rows, columns, lambda filled: decode(filled.data), lends=False)
    plane = partial(_plane, rows=rows, stride=stride, across=across)
    by = tables(_matrix(given), full=_full(given))
    readers: dict[str, Callable[[Bytes], Pixels]] = {
        "GREY": plane,
        "Y16": lambda filled: plane(filled).view("<u2"),
        "RGB24": lambda filled: plane(filled).reshape(rows, columns, 3),
        "BGR24": lambda filled: plane(filled).reshape(rows, columns, 3)[..., ::-1],
        "YUYV": lambda filled: packed_to_rgb(plane(filled), "YUYV", by),
        "UYVY": lambda filled: packed_to_rgb(plane(filled), "UYVY", by),
        "NV12": partial(_planes, rows=rows, stride=stride, across=across, by=by, swapped=False),
        "NV21": partial(_planes, rows=rows, stride=stride, across=across, by=by, swapped=True),
    }
    return Layout(rows, columns, readers[name], lends=name in ("GREY", "Y16", "RGB24", "BGR24"))


def raw_layout_of(name: str, given: abi.PixFormat) -> tuple[Layout, RawFormat]:
    """The same for frames whose bytes are left as they are, for kernels that prepare them; and what the bytes mean.

    Raises:
        DeviceStateError: as above, or rows that begin in the middle of a sample.
        UsageError: MJPG.
    """
    if name == "MJPG":
        raise UsageError("MJPG pictures are decoded on the CPU, not on the GPU.", "Choose an uncompressed format.")
    rows = layout_of(name, given).rows
    columns, width = int(given.width), 2 if name == "Y16" else 1
    across = columns * _BYTES_ACROSS.get(name, 1)
    stride = int(given.bytesperline) or across
    if stride % width:
        raise DeviceStateError(f"The camera's rows are {stride} bytes apart in {name}.", "Choose another size.")
    meant = RawFormat(
        rows,
        columns,
        "uint16" if name == "Y16" else "uint8",
        _RAW[name],
        stride=None if stride == across else stride // width,
        matrix=_matrix(given),
        full_range=_full(given),
    )

    def read(filled: Bytes) -> Pixels:
        nbytes = meant.frame_samples * width
        missing = nbytes - filled.size
        if missing > stride - across:
            raise DamagedFrameError(f"{filled.size} of {nbytes} bytes")
        if missing > 0:  # what would stand behind the last row
            filled = np.concatenate([filled, np.zeros(missing, np.uint8)])
        return filled[:nbytes].view(meant.dtype).reshape(meant.shape)

    return Layout(meant.shape[0], meant.shape[1], read, lends=True), meant


def _plane(filled: Bytes, *, rows: int, stride: int, across: int) -> Bytes:
    """`(rows, across)` bytes: what a driver adds behind each row, and the last, is left out."""
    needed = (rows - 1) * stride + across
    if filled.size < needed:
        raise DamagedFrameError(f"{filled.size} of {needed} bytes")
    return np.lib.stride_tricks.as_strided(filled, (rows, across), (stride, 1), writeable=False)


def _planes(filled: Bytes, *, rows: int, stride: int, across: int, by: Tables, swapped: bool) -> Bytes:
    luma = _plane(filled, rows=rows, stride=stride, across=across)
    chroma = _plane(filled[rows * stride :], rows=rows // 2, stride=stride, across=across)
    return nv12_to_rgb(luma, chroma, by, swapped=swapped)


def _matrix(given: abi.PixFormat) -> Matrix:
    """The driver's word, or what the kernel's `V4L2_MAP_YCBCR_ENC_DEFAULT` says of its colour space."""
    encoding = given.ycbcr_enc
    if encoding == abi.YCBCR_ENC_DEFAULT:
        if given.colorspace in (abi.COLORSPACE_REC709, abi.COLORSPACE_DCI_P3):
            return "709"
        return "2020" if given.colorspace == abi.COLORSPACE_BT2020 else "601"
    if encoding in (abi.YCBCR_ENC_709, abi.YCBCR_ENC_XV709):
        return "709"
    return "2020" if encoding in (abi.YCBCR_ENC_BT2020, abi.YCBCR_ENC_BT2020_CONST_LUM) else "601"


def _full(given: abi.PixFormat) -> bool:
    """As the kernel's `V4L2_MAP_QUANTIZATION_DEFAULT` has it for YCbCr."""
    if given.quantization == abi.QUANTIZATION_FULL_RANGE:
        return True
    return bool(given.quantization != abi.QUANTIZATION_LIM_RANGE and given.colorspace == abi.COLORSPACE_JPEG)
