"""What the journal holds for one destination, and the changes that a lane makes to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from edgemed.serve.journal.records import move_delivery
from edgemed.serve.outlets.courier import Parcel
from edgemed.serve.spool import Spool
from edgemed.serve.states import ENDS, State

_OPEN = """
SELECT delivery.id, delivery.state, delivery.tries, delivery.created, result.kind, result.sop_class,
       result.sop_instance, result.sha256, result.path, result.task, task.model, task.subject, task.revision,
       coalesce((SELECT object.study FROM part JOIN object ON object.id = part.object
                 WHERE part.task = task.id ORDER BY object.id LIMIT 1), '') AS study
FROM delivery JOIN result ON result.id = delivery.result JOIN task ON task.id = result.task
WHERE delivery.destination = ? AND delivery.state = ? AND delivery.state <> 'delivered'
  AND NOT (? AND EXISTS (SELECT 1 FROM event WHERE id > ?
    AND (what = 'task' AND subject = task.id OR what = 'delivery' AND subject = delivery.id AND before = 'failed')))
ORDER BY delivery.id
"""


def waiting(
    connection: sqlite3.Connection, spool: Spool, destination: str, state: str, before: int | None = None
) -> Iterator[Parcel]:
    """Deliveries of a destination in a state, oldest first; read as far as asked for.

    Args:
        connection: for reading.
        spool: where their files are.
        destination: its name.
        state: of the deliveries.
        before: number of an event: only what was made, or asked for again, before it.
    """
    for row in connection.execute(_OPEN, (destination, state, before is not None, before or 0)):
        yield Parcel(
            number=row["id"],
            state=row["state"],
            tries=row["tries"],
            created=row["created"],
            kind=row["kind"],
            sop_class=row["sop_class"],
            sop_instance=row["sop_instance"],
            sha256=row["sha256"],
            path=spool.path(row["path"]),
            task=row["task"],
            model=row["model"],
            subject=row["subject"],
            revision=row["revision"],
            study=row["study"],
        )


def settle(connection: sqlite3.Connection, parcel: Parcel, state: str, reason: str) -> tuple[bool, State | None]:
    """Write what became of a parcel, unless the result was made again meanwhile: then it goes again.

    Returns:
        Whether it was written, and the end of its task, where that was its last delivery.
    """
    row = connection.execute(
        "SELECT delivery.state, result.sha256 FROM delivery JOIN result ON result.id = delivery.result"
        " WHERE delivery.id = ?",
        (parcel.number,),
    ).fetchone()
    if row is None or row["state"] != parcel.state or row["sha256"] != parcel.sha256:
        return False, None
    return True, move(connection, parcel.number, parcel.task, state, reason)


def move(connection: sqlite3.Connection, number: int, task: int, state: str, reason: str) -> State | None:
    """A delivery goes on; the end of its task, where this ended it."""
    before = _state(connection, task)
    move_delivery(connection, number, state, reason)
    after = _state(connection, task)
    return after if after in ENDS and after is not before else None


def _state(connection: sqlite3.Connection, task: int) -> State:
    return State(connection.execute("SELECT state FROM task WHERE id = ?", (task,)).fetchone()[0])


def asked(connection: sqlite3.Connection, transaction: str, parcels: Sequence[Parcel]) -> None:
    """Commitment is about to be asked for: entered before, for the answer may be quicker than the writer."""
    pairs = [(transaction, parcel.number) for parcel in parcels]
    connection.executemany("INSERT INTO asked (transaction_uid, delivery) VALUES (?, ?)", pairs)
    connection.executemany("UPDATE delivery SET transaction_uid = ? WHERE id = ?", pairs)


def states(connection: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, str]:
    """Where deliveries stand."""
    found = {}
    for number in numbers:
        for row in connection.execute("SELECT state FROM delivery WHERE id = ?", (number,)):
            found[number] = row[0]
    return found


def counts(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """Deliveries by destination and state, where they are open or failed."""
    rows = connection.execute(
        "SELECT name, state, count FROM tally WHERE what = 'delivery' AND state <> 'delivered' AND count > 0"
    )
    return {(row[0], row[1]): row[2] for row in rows}
