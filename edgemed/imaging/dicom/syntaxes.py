"""Transfer syntaxes: how the bytes of a file are to be read (PS3.5 section 10 and annex A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgemed.base.errors import InputError

Codec = Literal["native", "rle", "jpeg", "jpegls", "jpeg2k", "deflated frames"]

_ROOT = "1.2.840.10008.1.2"


@dataclass(frozen=True)
class Syntax:
    """One transfer syntax.

    Attributes:
        uid: its UID.
        name: as in PS3.6.
        codec: what the pixel data are coded with.
        encapsulated: pixel data lie in fragments.
        implicit: value representations are left out.
        little: the byte order of the data set.
        deflated: the whole data set is deflated.
    """

    uid: str
    name: str
    codec: Codec = "native"
    encapsulated: bool = True
    implicit: bool = False
    little: bool = True
    deflated: bool = False


IMPLICIT_LITTLE = Syntax(_ROOT, "Implicit VR Little Endian", encapsulated=False, implicit=True)
EXPLICIT_LITTLE = Syntax(f"{_ROOT}.1", "Explicit VR Little Endian", encapsulated=False)
EXPLICIT_BIG = Syntax(f"{_ROOT}.2", "Explicit VR Big Endian", encapsulated=False, little=False)
DEFLATED = Syntax(f"{_ROOT}.1.99", "Deflated Explicit VR Little Endian", encapsulated=False, deflated=True)

_READ = (
    IMPLICIT_LITTLE,
    EXPLICIT_LITTLE,
    EXPLICIT_BIG,
    DEFLATED,
    Syntax(f"{_ROOT}.1.98", "Encapsulated Uncompressed Explicit VR Little Endian"),
    Syntax(f"{_ROOT}.8.1", "Deflated Image Frame Compression", "deflated frames"),
    Syntax(f"{_ROOT}.5", "RLE Lossless", "rle"),
    Syntax(f"{_ROOT}.4.50", "JPEG Baseline (Process 1)", "jpeg"),
    Syntax(f"{_ROOT}.4.51", "JPEG Extended (Process 2 and 4)", "jpeg"),
    Syntax(f"{_ROOT}.4.57", "JPEG Lossless (Process 14)", "jpeg"),
    Syntax(f"{_ROOT}.4.70", "JPEG Lossless (Process 14, Selection Value 1)", "jpeg"),
    Syntax(f"{_ROOT}.4.80", "JPEG-LS Lossless", "jpegls"),
    Syntax(f"{_ROOT}.4.81", "JPEG-LS Near-Lossless", "jpegls"),
    Syntax(f"{_ROOT}.4.90", "JPEG 2000 Lossless Only", "jpeg2k"),
    Syntax(f"{_ROOT}.4.91", "JPEG 2000", "jpeg2k"),
    Syntax(f"{_ROOT}.4.201", "High-Throughput JPEG 2000 Lossless Only", "jpeg2k"),
    Syntax(f"{_ROOT}.4.202", "High-Throughput JPEG 2000 with RPCL Lossless Only", "jpeg2k"),
    Syntax(f"{_ROOT}.4.203", "High-Throughput JPEG 2000", "jpeg2k"),
)
SYNTAXES = {syntax.uid: syntax for syntax in _READ}

_VIDEO = tuple(f"{_ROOT}.4.{n}" for n in (100, 101, 102, 103, 104, 105, 106, 107, 108))
_STREAMED = (f"{_ROOT}.7.",)
_ELSEWHERE = (f"{_ROOT}.4.94", f"{_ROOT}.4.95", f"{_ROOT}.4.204", f"{_ROOT}.4.205")


def find_syntax(uid: str) -> Syntax:
    """The transfer syntax of a UID.

    Raises:
        InputError: one that is not read, by its name.
    """
    if uid in SYNTAXES:
        return SYNTAXES[uid]
    name = _registered_name(uid)
    if any(uid == video or uid.startswith(f"{video}.") for video in _VIDEO) or uid.startswith(_STREAMED):
        raise InputError(f"its pixels are a video stream ({name}).", "Extract still frames, or store it as a cine.")
    if uid in _ELSEWHERE:
        raise InputError(f"its pixels lie on a server ({name}).", "Retrieve the file with its pixels.")
    raise InputError(f"its transfer syntax, {name}, is not supported.", "Convert it, e.g. with dcmconv or gdcmconv.")


def _registered_name(uid: str) -> str:
    from pydicom.uid import UID

    name = UID(uid).name
    return f"{name} ({uid})" if name != uid else f"{uid[:64]!r}"
