"""A journal as years leave it: as many objects as asked for, each analysed and delivered, its files gone."""

from __future__ import annotations

import sqlite3
from typing import Final

_PER_STUDY: Final = 10
_N: Final = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
_UID: Final = "'1.2.826.0.1.3680043.8.498.' || printf('%038d', {})"
_AT: Final = "'2026-01-01T00:00:00.000000Z'"
_SHA: Final = "printf('%064x', i)"
_STUDY: Final = f"(i - 1) / {_PER_STUDY}"
_FILL: Final = (
    "INSERT INTO object (id, inlet, peer, called, association, sop_class, sop_instance, study, series, syntax, sha256,"
    " size, path, received, state, changed) SELECT i, 'dicom', 'CT1', 'EDGEMED', 'a' || (i / 10),"
    f" '1.2.840.10008.5.1.4.1.1.2', {_UID.format('i')}, {_UID.format(f'1000000000 + {_STUDY}')},"
    f" {_UID.format(f'2000000000 + {_STUDY}')}, '1.2.840.10008.1.2.1', {_SHA}, 524288, '', {_AT},"
    f" CASE WHEN i % 1000 = 0 THEN 'refused' ELSE 'delivered' END, {_AT} FROM n",
    "INSERT INTO tally (what, name, state, count) SELECT 'object', inlet, state, count(*) FROM object"
    " WHERE state = 'refused' GROUP BY inlet",
    "INSERT INTO task (id, model, level, subject, state, completeness, created, completed, digest, changed)"
    f" SELECT i, 'chest', 'instance', {_UID.format('i')}, 'delivered', 'alone', {_AT}, {_AT}, {_SHA}, {_AT}"
    " FROM n WHERE i % 1000 <> 0",
    "INSERT INTO part (task, object) SELECT id, id FROM task",
    "INSERT INTO result (id, task, kind, sop_class, sop_instance, sha256, size, path, created)"
    f" SELECT id, id, 'sr', '1.2.840.10008.5.1.4.1.1.88.33', {_UID.format('3000000000 + id')}, digest, 9000, '', {_AT}"
    " FROM task",
    "INSERT INTO delivery (id, result, destination, state, tries, created, changed)"
    f" SELECT id, id, 'pacs', 'delivered', 1, {_AT}, {_AT} FROM result",
)
_HAPPENED: Final = {
    "object": (("", "arrive", "arriving"), ("arriving", "keep", "received"), ("received", "route", "routed"),
               ("routed", "settle", "delivered")),
    "task": (("", "open", "collecting"), ("collecting", "complete", "queued"), ("queued", "start", "analysing"),
             ("analysing", "answer", "delivering"), ("delivering", "finish", "delivered")),
    "delivery": (("pending", "attempt", "delivered"),),
}  # fmt: skip


def fill(connection: sqlite3.Connection, objects: int, *, events: bool = True) -> None:
    """Enter objects 1 to `objects`, ten to a study: every thousandth was refused, the others have a task that ended.

    Args:
        connection: in a transaction, to a journal in which nothing stands.
        objects: how many.
        events: also what happened to each.
    """
    for sql in _FILL:
        connection.execute(f"{_N} {sql}" if " FROM n" in sql else sql, {"count": objects} if " FROM n" in sql else {})
    if not events:
        return
    connection.execute(
        "INSERT INTO event (at, what, subject, before, event, after)"
        f" SELECT {_AT}, 'object', id, '', 'refuse', 'refused' FROM object WHERE state = 'refused'"
    )
    for what, happened in _HAPPENED.items():
        rows = f"SELECT {_AT}, ?, id, ?, ?, ? FROM {what} WHERE state = 'delivered'"
        for each in happened:
            connection.execute(f"INSERT INTO event (at, what, subject, before, event, after) {rows}", (what, *each))
