"""What may be deleted, and the order in which it is, so that a crash at any point leaves the journal right.

First the row says that it has no file any more, and the path stands in `deletion`, in one transaction; then the file
goes; then the path leaves `deletion`. Whoever finds paths there deletes them again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from edgemed.serve.journal.facts import fact, keep_fact

_MARKS: Final = 50
_TOGETHER: Final = 200


@dataclass
class Horizon:
    """Which events are older than a time that the daemon has been running.

    Calendars jump: a clock that was dead at the start makes everything look old when it is set. So age is counted in
    time that daemons of this journal ran, by marks of (running time, number of the newest event). Time without power
    does not count: things are kept longer for it.
    """

    keep_ns: int
    ran_ns: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)

    def goes_on(self, elapsed_ns: int, newest: int) -> bool:
        """Time has passed, and this is the newest event now. Returns whether there is a mark more."""
        self.ran_ns += elapsed_ns
        while len(self.marks) > 1 and self.marks[1][0] <= self.ran_ns - self.keep_ns:
            self.marks.pop(0)
        if self.marks and self.ran_ns - self.marks[-1][0] < self.keep_ns // _MARKS:
            return False
        self.marks.append((self.ran_ns, newest))
        return True

    @property
    def before(self) -> int:
        """Number of the newest event that is older than the time; 0 where none is."""
        return max((event for at_ns, event in self.marks if at_ns <= self.ran_ns - self.keep_ns), default=0)


def load_horizon(connection: sqlite3.Connection, name: str, keep_ns: int) -> Horizon:
    """A horizon as it was kept, or one that begins now."""
    value = fact(connection, f"horizon {name}")
    if value is None:
        return Horizon(keep_ns)
    kept = json.loads(value)
    return Horizon(keep_ns, kept["ran_ns"], [(at_ns, event) for at_ns, event in kept["marks"]])


def keep_horizon(connection: sqlite3.Connection, name: str, horizon: Horizon) -> None:
    """Keep one for the next daemon."""
    keep_fact(connection, f"horizon {name}", json.dumps({"ran_ns": horizon.ran_ns, "marks": horizon.marks}))


def newest_event(connection: sqlite3.Connection) -> int:
    """Number of the newest event; 0 where there is none."""
    (number,) = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()
    return int(number)


_SENT_ON: Final = (
    "SELECT 1 FROM result JOIN delivery ON delivery.result = result.id"
    " WHERE result.kind = 'image' AND delivery.state = 'delivered' AND result.sop_instance ="
)
_OBJECTS: Final = (
    "SELECT id, path FROM object WHERE path <> '' AND state IN ({ends})"
    " AND (NOT EXISTS (SELECT 1 FROM promise WHERE promise.sop_instance = object.sop_instance)"
    " OR EXISTS ({sent_on} object.sop_instance))"
    " AND NOT EXISTS (SELECT 1 FROM event WHERE what = 'object' AND subject = object.id AND event.id > ?)"
    " AND NOT EXISTS (SELECT 1 FROM part JOIN task ON task.id = part.task WHERE part.object = object.id"
    " AND task.state NOT IN ({ends})) LIMIT ?"
)
_RESULTS: Final = (
    "SELECT result.id, result.path FROM result JOIN task ON task.id = result.task"
    " WHERE result.path <> '' AND kind <> 'image' AND task.state IN ({ends})"
    " AND NOT EXISTS (SELECT 1 FROM event WHERE what = 'task' AND subject = task.id AND event.id > ?)"
    " AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.result = result.id AND state IN ('pending', 'sent'))"
    " LIMIT ?"
)
WELL: Final = ("delivered", "not-analysed")
BADLY: Final = ("failed", "refused")


def was_sent_on(connection: sqlite3.Connection, sop_instance: str) -> bool:
    """Whether a destination has an object as it came: then it is that one's to keep."""
    return connection.execute(f"{_SENT_ON} ?", (sop_instance,)).fetchone() is not None


