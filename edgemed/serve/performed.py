"""What procedure steps tell of the tasks that collect, and of those that images are missing from."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from edgemed.serve.completeness import Collector, Told
from edgemed.serve.config.models import Level
from edgemed.serve.journal.steps import Named, named, newest_step, unfinished
from edgemed.serve.services import Services
from edgemed.serve.states import State

ALARM: Final = "images-missing"
_NO_STEP: Final = -1
_AGAIN: Final = 64  # of what lacks images, looked at again at a time: thousands may lack some for good

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
        self._late: dict[Subject, tuple[int, int]] = {}  # images missing, and of how many; seen longest ago first

    def clear(self) -> None:
        """Forget everything: the journal is read anew."""
        self._newest = _NO_STEP
        self._followed.clear()
        self._overdue.clear()
        self._late.clear()

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
        due = [subject for subject, due_ns in self._overdue.items() if due_ns <= now_ns]
        for subject in due:
            del self._overdue[subject]
        for model in dict.fromkeys(subject[0] for subject in due):
            self._judge(model, [subject for subject in due if subject[0] == model])

    def closed(self, task: int, now_ns: int) -> None:
        """A task collects no more."""
        followed = self._followed.pop(task, None)
        if followed is None or followed.told is None:
            return
        if followed.told.awaited or not followed.told.open:
            self._overdue[followed.subject] = now_ns

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

    def _judge(self, model: str, due: Collection[Subject]) -> None:
        """Say so where images are missing still; what collects again is judged when it is complete.

        The warning stands until nothing is missing from any other either: the next patient's series is no comfort.
        """
        others = [each for each in self._late if each[0] == model and each not in due]
        with self._journal.read() as connection:
            news = [self._lacks(connection, subject) for subject in due]
            if not any(news) and not self._alarms.stands(ALARM, model):
                return
            for subject in islice(others, _AGAIN):
                self._lacks(connection, subject)
        late = [counts for subject, counts in self._late.items() if subject[0] == model]
        if late:
            self._alarms.raise_(ALARM, _text(model, self._models[model].level, late), model)
        else:
            self._alarms.clear(ALARM, model)

    def _lacks(self, connection: sqlite3.Connection, subject: Subject) -> bool:
        """Whether images are missing of what is complete, and that is remembered."""
        self._late.pop(subject, None)
        if subject in self._overdue or any(followed.subject == subject for followed in self._followed.values()):
            return False
        found = named(connection, *subject[1:])
        if found is None or not found.awaited:
            return False
        self._late[subject] = len(found.awaited), found.total
        return True


def _text(model: str, level: Level, late: list[tuple[int, int]]) -> str:
    awaited, total = (sum(counts) for counts in zip(*late, strict=True))
    of = "series" if level == "series" else "study" if len(late) == 1 else "studies"
    return (
        f"{awaited} of {total} images that procedure steps name did not come for {model}, of {len(late)} {of};"
        " `edgemed reconcile` lists them."
    )


def _was_complete(connection: sqlite3.Connection, subject: Subject) -> bool:
    model, _, uid = subject
    row = connection.execute(
        "SELECT state FROM task WHERE model = ? AND subject = ? ORDER BY revision DESC LIMIT 1", (model, uid)
    ).fetchone()
    return row is not None and row["state"] != State.COLLECTING.value


def _told(found: Named | None) -> Told | None:
    return None if found is None else Told(found.total, len(found.awaited), len(found.doubtful), found.open)
