"""What was received, as the journal knows it, told to the trail: each object once, whenever the daemon is killed.

The journal keeps a mark of how far it was told: the number of an event, that is moved when the entries are on the disk.
Between the two the daemon may be killed; so the first look of a daemon passes over what the trail says already behind
the entry that the mark names.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from edgemed.base.errors import EdgemedError
from edgemed.base.quantity import SECOND
from edgemed.serve.audit.chain import AuditLog
from edgemed.serve.audit.message import received_in
from edgemed.serve.audit.segments import messages_after
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.intake import Arrival, Intake
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.facts import TOLD, fact, keep_fact
from edgemed.serve.loops import Beat, Loops

LOOP: Final = "audit received"
_EVERY_S: Final = 1.0
_LIMIT_NS: Final = 60 * SECOND
_END_S: Final = 5.0
_AT_ONCE: Final = 1000
_TOGETHER: Final = 100  # objects in one entry

_NEWEST: Final = "SELECT coalesce(max(id), ?) FROM event WHERE id > ? AND event <> 'arrive'"  # those may vanish
_UNTOLD: Final = (
    "FROM event JOIN object ON object.id = event.subject WHERE event.id > ? AND event.id <= ? AND event.what = 'object'"
    " AND event.event IN ('accept', 'keep') ORDER BY event.id"
)


@dataclass(frozen=True)
class _Come:
    """An object: by which inlet, who sent it from where, in which association, of which study."""

    sender: tuple[str, str, str, str, str]
    sop_instance: str


class Received:
    """Tells the trail.

    Args:
        journal: knows what was accepted.
        audit: the trail.
        intake: says what came again, which is told as well, but not remembered: the journal counts it, no more.
        folders: that are watched, by their names: URIs. What comes from there is imported (PS3.15 A.5.3.5).
    """

    def __init__(self, journal: Journal, audit: AuditLog, intake: Intake, folders: Mapping[str, str]) -> None:
        self._journal, self._audit, self._folders = journal, audit, folders
        self._event, self._entry = _kept(journal)
        self._passed_over: set[str] | None = None
        self._waits: tuple[threading.Event, int] | None = None  # entries under way, and the mark behind them
        self._lock = threading.Lock()
        self._again: deque[Arrival] = deque()
        intake.on_repeated.append(self._again.append)

    def start(self, loops: Loops) -> None:
        """Begin to look, each second."""
        loops.start(LOOP, self._run, limit_ns=_LIMIT_NS)

    def close(self) -> None:
        """Tell the rest: no inlet takes anything any more."""
        self.tell(timeout_s=_END_S)

    def _run(self, beat: Beat) -> None:
        while True:
            self.tell(beat)
            if not beat.wait(_EVERY_S):
                return

    def tell(self, beat: Callable[[], object] = lambda: None, timeout_s: float = _EVERY_S) -> None:
        """Tell what was not told. What disk or journal do not take now is told later.

        Args:
            beat: called now and then.
            timeout_s: to wait for the disk.
        """
        with self._lock, suppress(EdgemedError):
            self._journal.settle()  # that an object was kept goes along with a commit, which may not have come
            if self._passed_over is None:
                self._passed_over = self._told_before(beat)
            while self._arrived(timeout_s) and self._more():
                beat()
        again = [self._again.popleft() for _ in range(len(self._again))]
        for event in self._entries(_Come(_sender(vars(each)), each.sop_instance) for each in again):
            self._audit.record(event)

    def _arrived(self, timeout_s: float) -> bool:
        """Whether nothing is under way any more; then the mark says so."""
        if self._waits is not None:
            done, event = self._waits
            if not done.wait(timeout_s):
                return False
            self._waits, self._event, self._entry = None, event, self._audit.written
            value = json.dumps([self._event, self._entry])
            self._journal.along(lambda connection: keep_fact(connection, TOLD, value))
        return True

    def _more(self) -> bool:
        """Give the trail what comes next; whether there was anything."""
        with self._journal.read() as connection:
            (newest,) = connection.execute(_NEWEST, (self._event, self._event)).fetchone()
            columns = "SELECT event.id AS event, inlet, peer, address, association, study, sop_instance"
            rows = connection.execute(f"{columns} {_UNTOLD} LIMIT {_AT_ONCE}", (self._event, newest)).fetchall()
        if not rows:
            self._event, self._passed_over = newest, set()
            return False
        assert self._passed_over is not None
        come = (_Come(_sender(row), row["sop_instance"]) for row in rows)
        events = list(self._entries(each for each in come if each.sop_instance not in self._passed_over))
        done = self._audit.record_all(events)
        if done is None:
            return False
        self._waits = done, rows[-1]["event"]
        return True

    def _told_before(self, beat: Callable[[], object]) -> set[str]:
        """Objects behind the mark that are in the trail already."""
        with self._journal.read() as connection:
            (newest,) = connection.execute(_NEWEST, (self._event, self._event)).fetchone()
            rows = connection.execute(f"SELECT sop_instance {_UNTOLD}", (self._event, newest))
            untold = {row[0] for row in rows}
        told: set[str] = set()
        if untold:
            for message in messages_after(self._audit.folder, self._entry):
                beat()
                with suppress(ET.ParseError):
                    told |= untold.intersection(received_in(message))
        return told

    def _entries(self, come: Iterable[_Come]) -> Iterator[AuditEvent]:
        """Objects of one sender and one study together."""
        together: dict[tuple[str, str, str, str, str], list[str]] = {}
        for each in come:
            together.setdefault(each.sender, []).append(each.sop_instance)
        for (inlet, peer, address, _, study), instances in together.items():
            for first in range(0, len(instances), _TOGETHER):
                named = tuple(instances[first : first + _TOGETHER])
                if (folder := self._folders.get(inlet)) is not None:
                    detail = f"Files: {len(named)}."
                    yield AuditEvent("imported", user=folder, study=study, instances=named, detail=detail)
                else:
                    yield AuditEvent("received", "success", peer or inlet, address, study, named)


def _sender(row: sqlite3.Row | dict[str, str]) -> tuple[str, str, str, str, str]:
    return row["inlet"], row["peer"], row["address"], row["association"], row["study"]


def _kept(journal: Journal) -> tuple[int, int]:
    with journal.read() as connection:
        kept = json.loads(fact(connection, TOLD) or "[0, 0]")
    return int(kept[0]), int(kept[1])