def promise(connection: sqlite3.Connection, instances: Sequence[str]) -> list[str]:
    """Commit ourselves to keep objects: from here on `release` leaves those alone that were not sent on.

    Returns:
        SOP Instance UIDs of which there is nothing any more to be kept.
    """
    gone = []
    for uid in instances:
        there = "SELECT 1 FROM object WHERE sop_instance = ? AND state <> 'refused' AND path <> ''"
        if connection.execute(there, (uid,)).fetchone() is not None or was_sent_on(connection, uid):
            connection.execute("INSERT OR IGNORE INTO promise (sop_instance) VALUES (?)", (uid,))
        else:
            gone.append(uid)
    return gone


def may_release(connection: sqlite3.Connection, ends: Sequence[str], before: int) -> bool:
    """Whether `release` would find something; to be asked beside the writer, for it looks at all that is kept."""
    ended = ", ".join(f"'{end}'" for end in ends)
    return any(
        connection.execute(sql.format(ends=ended, sent_on=_SENT_ON), (before, 1)).fetchone() is not None
        for sql in (_OBJECTS, _RESULTS)
    )


def release(connection: sqlite3.Connection, ends: Sequence[str], before: int) -> list[str]:
    """Let rows whose end is older than an event say that they have no file, where we have not promised to keep it.

    Args:
        connection: in a transaction.
        ends: states that count.
        before: number of the event.

    Returns:
        Paths to delete, relative to the spool; they stand in `deletion`. There may be more: call it again until there
        is none.
    """
    ended = ", ".join(f"'{end}'" for end in ends)
    objects = connection.execute(_OBJECTS.format(ends=ended, sent_on=_SENT_ON), (before, _TOGETHER)).fetchall()
    results = connection.execute(_RESULTS.format(ends=ended), (before, _TOGETHER)).fetchall()
    connection.executemany("UPDATE object SET path = '' WHERE id = ?", [(number,) for number, _ in objects])
    connection.executemany("UPDATE result SET path = '' WHERE id = ?", [(number,) for number, _ in results])
    connection.executemany(  # images that were sent on have their objects' files
        "UPDATE result SET path = '' WHERE path <> '' AND kind = 'image'"
        " AND task IN (SELECT task FROM part WHERE object = ?)",
        [(number,) for number, _ in objects],
    )
    paths = [path for _, path in (*objects, *results)]
    connection.executemany("INSERT OR IGNORE INTO deletion (path) VALUES (?)", [(path,) for path in paths])
    return paths


def to_delete(connection: sqlite3.Connection) -> list[str]:
    """Paths that a crash may have left to be deleted."""
    return [row[0] for row in connection.execute("SELECT path FROM deletion")]


def deleted(connection: sqlite3.Connection, paths: Sequence[str]) -> None:
    """The files are gone."""
    connection.executemany("DELETE FROM deletion WHERE path = ?", [(path,) for path in paths])


def newest_golden(connection: sqlite3.Connection) -> int:
    """Number of the newest golden inference; 0 where there is none."""
    (number,) = connection.execute("SELECT coalesce(max(id), 0) FROM golden").fetchone()
    return int(number)


def forget(connection: sqlite3.Connection, before: int, golden_before: int) -> int:
    """Delete old events of what has ended, and old golden inferences; returns how many. Call it again until 0.

    Args:
        connection: in a transaction.
        before: number of the event; younger ones stay.
        golden_before: number of the golden inference; the same.
    """
    # the newest of each stays: numbers go on from it, and what is younger has the greater one
    events = connection.execute(
        "DELETE FROM event WHERE id IN"
        " (SELECT id FROM event WHERE id <= ? AND id < (SELECT max(id) FROM event) LIMIT ?)",
        (before, _TOGETHER),
    ).rowcount
    golden = connection.execute(
        "DELETE FROM golden WHERE id IN"
        " (SELECT id FROM golden WHERE id <= ? AND id < (SELECT max(id) FROM golden) LIMIT ?)",
        (golden_before, _TOGETHER),
    ).rowcount
    return events + golden
