"""Rows of the journal and the few changes that may be made to them. Every change of state is an event of the table.

Each function takes a connection inside a transaction (`Journal.write`) or for reading (`Journal.read`).
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import Final

from edgemed.serve.clock import from_stamp, stamp
from edgemed.serve.journal.tally import refused
from edgemed.serve.states import ENDS, TRANSITIONS, Event, State, worst

FORWARD: Final = "forward"
"""The model of tasks that send images on (`forward = true`): nobody analyses them. No real model has this name.

The router opens one for each object, already `delivering`, with a single result: kind 'image', the object's own path,
SHA-256 (of the data set) and UIDs. Nothing is copied; `result.path` is the path of an object. Such a task that is tried
again is `queued`, and it is the router that takes it.
"""


_STATES: Final = (  # of the objects of a task, each with those of all its tasks
    "SELECT object.id, object.state, group_concat(DISTINCT task.state) FROM part AS its"
    " JOIN object ON object.id = its.object JOIN part ON part.object = object.id JOIN task ON task.id = part.task"
    " WHERE its.task = ? GROUP BY object.id"
)
_MOVE_OBJECTS: Final = (
    "UPDATE object SET state = ?, reason = '', changed = ? WHERE id IN (SELECT value FROM json_each(?))"
)
_MOVED_OBJECTS: Final = (
    "INSERT INTO event (at, what, subject, before, event, after, reason)"
    " SELECT ?, 'object', value, ?, ?, ?, '' FROM json_each(?)"
)

_OPENING: Final = {State.ARRIVING: "arrive", State.RECEIVED: "accept", State.REFUSED: "refuse"}


class NoTransition(ValueError):
    """The table has no such row: a bug of ours, never of an input."""


@dataclass(frozen=True)
class NewObject:
    """What an inlet knows of something that it has written to the spool."""

    inlet: str
    peer: str
    sop_class: str
    sop_instance: str
    sha256: str
    size: int
    path: str
    study: str = ""
    series: str = ""
    syntax: str = ""
    called: str = ""
    association: str = ""
    address: str = ""


@dataclass(frozen=True)
class NewResult:
    """A file in the spool that is to be delivered."""

    kind: str
    path: str
    sha256: str
    size: int
    sop_class: str = ""
    sop_instance: str = ""


_NEW_COLUMNS: Final = tuple(NewObject.__dataclass_fields__)
_OF_NEW: Final = attrgetter(*_NEW_COLUMNS)
_OBJECT_COLUMNS: Final = (*_NEW_COLUMNS, "received", "changed", "state", "reason")
_ADD_OBJECT: Final = (
    f"INSERT INTO object ({', '.join(_OBJECT_COLUMNS)}) VALUES ({', '.join('?' * len(_OBJECT_COLUMNS))})"  # noqa: S608
)


def add_object(connection: sqlite3.Connection, new: NewObject, state: State = State.RECEIVED, reason: str = "") -> int:
    """Enter an object that is on the disk (RECEIVED), on its way there (ARRIVING), or that was not taken (REFUSED).

    Raises:
        sqlite3.IntegrityError: one with its UID is there already, and was not refused.
    """
    now = stamp()
    values = (*_OF_NEW(new), now, now, state.value, reason)
    number = connection.execute(_ADD_OBJECT, values).lastrowid
    assert number is not None
    if state is State.REFUSED:
        refused(connection, new.inlet, now)
    _event(connection, "object", number, "", _OPENING[state], state.value, reason)
    return number


def describe_object(connection: sqlite3.Connection, number: int, study: str, series: str, syntax: str) -> None:
    """What the header of an object says."""
    connection.execute(
        "UPDATE object SET study = ?, series = ?, syntax = ? WHERE id = ?", (study, series, syntax, number)
    )


def move_object(connection: sqlite3.Connection, number: int, event: Event, reason: str = "") -> State:
    """Let something happen to an object.

    Raises:
        NoTransition: it cannot, where the object stands.
    """
    (before,) = connection.execute("SELECT state FROM object WHERE id = ?", (number,)).fetchone()
    return _moved(connection, "object", number, State(before), event, reason)


def vanish(connection: sqlite3.Connection, number: int) -> None:
    """An object that was arriving has no file, and nobody was told that it was taken: its row goes, with its event."""
    gone = connection.execute(
        "DELETE FROM object WHERE id = ? AND state = 'arriving' RETURNING id", (number,)
    ).fetchone()
    if gone is None:
        raise NoTransition(f"object {number} is not arriving: it cannot vanish")
    connection.execute("DELETE FROM event WHERE what = 'object' AND subject = ?", (number,))


def receive_again(connection: sqlite3.Connection, number: int, reason: str) -> None:
    """Let the router look again at an object that came to its end before it had a task."""
    (before,) = connection.execute("SELECT state FROM object WHERE id = ?", (number,)).fetchone()
    _set(connection, "object", number, State(before), Event.RETRY.value, State.RECEIVED, reason)


def stay(connection: sqlite3.Connection, number: int, reason: str) -> None:
    """Enter that the bytes of an object that has ended came again: it is as young as that."""
    (state,) = connection.execute("SELECT state FROM object WHERE id = ?", (number,)).fetchone()
    _event(connection, "object", number, state, Event.RETURN.value, state, reason)


def open_task(
    connection: sqlite3.Connection, model: str, level: str, subject: str, objects: Iterable[int], *, revision: int = 1
) -> int:
    """A task that collects objects; more may come by `add_parts`."""
    now = stamp()
    number = connection.execute(
        "INSERT INTO task (model, level, subject, revision, state, created, changed) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (model, level, subject, revision, State.COLLECTING.value, now, now),
    ).lastrowid
    assert number is not None
    _event(connection, "task", number, "", "open", State.COLLECTING.value, "")
    add_parts(connection, number, objects)
    if revision > 1:
        _settle(connection, number, Event.REOPEN)
    return number


def add_parts(connection: sqlite3.Connection, task: int, objects: Iterable[int]) -> None:
    """Objects that a task is about."""
    connection.executemany("INSERT OR IGNORE INTO part (task, object) VALUES (?, ?)", [(task, o) for o in objects])
    connection.execute("UPDATE task SET changed = ? WHERE id = ?", (stamp(), task))


def move_task(
    connection: sqlite3.Connection, number: int, event: Event, reason: str = "", *, digest: str | None = None
) -> State:
    """Let something happen to a task; at its end, objects that no other task has end with it.

    Args:
        connection: in a transaction.
        number: of the task.
        event: what happens.
        reason: a sentence for people; without names.
        digest: of the bundle that answered.

    Raises:
        NoTransition: it cannot, where the task stands.
    """
    row = connection.execute("SELECT state FROM task WHERE id = ?", (number,)).fetchone()
    after = _moved(connection, "task", number, State(row[0]), event, reason)
    if event is Event.COMPLETE:
        connection.execute("UPDATE task SET completeness = ? WHERE id = ?", (reason, number))
    if event is Event.START:
        connection.execute("UPDATE task SET tries = tries + 1 WHERE id = ?", (number,))
    if event in (Event.RETRY, Event.RETURN):
        connection.execute("UPDATE task SET tries = 0 WHERE id = ?", (number,))
    if event in (Event.COMPLETE, Event.RETRY, Event.RETURN):
        _last_in_line(connection, number)
    if digest is not None:
        connection.execute("UPDATE task SET digest = ? WHERE id = ?", (digest, number))
    if after in ENDS or event in (Event.RETRY, Event.RETURN):
        _settle(connection, number)
    return after


def _last_in_line(connection: sqlite3.Connection, task: int) -> None:
    """Its time counts from now on; and after that of all others in its queue, for the calendar may have gone back."""
    (latest,) = connection.execute(
        "SELECT max(completed) FROM task WHERE state = 'queued' AND model = (SELECT model FROM task WHERE id = ?)",
        (task,),
    ).fetchone()
    now = stamp()
    if latest is not None and latest >= now:
        now = stamp(from_stamp(latest) + timedelta(microseconds=1))
    connection.execute("UPDATE task SET completed = ? WHERE id = ?", (now, task))


def add_results(
    connection: sqlite3.Connection, task: int, results: Sequence[NewResult], destinations: dict[str, Sequence[str]]
) -> list[int]:
    """Files of a task and where each is to go. With no delivery to make, `finish_if_delivered` ends the task.

    An image that is sent on (`forward = true`) is a result as well, of kind 'image', of a task of the model `FORWARD`.
    What a task answered before it was tried again, and did not get to where it was to go, is not delivered any more.

    Args:
        connection: in a transaction.
        task: whose they are.
        results: the files.
        destinations: kinds of results by the name of the destination that takes them.
    """
    now = stamp()
    numbers, wanted = [], set[tuple[int, str]]()
    for new in results:
        number = connection.execute(
            "INSERT INTO result (task, kind, sop_class, sop_instance, sha256, size, path, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (task, path) WHERE path <> ''"
            " DO UPDATE SET sha256 = excluded.sha256, size = excluded.size RETURNING id",
            (task, new.kind, new.sop_class, new.sop_instance, new.sha256, new.size, new.path, now),
        ).fetchone()[0]
        numbers.append(number)
        for name in (name for name, kinds in destinations.items() if new.kind in kinds):
            wanted.add((number, name))
            connection.execute(
                "INSERT INTO delivery (result, destination, state, created, changed) VALUES (?, ?, 'pending', ?, ?)"
                " ON CONFLICT (result, destination) DO UPDATE SET state = 'pending', created = excluded.created,"
                " changed = excluded.changed",
                (number, name, now, now),
            )
    _withdraw(connection, task, wanted)
    return numbers


def _withdraw(connection: sqlite3.Connection, task: int, wanted: set[tuple[int, str]]) -> None:
    """Forget what is open or has failed of an earlier answer: by another version, on another device, to elsewhere."""
    left = connection.execute(
        "SELECT delivery.id, delivery.result, delivery.destination FROM delivery"
        " JOIN result ON result.id = delivery.result WHERE result.task = ? AND delivery.state <> 'delivered'",
        (task,),
    ).fetchall()
    gone = [(number,) for number, *where in left if tuple(where) not in wanted]
    connection.executemany("DELETE FROM asked WHERE delivery = ?", gone)
    connection.executemany("DELETE FROM delivery WHERE id = ?", gone)


def move_delivery(
    connection: sqlite3.Connection, number: int, state: str, reason: str = "", *, transaction_uid: str | None = None
) -> None:
    """A delivery goes on: 'pending' (again), 'sent', 'delivered' or 'failed'. The task ends with its last one."""
    (before,) = connection.execute("SELECT state FROM delivery WHERE id = ?", (number,)).fetchone()
    tried = int(state != before or state == "pending")
    now = stamp()
    connection.execute(
        "UPDATE delivery SET state = ?, reason = ?, tries = tries + ?, changed = ?,"
        " transaction_uid = coalesce(?, transaction_uid) WHERE id = ?",
        (state, reason, tried, now, transaction_uid, number),
    )
    if before == "failed":  # somebody asked for it: it waits anew, or its age would end it again at once
        connection.execute("UPDATE delivery SET created = ? WHERE id = ?", (now, number))
    _event(connection, "delivery", number, before, "attempt", state, reason)
    (task,) = connection.execute(
        "SELECT task FROM result JOIN delivery ON delivery.result = result.id WHERE delivery.id = ?", (number,)
    ).fetchone()
    finish_if_delivered(connection, task)


def finish_if_delivered(connection: sqlite3.Connection, task: int) -> State | None:
    """End a task none of whose deliveries is open; `None` where one is, or the task is not at that point."""
    state, reason = connection.execute("SELECT state, reason FROM task WHERE id = ?", (task,)).fetchone()
    if State(state) not in (State.DELIVERING, State.NOTIFYING):
        return None
    rows = connection.execute(
        "SELECT delivery.state, delivery.destination FROM delivery JOIN result ON result.id = delivery.result"
        " WHERE result.task = ?",
        (task,),
    ).fetchall()
    if any(row[0] in ("pending", "sent") for row in rows):
        return None
    if failed := sorted({row[1] for row in rows if row[0] == "failed"}):
        return move_task(connection, task, Event.GIVE_UP, f"{', '.join(failed)} did not take it.")
    return move_task(connection, task, Event.FINISH, reason)  # why it is not analysed stays


def _moved(connection: sqlite3.Connection, what: str, number: int, before: State, event: Event, reason: str) -> State:
    after = TRANSITIONS.get((before, event))
    if after is None:
        raise NoTransition(f"{what} {number} is {before.value}: there is no {event.value}")
    _set(connection, what, number, before, event.value, after, reason)
    return after


def _set(
    connection: sqlite3.Connection, what: str, number: int, before: State, event: str, after: State, reason: str
) -> None:
    connection.execute(
        f"UPDATE {what} SET state = ?, reason = ?, changed = ? WHERE id = ?",  # noqa: S608 - a table of ours
        (after.value, reason, stamp(), number),
    )
    _event(connection, what, number, before.value, event, after.value, reason)


def _settle(connection: sqlite3.Connection, task: int, opening: Event = Event.RETRY) -> None:
    """Objects of a task end with their last task, and are open again when one is tried again, or joined by another."""
    moved: defaultdict[tuple[State, State], list[int]] = defaultdict(list)
    for number, stood, tasks in connection.execute(_STATES, (task,)):
        before, states = State(stood), frozenset(map(State, tasks.split(",")))
        after = worst(states) if states <= ENDS else State.ROUTED
        if after is not before and before is not State.RECEIVED:  # that one is being routed
            moved[before, after].append(number)
    now = stamp()
    for (before, after), numbers in moved.items():  # at once: there may be thousands, and senders wait meanwhile
        event = (Event.SETTLE if after in ENDS else opening).value
        each = json.dumps(numbers)
        connection.execute(_MOVE_OBJECTS, (after.value, now, each))
        connection.execute(_MOVED_OBJECTS, (now, before.value, event, after.value, each))


def _event(
    connection: sqlite3.Connection, what: str, number: int, before: str, event: str, after: str, reason: str
) -> None:
    connection.execute(
        "INSERT INTO event (at, what, subject, before, event, after, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (stamp(), what, number, before, event, after, reason),
    )
