"""Storage commitment that peers ask of us: their requests, each until its report was taken.

A request is named by its transaction, its peer and the event of its asking: a peer may use a Transaction UID again, and
what was said of the first is not said of the second.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

Instance = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""

WAITING: Final = "SELECT transaction_uid, peer, address, event FROM commitment WHERE reported IS NULL ORDER BY event"
"""Those that are not reported on; without what they name, for that may be megabytes each, or damaged."""

MOST_OPEN: Final = 1_000
MOST_OPEN_BYTES: Final = 64 << 20
"""Limits of one peer, on its requests that are not reported on: how many, and as they stand here together."""

_THIS: Final = "transaction_uid = ? AND peer = ? AND event = ?"


def enter_request(
    connection: sqlite3.Connection,
    transaction: str,
    peer: str,
    address: str,
    instances: Sequence[Instance],
    at: str,
) -> bool:
    """Enter one, in place of an earlier one of that transaction; `False` where the peer has too many open."""
    request = json.dumps(instances)
    count, size = connection.execute(
        "SELECT count(*), total(length(request)) FROM commitment"
        " WHERE reported IS NULL AND peer = ? AND transaction_uid <> ?",
        (peer, transaction),
    ).fetchone()
    if count >= MOST_OPEN or size + len(request) > MOST_OPEN_BYTES:
        return False
    event = connection.execute(
        "INSERT INTO event (at, what, subject, before, event, after) VALUES (?, 'commitment', 0, '', 'ask', '')", (at,)
    ).lastrowid
    connection.execute(
        "INSERT INTO commitment (transaction_uid, peer, address, request, received, event) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (transaction_uid, peer) DO UPDATE SET address = excluded.address, request = excluded.request,"
        " received = excluded.received, reported = NULL, event = excluded.event",
        (transaction, peer, address, request, at, event),
    )
    return True


def requested(connection: sqlite3.Connection, row: sqlite3.Row) -> list[Instance] | None:
    """What a request names; nothing where another has taken its place, `None` where it cannot be read any more.

    Args:
        connection: for reading.
        row: of `WAITING`.
    """
    # as bytes: text that is none would be an error of SQLite's
    sql = f"SELECT CAST(request AS BLOB) FROM commitment WHERE {_THIS}"  # noqa: S608 - ours
    found = connection.execute(sql, _key(row)).fetchone()
    if found is None:
        return []
    try:
        return [(str(sop_class), str(uid)) for sop_class, uid in json.loads(found[0])] or None
    except (ValueError, TypeError, RecursionError):
        return None


def end_request(connection: sqlite3.Connection, row: sqlite3.Row, at: str) -> None:
    """Its report was taken; or it is given up, with '' for the time. Nothing where another has taken its place."""
    connection.execute(f"UPDATE commitment SET reported = ? WHERE {_THIS}", (at, *_key(row)))  # noqa: S608 - ours


def _key(row: sqlite3.Row) -> tuple[Any, ...]:
    return row["transaction_uid"], row["peer"], row["event"]
