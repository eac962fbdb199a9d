"""The files of a trail.

audit/trail.jsonl                 entries, the newest; the open segment
audit/trail-000000000001.jsonl    a closed one, by the number of its first entry; its last line is its seal
audit/head.json                   number and digest of the last entry of all, signed
audit/public.pem                  the key to verify them with; keep a copy elsewhere
audit/torn-2026-11-27T101112.000000Z   what was cut off at a start, if ever; no part of the trail

An open segment has an entry at least, from its first moment on, and is there at every moment: the daemon itself never
looks at closed ones, which are the site's to move away.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from edgemed.base.errors import EdgemedError, IntegrityError
from edgemed.base.store import write_atomic
from edgemed.serve.audit.entry import FIRST, Head, Seal, digest_of, is_seal, read_line
from edgemed.serve.clock import stamp

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

log = logging.getLogger(__name__)

FOLDER: Final = "audit"
TRAIL: Final = "trail.jsonl"
HEAD: Final = "head.json"
PUBLIC: Final = "public.pem"
LONGEST_LINE: Final = 4 << 20
_CLOSED: Final = re.compile(r"trail-(\d{12,})\.jsonl")
_PIECE: Final = 1 << 18


@dataclass(frozen=True)
class End:
    """Where a trail goes on.

    Attributes:
        n: number of the last entry; 0 where there is none.
        digest: of it.
        first: number of the first entry of the open segment.
        follows: digest of the entry before that.
        torn: bytes behind the last line that were cut off: a crash left them.
        seal: where a crash came between closing this segment and beginning the next.
    """

    n: int = 0
    digest: str = FIRST
    first: int = 1
    follows: str = FIRST
    torn: int = 0
    seal: Seal | None = None


def closed_name(first: int) -> str:
    """Of the closed segment that begins with that entry."""
    return f"trail-{first:012d}.jsonl"


def named_first(name: str) -> int | None:
    """Number of the first entry, by the name of a closed segment; `None` for every other name."""
    match = _CLOSED.fullmatch(name)
    return None if match is None else int(match[1])


def closed_segments(folder: Path) -> list[tuple[int, Path]]:
    """Those that are there, in order, each with the number of its first entry."""
    named = ((named_first(path.name), path) for path in folder.iterdir())
    return sorted((first, path) for first, path in named if first is not None)


def segments(folder: Path) -> list[int]:
    """Numbers of the first entries of all that are there, in order."""
    found = {first for first, _ in closed_segments(folder)}
    try:
        with (folder / TRAIL).open("rb") as file:
            first = first_of(file)
    except FileNotFoundError:
        first = None
    return sorted(found if first is None else {*found, first})


def opened(folder: Path, first: int) -> BinaryIO | None:
    """The segment that begins with that entry, for reading, also while it is being closed; `None` where it is not."""
    for name in (closed_name(first), TRAIL, closed_name(first)):
        try:
            file = (folder / name).open("rb")
        except FileNotFoundError:
            continue
        if first_of(file) == first:
            return file
        file.close()
    return None


def first_of(file: BinaryIO) -> int | None:
    """Number of the first entry of a segment, as it stands there; the file is at its beginning afterwards."""
    file.seek(0)
    line = file.readline(LONGEST_LINE)
    file.seek(0)
    try:
        return int(json.loads(line)["n"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_head(folder: Path, key: Ed25519PublicKey) -> Head | None:
    """Raises `IntegrityError` where it is none."""
    path = folder / HEAD
    return Head.read(path.read_bytes(), key) if path.exists() else None


def find_end(folder: Path, key: Ed25519PublicKey) -> End:
    """Where to go on; what a crash left of an entry that was never whole is cut off.

    Raises:
        IntegrityError: the end is not as it was when it was last written.
    """
    path, head = folder / TRAIL, read_head(folder, key)
    began = head is not None or bool(closed_segments(folder))
    # closed segments have had a head: where somebody took it away, nothing but a last line without its end is cut off
    synced = head.n if head is not None else sys.maxsize if began else 0
    torn = _cut_torn(path, synced, key, all_of_it=not began)
    if not path.exists() or not path.stat().st_size:
        if began:
            raise cut(path)
        return End(torn=torn)
    lines = _tail(path, LONGEST_LINE)
    try:
        with path.open("rb") as file:
            begin = read_line(file.readline(LONGEST_LINE)[:-1], key)
        seal = Seal.read(lines.pop(), key) if is_seal(lines[-1]) else None
        n, digest = read_line(lines[-1], key).n, digest_of(lines[-1])
    except IntegrityError as error:
        raise cut(path) from error
    # the head is written after the entries, so the trail may be longer, never shorter
    back = n - head.n if head is not None else 0
    if back < 0 or (head is not None and back < len(lines) and digest_of(lines[-1 - back]) != head.digest):
        raise cut(path)
    if seal is not None and seal != Seal(begin.n, n, begin.previous, digest):
        raise cut(path)
    return End(n, digest, begin.n, begin.previous, torn, seal)


def cut(path: Path) -> IntegrityError:
    """A trail that does not end as it did."""
    return IntegrityError(
        f"{path} does not end as it did when it was last written: it was cut off or changed.",
        "Find out by whom; keep it, and move it away with the segments and the head beside it to begin a new one.",
    )


def messages_after(folder: Path, n: int) -> Iterator[str]:
    """The messages (XML) of the entries after that one, as they stand there; not verified."""
    firsts = segments(folder)
    begin = max((first for first in firsts if first <= n + 1), default=0)
    for file in (opened(folder, first) for first in firsts if first >= begin):
        if file is None:  # it was archived a moment ago
            continue
        with file:
            for line in file:
                if not line.endswith(b"\n") or is_seal(line):
                    break
                number, message = _said(line)
                if number > n:
                    yield message


def last_messages(folder: Path, count: int) -> list[str]:
    """The messages (XML) of the last entries, newest first, as they stand there; not verified."""
    found: list[str] = []
    for path in (folder / TRAIL, *(path for _, path in reversed(closed_segments(folder)))):
        lines = _last_lines(path, count - len(found) + 1)
        found += [message for number, message in map(_said, reversed(lines)) if number]
        if len(found) >= count:
            break
    return found[:count]


def _said(line: bytes) -> tuple[int, str]:
    """Number and message of an entry; 0 where a line is none: `edgemed audit verify` says so, nothing else stops."""
    try:
        entry = json.loads(line)
        return int(entry["n"]), str(entry["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0, ""


def _cut_torn(path: Path, synced: int, key: Ed25519PublicKey, *, all_of_it: bool) -> int:
    """Cut off what a crash left of entries that were never whole; how many bytes, `all_of_it` only where it may be.

    Entries up to the number `synced` were whole: whatever became of them since stays for `edgemed audit verify`.
    """
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        whole = _whole(file, synced, key)
        torn = file.seek(0, os.SEEK_END) - whole
        if not torn or not (whole or all_of_it):
            return 0
        file.seek(whole)
        _put_aside(path.parent, file.read())
        file.truncate(whole)
        os.fsync(file.fileno())
    return torn


def _put_aside(folder: Path, data: bytes) -> None:
    """Keep what is cut off, for who has to find out what became of it. The trail goes on where a full disk cannot."""
    path = folder / f"torn-{stamp().replace(':', '')}"
    try:
        write_atomic(path, data)
    except EdgemedError as error:
        log.error("what was torn of the audit trail cannot be kept: %s", error.what)


def _whole(file: BinaryIO, synced: int, key: Ed25519PublicKey) -> int:
    """Bytes up to the first line that is not whole.

    Entries behind the head were perhaps not synced when power went: any sectors of them may be there, the last as well.
    """
    size, before, number = 0, b"", first_of(file)
    for line in file:
        if not line.endswith(b"\n") or number is None or (number > synced and not _follows(line[:-1], before, key)):
            break
        size, before, number = size + len(line), line[:-1], number + 1
    return size


def _follows(line: bytes, before: bytes, key: Ed25519PublicKey) -> bool:
    """Whether a line is ours, and written after that one; the first one of a segment follows what is not here."""
    try:
        previous = Seal.read(line, key).digest if is_seal(line) else read_line(line, key).previous
    except IntegrityError:
        return False
    return not before or previous == digest_of(before)


def _last_lines(path: Path, count: int) -> list[bytes]:
    """So many, or all there are."""
    size = _PIECE
    while len(lines := _tail(path, size)) < count and size < path.stat().st_size:
        size *= 4
    return lines[-count:]


def _tail(path: Path, size: int) -> list[bytes]:
    """The whole lines in the last bytes of a file."""
    with path.open("rb") as file:
        begin = max(0, file.seek(0, os.SEEK_END) - size)
        file.seek(begin)
        if begin:
            file.readline()
        return [line[:-1] for line in file if line.endswith(b"\n")]
