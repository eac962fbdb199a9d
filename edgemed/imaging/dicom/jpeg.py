"""JPEG frames that are decoded in full: libjpeg only warns when a scan ends early, and paints the rest in one gray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.codestream import Codestream, damaged

Decode = Callable[[bytes | memoryview], NDArray[Any]]

_EOI = b"\xff\xd9"
_PATCH = 4  # smaller than any block
# would be decoded, to something that is not flat, if the scan had not ended
_MORE = bytes(range(1, 127)) * 2


def decode_whole(data: memoryview, head: Codestream, decode: Decode) -> NDArray[Any]:
    """Decode a frame, and make sure that its scans hold all of it.

    Where a scan ends early, the lower right corner is flat: blocks without data repeat the last gray, differences
    without data repeat the last pixel. Where it is flat, the frame is decoded once more with further data behind the
    scan: those of a whole one are never looked at.

    Raises:
        InputError: the frame is cut short, in the file or by its encoder.
    """
    stream = bytes(data)
    end = stream.rfind(_EOI)  # real files have padding behind it, and leavings of the writer's buffer
    if end < 0:
        raise damaged("is cut short")
    pixels = decode(data)
    size = 2 if head.lossless else _PATCH
    corner = pixels[-1:, -size:] if head.lossless else pixels[-size:, -size:]
    if (corner == corner[:1, :1]).all() and not _same(pixels, decode, stream[:end] + _MORE + _EOI):
        raise damaged("is cut short")
    return pixels


def _same(pixels: NDArray[Any], decode: Decode, stream: bytes) -> bool:
    try:
        return np.array_equal(pixels, decode(stream))
    except InputError:  # a scan that was whole is not touched by what follows
        return False
