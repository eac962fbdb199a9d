"""A task that is queued, and how its analysis may end without an answer."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edgemed.base.errors import EdgemedError
from edgemed.serve.clock import from_stamp
from edgemed.serve.spool import Spool


@dataclass(frozen=True)
class TaskFile:
    """One object of a task.

    Attributes:
        path: in the spool; its name says nothing.
        series: Series Instance UID; '' where there is none.
    """

    path: Path
    series: str


@dataclass(frozen=True)
class Task:
    """What is to be analysed.

    Attributes:
        number: in the journal.
        completed: the last image was there, UTC; the deadline counts from here.
        began: when an analysis of it was begun for the first time, UTC: stands in its results, so that what is made
            again is the same thing.
        tries: analyses begun, with this one.
        files: in the order in which they were received.
        replaces: SOP Instance UIDs of the reports of earlier revisions, the oldest first.
    """

    number: int
    model: str
    level: str
    revision: int
    completeness: str
    completed: datetime
    began: datetime
    tries: int
    files: tuple[TaskFile, ...]
    replaces: tuple[str, ...] = ()


class Declined(Exception):
    """It is not analysed, for a reason that lies in the input or its deadline; a sentence.

    Attributes:
        unanswered: the reason is that the model does not answer.
    """

    def __init__(self, reason: str, *, unanswered: bool = False) -> None:
        super().__init__(reason)
        self.unanswered = unanswered


class Broken(Exception):
    """It failed for a reason that lies with us; a sentence."""


class Interrupted(Exception):
    """It may be tried again.

    Attributes:
        reason: a sentence.
        counts: as a try: the input itself may be to blame.
    """

    def __init__(self, reason: str, *, counts: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.counts = counts


def first_queued(connection: sqlite3.Connection, model: str) -> sqlite3.Row | None:
    """The queued task of a model that was complete first, and so is due first."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT id, completed, created FROM task WHERE state = 'queued' AND model = ? ORDER BY completed, id LIMIT 1",
        (model,),
    ).fetchone()
    return row


def read_task(connection: sqlite3.Connection, number: int, spool: Spool) -> Task:
    """A task and its files."""
    row = connection.execute("SELECT * FROM task WHERE id = ?", (number,)).fetchone()
    (began,) = connection.execute(
        "SELECT min(at) FROM event WHERE what = 'task' AND subject = ? AND event = 'start'", (number,)
    ).fetchone()
    files = connection.execute(
        "SELECT path, series FROM object JOIN part ON part.object = object.id WHERE part.task = ? ORDER BY object.id",
        (number,),
    ).fetchall()
    earlier = connection.execute(
        "SELECT sop_instance FROM result JOIN task ON task.id = result.task WHERE kind = 'sr'"
        " AND model = ? AND subject = ? AND revision < ? ORDER BY revision, result.id",
        (row["model"], row["subject"], row["revision"]),
    ).fetchall()
    completed = row["completed"] or row["created"]
    return Task(
        number=number,
        model=row["model"],
        level=row["level"],
        revision=row["revision"],
        completeness=row["completeness"],
        completed=from_stamp(completed),
        began=from_stamp(began or completed),
        tries=row["tries"],
        files=tuple(TaskFile(spool.path(file["path"]), file["series"]) for file in files),
        replaces=tuple(uid for (uid,) in earlier),
    )


def without_names(error: EdgemedError, files: tuple[TaskFile, ...]) -> str:
    """What an error says, without the path of the file that it is about."""
    text = error.what
    for file in files:
        for name in (str(file.path), file.path.name):
            text = text.replace(f"{name} is not read: ", "").replace(f"{name}: ", "").replace(name, "the file")
    return text[:1].upper() + text[1:]
