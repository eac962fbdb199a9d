"""What the page, the metrics and commands ask of the journal. UIDs are in the answers; names of people are nowhere.

Each function takes a connection for reading (`Journal.read`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgemed.serve.clock import utc
from edgemed.serve.states import State

_STAMP: Final = "%Y-%m-%dT%H:%M:%S.%f%z"
_RECENT: Final = 20_000  # objects that a list of studies looks back at: its time does not grow with the journal
_WORST: Final = (
    State.FAILED,
    State.ARRIVING,
    State.RECEIVED,
    State.ROUTED,
    State.NOT_ANALYSED,
    State.REFUSED,
    State.DELIVERED,
)


@dataclass(frozen=True)
class OpenTasks:
    """Tasks of one model in one state.

    Attributes:
        count: of them.
        oldest: when the first of them was opened, UTC.
        age_s: of that one, by the calendar; 0 where the clock went back meanwhile.
    """

    model: str
    state: str
    count: int
    oldest: str
    age_s: float


@dataclass(frozen=True)
class Study:
    """What came of one study.

    Attributes:
        number: of its newest object: for the next page of a list.
        state: the most urgent of its objects' states: failed, then open, then the others.
        received: of its newest object, UTC.
    """

    number: int
    study: str
    series: int
    objects: int
    state: str
    received: str
    peers: tuple[str, ...]


@dataclass(frozen=True)
class TaskRow:
    """One task, for people."""

    number: int
    model: str
    level: str
    subject: str
    revision: int
    state: str
    reason: str
    completeness: str
    objects: int
    created: str
    completed: str | None
    changed: str


@dataclass(frozen=True)
class EventRow:
    """Something that happened."""

    number: int
    at: str
    what: str
    subject: int
    before: str
    event: str
    after: str
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Deliveries to one destination that are open.

    Attributes:
        pending: not taken yet.
        sent: commitment is awaited.
        oldest: when the first of them was made, UTC.
    """

    destination: str
    pending: int
    sent: int
    oldest: str


def open_tasks(connection: sqlite3.Connection) -> list[OpenTasks]:
    """Tasks that have not ended, by model and state."""
    rows = connection.execute(
        # the router asks this many times a second: left to itself, SQLite goes through all tasks there ever were
        "SELECT model, state, count(*) AS count, min(created) AS oldest FROM task INDEXED BY task_open"
        " WHERE state NOT IN ('delivered', 'not-analysed', 'failed') GROUP BY model, state ORDER BY model, state"
    )
    return [OpenTasks(row["model"], row["state"], row["count"], row["oldest"], _age_s(row["oldest"])) for row in rows]


def waiting(connection: sqlite3.Connection) -> list[Waiting]:
    """Deliveries that are open, by destination."""
    rows = connection.execute(
        "SELECT destination, sum(state = 'pending') AS pending, sum(state = 'sent') AS sent, min(created) AS oldest"
        " FROM delivery WHERE state <> 'delivered' AND state IN ('pending', 'sent')"  # the first as its index says it
        " GROUP BY destination ORDER BY destination"
    )
    return [Waiting(**row) for row in map(dict, rows)]


def studies(connection: sqlite3.Connection, limit: int = 50, *, before: int | None = None) -> list[Study]:
    """Studies, the one with the newest object first.

    Args:
        connection: for reading.
        limit: most of them.
        before: `Study.number` of the last one of the page before; looks further back from there.
    """
    newest = connection.execute(
        "SELECT study, max(id) AS number FROM (SELECT id, study FROM object WHERE id < ? ORDER BY id DESC LIMIT ?)"
        " WHERE study <> '' GROUP BY study ORDER BY number DESC LIMIT ?",
        (2**62 if before is None else before, _RECENT, limit),
    ).fetchall()
    return [found for row in newest if (found := _study(connection, row["study"], row["number"])) is not None]


def _study(connection: sqlite3.Connection, study: str, number: int) -> Study | None:
    rows = connection.execute(
        "SELECT state, series, peer, max(id) AS newest, max(received) AS received, count(*) AS count FROM object"
        " WHERE study = ? GROUP BY state, series, peer",
        (study,),
    ).fetchall()
    if max(row["newest"] for row in rows) > number:  # it was on an earlier page
        return None
    states = {State(row["state"]) for row in rows}
    return Study(
        number=number,
        study=study,
        series=len({row["series"] for row in rows}),
        objects=sum(row["count"] for row in rows),
        state=next(state.value for state in _WORST if state in states),
        received=max(row["received"] for row in rows),
        peers=tuple(sorted({row["peer"] for row in rows} - {""})),
    )


def tasks_of(connection: sqlite3.Connection, study: str) -> list[TaskRow]:
    """Tasks that objects of a study are parts of, in the order in which they were opened."""
    return _tasks(
        connection,
        "WHERE task.id IN (SELECT part.task FROM part JOIN object ON object.id = part.object WHERE object.study = ?)"
        " ORDER BY task.id",
        (study,),
    )


def recent_tasks(connection: sqlite3.Connection, limit: int = 50, *, state: State | None = None) -> list[TaskRow]:
    """The newest tasks, or those in one state, newest first."""
    if state is None:
        return _tasks(connection, "ORDER BY task.id DESC LIMIT ?", (limit,))
    return _tasks(connection, "WHERE task.state = ? ORDER BY task.id DESC LIMIT ?", (state.value, limit))


def _tasks(connection: sqlite3.Connection, which: str, values: tuple[object, ...]) -> list[TaskRow]:
    rows = connection.execute(
        "SELECT id AS number, model, level, subject, revision, state, reason, completeness,"  # noqa: S608 - our texts
        " (SELECT count(*) FROM part WHERE part.task = task.id) AS objects, created, completed, changed"
        f" FROM task {which}",
        values,
    )
    return [TaskRow(**row) for row in map(dict, rows)]


def events(connection: sqlite3.Connection, limit: int = 100, *, after: int | None = None) -> list[EventRow]:
    """The newest events, newest first; or those after a number, oldest first."""
    columns = "id AS number, at, what, subject, before, event, after, reason"
    if after is None:
        rows = connection.execute(f"SELECT {columns} FROM event ORDER BY id DESC LIMIT ?", (limit,))  # noqa: S608
    else:
        rows = connection.execute(
            f"SELECT {columns} FROM event WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608
            (after, limit),
        )
    return [EventRow(**row) for row in map(dict, rows)]


def _age_s(stamp: str) -> float:
    return max(0.0, (utc() - datetime.strptime(stamp.replace("Z", "+0000"), _STAMP)).total_seconds())
