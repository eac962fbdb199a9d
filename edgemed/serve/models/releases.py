"""Versions of a model in the journal: one table of (state, event), and the changes that go together.

At most one version of a model is ACTIVE or on PROBATION: that one answers, also after a restart at any moment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edgemed.serve.clock import stamp
from edgemed.serve.journal.facts import fact, keep_fact


class Stage(str, Enum):
    """Where a version stands."""

    CANDIDATE = "candidate"  # its bytes and signature are in order, and it is in the store
    SHADOW = "shadow"  # its golden vectors were answered rightly; it is compared with the active one
    PROBATION = "probation"  # it answers, and is watched; the one before it is kept loaded
    ACTIVE = "active"
    PREVIOUS = "previous"  # the one before: on the disk, to go back to
    REJECTED = "rejected"
    RETIRED = "retired"  # older than the one before


class Happening(str, Enum):
    """What happens to a version."""

    FIRST = "first"  # there is none to compare it with
    TRY = "try"
    SWITCH = "switch"
    SETTLE = "settle"
    FAIL = "fail"
    SUPERSEDE = "supersede"
    RESTORE = "restore"
    RETIRE = "retire"
    PROPOSE = "propose"  # somebody wants it (again)


TRANSITIONS: Final[dict[tuple[Stage, Happening], Stage]] = {
    (Stage.CANDIDATE, Happening.FIRST): Stage.ACTIVE,
    (Stage.CANDIDATE, Happening.TRY): Stage.SHADOW,
    (Stage.CANDIDATE, Happening.SWITCH): Stage.PROBATION,  # no trial was asked for, or the active one does not answer
    (Stage.SHADOW, Happening.SWITCH): Stage.PROBATION,
    (Stage.PROBATION, Happening.SETTLE): Stage.ACTIVE,
    (Stage.ACTIVE, Happening.SUPERSEDE): Stage.PREVIOUS,
    (Stage.PREVIOUS, Happening.RESTORE): Stage.ACTIVE,
    (Stage.PREVIOUS, Happening.RETIRE): Stage.RETIRED,
    **{(stage, Happening.FAIL): Stage.REJECTED for stage in Stage if stage not in (Stage.REJECTED, Stage.RETIRED)},
    **{
        (stage, Happening.PROPOSE): Stage.CANDIDATE
        for stage in (Stage.REJECTED, Stage.RETIRED, Stage.PREVIOUS, Stage.CANDIDATE)
    },
}

ANSWERS: Final = (Stage.ACTIVE, Stage.PROBATION)
WAITS: Final = (Stage.CANDIDATE, Stage.SHADOW)
STORED: Final = (*ANSWERS, *WAITS, Stage.PREVIOUS)
"""Those whose bytes are kept."""


@dataclass(frozen=True)
class Version:
    """One row.

    Attributes:
        number: of the row.
        version: of this model, from 1 on; the same bytes are the same version.
        older: whether an operator allows it a lower sequence than one that has answered.
    """

    number: int
    model: str
    version: str
    digest: str
    sequence: int | None
    older: bool
    stage: Stage
    reason: str
    created: str
    changed: str


def versions(connection: sqlite3.Connection, model: str) -> list[Version]:
    """All of a model, oldest first."""
    rows = connection.execute("SELECT * FROM release WHERE model = ? ORDER BY id", (model,)).fetchall()
    return [
        Version(
            row["id"], model, str(count), row["digest"], row["sequence"], bool(row["older"]), Stage(row["state"]),
            row["reason"], row["created"], row["changed"],
        )
        for count, row in enumerate(rows, 1)
    ]  # fmt: skip


def propose(
    connection: sqlite3.Connection,
    model: str,
    digest: str,
    path: str,
    sequence: int | None,
    reason: str = "",
    *,
    older: bool = False,
) -> int:
    """A version is wanted; its bytes are in the store. The number of its row."""
    row = connection.execute("SELECT id FROM release WHERE model = ? AND digest = ?", (model, digest)).fetchone()
    if row is not None:
        move(connection, row["id"], Happening.PROPOSE, reason)
        connection.execute("UPDATE release SET older = ? WHERE id = ?", (int(older), row["id"]))
        return int(row["id"])
    now = stamp()
    number = connection.execute(
        "INSERT INTO release (model, digest, path, sequence, older, state, reason, created, changed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (model, digest, path, sequence, int(older), Stage.CANDIDATE.value, reason, now, now),
    ).lastrowid
    assert number is not None
    _event(connection, number, "", Happening.PROPOSE.value, Stage.CANDIDATE.value, reason)
    return number


def move(connection: sqlite3.Connection, number: int, what: Happening, reason: str = "") -> Stage:
    """Let something happen to a version.

    Raises:
        ValueError: it cannot, where the version stands: a bug of ours.
    """
    (before,) = connection.execute("SELECT state FROM release WHERE id = ?", (number,)).fetchone()
    after = TRANSITIONS.get((Stage(before), what))
    if after is None:
        raise ValueError(f"release {number} is {before}: there is no {what.value}")
    connection.execute(
        "UPDATE release SET state = ?, reason = ?, changed = ? WHERE id = ?", (after.value, reason, stamp(), number)
    )
    _event(connection, number, before, what.value, after.value, reason)
    return after


def switch(connection: sqlite3.Connection, model: str, number: int, reason: str) -> None:
    """A version answers from now on: the one that did becomes the previous one, and the one before that is retired.

    An older version cannot come in its stead any more, unless somebody says so.
    """
    known = versions(connection, model)
    first = not any(version.stage in ANSWERS for version in known)
    for version in known:
        if version.stage is Stage.PREVIOUS:
            move(connection, version.number, Happening.RETIRE, "Two newer versions are there.")
        elif version.stage is Stage.PROBATION:
            move(connection, version.number, Happening.SETTLE, "A newer one came.")
    for version in known:
        if version.stage in ANSWERS:
            move(connection, version.number, Happening.SUPERSEDE, "A newer version answers.")
    move(connection, number, Happening.FIRST if first else Happening.SWITCH, reason)
    sequence = next(version.sequence for version in known if version.number == number)
    if sequence is not None:
        _saw(connection, model, sequence)


def roll_back(connection: sqlite3.Connection, model: str, reason: str) -> bool:
    """The version that answers is rejected, and the previous one answers again; `False` where there is none."""
    known = versions(connection, model)
    if not any(version.stage is Stage.PREVIOUS for version in known):
        return False
    for version in known:
        if version.stage in ANSWERS:
            move(connection, version.number, Happening.FAIL, reason)
    for version in known:
        if version.stage is Stage.PREVIOUS:
            move(connection, version.number, Happening.RESTORE, "The version after it was taken back.")
    return True


def highest(connection: sqlite3.Connection, model: str) -> int:
    """The highest sequence of a version that has answered; 0 before any."""
    return int(fact(connection, f"sequence {model}") or 0)


def answering(known: Sequence[Version]) -> Version | None:
    """The one that answers."""
    return next((version for version in known if version.stage in ANSWERS), None)


def _saw(connection: sqlite3.Connection, model: str, sequence: int) -> None:
    if sequence > highest(connection, model):
        keep_fact(connection, f"sequence {model}", str(sequence))


def _event(connection: sqlite3.Connection, number: int, before: str, what: str, after: str, reason: str) -> None:
    connection.execute(
        "INSERT INTO event (at, what, subject, before, event, after, reason) VALUES (?, 'release', ?, ?, ?, ?, ?)",
        (stamp(), number, before, what, after, reason),
    )
