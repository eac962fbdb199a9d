"""The trail on the disk: entries are written by one thread, synced, and the head after them.

audit/trail.jsonl    the entries
audit/head.json      number and digest of the last one, signed
audit/public.pem     the key to verify them with; keep a copy elsewhere
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import EdgemedError, IntegrityError, from_os_error
from edgemed.base.store import fsync_path, write_atomic
from edgemed.bundle.keys import generate, public_pem, read_private_key
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.entry import FIRST, Entry, Head, digest_of
from edgemed.serve.audit.message import message
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.clock import stamp
from edgemed.serve.config import Config

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

log = logging.getLogger(__name__)

FOLDER: Final = "audit"
TRAIL: Final = "trail.jsonl"
HEAD: Final = "head.json"
PUBLIC: Final = "public.pem"
_MOST_WAITING: Final = 100_000
_TOGETHER: Final = 1000  # entries with one sync
_LOOK_S: Final = 0.25  # for the end, while nothing comes
_AGAIN_S: Final = 1.0  # after the disk took nothing
_TAIL: Final = 4 << 20  # bytes from the end in which the last line must begin


class AuditLog:
    """Writes the trail.

    Attributes:
        found: entries that were there at the start.

    An entry is on the disk a moment after `record`, before `close` returns at the latest. While the disk takes nothing,
    entries wait, up to 100,000; then they are counted, and the gap is an entry of its own.
    """

    def __init__(self, config: Config, alarms: Alarms) -> None:
        """Go on where the trail ends.

        Raises:
            IntegrityError: the last entry does not fit the head: it was cut off or changed.
            ResourceError: it cannot be written.
        """
        self._station = config.daemon.name
        self._alarms = alarms
        self.folder = config.daemon.state / FOLDER
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fsync_path(self.folder.parent)
        except OSError as error:
            raise from_os_error(error, self.folder) from error
        self._key = _key(config.audit.key, self.folder)
        write_atomic(self.folder / PUBLIC, public_pem(self._key.public_key()))
        self._n, self._previous, torn = self._end()
        self.found = self._n
        self._queue: queue.Queue[AuditEvent] = queue.Queue(_MOST_WAITING)
        self._lost = 0
        self._ending = threading.Event()
        self._file = self._open()
        self._size = os.fstat(self._file).st_size
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()
        detail = f"{torn} bytes of an entry that was never whole were cut off." if torn else ""
        self.record(AuditEvent("start", detail=detail))

    def record(self, event: AuditEvent) -> None:
        """See `Audit`."""
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._lost += 1

    @property
    def written(self) -> int:
        """Number of the last entry that is on the disk."""
        return self._n

    def close(self) -> None:
        """Write what waits, and end; what a disk does not take now is lost."""
        self.record(AuditEvent("stop"))
        self._ending.set()
        self._thread.join(timeout=10)
        if not self._thread.is_alive():  # else the number of the file could be another's while it still writes
            os.close(self._file)

    # -- the writer ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Until the end, and until nothing waits or the disk takes nothing."""
        waiting: list[AuditEvent] = []
        while True:
            last = self._ending.is_set()
            self._fetch(waiting)
            if waiting and not self._written(waiting):
                if last:
                    log.error("%d entries of the audit trail could not be written", len(waiting))
                    return
                self._ending.wait(_AGAIN_S)
            elif last and self._queue.empty():
                return

    def _fetch(self, waiting: list[AuditEvent]) -> None:
        """Add what has come; where nothing waits, wait for something."""
        try:
            while len(waiting) < _TOGETHER:
                waiting.append(self._queue.get(timeout=0 if waiting else _LOOK_S))
        except queue.Empty:
            pass
        if waiting and self._lost:
            lost, self._lost = self._lost, 0
            waiting.append(AuditEvent("config", "serious", detail=f"{lost} entries could not be kept."))

    def _written(self, waiting: list[AuditEvent]) -> bool:
        """Write them, and forget them; nothing that goes wrong may end the thread."""
        try:
            self._append(waiting)
            waiting.clear()
            write_atomic(self.folder / HEAD, Head(self._n, self._previous).to_bytes(self._key))
            self._alarms.clear("audit-failed")
        except Exception as error:
            what = error.what if isinstance(error, EdgemedError) else type(error).__name__
            if not isinstance(error, EdgemedError):
                log.exception("the audit trail cannot be written")
            self._alarms.raise_("audit-failed", f"The audit trail cannot be written: {what}")
            return False
        return True

    def _append(self, events: list[AuditEvent]) -> None:
        n, previous, lines = self._n, self._previous, []
        for event in events:
            n += 1
            at = stamp()
            line = Entry(n, at, message(event, at, self._station), previous).line(self._key)
            previous = digest_of(line[:-1])
            lines.append(line)
        data = b"".join(lines)
        try:
            # what stands of entries that failed must not stand before those that are written later
            os.ftruncate(self._file, self._size)
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):  # a read-only disk; the next try cuts it off
                os.ftruncate(self._file, self._size)
            raise from_os_error(error, self.folder / TRAIL) from error
        self._n, self._previous, self._size = n, previous, self._size + len(data)

    def _open(self) -> int:
        try:
            file = os.open(self.folder / TRAIL, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fsync_path(self.folder)
        except OSError as error:
            raise from_os_error(error, self.folder / TRAIL) from error
        return file

    def _end(self) -> tuple[int, str, int]:
        """Number and digest of the last entry, and how many bytes behind it were cut off: a crash left them."""
        path, head = self.folder / TRAIL, self._head()
        if not path.exists() or not path.stat().st_size:
            if head is not None:
                raise _cut(path)
            return 0, FIRST, 0
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
            torn = len(tail) - (tail.rfind(b"\n") + 1)
            if torn:
                file.truncate(size - torn)
                os.fsync(file.fileno())
        lines = tail[: len(tail) - torn].splitlines()
        if not lines:
            if head is not None:
                raise _cut(path)
            return 0, FIRST, torn
        n = _number(lines[-1], path)
        if head is not None:
            # the head is written after the entries, so the trail may be longer, never shorter
            back = n - head.n
            if back < 0 or (back < len(lines) and digest_of(lines[-1 - back]) != head.digest):
                raise _cut(path)
        return n, digest_of(lines[-1]), torn

    def _head(self) -> Head | None:
        path = self.folder / HEAD
        return Head.read(path.read_bytes(), self._key.public_key()) if path.exists() else None


def _number(line: bytes, path: Path) -> int:
    import json

    try:
        return int(json.loads(line)["n"])
    except (ValueError, KeyError, TypeError) as error:
        raise _cut(path) from error


def _cut(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path} does not end as it did when it was last written: it was cut off or changed.",
        "Find out by whom; keep it, and move it away to begin a new one.",
    )


def _key(given: Path | None, folder: Path) -> Ed25519PrivateKey:
    """The site's own, or one that is made at the first start."""
    path = given or folder / "private.pem"
    if given is None and not path.exists():
        write_atomic(path, generate()[1])
    return read_private_key(path)
