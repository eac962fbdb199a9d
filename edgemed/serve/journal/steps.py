"""Performed procedure steps: which images a modality says that it has made. UIDs alone are kept of them.

An image of a step has come when the router has looked at it: from then on it is in its tasks, or has its end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

from edgemed.serve.clock import stamp
from edgemed.serve.config.models import Level

StepState = Literal["IN PROGRESS", "COMPLETED", "DISCONTINUED"]
Series = Mapping[str, Collection[str]]
"""SOP Instance UIDs of images by their Series Instance UID."""

Refusal = Literal["duplicate", "unknown", "foreign", "ended", "empty", "full"]
"""Why a step is not created or changed: there is one of its UID, there is none, another peer has created it, it has
ended, it is to be completed without a series, or that peer has too many."""

MOST_STEPS: Final = 10_000  # of each peer, so that none shuts another out
MOST_IMAGES: Final = 1_000_000  # of all of these: some 40 MB
_TOGETHER: Final = 20
_IMAGES_TOGETHER: Final = 5_000  # of steps that are forgotten in one transaction: senders wait meanwhile
_HAS_COME: Final = (
    "EXISTS (SELECT 1 FROM object WHERE object.sop_instance = step_image.sop_instance"
    " AND object.state <> 'refused' AND object.state NOT IN ('arriving', 'received'))"
)
_OF: Final[dict[Level, str]] = {"series": "step_series.series = ?", "study": "step.study = ?"}
_IMAGES: Final = (
    " FROM step JOIN step_series ON step_series.step = step.id JOIN step_image ON step_image.series = step_series.id"
)


@dataclass(frozen=True)
class Named:
    """What the ended steps of a series or study name.

    Attributes:
        total: images.
        awaited: UIDs of those that have not come and that a completed step names.
        doubtful: the same of discontinued steps alone.
        open: a step of the study is in progress; of a series that says nothing.
    """

    total: int
    awaited: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()
    open: bool = False


@dataclass(frozen=True)
class Unfinished:
    """A series of a completed step of which images have not come.

    Attributes:
        step: its SOP Instance UID.
        peer: that has told of it.
        came: images that have.
        missing: UIDs of those that have not.
    """

    step: str
    peer: str
    study: str
    series: str
    came: int
    missing: tuple[str, ...]


def create_step(connection: sqlite3.Connection, uid: str, peer: str, study: str, series: Series) -> Refusal | None:
    """Enter a step that is in progress; or why not."""
    if connection.execute("SELECT 1 FROM step WHERE sop_instance = ?", (uid,)).fetchone() is not None:
        return "duplicate"
    steps, images = connection.execute("SELECT count(*), total(images) FROM step WHERE peer = ?", (peer,)).fetchone()
    if steps >= MOST_STEPS or images + _count(series) > MOST_IMAGES:
        return "full"
    now = stamp()
    number = connection.execute(
        "INSERT INTO step (sop_instance, peer, study, state, created, changed, event)"
        " VALUES (?, ?, ?, 'IN PROGRESS', ?, ?, 0) RETURNING id",
        (uid, peer, study, now, now),
    ).fetchone()[0]
    _replace(connection, number, series)
    _happened(connection, number, "", "create", "IN PROGRESS")
    return None


def set_step(
    connection: sqlite3.Connection, uid: str, peer: str, state: StepState, series: Series | None
) -> Refusal | None:
    """Change a step; `series` replaces all of its series, and `None` leaves them. Or why not."""
    step = connection.execute("SELECT * FROM step WHERE sop_instance = ?", (uid,)).fetchone()
    if step is None:
        return "unknown"
    if step["peer"] != peer:
        return "foreign"
    if step["state"] != "IN PROGRESS":
        return "ended"
    if series is not None:
        (others,) = connection.execute(
            "SELECT total(images) FROM step WHERE peer = ? AND id <> ?", (peer, step["id"])
        ).fetchone()
        if others + _count(series) > MOST_IMAGES:
            return "full"
    if state == "COMPLETED" and not (_has_series(connection, step["id"]) if series is None else series):
        return "empty"
    if series is not None:
        _replace(connection, step["id"], series)
    connection.execute("UPDATE step SET state = ?, changed = ? WHERE id = ?", (state, stamp(), step["id"]))
    _happened(connection, step["id"], step["state"], "set", state)
    return None


def newest_step(connection: sqlite3.Connection) -> int:
    """Number of the event of the step that was changed last; -1 where there is none."""
    (number,) = connection.execute("SELECT coalesce(max(event), -1) FROM step").fetchone()
    return int(number)


def named(connection: sqlite3.Connection, level: Level, subject: str) -> Named | None:
    """What steps tell of a series or study; `None` where none does."""
    rows = connection.execute(
        f"SELECT step_image.sop_instance AS uid, max(step.state = 'COMPLETED') AS sure, {_HAS_COME} AS came"
        f"{_IMAGES} WHERE {_OF[level]} AND step.state <> 'IN PROGRESS' GROUP BY step_image.sop_instance",
        (subject,),
    ).fetchall()
    going = (
        level == "study"
        and connection.execute("SELECT 1 FROM step WHERE study = ? AND state = 'IN PROGRESS'", (subject,)).fetchone()
    )
    if not rows and not going:
        return None
    missing = [row for row in rows if not row["came"]]
    return Named(
        len(rows),
        frozenset(row["uid"] for row in missing if row["sure"]),
        frozenset(row["uid"] for row in missing if not row["sure"]),
        bool(going),
    )


def unfinished(connection: sqlite3.Connection, after: int = -1) -> Iterator[Unfinished]:
    """Series of completed steps of which images have not come, the oldest first.

    Args:
        connection: for reading.
        after: number of an event; steps that were changed before are left out.
    """
    rows = connection.execute(
        "SELECT step_series.id, step_series.series, step.sop_instance, step.peer, step.study,"
        f" sum({_HAS_COME}) AS came, count(*) AS total{_IMAGES} WHERE step.state = 'COMPLETED' AND step.event > ?"
        " GROUP BY step_series.id HAVING came < total ORDER BY step_series.id",
        (after,),
    )
    for row in rows:
        missing = connection.execute(
            f"SELECT sop_instance FROM step_image WHERE series = ? AND NOT {_HAS_COME}",  # noqa: S608 - ours
            (row["id"],),
        )
        uids = tuple(each[0] for each in missing)
        yield Unfinished(row["sop_instance"], row["peer"], row["study"], row["series"], row["came"], uids)


def forget_steps(connection: sqlite3.Connection, before: int) -> int:
    """Delete steps whose last change is older than an event; returns how many. Call it again until 0."""
    if not before:  # nothing is that old
        return 0
    rows = connection.execute("SELECT id, images FROM step WHERE event <= ? LIMIT ?", (before, _TOGETHER)).fetchall()
    images = accumulate(row["images"] for row in rows)
    going = [(row["id"],) for row, so_far in zip(rows, images, strict=True) if so_far <= _IMAGES_TOGETHER]
    going = going or [(row["id"],) for row in rows[:1]]
    connection.executemany("DELETE FROM step WHERE id = ?", going)
    return len(going)


def _count(series: Series) -> int:
    return sum(map(len, series.values()))


def _has_series(connection: sqlite3.Connection, number: int) -> bool:
    return connection.execute("SELECT 1 FROM step_series WHERE step = ?", (number,)).fetchone() is not None


def _replace(connection: sqlite3.Connection, number: int, series: Series) -> None:
    connection.execute("DELETE FROM step_series WHERE step = ?", (number,))
    for uid, images in series.items():
        row = connection.execute(
            "INSERT INTO step_series (step, series) VALUES (?, ?) RETURNING id", (number, uid)
        ).fetchone()
        connection.executemany(
            "INSERT OR IGNORE INTO step_image (series, sop_instance) VALUES (?, ?)",
            [(row[0], image) for image in images],
        )
    connection.execute("UPDATE step SET images = ? WHERE id = ?", (_count(series), number))


def _happened(connection: sqlite3.Connection, number: int, before: str, event: str, after: str) -> None:
    found = connection.execute(
        "INSERT INTO event (at, what, subject, before, event, after) VALUES (?, 'step', ?, ?, ?, ?)",
        (stamp(), number, before, event, after),
    ).lastrowid
    connection.execute("UPDATE step SET event = ? WHERE id = ?", (found, number))
