"""Keys in files: Ed25519 (RFC 8032) in PEM, of those who sign bundles and of the audit trail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgemed.base.errors import InputError, IntegrityError, from_os_error
from edgemed.base.hashing import sha256_bytes
from edgemed.base.lazy import require
from edgemed.base.store import fsync_path

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_PURPOSE: Final = "sign, and to check signatures"
_MAX_KEY_BYTES: Final = 1 << 16


def key_id(key: Ed25519PublicKey) -> str:
    """Hex SHA-256 of the key's SubjectPublicKeyInfo: the same number that `openssl pkey -pubin -outform DER` gives."""
    serialization = _serialization()
    return sha256_bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def public_pem(key: Ed25519PublicKey) -> bytes:
    """A public key, as PEM."""
    serialization = _serialization()
    data: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return data


def generate(passphrase: bytes | None = None) -> tuple[Ed25519PrivateKey, bytes]:
    """A key that nobody has, and its PEM, encrypted where there is a passphrase."""
    serialization = _serialization()
    kind = require("cryptography.hazmat.primitives.asymmetric.ed25519", extra="serve", purpose=_PURPOSE)
    private: Ed25519PrivateKey = kind.Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    return private, pem


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
    private, pem = generate(passphrase)
    public = private.public_key()
    beside = path.with_name(f"{path.name}.pub")
    if beside.exists():
        raise InputError(f"{beside} exists already.", "Choose another name.")
    _write_new(path, pem, 0o600)
    _write_new(beside, public_pem(public), 0o644)
    return key_id(public)


def read_private_key(path: Path, passphrase: bytes | None = None) -> Ed25519PrivateKey:
    """The key of who signs.

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
    """A key to check signatures with.

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
