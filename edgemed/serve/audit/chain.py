"""Who writes the trail: one thread, that syncs entries, writes the head after them, and closes long segments."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import EdgemedError, from_os_error
from edgemed.base.store import fsync_path, write_atomic
from edgemed.bundle.keys import generate, public_pem, read_private_key
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.entry import Seal
from edgemed.serve.audit.message import message
from edgemed.serve.audit.segment import Said, Segment
from edgemed.serve.audit.segments import FOLDER, PUBLIC, closed_name
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.clock import stamp
from edgemed.serve.config import Config

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

log = logging.getLogger(__name__)

_MOST_WAITING: Final = 100_000
_TOGETHER: Final = 1000  # entries with one sync
_LOOK_S: Final = 0.25  # for the end, while nothing comes
_AGAIN_S: Final = 1.0  # after the disk took nothing


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
        self._segment = Segment(self.folder, self._key, self._introduce)
        self._longest = config.audit.segment_bytes
        self.found = self._segment.n
        self._queue: queue.Queue[_Batch] = queue.Queue(_MOST_WAITING)
        self._lost = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()
        torn = self._segment.torn
        detail = f"{torn} bytes of an entry that was never whole were cut off." if torn else ""
        self.record(AuditEvent("start", detail=detail))

    def record(self, event: AuditEvent) -> None:
        """See `Audit`."""
        try:
            self._queue.put_nowait(_Batch((event,)))
        except queue.Full:
            self._lost += 1

    def record_all(self, events: Sequence[AuditEvent]) -> threading.Event | None:
        """See `Trail`."""
        batch = _Batch(tuple(events))
        try:
            self._queue.put_nowait(batch)
        except queue.Full:
            return None
        return batch.done

    @property
    def written(self) -> int:
        """Number of the last entry that is on the disk."""
        return self._segment.n

    def close(self) -> None:
        """Write what waits, and end; what a disk does not take now is lost."""
        self.record(AuditEvent("stop"))
        self._ending.set()
        self._thread.join(timeout=10)
        if not self._thread.is_alive():  # else the number of the file could be another's while it still writes
            self._segment.close()

    # -- the writer ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Until the end, and until nothing waits or the disk takes nothing."""
        waiting: list[_Batch] = []
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

    def _fetch(self, waiting: list[_Batch]) -> None:
        """Add what has come; where nothing waits, wait for something."""
        try:
            while len(waiting) < _TOGETHER:
                waiting.append(self._queue.get(timeout=0 if waiting else _LOOK_S))
        except queue.Empty:
            pass
        if waiting and self._lost:
            lost, self._lost = self._lost, 0
            waiting.append(_Batch((AuditEvent("config", "serious", detail=f"{lost} entries could not be kept."),)))

    def _written(self, waiting: list[_Batch]) -> bool:
        """Write them, and forget them; nothing that goes wrong may end the thread."""
        if not self._tried("written", lambda: self._write_down(waiting), ""):
            return False
        if self._segment.size >= self._longest:
            self._tried("closed", self._end_segment, "segment")
        return True

    def _write_down(self, waiting: list[_Batch]) -> None:
        self._segment.append([self._said(event) for batch in waiting for event in batch.events])
        for batch in waiting:
            batch.done.set()
        waiting.clear()
        self._segment.write_head()

    def _end_segment(self) -> None:
        self._segment.end()
        self._segment.write_head()

    def _tried(self, what: str, work: Callable[[], None], subject: str) -> bool:
        try:
            work()
            self._alarms.clear("audit-failed", subject)
        except Exception as error:
            why = error.what if isinstance(error, EdgemedError) else type(error).__name__
            if not isinstance(error, EdgemedError):
                log.exception("the audit trail cannot be %s", what)
            self._alarms.raise_("audit-failed", f"The audit trail cannot be {what}: {why}", subject)
            return False
        return True

    def _said(self, event: AuditEvent) -> Said:
        at = stamp()
        return at, message(event, at, self._station)

    def _introduce(self, seal: Seal) -> Said:
        name = closed_name(seal.first)
        return self._said(AuditEvent("config", detail=f"Entries {seal.first} to {seal.last} are in {name}."))


@dataclass(frozen=True)
class _Batch:
    """Entries that come to the disk together, and that they have."""

    events: tuple[AuditEvent, ...]
    done: threading.Event = field(default_factory=threading.Event)


def _key(given: Path | None, folder: Path) -> Ed25519PrivateKey:
    """The site's own, or one that is made at the first start."""
    path = given or folder / "private.pem"
    if given is None and not path.exists():
        write_atomic(path, generate()[1])
    return read_private_key(path)
