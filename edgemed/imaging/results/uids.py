"""UIDs that are made of what an object is about: made again, it is the same object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from edgemed.imaging.results.content import Content

_VERSION: Final = ~(0xF << 76) & (1 << 128) - 1
_VARIANT: Final = ~(0x3 << 62) & (1 << 128) - 1


def uid_of(*parts: object) -> str:
    """A UID of `2.25.` and a UUID (PS3.5 B.2), which is of version 8 (RFC 9562): made of the SHA-256 of `parts`."""
    text = "\0".join(str(part) for part in parts)
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16], "big")
    number = number & _VERSION & _VARIANT | 8 << 76 | 2 << 62
    return f"2.25.{UUID(int=number).int}"


def identity(content: Content, kind: str, about: Iterable[str], index: int = 0) -> str:
    """SOP Instance UID of one object: of its inputs' UIDs, of the model as it ran, and of what it is.

    Not of the answer: what is analysed again after a crash replaces what was sent before. An answer never replaces the
    notice that there was none.
    """
    author = content.author
    return uid_of(
        *sorted(about),
        *(author.model, author.digest, author.precision, author.backend, author.research_only),
        *("answer" if content.refusal is None else "notice", kind, index, content.revision),
    )
