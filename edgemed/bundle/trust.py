"""Whose bundles may run. The signature is checked before anything of a bundle is read but the bytes of its manifest."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from edgemed.base.errors import InputError, IntegrityError
from edgemed.base.hashing import sha256_bytes
from edgemed.base.lazy import require
from edgemed.bundle.keys import key_id, read_public_key, read_small
from edgemed.bundle.manifest import MANIFEST, SIGNATURE
from edgemed.bundle.read import Bundle, is_bundle, open_bundle
from edgemed.bundle.sign import Envelope, Release, Statement, pae

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_MAX_SIGNATURE_BYTES: Final = 1 << 16
_MAX_MANIFEST_BYTES: Final = 16 << 20
_MAX_REVOKED_BYTES: Final = 16 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_AGAIN: Final = "Copy the bundle again from who signed it, or have it signed anew."


@dataclass(frozen=True)
class Signed:
    """A signature that was checked."""

    key: str
    release: Release


@dataclass(frozen=True)
class Trust:
    """Whose bundles may run.

    Attributes:
        keys: those who may sign, by key id.
        revoked: digests of bundles, and key ids, that run no more.
        allow_unsigned: a bundle that nobody known has signed runs, too.
    """

    keys: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    allow_unsigned: bool = False

    @classmethod
    def read(cls, keys: Sequence[Path], revoked: Path | None = None, *, allow_unsigned: bool = False) -> Trust:
        """From files.

        Raises:
            InputError: one is no key, or the list has a line that is no digest.
            ResourceError: one cannot be read.
        """
        read = {key_id(key): key for key in map(read_public_key, keys)}
        return cls(read, frozenset() if revoked is None else read_revoked(revoked), allow_unsigned)


def read_revoked(path: Path) -> frozenset[str]:
    """Digests and key ids, one a line; what follows a `#` is for people.

    Raises:
        InputError: a line is neither.
        ResourceError: it cannot be read.
    """
    found = set()
    for number, line in enumerate(read_small(path, _MAX_REVOKED_BYTES).decode("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip().lower()
        if text and not _DIGEST.fullmatch(text):
            raise InputError(f"{path}, line {number}, is no SHA-256 digest.", "Write 64 hexadecimal digits a line.")
        found.add(text)
    return frozenset(found - {""})


def open_trusted(path: Path, trust: Trust) -> tuple[Bundle, Signed | None]:
    """Check who signed a bundle, then every byte of it.

    Args:
        path: of the bundle.
        trust: whose bundles may run.

    Returns:
        The bundle, and its signature; `None` where it is unsigned and that is allowed.

    Raises:
        InputError: there is no bundle.
        IntegrityError: unsigned, signed by nobody who is trusted, signed for other bytes, revoked, or damaged.
    """
    if not is_bundle(path) or not (path / MANIFEST).is_file():
        open_bundle(path)  # which says what it is instead
    signed, digest = _check(path, trust)
    bundle = open_bundle(path)
    if bundle.digest != digest:
        raise IntegrityError("manifest.json was changed while its signature was checked.", _AGAIN)
    return bundle, signed


def check_signature(path: Path, keys: Mapping[str, Ed25519PublicKey], digest: str) -> Signed | None:
    """The signature of a bundle whose manifest has that digest; `None` where none of the keys is the signer's.

    Raises:
        IntegrityError: `signature.json` is damaged, or not of this manifest, or the signature does not fit.
    """
    envelope = read_envelope(path)
    signature = envelope.signatures[0]
    key = keys.get(signature.keyid)
    if key is None:
        return None
    invalid = require("cryptography.exceptions", extra="serve", purpose="check signatures").InvalidSignature
    try:
        payload = base64.b64decode(envelope.payload, validate=True)
        key.verify(base64.b64decode(signature.sig, validate=True), pae(payload))
    except (invalid, ValueError) as error:
        raise IntegrityError("The signature does not fit: signature.json was changed.", _AGAIN) from error
    try:
        statement = Statement.model_validate_json(payload)
    except ValidationError as error:
        raise IntegrityError("The key has signed something else than a bundle.", _AGAIN) from error
    if statement.subject[0].digest.sha256 != digest:
        raise IntegrityError("The signature is of another bundle: its manifest has another digest.", _AGAIN)
    return Signed(signature.keyid, statement.predicate)


def read_envelope(path: Path) -> Envelope:
    """`signature.json` of a bundle, unchecked.

    Raises:
        IntegrityError: it is no such document.
    """
    try:
        return Envelope.model_validate_json(read_small(path / SIGNATURE, _MAX_SIGNATURE_BYTES))
    except ValidationError as error:
        raise IntegrityError("signature.json does not follow its schema.", _AGAIN) from error


def _check(path: Path, trust: Trust) -> tuple[Signed | None, str]:
    digest = sha256_bytes(read_small(path / MANIFEST, _MAX_MANIFEST_BYTES))
    if digest in trust.revoked:
        raise IntegrityError(f"{path.name} was revoked ({digest}).", "Take another version.")
    if not (path / SIGNATURE).exists() and not (path / SIGNATURE).is_symlink():
        if trust.allow_unsigned:
            return None, digest
        raise IntegrityError(f"{path.name} is not signed.", "Sign it: edgemed sign BUNDLE --key FILE")
    keyid = read_envelope(path).signatures[0].keyid
    if keyid in trust.revoked:
        raise IntegrityError(f"{path.name} was signed with a key that was revoked ({keyid}).", "Have it signed anew.")
    signed = check_signature(path, trust.keys, digest)
    if signed is None and not trust.allow_unsigned:
        raise IntegrityError(
            f"{path.name} was signed with a key that is not trusted ({keyid}).",
            "Trust its public key, or take another.",
        )
    return signed, digest
