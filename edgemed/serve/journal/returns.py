"""What becomes of an object whose bytes came again, after its time or after the disk had lost them."""

from __future__ import annotations

import sqlite3
from typing import Final

from edgemed.serve.journal.facts import left_of
from edgemed.serve.journal.records import (
    FORWARD,
    NewObject,
    move_task,
    receive_again,
    stay,
)
from edgemed.serve.states import Event, State

AGAIN: Final = "Its bytes came again."


def bring_back(connection: sqlite3.Connection, number: int, stood: str, new: NewObject) -> bool | None:
    """The bytes of an object are there again. What had failed is tried again, and so is what was not analysed and has
    had its time: its sender was told Success, and may want an answer.

    Args:
        connection: in a transaction.
        number: of the object.
        stood: its path, before the new bytes were kept.
        new: what came, with its path.

    Returns:
        Whether it is to be routed: it had no task. `None`: its time ended meanwhile, and the new bytes go with the old.
    """
    state, path = connection.execute("SELECT state, path FROM object WHERE id = ?", (number,)).fetchone()
    if stood and not path:
        return None
    connection.execute(
        "UPDATE object SET path = ?, sha256 = ?, size = ?, repeats = repeats + 1 WHERE id = ?",
        (new.path, new.sha256, new.size, number),
    )
    connection.execute(  # what is sent on as it came has the object's file
        "UPDATE result SET path = ? WHERE path = '' AND kind = 'image'"
        " AND task IN (SELECT task FROM part JOIN task ON task.id = task WHERE object = ? AND model = ?)",
        (new.path, number, FORWARD),
    )
    ends = (State.FAILED.value,) if path else (State.FAILED.value, State.NOT_ANALYSED.value)
    if state not in ends:
        return False
    tasks = connection.execute(
        "SELECT task.* FROM task JOIN part ON part.task = task.id WHERE part.object = ? ORDER BY task.id", (number,)
    ).fetchall()
    if not tasks:
        receive_again(connection, number, AGAIN)
        return True
    stay(connection, number, AGAIN)  # its time begins anew, whether all of its series are there or not
    for task in tasks:
        if task["state"] in ends and _is_newest(connection, task) and is_whole(connection, task["id"]):
            move_task(connection, task["id"], Event.RETURN, AGAIN)
    return False


def _is_newest(connection: sqlite3.Connection, task: sqlite3.Row) -> bool:
    newer = "SELECT 1 FROM task WHERE model = ? AND subject = ? AND revision > ?"
    return connection.execute(newer, (task["model"], task["subject"], task["revision"])).fetchone() is None


def is_whole(connection: sqlite3.Connection, task: int) -> bool:
    """Whether no file of a task was deleted after its time; the last one that comes again makes it whole.

    One of which objects have left the journal never is: it would be about those alone that are left.
    """
    gone = (
        "SELECT 1 FROM part JOIN object ON object.id = part.object WHERE part.task = ? AND object.path = ''"
        " UNION ALL SELECT 1 FROM fact WHERE name = ?"
    )
    return connection.execute(gone, (task, left_of(task))).fetchone() is None
