"""Sign a bundle: who vouches for it, and the how-manieth release it is, in a DSSE envelope beside the manifest.

`signature.json` is an envelope of DSSE v1 (github.com/secure-systems-lab/dsse) around an in-toto Statement v1 whose
subject is `manifest.json`; the manifest hashes every other file. The signer's private key stays offline, the public one
goes to the bedside. Other tools that know DSSE can check it, too.
"""

from __future__ import annotations

import base64
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgemed.base.errors import InputError, UsageError
from edgemed.base.hashing import canonical_json
from edgemed.base.store import write_atomic
from edgemed.bundle.keys import key_id
from edgemed.bundle.manifest import MANIFEST, SIGNATURE, Digest, Name
from edgemed.bundle.read import Bundle

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "urn:edgemed:signature:1"
MAX_SEQUENCE: Final = 2**53 - 1  # what every reader of JSON keeps exactly


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Signature(_Strict):
    """One signature of an envelope."""

    keyid: Digest = Field(description="SHA-256 of the public key's SubjectPublicKeyInfo (DER)")
    sig: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")] = Field(description="64 bytes, base64")


class Envelope(_Strict):
    """`signature.json`: a DSSE v1 envelope."""

    payload_type: Literal["application/vnd.in-toto+json"] = Field(alias="payloadType")
    payload: Annotated[str, Field(max_length=16384, pattern=r"^[A-Za-z0-9+/]+={0,2}$")] = Field(
        description="the statement, base64"
    )
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=1)]


class Digests(_Strict):
    """Of a subject."""

    sha256: Digest


class Subject(_Strict):
    """What is signed."""

    name: Literal["manifest.json"]
    digest: Digests


class Release(_Strict):
    """What the signer says of the bundle."""

    name: Name = Field(description="of the bundle")
    sequence: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)] = Field(
        description="grows from release to release of a model; an older one is refused where a newer one has run"
    )
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class Statement(_Strict):
    """The payload of `signature.json`: an in-toto Statement v1."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Literal["urn:edgemed:signature:1"] = Field(alias="predicateType")
    predicate: Release


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """What is signed: DSSE's pre-authentication encoding, which separates this use of a key from every other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_bundle(bundle: Bundle, key: Ed25519PrivateKey, *, sequence: int | None = None, force: bool = False) -> Release:
    """Put `signature.json` into a verified bundle.

    Args:
        bundle: from `open_bundle`.
        key: of the signer.
        sequence: of this release; `None`: the seconds since 1970, which grow by themselves.
        force: replace a signature that is there.

    Raises:
        InputError: its recipe was assumed, or it is signed already.
        UsageError: a sequence that cannot be.
        ResourceError: it cannot be written.
    """
    if bundle.manifest.recipe.assumed:
        raise InputError(
            f"The recipe of {bundle.path.name} was assumed, not stated: nobody can vouch for it.",
            "Build it with a recipe of its own (--recipe).",
        )
    if (bundle.path / SIGNATURE).exists() and not force:
        raise InputError(f"{bundle.path.name} is signed already.", "Give --force to sign it anew.")
    now = datetime.now(timezone.utc)
    number = int(now.timestamp()) if sequence is None else sequence
    if not 1 <= number <= MAX_SEQUENCE:
        raise UsageError(f"A sequence is a number from 1 to {MAX_SEQUENCE}.", "Give another --sequence.")
    release = Release(name=bundle.manifest.name, sequence=number, created=now.strftime("%Y-%m-%dT%H:%M:%SZ"))
    statement = Statement(
        type_=STATEMENT,
        subject=(Subject(name=MANIFEST, digest=Digests(sha256=bundle.digest)),),
        predicate_type=PREDICATE,
        predicate=release,
    )
    payload = canonical_json(statement.model_dump(by_alias=True))
    envelope = Envelope(
        payload_type=PAYLOAD_TYPE,
        payload=base64.b64encode(payload).decode(),
        signatures=(Signature(keyid=key_id(key.public_key()), sig=base64.b64encode(key.sign(pae(payload))).decode()),),
    )
    write_atomic(bundle.path / SIGNATURE, envelope.model_dump_json(by_alias=True, indent=2).encode() + b"\n")
    (bundle.path / SIGNATURE).chmod(0o644)  # it is no secret, and another user serves it
    return release
