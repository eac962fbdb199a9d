"""Ed25519 keys of the audit trail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from edgemed.base.errors import IntegrityError, from_os_error
from edgemed.base.lazy import require
from edgemed.base.store import write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_MOST: Final = 16 << 10  # bytes of a key file


def private_key(path: Path, *, make: bool = False) -> Ed25519PrivateKey:
    """The private key of a PEM file.

    Args:
        path: of the file.
        make: make one where there is none, readable by its owner alone.

    Raises:
        IntegrityError: no Ed25519 key.
        ResourceError: it cannot be read or written.
    """
    serialization, ed25519 = _crypto()
    if make and not path.exists():
        key = ed25519.Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomic(path, pem)
    loaded = _load(path, lambda data: serialization.load_pem_private_key(data, password=None))
    if not isinstance(loaded, ed25519.Ed25519PrivateKey):
        raise _no_key(path)
    return cast("Ed25519PrivateKey", loaded)


def public_key(path: Path) -> Ed25519PublicKey:
    """The public key of a PEM file.

    Raises:
        IntegrityError: no Ed25519 key.
        ResourceError: it cannot be read.
    """
    serialization, ed25519 = _crypto()
    loaded = _load(path, serialization.load_pem_public_key)
    if not isinstance(loaded, ed25519.Ed25519PublicKey):
        raise _no_key(path)
    return cast("Ed25519PublicKey", loaded)


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public half, as PEM."""
    serialization, _ = _crypto()
    data: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


def _load(path: Path, read: Any) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise from_os_error(error, path) from error
    try:
        if len(data) > _MOST:
            raise ValueError("too long")
        return read(data)
    except (ValueError, TypeError) as error:  # TypeError: it has a passphrase
        raise _no_key(path) from error


def _no_key(path: Path) -> IntegrityError:
    return IntegrityError(f"{path} holds no Ed25519 key in PEM.", "Give another file.")


def _crypto() -> tuple[Any, Any]:
    purpose = "sign the audit trail"
    serialization = require("cryptography.hazmat.primitives.serialization", extra="serve", purpose=purpose)
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", extra="serve", purpose=purpose)
    return serialization, ed25519
