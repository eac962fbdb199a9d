"""What the journal keeps by name, one value each, as text."""

from __future__ import annotations

import sqlite3
from typing import Final

TOLD: Final = "audit received"
"""How far the audit trail was told of what was received: see `serve/audit/received.py`."""

ARCHIVE: Final = "archive"
"""Where the archive of what left the journal ends: see `serve/archive.py`."""

_LEFT: Final = "left"


def left_of(task: int | str) -> str:
    """Name of what is kept of a task some of whose objects have left the journal: see `journal/leaving.py`."""
    return f"{_LEFT} {task}"


def fact(connection: sqlite3.Connection, name: str) -> str | None:
    """A value; `None` where none is kept."""
    row = connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def keep_fact(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a value in place of the one before."""
    connection.execute(
        "INSERT INTO fact (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def forget_fact(connection: sqlite3.Connection, name: str) -> None:
    """Keep nothing under a name any more."""
    connection.execute("DELETE FROM fact WHERE name = ?", (name,))


def forget_numbers(connection: sqlite3.Connection) -> None:
    """Begin to count anew: events and tasks have other numbers now, in a journal that was made anew.

    The archive begins another file, too: a damaged journal may say less of it than counts.
    """
    connection.execute(
        "DELETE FROM fact WHERE name LIKE 'horizon %' OR name LIKE ? OR name IN (?, ?)", (left_of("%"), TOLD, ARCHIVE)
    )
    for table in ("step", "commitment"):  # as young as this journal
        connection.execute(f"UPDATE {table} SET event = 0")  # noqa: S608 - ours
