"""The open segment of a trail: entries are appended to it, and when it is long it is closed, and another begun.

How it is closed, so that a crash at any point is mended by the next start, and the trail is there at every moment:

1. `trail.next` is written and synced: the first entry of the segment to come.
2. The seal is appended and synced.
3. The segment gets its name as a closed one, beside `trail.jsonl` (a link).
4. `trail.next` takes the place of `trail.jsonl`.

Before 2 the segment is open, as if nothing had been; from 2 on, the start does the rest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import ResourceError, from_os_error
from edgemed.base.store import fsync_path, write_atomic
from edgemed.serve.audit.entry import Entry, Head, Seal, digest_of
from edgemed.serve.audit.segments import HEAD, TRAIL, closed_name, find_end

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Said = tuple[str, str]
"""An entry to be: when, and its XML."""

_NEXT: Final = "trail.next"
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class Segment:
    """Writes a trail.

    Args:
        folder: of the trail; it is there.
        key: that signs it.
        introduce: what the first entry of a segment says, after that one was closed.

    Attributes:
        n: number of the last entry that is on the disk.
        torn: bytes of an entry that was never whole, cut off when it was opened.
        size: of the open segment, bytes.

    Raises:
        IntegrityError: the end is not as it was when it was last written.
        ResourceError: it cannot be written.
    """

    def __init__(self, folder: Path, key: Ed25519PrivateKey, introduce: Callable[[Seal], Said]) -> None:
        self._folder, self._key, self._introduce = folder, key, introduce
        self._path = folder / TRAIL
        end = find_end(folder, key.public_key())
        self.n, self._previous, self.torn = end.n, end.digest, end.torn
        self._first, self._follows, self._seal = end.first, end.follows, end.seal
        try:
            (folder / _NEXT).unlink(missing_ok=True)
            self._file = os.open(self._path, _FLAGS, 0o600)
            fsync_path(folder)
            self.size = os.fstat(self._file).st_size
        except OSError as error:
            raise from_os_error(error, self._path) from error

    def append(self, entries: Sequence[Said]) -> None:
        """Bring entries to the disk: all of them, or none.

        Raises:
            ResourceError: the disk does not take them.
        """
        if self._seal is not None:
            self._go_on(self._seal, self._prepare(self._seal))
        n, previous, lines = self.n, self._previous, []
        for at, message in entries:
            n += 1
            lines.append(Entry(n, at, message, previous).line(self._key))
            previous = digest_of(lines[-1][:-1])
        self._write(b"".join(lines))
        self.n, self._previous = n, previous

    def write_head(self) -> None:
        """Say how long the trail is.

        Raises:
            ResourceError: the disk does not take it.
        """
        write_atomic(self._folder / HEAD, Head(self.n, self._previous).to_bytes(self._key))

    def end(self) -> None:
        """Close this one, and begin another. What the head says must be all of this one; it is to be written again.

        Raises:
            ResourceError: the disk does not take it: entries go on into this one.
        """
        seal, size = Seal(self._first, self.n, self._follows, self._previous), self.size
        following = self._prepare(seal)
        try:
            self._write(seal.line(self._key))
            self._seal = seal
        except ResourceError:
            os.close(following.file)
            raise
        try:
            self._go_on(seal, following)
        except ResourceError:
            # else the next one is begun, and is what is open now
            if self._seal is not None and not self._has_name(closed_name(seal.first)):
                os.ftruncate(self._file, size)
                self._seal, self.size = None, size
            raise

    def close(self) -> None:
        """No entry comes any more."""
        os.close(self._file)

    def _prepare(self, seal: Seal) -> _Following:
        line = Entry(seal.last + 1, *self._introduce(seal), seal.digest).line(self._key)
        path = self._folder / _NEXT
        try:
            file = os.open(path, _FLAGS | os.O_TRUNC, 0o600)
            try:
                _write_all(file, line)
                os.fsync(file)
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            raise from_os_error(error, path) from error
        return _Following(file, line)

    def _go_on(self, seal: Seal, following: _Following) -> None:
        name = closed_name(seal.first)
        closed = self._folder / name
        try:
            if not self._has_name(name):
                os.link(self._path, closed)
            fsync_path(self._folder)
            os.replace(self._folder / _NEXT, self._path)  # noqa: PTH105 - beside `link`
        except OSError as error:
            os.close(following.file)
            raise from_os_error(error, closed) from error
        os.close(self._file)
        self._file, self.size, self._seal = following.file, len(following.line), None
        self.n = self._first = seal.last + 1
        self._follows, self._previous = seal.digest, digest_of(following.line[:-1])
        try:
            fsync_path(self._folder)
        except OSError as error:
            raise from_os_error(error, self._folder) from error

    def _has_name(self, name: str) -> bool:
        """Whether the open segment has it, too."""
        other = self._folder / name
        return other.exists() and other.samefile(self._path)

    def _write(self, data: bytes) -> None:
        try:
            # what stands of entries that failed must not stand before those that are written later
            os.ftruncate(self._file, self.size)
            _write_all(self._file, data)
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):  # a read-only disk; the next try cuts it off
                os.ftruncate(self._file, self.size)
            raise from_os_error(error, self._path) from error
        self.size += len(data)


@dataclass(frozen=True)
class _Following:
    """The first entry of the next segment, on the disk, in a file of its own that is open."""

    file: int
    line: bytes


def _write_all(file: int, data: bytes) -> None:
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
