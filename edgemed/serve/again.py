"""What has failed and is tried again because an operator asks for it; also beside a daemon that runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from edgemed.base.errors import InputError
from edgemed.serve.digest import digest_of
from edgemed.serve.journal.file import beside
from edgemed.serve.journal.records import NoTransition, move_task, receive_again
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.journal.returns import is_whole
from edgemed.serve.states import Event

_ASKED: Final = "An operator asked for it."
_TOGETHER: Final = 64  # tasks that are tried again in one transaction: the daemon's senders wait meanwhile


def retry(root: Path, task: int | None) -> list[int]:
    """Let a task that has failed be tried again, or all of them (`None`); also beside a daemon that runs.

    Returns:
        Numbers of the tasks.

    Raises:
        InputError: there is no such task, or it has not failed.
        IntegrityError: the journal is of another version.
        ResourceError: the journal does not take it.
    """
    if not (root / JOURNAL).is_file():
        raise InputError(f"There is no journal in {root}.", "Name a bedside.toml, or the state that it names.")
    again: list[int] = []
    with beside(root / JOURNAL) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        numbers = [task] if task is not None else _failed(connection)
        for first in range(0, len(numbers), _TOGETHER):
            connection.execute("BEGIN IMMEDIATE")  # waits for the daemon's own commit, and it for this one
            some = numbers[first : first + _TOGETHER]
            if task is None:
                some = [number for number in some if _has_failed(connection, number)]
            for number in some:
                _retry(connection, number)
            connection.execute("COMMIT")
            again += some
    return again


def _retry(connection: sqlite3.Connection, number: int) -> None:
    if connection.execute("SELECT 1 FROM task WHERE id = ?", (number,)).fetchone() is None:
        raise InputError(f"There is no task {number}.", "`edgemed reconcile` lists what has failed.")
    if not is_whole(connection, number):
        raise InputError(f"The images of task {number} were deleted after their time.", "Send them again.")
    try:
        move_task(connection, number, Event.RETRY, _ASKED)
    except NoTransition as error:
        raise InputError(f"{str(error).capitalize()}.", "Only what has failed is tried again.") from error


def failed(root: Path) -> list[tuple[int, str, str]]:
    """Tasks that have failed: number, model, reason."""
    with beside(root / JOURNAL, read_only=True) as connection:
        rows = connection.execute("SELECT id, model, reason FROM task WHERE state = 'failed' ORDER BY id").fetchall()
    return [(row["id"], row["model"], row["reason"]) for row in rows]


def _failed(connection: sqlite3.Connection) -> list[int]:
    tasks = [row[0] for row in connection.execute("SELECT id FROM task WHERE state = 'failed' ORDER BY id")]
    return [task for task in tasks if is_whole(connection, task)]


def _has_failed(connection: sqlite3.Connection, task: int) -> bool:
    """Whether it still has, and its images are there."""
    stands = connection.execute("SELECT 1 FROM task WHERE id = ? AND state = 'failed'", (task,)).fetchone()
    return stands is not None and is_whole(connection, task)


def route_again(root: Path) -> list[int]:
    """Let the router look again at objects that failed before they had a task: their headers could not be read.

    Those whose bytes are not the ones that came are left alone. Also beside a daemon that runs.

    Returns:
        Numbers of the objects.

    Raises:
        IntegrityError: the journal is of another version.
        ResourceError: the journal does not take it.
    """
    sql = (
        "SELECT id, path, sha256, sop_class FROM object WHERE state = 'failed' AND path <> ''"
        " AND NOT EXISTS (SELECT 1 FROM part WHERE part.object = object.id) ORDER BY id"
    )
    with beside(root / JOURNAL) as connection:
        rows = connection.execute(sql).fetchall()
        sound = [row["id"] for row in rows if _is_sound(root / row["path"], row)]
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        still = {row["id"] for row in connection.execute(sql)}
        again = [number for number in sound if number in still]
        for number in again:
            receive_again(connection, number, _ASKED)
        connection.execute("COMMIT")
    return again


def _is_sound(path: Path, row: sqlite3.Row) -> bool:
    try:
        return bool(digest_of(path, dicom=bool(row["sop_class"])) == row["sha256"])
    except OSError:
        return False
