"""Alarms: what somebody has to see. Each has a code, stands until it is cleared, and is told everywhere."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal

from edgemed.base.errors import EdgemedError
from edgemed.serve.clock import stamp
from edgemed.serve.journal.database import Journal

log = logging.getLogger(__name__)

Severity = Literal["warning", "alarm"]

CODES: Final[dict[str, Severity]] = {
    "input-failed": "alarm",  # an input ended failed-and-alarmed
    "input-conflict": "alarm",  # the same UID came with other content; it is in quarantine
    "images-missing": "warning",  # fewer came than a procedure step of the modality names
    "delivery-late": "warning",  # a destination does not take results; they wait
    "delivery-failed": "alarm",  # it was given up
    "commitment-failed": "alarm",  # a peer could not be told for too long what of its images is kept
    "not-ready": "alarm",  # a model does not answer rightly
    "model-lost": "warning",  # its worker was lost; it is being rebuilt, or the fallback answers
    "model-rejected": "alarm",  # a new version did not pass
    "model-rolled-back": "alarm",
    "shadow-disagrees": "alarm",  # INT8 and float answer differently too often
    "distribution-shift": "warning",
    "disk-low": "warning",
    "disk-full": "alarm",  # inputs are refused
    "disk-failed": "alarm",  # it does not take what is written: read-only, errors
    "journal-damaged": "alarm",  # it was made anew from the spool
    "loop-failed": "alarm",
    "loop-silent": "alarm",
    "inlet-lost": "alarm",  # nobody can connect; it is opened anew
    "clock-jumped": "warning",
    "certificate-expires": "warning",
    "hot": "warning",
    "throttled": "alarm",
    "audit-failed": "alarm",
    "source-lost": "warning",  # a camera or stream gives no frames
    "deadline-missed": "warning",
    "config-failed": "alarm",  # a changed file of tokens or certificates is not taken; the old one is in force
    "folder-failed": "warning",  # a watched folder cannot be read, or what was taken cannot be removed
}


@dataclass(frozen=True)
class Alarm:
    """One that stands."""

    code: str
    subject: str
    text: str
    severity: Severity
    raised: str
    count: int


OnAlarm = Callable[[Alarm, bool], None]
"""Called with an alarm, and whether it was raised (or cleared); it must not fail, and not block."""


class Alarms:
    """Those that stand. They are in the journal; while that takes nothing (a full disk), they stand in memory alone."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._standing: dict[tuple[str, str], Alarm] = {}
        self.listeners: list[OnAlarm] = []

    def load(self) -> None:
        """Those that stood when the daemon ended."""
        with self._journal.read() as connection:
            rows = connection.execute("SELECT * FROM alarm WHERE cleared IS NULL").fetchall()
        with self._lock:
            for row in rows:
                alarm = Alarm(row["code"], row["subject"], row["text"], row["severity"], row["raised"], row["count"])
                self._standing[alarm.code, alarm.subject] = alarm

    def raise_(self, code: str, text: str, subject: str = "") -> None:
        """Raise one, or count it again where it stands.

        Args:
            code: one of `CODES`.
            text: a sentence for people; without names of patients.
            subject: what it is about: a destination, a model, a loop; without names.
        """
        severity = CODES[code]
        with self._lock:
            before = self._standing.get((code, subject))
            raised = before.raised if before else stamp()
            alarm = Alarm(code, subject, text, severity, raised, before.count + 1 if before else 1)
            self._standing[code, subject] = alarm
            self._store(
                "INSERT INTO alarm (code, subject, text, severity, raised) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (code, subject) WHERE cleared IS NULL"
                " DO UPDATE SET text = excluded.text, count = count + 1",
                (code, subject, text, severity, raised),
            )
        if before is None:
            log.log(logging.ERROR if severity == "alarm" else logging.WARNING, "alarm %s: %s", code, text)
            self._tell(alarm, True)

    def clear(self, code: str, subject: str = "") -> None:
        """What it was about is over; nothing where it does not stand."""
        with self._lock:
            alarm = self._standing.pop((code, subject), None)
            if alarm is None:
                return
            self._store(  # with the next number, for its age is counted from here on
                "UPDATE alarm SET id = (SELECT max(id) + 1 FROM alarm), cleared = ?"
                " WHERE code = ? AND subject = ? AND cleared IS NULL",
                (stamp(), code, subject),
            )
        log.info("alarm %s is over: %s", code, alarm.text)
        self._tell(alarm, False)

    def keep(self, codes: Collection[str], subjects: Collection[str]) -> None:
        """Clear those of some codes that are about anything else: the configuration does not have it any more."""
        for alarm in self.standing:
            if alarm.code in codes and alarm.subject not in subjects:
                self.clear(alarm.code, alarm.subject)

    def stands(self, code: str, subject: str = "") -> bool:
        """Whether it stands now."""
        with self._lock:
            return (code, subject) in self._standing

    @property
    def standing(self) -> list[Alarm]:
        """Those that stand, alarms before warnings, newest first."""
        with self._lock:
            alarms = list(self._standing.values())
        return sorted(sorted(alarms, key=lambda a: a.raised, reverse=True), key=lambda a: a.severity != "alarm")

    def _tell(self, alarm: Alarm, raised: bool) -> None:
        for listener in self.listeners:
            listener(alarm, raised)

    def _store(self, sql: str, values: tuple[str, ...]) -> None:
        """Without waiting. In the order in which it happened, so that the journal ends as the memory does."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(sql, values)

        try:
            self._journal.submit(work)
        except EdgemedError as error:
            log.error("an alarm could not be stored: %s", error.what)
