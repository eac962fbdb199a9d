"""Sign a bundle: who vouches for it, and the how-manieth release it is, in a DSSE envelope beside the manifest.

`signature.json` is an envelope of DSSE v1 (github.com/secure-systems-lab/dsse) around an in-toto Statement v1 whose
subject is `manifest.json`; the manifest hashes every other file. Keys are Ed25519 (RFC 8032) in PEM: the private one
stays offline, the public one goes to the bedside. Other tools that know DSSE can check it, too.
"""

from __future__ import annotations

import base64
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgemed.base.errors import InputError, IntegrityError, UsageError, from_os_error
from edgemed.base.hashing import canonical_json, sha256_bytes
from edgemed.base.lazy import require
from edgemed.base.store import fsync_path, write_atomic
from edgemed.bundle.manifest import MANIFEST, SIGNATURE, Digest, Name
from edgemed.bundle.read import Bundle

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "urn:edgemed:signature:1"
MAX_SEQUENCE: Final = 2**53 - 1  # what every reader of JSON keeps exactly
_PURPOSE: Final = "sign bundles, and to check their signatures"
_MAX_KEY_BYTES: Final = 1 << 16


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


def key_id(key: Ed25519PublicKey) -> str:
    """Hex SHA-256 of the key's SubjectPublicKeyInfo: the same number that `openssl pkey -pubin -outform DER` gives."""
    serialization = _serialization()
    return sha256_bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def new_key(path: Path, passphrase: bytes | None = None) -> str:
    """Make a key: the private one at `path`, for nobody else to read, the public one at `path` with `.pub`.

    Args:
        path: of the private key.
        passphrase: to encrypt it with.

    Returns:
        The id of the key.

    Raises:
        InputError: one of the files is there already.
        ResourceError: they cannot be written.
    """
    serialization = _serialization()
    private = require(
        "cryptography.hazmat.primitives.asymmetric.ed25519", extra="serve", purpose=_PURPOSE
    ).Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    public = private.public_key()
    text = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    beside = path.with_name(f"{path.name}.pub")
    if beside.exists():
        raise InputError(f"{beside} exists already.", "Choose another name.")
    _write_new(path, pem, 0o600)
    _write_new(beside, text, 0o644)
    return key_id(public)


def read_private_key(path: Path, passphrase: bytes | None = None) -> Ed25519PrivateKey:
    """The key of a signer.

    Raises:
        InputError: no Ed25519 private key, or the passphrase is missing or wrong.
        IntegrityError: others may read it.
        ResourceError: it cannot be read.
    """
    data = read_small(path, _MAX_KEY_BYTES)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise from_os_error(error, path) from error
    if mode & 0o077:
        raise IntegrityError(f"Others may read {path}.", f"Keep it to yourself: chmod 600 {path}")
    try:
        key: Any = _serialization().load_pem_private_key(data, password=passphrase)
    except TypeError as error:
        lacks = passphrase is None
        what = "has a passphrase" if lacks else "has no passphrase"
        raise InputError(f"{path} {what}.", "Give it." if lacks else "Leave it out.") from error
    except ValueError as error:
        raise InputError(f"{path} is no private key, or its passphrase is another.", "Check both.") from error
    if type(key).__name__ != "Ed25519PrivateKey":
        raise InputError(f"{path} is no Ed25519 key.", "Make one: edgemed sign --new-key FILE")
    found: Ed25519PrivateKey = key
    return found


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A key that is trusted.

    Raises:
        InputError: no Ed25519 public key.
        ResourceError: it cannot be read.
    """
    try:
        key: Any = _serialization().load_pem_public_key(read_small(path, _MAX_KEY_BYTES))
    except ValueError as error:
        raise InputError(
            f"{path} is no public key (PEM).", "Give the .pub file of `edgemed sign --new-key`."
        ) from error
    if not hasattr(key, "public_bytes_raw") or "Ed25519" not in type(key).__name__:
        raise InputError(f"{path} is no Ed25519 key.", "Give the .pub file of `edgemed sign --new-key`.")
    found: Ed25519PublicKey = key
    return found


def read_small(path: Path, limit: int) -> bytes:
    """A small regular file, no link.

    Raises:
        IntegrityError: a link, no regular file, or larger than `limit` bytes.
        ResourceError: it cannot be read.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise IntegrityError(f"{path.name} is no regular file.", "Copy it again.")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise from_os_error(error, path) from error
    if len(data) > limit:
        raise IntegrityError(f"{path.name} is larger than {limit >> 10} KiB.", "Copy it again.")
    return data


def _serialization() -> Any:
    return require("cryptography.hazmat.primitives.serialization", extra="serve", purpose=_PURPOSE)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fsync_path(path.parent)
    except FileExistsError as error:
        raise InputError(f"{path} exists already.", "A key is never written over: choose another name.") from error
    except OSError as error:
        raise from_os_error(error, path) from error
