"""What procedure steps tell of the tasks that collect, and of those that images are missing from."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from typing import Final

from edgemed.serve.completeness import Collector, Told
from edgemed.serve.config.models import Level
from edgemed.serve.journal.steps import Named, named, newest_step, unfinished
from edgemed.serve.services import Services
from edgemed.serve.states import State

ALARM: Final = "images-missing"
_NO_STEP: Final = -1

Subject = tuple[str, Level, str]
"""Model, level, UID at that level."""


@dataclass
class _Followed:
    subject: Subject
    told: Named | None = None


class Performed:
    """For the thread of the router alone.

    Where no peer tells of steps, it costs one look at an empty table in each round.

    Args:
        services: of the daemon.
        collector: that is told.
    """

    def __init__(self, services: Services, collector: Collector) -> None:
        self._journal, self._alarms = services.journal, services.alarms
        self._collector = collector
        self._models = {m.name: m for m in services.config.models if m.level != "instance" and m.completeness.mpps}
        self._newest = _NO_STEP
        self._followed: dict[int, _Followed] = {}
        self._overdue: dict[Subject, int] = {}

    def clear(self) -> None:
        """Forget everything: the journal is read anew."""
        self._newest = _NO_STEP
        self._followed.clear()
        self._overdue.clear()

    def follow(self, task: int, subject: Subject, now_ns: int) -> None:
        """A task collects, and the collector knows it."""
        if subject[0] not in self._models:
            return
        followed = self._followed[task] = _Followed(subject)
        if self._newest != _NO_STEP:
            with self._journal.read() as connection:
                self._tell(connection, task, followed, now_ns)

    def came(self, sop_instance: str, now_ns: int) -> None:
        """The router has looked at an image."""
        for task, followed in self._followed.items():
            told = followed.told
            if told is not None and (sop_instance in told.awaited or sop_instance in told.doubtful):
                gone = {sop_instance}
                followed.told = replace(told, awaited=told.awaited - gone, doubtful=told.doubtful - gone)
                self._collector.told(task, _told(followed.told), now_ns)

    def look(self, now_ns: int) -> None:
        """See whether steps have changed, and whether images that they name are overdue."""
        with self._journal.read() as connection:
            newest = newest_step(connection)
            if newest != self._newest:
                after, self._newest = self._newest, newest
                for task, followed in self._followed.items():
                    self._tell(connection, task, followed, now_ns)
                self._find_overdue(connection, after, now_ns)
        for subject in [subject for subject, due_ns in self._overdue.items() if due_ns <= now_ns]:
            del self._overdue[subject]
            self._judge(subject)

    def closed(self, task: int, now_ns: int) -> None:
        """A task collects no more."""
        followed = self._followed.pop(task, None)
        if followed is None or followed.told is None:
            return
        if followed.told.awaited:
            self._overdue[followed.subject] = now_ns
        elif not followed.told.open:
            self._alarms.clear(ALARM, followed.subject[0])

    def _tell(self, connection: sqlite3.Connection, task: int, followed: _Followed, now_ns: int) -> None:
        _, level, uid = followed.subject
        found = named(connection, level, uid)
        if found != followed.told:
            followed.told = found
            self._collector.told(task, _told(found), now_ns)

    def _find_overdue(self, connection: sqlite3.Connection, after: int, now_ns: int) -> None:
        """A step may end when a task of it was complete long ago: what it names beyond that is waited for."""
        for each in unfinished(connection, after):
            for name, model in self._models.items():
                subject: Subject = (name, model.level, each.series if model.level == "series" else each.study)
                if _was_complete(connection, subject):
                    self._overdue[subject] = now_ns + model.completeness.quiet_ns

    def _judge(self, subject: Subject) -> None:
        """Say so where images of it are missing still; one that collects again says it by itself."""
        model, level, uid = subject
        if any(followed.subject == subject for followed in self._followed.values()):
            return
        with self._journal.read() as connection:
            found = named(connection, level, uid)
        if found is not None and found.awaited:
            text = (
                f"{len(found.awaited)} of {found.total} images that a procedure step names did not come for {model};"
                " `edgemed reconcile` lists them."
            )
            self._alarms.raise_(ALARM, text, model)


def _was_complete(connection: sqlite3.Connection, subject: Subject) -> bool:
    model, _, uid = subject
    row = connection.execute(
        "SELECT state FROM task WHERE model = ? AND subject = ? ORDER BY revision DESC LIMIT 1", (model, uid)
    ).fetchone()
    return row is not None and row["state"] != State.COLLECTING.value


def _told(found: Named | None) -> Told | None:
    return None if found is None else Told(found.total, len(found.awaited), len(found.doubtful), found.open)
