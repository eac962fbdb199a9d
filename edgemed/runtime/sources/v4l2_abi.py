"""The part of Linux's Video4Linux2 interface that capturing needs: request codes, structures, flags.

Names and numbers are those of the kernel's `videodev2.h`, for 64-bit systems. The library for Python, linuxpy, is under
the GPL, and so not for a product at the bedside. Tests hold every structure against the header by compiling it.
"""

from __future__ import annotations

import ctypes as c
from typing import Final


class Capability(c.Structure):
    """`v4l2_capability`."""

    _fields_ = (
        ("driver", c.c_char * 16),
        ("card", c.c_char * 32),
        ("bus_info", c.c_char * 32),
        ("version", c.c_uint32),
        ("capabilities", c.c_uint32),
        ("device_caps", c.c_uint32),
        ("reserved", c.c_uint32 * 3),
    )


class FmtDesc(c.Structure):
    """`v4l2_fmtdesc`."""

    _fields_ = (
        ("index", c.c_uint32),
        ("type", c.c_uint32),
        ("flags", c.c_uint32),
        ("description", c.c_char * 32),
        ("pixelformat", c.c_uint32),
        ("mbus_code", c.c_uint32),
        ("reserved", c.c_uint32 * 3),
    )


class FrmSizeEnum(c.Structure):
    """`v4l2_frmsizeenum`: width and height, or least, greatest and step of both."""

    _fields_ = (
        ("index", c.c_uint32),
        ("pixel_format", c.c_uint32),
        ("type", c.c_uint32),
        ("size", c.c_uint32 * 6),
        ("reserved", c.c_uint32 * 2),
    )


class PixFormat(c.Structure):
    """`v4l2_pix_format`."""

    _fields_ = tuple(
        (name, c.c_uint32)
        for name in (
            "width",
            "height",
            "pixelformat",
            "field",
            "bytesperline",
            "sizeimage",
            "colorspace",
            "priv",
            "flags",
            "ycbcr_enc",
            "quantization",
            "xfer_func",
        )
    )


class _FormatUnion(c.Union):
    _fields_ = (("pix", PixFormat), ("raw", c.c_uint8 * 200), ("aligned", c.c_void_p))  # one member holds pointers


class Format(c.Structure):
    """`v4l2_format`."""

    _fields_ = (("type", c.c_uint32), ("fmt", _FormatUnion))


class Fraction(c.Structure):
    """`v4l2_fract`."""

    _fields_ = (("numerator", c.c_uint32), ("denominator", c.c_uint32))


class CaptureParm(c.Structure):
    """`v4l2_captureparm`."""

    _fields_ = (
        ("capability", c.c_uint32),
        ("capturemode", c.c_uint32),
        ("timeperframe", Fraction),
        ("extendedmode", c.c_uint32),
        ("readbuffers", c.c_uint32),
        ("reserved", c.c_uint32 * 4),
    )


class _ParmUnion(c.Union):
    _fields_ = (("capture", CaptureParm), ("raw", c.c_uint8 * 200))


class StreamParm(c.Structure):
    """`v4l2_streamparm`."""

    _fields_ = (("type", c.c_uint32), ("parm", _ParmUnion))


class RequestBuffers(c.Structure):
    """`v4l2_requestbuffers`."""

    _fields_ = (
        ("count", c.c_uint32),
        ("type", c.c_uint32),
        ("memory", c.c_uint32),
        ("capabilities", c.c_uint32),
        ("flags", c.c_uint8),
        ("reserved", c.c_uint8 * 3),
    )


class _TimeVal(c.Structure):
    _fields_ = (("tv_sec", c.c_long), ("tv_usec", c.c_long))


class _BufferPlace(c.Union):
    _fields_ = (("offset", c.c_uint32), ("userptr", c.c_ulong), ("planes", c.c_void_p), ("fd", c.c_int32))


class Buffer(c.Structure):
    """`v4l2_buffer`."""

    _fields_ = (
        ("index", c.c_uint32),
        ("type", c.c_uint32),
        ("bytesused", c.c_uint32),
        ("flags", c.c_uint32),
        ("field", c.c_uint32),
        ("timestamp", _TimeVal),
        ("timecode", c.c_uint32 * 4),
        ("sequence", c.c_uint32),
        ("memory", c.c_uint32),
        ("m", _BufferPlace),
        ("length", c.c_uint32),
        ("reserved2", c.c_uint32),
        ("request_fd", c.c_int32),
    )


_WRITE, _READ = 1, 2


def _code(direction: int, number: int, kind: type[c.Structure] | type[c.c_int]) -> int:
    """A request code as `asm-generic/ioctl.h` builds it: direction, size, letter, number."""
    return direction << 30 | c.sizeof(kind) << 16 | ord("V") << 8 | number


QUERYCAP: Final = _code(_READ, 0, Capability)
ENUM_FMT: Final = _code(_READ | _WRITE, 2, FmtDesc)
S_FMT: Final = _code(_READ | _WRITE, 5, Format)
REQBUFS: Final = _code(_READ | _WRITE, 8, RequestBuffers)
QUERYBUF: Final = _code(_READ | _WRITE, 9, Buffer)
QBUF: Final = _code(_READ | _WRITE, 15, Buffer)
DQBUF: Final = _code(_READ | _WRITE, 17, Buffer)
STREAMON: Final = _code(_WRITE, 18, c.c_int)
STREAMOFF: Final = _code(_WRITE, 19, c.c_int)
S_PARM: Final = _code(_READ | _WRITE, 22, StreamParm)
ENUM_FRAMESIZES: Final = _code(_READ | _WRITE, 74, FrmSizeEnum)

VIDEO_CAPTURE: Final = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
MEMORY_MMAP: Final = 1
FIELD_ANY, FIELD_NONE = 0, 1

CAP_VIDEO_CAPTURE: Final = 0x00000001
CAP_VIDEO_CAPTURE_MPLANE: Final = 0x00001000
CAP_STREAMING: Final = 0x04000000
CAP_DEVICE_CAPS: Final = 0x80000000
CAP_TIMEPERFRAME: Final = 0x1000

BUF_FLAG_ERROR: Final = 0x00000040
BUF_FLAG_TIMESTAMP_MASK: Final = 0x0000E000
BUF_FLAG_TIMESTAMP_MONOTONIC: Final = 0x00002000

FRMSIZE_DISCRETE: Final = 1

QUANTIZATION_FULL_RANGE, QUANTIZATION_LIM_RANGE = 1, 2
COLORSPACE_SMPTE240M, COLORSPACE_REC709, COLORSPACE_JPEG = 2, 3, 7
COLORSPACE_BT2020, COLORSPACE_DCI_P3 = 10, 12
YCBCR_ENC_DEFAULT, YCBCR_ENC_601, YCBCR_ENC_709, YCBCR_ENC_XV709 = 0, 1, 2, 4
YCBCR_ENC_BT2020, YCBCR_ENC_BT2020_CONST_LUM = 6, 7


def fourcc(name: str) -> int:
    """The number of a pixel format, from its four letters."""
    return int.from_bytes(name.encode("ascii"), "little")


def fourcc_name(number: int) -> str:
    """The four letters of a pixel format."""
    text = (number & 0x7FFFFFFF).to_bytes(4, "little").decode("latin-1")
    return text if text.isprintable() else hex(number)
