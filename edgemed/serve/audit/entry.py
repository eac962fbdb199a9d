"""One line of the trail: a JSON object whose bytes are fixed, chained to the line before, and signed.

    {"at":"…","message":"<AuditMessage>…","n":7,"previous":"<SHA-256 of line 6>","signature":"<base64>"}

Keys are sorted and there are no blanks, so each entry has one spelling: any byte that is changed is found.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgemed.base.errors import IntegrityError
from edgemed.base.hashing import canonical_json, sha256_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FIRST: Final = "0" * 64
"""What the first entry is chained to."""

_DOMAIN: Final = b"edgemed/audit/1\0"  # what is signed here is valid as nothing else


@dataclass(frozen=True)
class Entry:
    """One that was read, or is about to be written.

    Attributes:
        n: number, from 1.
        at: when it was written, UTC.
        message: XML, see `message`.
        previous: SHA-256 of the line before.
    """

    n: int
    at: str
    message: str
    previous: str

    def line(self, key: Ed25519PrivateKey) -> bytes:
        """The signed line, with its line break."""
        body = self._body()
        signature = base64.b64encode(key.sign(_DOMAIN + canonical_json(body))).decode()
        return canonical_json({**body, "signature": signature}) + b"\n"

    def _body(self) -> dict[str, Any]:
        return {"n": self.n, "at": self.at, "message": self.message, "previous": self.previous}


def read_line(line: bytes, key: Ed25519PublicKey) -> Entry:
    """An entry whose bytes and signature are right.

    Args:
        line: without its line break.
        key: whose signature it must carry.

    Raises:
        IntegrityError: it is no entry, spelt otherwise, or signed by nobody we know.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        data = json.loads(line)
        entry = Entry(data["n"], data["at"], data["message"], data["previous"])
        signature = base64.b64decode(data["signature"], validate=True)
        exact = canonical_json({**entry._body(), "signature": data["signature"]}) == line
        key.verify(signature, _DOMAIN + canonical_json(entry._body()))
    except (ValueError, KeyError, TypeError, binascii.Error, InvalidSignature, RecursionError) as error:
        raise IntegrityError("it was changed, or is no entry", "") from error
    if not exact:
        raise IntegrityError("it is spelt otherwise than it was written", "")
    return entry


def digest_of(line: bytes) -> str:
    """What the next entry is chained to; `line` without its line break."""
    return sha256_bytes(line)


@dataclass(frozen=True)
class Head:
    """How long the trail was when this was written: what cuts its end off is found.

    Attributes:
        n: number of the last entry.
        digest: of its line.
    """

    n: int
    digest: str

    def to_bytes(self, key: Ed25519PrivateKey) -> bytes:
        return _signed({"n": self.n, "digest": self.digest}, b"head", key)

    @staticmethod
    def read(data: bytes, key: Ed25519PublicKey) -> Head:
        """Raises `IntegrityError` where it is none, or signed by nobody we know."""
        body = _read_signed(data, ("n", "digest"), b"head", key)
        if body is None:
            raise IntegrityError("head.json was changed, or is none.", "The trail may have been cut off.")
        return Head(**body)


@dataclass(frozen=True)
class Seal:
    """The last line of a segment that was closed: by it the segment is known to be whole wherever it lies.

    Attributes:
        first, last: numbers of its entries.
        follows: digest of the entry before the first; `FIRST` where there is none.
        digest: of the last entry.
    """

    first: int
    last: int
    follows: str
    digest: str

    def line(self, key: Ed25519PrivateKey) -> bytes:
        """The signed line, with its line break."""
        return _signed(vars(self), b"seal", key)

    @staticmethod
    def read(line: bytes, key: Ed25519PublicKey) -> Seal:
        """Raises `IntegrityError` where it is none, or signed by nobody we know; `line` without its line break."""
        body = _read_signed(line + b"\n", ("first", "last", "follows", "digest"), b"seal", key)
        if body is None:
            raise IntegrityError("its seal was changed", "")
        return Seal(**body)


def is_seal(line: bytes) -> bool:
    """Whether a line closes a segment, and is no entry: keys are sorted, so that the first one tells."""
    return line.startswith(b'{"digest":')


def _signed(body: dict[str, Any], use: bytes, key: Ed25519PrivateKey) -> bytes:
    signature = base64.b64encode(key.sign(_DOMAIN + use + canonical_json(body))).decode()
    return canonical_json({**body, "signature": signature}) + b"\n"


def _read_signed(data: bytes, names: tuple[str, ...], use: bytes, key: Ed25519PublicKey) -> dict[str, Any] | None:
    """What `_signed` wrote, to the byte; `None` where this is something else."""
    from cryptography.exceptions import InvalidSignature

    try:
        fields = json.loads(data)
        body = {name: fields[name] for name in names}
        key.verify(base64.b64decode(fields["signature"], validate=True), _DOMAIN + use + canonical_json(body))
        exact = canonical_json({**body, "signature": fields["signature"]}) + b"\n" == data
    except (ValueError, KeyError, TypeError, binascii.Error, InvalidSignature, RecursionError):
        return None
    return body if exact else None
