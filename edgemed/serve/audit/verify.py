"""Whether a trail is whole: every byte of every line, the chain between them, seals, and its end.

What is given is a trail, or a run of its closed segments: those that were archived, together with what is still at the
bedside, or without. Segments are read one after the other, each line once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from edgemed.base.errors import InputError, IntegrityError, from_os_error
from edgemed.serve.audit.entry import FIRST, Head, Seal, digest_of, is_seal, read_line
from edgemed.serve.audit.segments import (
    FOLDER,
    HEAD,
    LONGEST_LINE,
    TRAIL,
    closed_segments,
    first_of,
    named_first,
    read_head,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_WHO: Final = "Find out by whom."


@dataclass(frozen=True)
class Verified:
    """What holds.

    Attributes:
        begin, end: numbers of the first and last entry; (1, 0) of an empty trail.
        first, last: when they were written, UTC; '' of an empty one.
        segments: how many files.
        follows: digest of the entry before the first: that with which the segment before ends.
        digest: of the last entry.
        open: whether the end is that of the trail, by its head; else it is that of a closed segment.
        behind: entries written after the head: a crash came between; they are signed all the same.
    """

    begin: int
    end: int
    first: str
    last: str
    segments: int
    follows: str
    digest: str
    open: bool
    behind: int

    @property
    def entries(self) -> int:
        return self.end - self.begin + 1


def folder_of(path: Path) -> Path:
    """The folder of a trail: given itself, the state that holds it, or a segment.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return path.parent
    for folder in (path, path / FOLDER):
        if folder.is_dir() and ((folder / TRAIL).is_file() or closed_segments(folder)):
            return folder
    raise InputError(f"{path} holds no audit trail ({TRAIL}).", "Give the state directory of a daemon, or its audit/.")


def verify_trail(paths: Sequence[Path], key: Ed25519PublicKey, *, since: int | None = None) -> Verified:
    """Read segments.

    Args:
        paths: of folders with a trail or with closed segments, and of closed segments, in any order.
        key: that signed it.
        since: number of the entry from which on all must be there; `None`: from the first one on, and where segments
            are given by name, from the first of theirs on.

    Raises:
        InputError: there is no trail.
        IntegrityError: something was changed, put in, taken out or cut off; names the first such line.
        ResourceError: it cannot be read.
    """
    with ExitStack() as stack:
        try:
            head, files = _gathered(paths, key, stack)
            begin = files[0].first
            least = since if since is not None else 1 if any(path.is_dir() for path in paths) else begin
            if begin > least:
                raise _missing(least, begin - 1, f"Give them as well, or --from {begin} where you have verified them.")
            reader = _Reader(key, begin, head)
            for file in files:
                reader.read(file, last=file is files[-1])
        except OSError as error:
            raise from_os_error(error) from error
    return reader.verified(files)


@dataclass(frozen=True)
class _File:
    """A segment that is about to be read, and the number of its first entry."""

    first: int
    path: Path
    file: BinaryIO

    @property
    def open(self) -> bool:
        """Whether entries may still come to it."""
        return self.path.name == TRAIL


def _gathered(paths: Sequence[Path], key: Ed25519PublicKey, stack: ExitStack) -> tuple[Head | None, list[_File]]:
    """The head, then the open segment, then the closed ones: a daemon may be writing all of them."""
    head: Head | None = None
    files: list[_File] = []
    for path in paths:
        folder = folder_of(path)
        whole = path.is_dir()
        names = [] if whole else [path]
        if whole or path.name == TRAIL:
            head = read_head(folder, key) or head
        if whole and ((folder / HEAD).exists() or (folder / TRAIL).exists()):
            names = [folder / TRAIL]
        for name in [*names, *(closed for _, closed in (closed_segments(folder) if whole else ()))]:
            if not name.exists():
                raise IntegrityError(f"{name} is missing, and its head is there: the end was cut off.", _WHO)
            file = stack.enter_context(name.open("rb"))
            if not any(_is_same(file, each.file) for each in files):  # else it is being closed, and has both names
                files.append(_File(_first(file, name), name, file))
    return head, sorted(files, key=lambda each: (each.first, each.open))


