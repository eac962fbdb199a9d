"""What other processes leave for the trail: it has one writer, the daemon, who enters it at his next look or start."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from edgemed.base.errors import from_os_error
from edgemed.base.store import fsync_path
from edgemed.serve.audit.message import message
from edgemed.serve.audit.trail import AuditEvent, Trail

log = logging.getLogger(__name__)

FOLDER: Final = "audit-left"
_ENDING: Final = ".jsonl"
_TOGETHER: Final = 1000  # events of a file: an archive may be asked for each of a hundred thousand results
_AT_A_TIME: Final = 16  # files under way: their events wait in memory


class Leaver:
    """Entered, it takes events; on leaving, the daemon may have them, whatever has gone wrong.

    Args:
        state: of the daemon.

    Raises:
        ResourceError: they cannot be written, when entered and in `record`.
    """

    def __init__(self, state: Path) -> None:
        self._folder, self._run = state / FOLDER, secrets.token_hex(8)
        self._part = self._folder / f"{self._run}.part"
        self._file: TextIO | None = None
        self._count = 0

    def __enter__(self) -> Leaver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._hand_over()
        except OSError as error:
            raise from_os_error(error, self._part) from error

    def record(self, event: AuditEvent) -> None:
        """See `Audit.record`; but what cannot be written is an error: nothing is asked that nobody can enter."""
        try:
            if self._count and not self._count % _TOGETHER:
                self._hand_over()
            if self._file is None:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                self._file = self._part.open("x", encoding="utf-8")
            self._file.write(json.dumps(asdict(event)) + "\n")
            self._count += 1
        except OSError as error:
            raise from_os_error(error, self._part) from error

    def _hand_over(self) -> None:
        """Let the daemon have what there is, under names in the order in which it was recorded."""
        if self._file is None:
            return
        with self._file as file:
            self._file = None
            file.flush()
            os.fsync(file.fileno())
        self._part.rename(self._folder / f"{self._run}-{self._count:09d}{_ENDING}")
        fsync_path(self._folder)


class Collector:
    """Enters what was left. A file goes when the trail has its events on the disk: a crash may bring them twice."""

    def __init__(self, state: Path, audit: Trail) -> None:
        self._folder = state / FOLDER
        self._audit = audit
        self._under_way: dict[Path, threading.Event] = {}

    def look(self, step: Callable[[], None] = lambda: None) -> None:
        """Enter what is new. What cannot be read now holds up nothing, and is looked at again.

        Args:
            step: called before each file.
        """
        with suppress(OSError):  # it is there when somebody has left something
            for path in sorted(self._folder.glob(f"*{_ENDING}")):
                step()
                with suppress(OSError):
                    self._tend(path)

    def _tend(self, path: Path) -> None:
        if path not in self._under_way:
            if len(self._under_way) < _AT_A_TIME:
                self._enter(path)
        elif self._under_way[path].is_set():
            path.unlink(missing_ok=True)
            del self._under_way[path]

    def _enter(self, path: Path) -> None:
        events = [event for line in path.read_text("utf-8", "replace").splitlines() if (event := _read(line))]
        done = self._audit.record_all(events)
        if done is not None:  # else too many wait: at another look
            self._under_way[path] = done


def _read(line: str) -> AuditEvent | None:
    try:
        fields = json.loads(line)
        event = AuditEvent(**{**fields, "instances": tuple(fields["instances"])})
        message(event, "", "")  # what cannot be said, of another version perhaps, would stop what follows it
        return event
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        log.warning("a line that was left for the audit trail is none, and is not entered")
        return None
