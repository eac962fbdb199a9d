"""Whether a trail is whole: every byte of every line, the chain between them, and its end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import InputError, IntegrityError, from_os_error
from edgemed.serve.audit.chain import FOLDER, HEAD, TRAIL
from edgemed.serve.audit.entry import FIRST, Entry, Head, digest_of, read_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_LONGEST_LINE: Final = 4 << 20


@dataclass(frozen=True)
class Verified:
    """A trail that is whole.

    Attributes:
        entries: how many.
        first, last: when, UTC; '' of an empty one.
        behind: entries written after the head: a crash came between; they are signed all the same.
    """

    entries: int
    first: str
    last: str
    behind: int


def folder_of(path: Path) -> Path:
    """The folder of a trail: given itself, or the state that holds it.

    Raises:
        InputError: there is none.
    """
    for folder in (path, path / FOLDER):
        if (folder / TRAIL).is_file():
            return folder
    raise InputError(f"{path} holds no audit trail ({TRAIL}).", "Give the state directory of a daemon, or its audit/.")


def verify_trail(folder: Path, key: Ed25519PublicKey) -> Verified:
    """Read a whole trail.

    Raises:
        IntegrityError: something was changed, put in, taken out or cut off; names the first such line.
        ResourceError: it cannot be read.
    """
    first = last = ""
    digest, n = FIRST, 0
    head = _head(folder, key)
    at_head = FIRST if head is not None and head.n == 0 else None
    try:
        with (folder / TRAIL).open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                n += 1
                entry = _entry(line, n, digest, key)
                digest = digest_of(line[:-1])
                first, last = first or entry.at, entry.at
                if head is not None and n == head.n:
                    at_head = digest
    except OSError as error:
        raise from_os_error(error, folder) from error
    if head is None and n:
        raise IntegrityError("head.json is missing: whether the trail was cut off cannot be told.", "Find it.")
    if head is not None and at_head != head.digest:
        what = f"ends with entry {n}; it had {head.n}" if head.n > n else "does not fit its head"
        raise IntegrityError(f"The trail {what}: its end was cut off or changed.", "Find out by whom.")
    return Verified(n, first, last, n - head.n if head is not None else 0)


def last_entries(folder: Path, count: int) -> list[str]:
    """The messages (XML) of the last entries, newest first, as they stand there; not verified."""
    import json

    with (folder / TRAIL).open("rb") as file:
        lines = deque(file, maxlen=count)
    return [str(json.loads(line)["message"]) for line in reversed(lines) if line.endswith(b"\n")]


def _entry(line: bytes, n: int, previous: str, key: Ed25519PublicKey) -> Entry:
    try:
        if not line.endswith(b"\n"):
            raise IntegrityError("it has no end", "")
        entry = read_line(line[:-1], key)
        if entry.n != n:
            raise IntegrityError(f"it is entry {entry.n}: entries were taken out, put in or moved", "")
        if entry.previous != previous:
            raise IntegrityError("it does not follow the line before", "")
    except IntegrityError as error:
        raise IntegrityError(
            f"Line {n} of the trail is not as it was written: {error.what}.", "Find out by whom."
        ) from error
    return entry


def _head(folder: Path, key: Ed25519PublicKey) -> Head | None:
    path = folder / HEAD
    return Head.read(path.read_bytes(), key) if path.is_file() else None
