"""What the first bytes of a data set tell: which image it is, and what it shows; and the file that is put around it.

What is kept is hashed from the data set on (`part10.hash_dataset`): the file meta information before it is ours.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final

from edgemed import __version__
from edgemed.base.errors import InputError
from edgemed.imaging.dicom.elements import Element, elements, inflated
from edgemed.imaging.dicom.sniff import MAGIC, PREAMBLE
from edgemed.imaging.dicom.syntaxes import Syntax

IMPLEMENTATION: Final = "2.25.121347133426657520197821531825224967546"
"""Implementation Class UID of edgemed (PS3.7 D.3.3.2), on the network and in files."""
VERSION_NAME: Final = f"EDGEMED_{__version__}"[:16]
"""Implementation Version Name."""

ROWS: Final = 0x00280010

UIDS: Final = {
    0x00080016: "sop_class",
    0x00080018: "sop_instance",
    0x0020000D: "study",
    0x0020000E: "series",
}
"""What names an image, by tag."""
_LAST: Final = max(UIDS)
_DESCRIBING: Final = {
    **dict.fromkeys(UIDS, b"UI"),
    0x00080060: b"CS",  # Modality
    0x00080070: b"LO",  # Manufacturer
    0x0008103E: b"LO",  # Series Description
    0x00180015: b"CS",  # Body Part Examined
    0x00201002: b"IS",  # Images in Acquisition
    0x00201208: b"IS",  # Number of Study Related Instances
    0x00201209: b"IS",  # Number of Series Related Instances
    ROWS: b"US",
}
_DIGITS: Final = frozenset("0123456789.")
# without the two that Japanese character sets read otherwise; one of them parts values, too
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - set(b"\\~")


@dataclass(frozen=True)
class Identity:
    """What names an image; '' where the first bytes do not tell."""

    sop_class: str = ""
    sop_instance: str = ""
    study: str = ""
    series: str = ""


@dataclass(frozen=True)
class Glance:
    """What the first bytes of a data set tell.

    Attributes:
        identity: of the image.
        texts: of an image that has rows and describes itself before them in plain ASCII: the values, by tag. `None` of
            all others, which must be parsed to know what they say (`describe.describe`).
    """

    identity: Identity
    texts: dict[int, str] | None = None


def look(head: bytes, syntax: Syntax) -> Glance:
    """Read the first bytes of a data set, without decoding what is between the elements that matter.

    Args:
        head: the first bytes of the data set, `elements.HEAD` of them where there are so many.
        syntax: how it is written.

    Raises:
        InputError: the bytes are no data set of that transfer syntax.
    """
    head = inflated(head, syntax)
    found: dict[int, Element] = {}
    walk = elements(head, syntax)
    for element in walk:
        tag = element.tag
        if tag > _LAST:
            return Glance(_identity(head, found), _texts(head, found, chain((element,), walk)))
        if tag >> 16 < 0x0008 and not found:
            raise InputError("It does not begin like a data set.", "Send it again.")
        if tag in UIDS and tag in found:
            raise InputError("It says twice who it is.", "Send it again.")
        if tag in _DESCRIBING:
            found[tag] = element
    return Glance(_identity(head, found))


def encode_meta(sop_class: str, sop_instance: str, syntax: str, source: str = "") -> bytes:
    """Preamble and file meta information of a Part 10 file (PS3.10 section 7.1): the data set follows.

    Args:
        sop_class: SOP Class UID.
        sop_instance: SOP Instance UID.
        syntax: Transfer Syntax UID.
        source: AE title of who sent it.
    """
    body = struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\x00\x01"
    for element, value in ((2, sop_class), (3, sop_instance), (0x10, syntax), (0x12, IMPLEMENTATION)):
        body += _short(element, b"UI", value.encode("ascii"), b"\0")
    body += _short(0x13, b"SH", VERSION_NAME.encode("ascii"), b" ")
    if source:
        body += _short(0x16, b"AE", source.encode("ascii"), b" ")
    return bytes(PREAMBLE) + MAGIC + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body)) + body


def _identity(head: bytes, found: dict[int, Element]) -> Identity:
    return Identity(**{name: _uid(_value(head, found[tag])) for tag, name in UIDS.items() if tag in found})


def _texts(head: bytes, found: dict[int, Element], rest: Iterable[Element]) -> dict[int, str] | None:
    """Values of what was found, and of what is in the rest up to Rows."""
    several = dict(found)
    with suppress(InputError):  # damage behind what names it: who parses it says so
        for element in rest:
            if element.tag > ROWS:
                return _plain_values(head, several) if ROWS in several else None
            if element.tag in _DESCRIBING:
                if element.tag in several:
                    return None
                several[element.tag] = element
    return None


def _plain_values(head: bytes, found: dict[int, Element]) -> dict[int, str] | None:
    texts = {}
    for tag, element in found.items():
        value = _value(head, element).strip(b"\0 ")
        if element.vr not in (b"", _DESCRIBING[tag]) or not (tag == ROWS or _PLAIN.issuperset(value)):
            return None
        texts[tag] = value.decode("ascii", "replace")
    return texts


def _value(head: bytes, element: Element) -> bytes:
    """Of an element; empty where it is not all there, for the beginning of a UID is another UID."""
    end = element.value + element.length
    return head[element.value : end] if end <= len(head) else b""


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0 ").decode("ascii", "replace")
    return text if len(text) <= 64 and _DIGITS.issuperset(text) else ""


def _short(element: int, vr: bytes, value: bytes, padding: bytes) -> bytes:
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
