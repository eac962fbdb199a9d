"""Who may ask for what: tokens, of which the file holds hashes only.

    # name role[,role] sha256-of-token
    scanner-gateway infer,store 5e88…

A token has 256 random bits, so its plain SHA-256 tells nothing. The file is read again when it changes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from edgemed.base.errors import InputError, from_os_error
from edgemed.serve.renewal import Renewed, Told, untold

Role = Literal["infer", "store", "read", "admin"]

_LOOK_NS: Final = 1_000_000_000
_MOST_BYTES: Final = 1 << 20
_LINE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})\s+([a-z,]+)\s+([0-9a-f]{64})")


@dataclass(frozen=True)
class Token:
    """One line of the file."""

    name: str
    roles: frozenset[str]
    digest: bytes

    def may(self, role: Role) -> bool:
        """Whether it opens what is for a role; `admin` opens all."""
        return role in self.roles or "admin" in self.roles


def read_tokens(path: Path) -> list[Token]:
    """All tokens of a file.

    Raises:
        InputError: a line is not as it must be, or there is none; says which.
        ResourceError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise from_os_error(error, path) from error
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path} is too large for a file of tokens.", "Keep one line for each token.")
    tokens: list[Token] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        roles = frozenset(match[2].split(",")) if match else frozenset()
        if match is None or not roles <= set(get_args(Role)):
            raise InputError(
                f"{path}: line {number} is no token.", "Write `name role sha256`; roles: infer, store, read, admin."
            )
        tokens.append(Token(match[1], roles, bytes.fromhex(match[3])))
    if not tokens:
        raise InputError(f"{path} holds no token.", "Write `name role sha256`, one a line.")
    if len({token.name for token in tokens}) < len(tokens):
        raise InputError(f"{path} names two tokens alike.", "Give each its own name.")
    return tokens


class Tokens:
    """Those of a file, as it is now. A file that cannot be read any more leaves the last good ones in force.

    Args:
        path: of the file.
        told: whether what has changed can be used.

    Raises:
        EdgemedError: it cannot be used.
    """

    def __init__(self, path: Path, told: Told = untold) -> None:
        self._renewed = Renewed([path], lambda: read_tokens(path), told)
        self._tokens = self._renewed.now()
        self._looked_ns = time.monotonic_ns()

    def of(self, secret: bytes) -> Token | None:
        """The token whose secret it is; in the same time whether there is one or not."""
        self.refresh()
        digest = hashlib.sha256(secret).digest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def refresh(self) -> None:
        """Look at the file, where that was not done within the last second."""
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns >= _LOOK_NS:
            self._looked_ns = now_ns
            self._tokens = self._renewed.now()