def _first(file: BinaryIO, path: Path) -> int:
    """Number of its first entry; of an empty trail, that which it will have."""
    first = first_of(file)
    if first is None and os.fstat(file.fileno()).st_size:
        raise IntegrityError(f"Line 1 of {path.name} is not as it was written: it is no entry.", _WHO)
    if named_first(path.name) not in (None, first):
        raise IntegrityError(f"{path.name} begins with entry {first}: it was renamed or changed.", _WHO)
    return first or 1


class _Reader:
    """Reads segments in order, the first of them from an entry on."""

    def __init__(self, key: Ed25519PublicKey, begin: int, head: Head | None) -> None:
        self._key, self._begin, self._head = key, begin, head
        self._n = begin - 1
        self._digest = FIRST if begin == 1 else None  # of entry n, where it is known
        self._follows = FIRST
        self._first = self._last = ""
        self._at_head = FIRST if head is not None and head.n == 0 else None

    def read(self, file: _File, *, last: bool) -> None:
        """One segment, whose first entry follows the last one of the segment before."""
        if file.first > self._n + 1:
            raise _missing(self._n + 1, file.first - 1, _WHO)
        if file.first <= self._n:
            raise IntegrityError(f"{file.path.name} holds entries that another segment holds, too.", _WHO)
        number, begin, sealed = 0, self._digest, False
        try:
            for line in _lines(file.file):
                number += 1
                if sealed:
                    raise IntegrityError("it stands behind the seal", "")
                if is_seal(line):
                    self._check_seal(line, file.first, begin)
                    sealed = True
                else:
                    previous = self._entry(line)
                    begin = begin or previous
        except IntegrityError as error:
            where = f"Line {number} of {'the trail' if file.open else file.path.name}"
            raise IntegrityError(f"{where} is not as it was written: {error.what}.", _WHO) from error
        if not sealed and not (file.open and last):
            raise IntegrityError(f"{file.path.name} has no seal: its end was cut off.", _WHO)
        if file.open:
            self._check_head()

    def verified(self, files: Sequence[_File]) -> Verified:
        """What holds, after all were read."""
        return Verified(
            begin=self._begin,
            end=self._n,
            first=self._first,
            last=self._last,
            segments=len(files),
            follows=self._follows,
            digest=self._digest or FIRST,
            open=files[-1].open,
            behind=self._n - self._head.n if self._head is not None and files[-1].open else 0,
        )

    def _entry(self, line: bytes) -> str:
        """One entry; gives the digest of that before it."""
        entry = read_line(_whole(line), self._key)
        if entry.n != self._n + 1:
            raise IntegrityError(f"it is entry {entry.n}: entries were taken out, put in or moved", "")
        if self._digest is None:
            self._follows = entry.previous
        elif entry.previous != self._digest:
            raise IntegrityError("it does not follow the line before", "")
        self._n, self._digest = entry.n, digest_of(line[:-1])
        self._first, self._last = self._first or entry.at, entry.at
        if self._head is not None and self._n == self._head.n:
            self._at_head = self._digest
        return entry.previous

    def _check_seal(self, line: bytes, first: int, follows: str | None) -> None:
        if Seal.read(_whole(line), self._key) != Seal(first, self._n, follows or FIRST, self._digest or FIRST):
            raise IntegrityError("it is the seal of something else", "")

    def _check_head(self) -> None:
        head = self._head
        if head is None:
            if self._n:
                raise IntegrityError("head.json is missing: whether the trail was cut off cannot be told.", "Find it.")
        elif head.n >= self._begin and self._at_head != head.digest:
            what = f"ends with entry {self._n}; it had {head.n}" if head.n > self._n else "does not fit its head"
            raise IntegrityError(f"The trail {what}: its end was cut off or changed.", _WHO)


def _is_same(one: BinaryIO, other: BinaryIO) -> bool:
    """Whether two are the same file, under whatever names."""
    a, b = os.fstat(one.fileno()), os.fstat(other.fileno())
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LONGEST_LINE):
        yield line


def _whole(line: bytes) -> bytes:
    if not line.endswith(b"\n"):
        raise IntegrityError("it has no end", "")
    return line[:-1]


def _missing(first: int, last: int, hint: str) -> IntegrityError:
    return IntegrityError(f"Entries {first} to {last} are not there.", hint)
