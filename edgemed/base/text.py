"""Text from files, made safe to show."""

from __future__ import annotations

from typing import Final

PRINTABLE: Final = r"^[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]*$"
"""Names in our documents hold no controls, no line breaks, and no marks of writing direction (a regular expression)."""


def printable(text: str) -> str:
    r"""`text` with everything that would steer a terminal written out: `\x1b`, `\u202e`, `\xff` for a stray byte.

    Controls, line breaks, marks that turn the direction of writing, and bytes of file names that are no UTF-8 are
    escaped; letters of all scripts stay.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(ord(c)) for c in text)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte that is no UTF-8 (PEP 383)
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
