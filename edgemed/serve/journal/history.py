"""Whether the events of the journal tell how each row came to stand where it stands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from edgemed.serve.states import ENDS, TRANSITIONS, Event, State

_OPENED: Final = {
    ("object", "arrive"): "arriving",
    ("object", "accept"): "received",
    ("object", "refuse"): "refused",
    ("task", "open"): "collecting",
}
_ROUTED: Final = State.ROUTED.value
_DELIVERIES: Final = frozenset({"pending", "sent", "delivered", "failed"})


def untold(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Rows whose events do not lead to their state: what, and why as a sentence. Very old events may be deleted."""
    for what in ("object", "task", "delivery"):
        yield from _ends(connection, what)
    yield from _steps(connection)


def _ends(connection: sqlite3.Connection, what: str) -> Iterator[tuple[str, str]]:
    """The last event of a row says its state."""
    rows = connection.execute(
        f"SELECT row.id, row.state, event.after FROM {what} AS row"  # noqa: S608 - a table of ours
        " JOIN event ON event.id = (SELECT max(id) FROM event WHERE what = ? AND subject = row.id)"
        " WHERE event.after <> row.state",
        (what,),
    )
    for row in rows:
        if what != "delivery" or row["state"] != "pending":  # a result that is made again is to be delivered again
            yield f"{what} {row['id']}", f"It is {row['state']}; the last that happened to it made it {row['after']}."


def _steps(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Each event begins where the one before it ended, and is one of the table: so there is one end, or a retry."""
    rows = connection.execute(
        "SELECT id, what, subject, before, event, after,"
        " lag(after) OVER (PARTITION BY what, subject ORDER BY id) AS stood FROM event"
        " WHERE what IN ('object', 'task', 'delivery')"  # releases of models have a table of their own
    )
    for row in rows:
        where = f"{row['what']} {row['subject']}"
        if row["what"] == "delivery":
            if row["after"] not in _DELIVERIES:
                yield where, f"Event {row['id']} made it {row['after']}, which there is not."
        elif row["stood"] is not None and row["stood"] != row["before"]:
            yield where, f"Event {row['id']} begins with {row['before']}, where it was {row['stood']}."
        elif not _possible(row["what"], row["before"], row["event"], row["after"]):
            yield where, f"Event {row['id']} leads from {row['before'] or 'nothing'} to {row['after']}: it cannot."


def _possible(what: str, before: str, event: str, after: str) -> bool:
    if not before:
        return _OPENED.get((what, event)) == after
    try:
        stood, happened, stands = State(before), Event(event), State(after)
    except ValueError:
        return False
    if what == "object" and happened is Event.SETTLE:
        return stands in ENDS
    if what == "object" and happened is Event.RETURN:
        return stands is stood and stood in ENDS
    if what == "object" and happened in (Event.RETRY, Event.REOPEN):
        again = happened is Event.RETRY and stood in (State.FAILED, State.NOT_ANALYSED) and stands is State.RECEIVED
        return again or (stood in ENDS and after == _ROUTED)
    return TRANSITIONS.get((stood, happened)) is stands
