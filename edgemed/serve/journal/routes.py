"""How an object becomes a part of its tasks: one transaction for each, so that a crash leaves it done or to be done."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgemed.serve.config.models import Level
from edgemed.serve.journal.records import (
    FORWARD,
    NewResult,
    add_parts,
    add_results,
    describe_object,
    finish_if_delivered,
    move_delivery,
    move_object,
    move_task,
    open_task,
)
from edgemed.serve.journal.returns import is_whole
from edgemed.serve.states import Event, State

LATE: Final = "It came after its series was taken to be complete."
OTHER_STUDY: Final = "Its series is known as one of another study."
DELETED: Final = "It came after the images of its series were deleted."
OURS: Final = "It is a result of ours."
ALONE: Final = "It is analysed by itself."

_TOGETHER: Final = 64


@dataclass(frozen=True)
class Want:
    """A model that an object is for.

    Attributes:
        model: its name.
        level: at which it works.
        subject: UID of the object at that level.
        reopen: a late image makes a new revision.
        expected: objects that the task will have, by what this one says.
    """

    model: str
    level: Level
    subject: str
    reopen: bool = True
    expected: int | None = None


@dataclass(frozen=True)
class Route:
    """What is decided of one object.

    Attributes:
        number: of the object.
        wants: models that it is for.
        forward: destinations that it is sent on to, as it is.
        reason: why it is for no model, as a sentence.
        unreadable: its bytes make no sense to us; `reason` says why. It may still be sent on.
    """

    number: int
    study: str = ""
    series: str = ""
    syntax: str = ""
    wants: tuple[Want, ...] = ()
    forward: tuple[str, ...] = ()
    reason: str = ""
    unreadable: bool = False


@dataclass(frozen=True)
class Joined:
    """A task that an object has become a part of.

    Attributes:
        earlier: objects of the revision before, that the new one has from the beginning.
        opened: it was opened for this object.
    """

    task: int
    model: str
    level: Level
    revision: int
    opened: bool
    earlier: tuple[int, ...] = ()


@dataclass(frozen=True)
class Routed:
    """What became of an object."""

    state: State
    joined: tuple[Joined, ...] = ()
    forwarded: bool = False
    reason: str = ""


def enter(connection: sqlite3.Connection, route: Route) -> Routed:
    """Let an object that was received join its tasks; or say why it has none."""
    number = route.number
    if route.unreadable and not route.forward:
        return Routed(move_object(connection, number, Event.UNREADABLE, route.reason), reason=route.reason)
    if not route.unreadable:
        describe_object(connection, number, route.study, route.series, route.syntax)
    row = connection.execute("SELECT * FROM object WHERE id = ?", (number,)).fetchone()
    if _is_ours(connection, row["sop_instance"]):
        return Routed(move_object(connection, number, Event.UNWANTED, OURS), reason=OURS)
    reasons = [route.reason] if route.reason else []
    joined = []
    for want in route.wants:
        found = _join(connection, want, row)
        if isinstance(found, Joined):
            joined.append(found)
        else:
            reasons.append(found)
    if route.forward:
        _forward(connection, row, route.forward)
    reason = "" if joined else " ".join(dict.fromkeys(reasons))
    event = Event.ROUTE if joined or route.forward else Event.UNWANTED
    state = move_object(connection, number, event, reason)
    return Routed(state, tuple(joined), bool(route.forward), reason)


def _join(connection: sqlite3.Connection, want: Want, row: sqlite3.Row) -> Joined | str:
    """A task of one model; or why it has none for this object."""
    number = row["id"]
    latest = connection.execute(
        "SELECT id, state, revision FROM task WHERE model = ? AND subject = ? ORDER BY revision DESC LIMIT 1",
        (want.model, want.subject),
    ).fetchone()
    if latest is None:
        task = open_task(connection, want.model, want.level, want.subject, [number])
        _expect(connection, task, want.expected)
        if want.level == "instance":
            move_task(connection, task, Event.COMPLETE, ALONE)
        return Joined(task, want.model, want.level, 1, opened=True)
    parts = connection.execute(  # read as far as is needed: those of one task are of one study
        "SELECT object.id, object.study FROM part JOIN object ON object.id = part.object WHERE task = ?",
        (latest["id"],),
    )
    first = parts.fetchone()
    if first["study"] != row["study"]:
        return OTHER_STUDY
    if latest["state"] == State.COLLECTING.value:
        add_parts(connection, latest["id"], [number])
        _expect(connection, latest["id"], want.expected)
        return Joined(latest["id"], want.model, want.level, latest["revision"], opened=False)
    if not want.reopen:
        return LATE
    if not is_whole(connection, latest["id"]):
        return DELETED
    earlier, revision = tuple(part["id"] for part in (first, *parts)), latest["revision"] + 1
    task = open_task(connection, want.model, want.level, want.subject, [*earlier, number], revision=revision)
    _expect(connection, task, want.expected)
    return Joined(task, want.model, want.level, revision, opened=True, earlier=earlier)


def _expect(connection: sqlite3.Connection, task: int, expected: int | None) -> None:
    """What a file tells of the number of images; two that disagree are not believed."""
    if expected is not None:
        connection.execute(
            "UPDATE task SET expected = CASE coalesce(expected, ?1) WHEN ?1 THEN ?1 ELSE 0 END WHERE id = ?2",
            (expected, task),
        )


def _is_ours(connection: sqlite3.Connection, sop_instance: str) -> bool:
    found = connection.execute("SELECT 1 FROM result WHERE sop_instance = ? AND kind <> 'image'", (sop_instance,))
    return found.fetchone() is not None


def _forward(connection: sqlite3.Connection, row: sqlite3.Row, destinations: Sequence[str]) -> None:
    """A task that has its result from the beginning: the object itself."""
    task = open_task(connection, FORWARD, "instance", row["sop_instance"], [row["id"]])
    for event in (Event.COMPLETE, Event.START, Event.ANSWER):
        move_task(connection, task, event, "It is sent on as it came." if event is Event.COMPLETE else "")
    result = NewResult("image", row["path"], row["sha256"], row["size"], row["sop_class"], row["sop_instance"])
    add_results(connection, task, [result], dict.fromkeys(destinations, ("image",)))


def forward_again(connection: sqlite3.Connection) -> int:
    """Tasks that send images on and are to be tried again: what failed is pending.

    Returns:
        How many there were; there may be more, for senders wait meanwhile: call it again until 0.
    """
    tasks = connection.execute(
        "SELECT id FROM task WHERE state = 'queued' AND model = ? LIMIT ?", (FORWARD, _TOGETHER)
    ).fetchall()
    for (task,) in tasks:
        move_task(connection, task, Event.START)
        move_task(connection, task, Event.ANSWER)
        failed = connection.execute(
            "SELECT delivery.id FROM delivery JOIN result ON result.id = delivery.result"
            " WHERE result.task = ? AND delivery.state = 'failed'",
            (task,),
        ).fetchall()
        for (delivery,) in failed:
            move_delivery(connection, delivery, "pending")
        finish_if_delivered(connection, task)
    return len(tasks)


def complete(connection: sqlite3.Connection, task: int, reason: str) -> bool:
    """A task has all its objects; whether it was still collecting."""
    (state,) = connection.execute("SELECT state FROM task WHERE id = ?", (task,)).fetchone()
    if state != State.COLLECTING.value:
        return False
    move_task(connection, task, Event.COMPLETE, reason)
    return True


def collecting(connection: sqlite3.Connection) -> list[sqlite3.Row]:
    """Tasks that collect: id, model, level, subject, revision, expected."""
    return connection.execute(
        "SELECT id, model, level, subject, revision, expected FROM task WHERE state = 'collecting'"
        " AND state NOT IN ('delivered', 'not-analysed', 'failed') ORDER BY id"  # as its index says it
    ).fetchall()


def parts_of(connection: sqlite3.Connection, task: int) -> list[sqlite3.Row]:
    """Objects of a task: id, association."""
    return connection.execute(
        "SELECT object.id, object.association FROM part JOIN object ON object.id = part.object WHERE part.task = ?",
        (task,),
    ).fetchall()
