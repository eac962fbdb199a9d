"""Rows that have come to their end long ago leave the journal: what goes together, how it is told, and that it goes.

What is connected leaves together: the objects of a study, their tasks, results and deliveries; an object that is of no
study, by itself. Of a large study some objects leave at a time, for senders wait meanwhile: each with what is about it
alone, and what is about several with the last of them. So at any moment what is left makes sense by itself. The newest
row of each table stays, for numbers go on from it.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgemed.serve.journal.facts import fact, forget_fact, keep_fact, left_of
from edgemed.serve.journal.retention import newest_event
from edgemed.serve.states import ENDS

_ENDED: Final = ", ".join(sorted(f"'{state.value}'" for state in ENDS))
_SPAN: Final = 5_000  # numbers of objects that are looked at together
_TOGETHER: Final = 20  # objects that leave in one transaction: senders wait meanwhile
_OLD: Final = "SELECT NOT EXISTS (SELECT 1 FROM event WHERE what = ? AND subject = ? AND id > ?)"
_LAST: Final = "SELECT max(object) FROM part WHERE task = ?"
_MEMBERS: Final = "SELECT object FROM part WHERE task = ? ORDER BY object"
_CANDIDATES: Final = (
    f"SELECT id, study FROM object WHERE id > ?1 AND id <= ?2 AND path = '' AND state IN ({_ENDED})"  # noqa: S608
    " AND NOT EXISTS (SELECT 1 FROM event WHERE what = 'object' AND subject = object.id AND event.id > ?3) ORDER BY id"
)
_LEFT_OUT: Final = frozenset({"id", "path", "task", "result"})  # said by the place in the line, or said no more
_COMMITMENTS: Final = (
    "SELECT transaction_uid, peer, address, CAST(request AS BLOB) AS request, received, reported, event FROM commitment"
    " WHERE reported IS NOT NULL AND event <= ? ORDER BY event, transaction_uid LIMIT ?"
)
_ALARMS: Final = (
    "SELECT * FROM alarm WHERE cleared IS NOT NULL AND id <= ? AND id < (SELECT max(id) FROM alarm) ORDER BY id LIMIT ?"
)

Rows = list[sqlite3.Row]


@dataclass(frozen=True)
class Unit:
    """What leaves together: a study, or some objects of a large one.

    Attributes:
        tasks: of which the last object is here; earlier ones have left by then.
        parted: tasks that stay, for they have later objects, each with an object of theirs that leaves.
        lines: what is told of it, as JSON, one line for each object and task.
    """

    objects: tuple[int, ...]
    tasks: tuple[int, ...]
    results: tuple[int, ...]
    deliveries: tuple[int, ...]
    promised: tuple[str, ...]
    parted: tuple[tuple[int, int], ...]
    lines: tuple[str, ...]


def leaving(connection: sqlite3.Connection, after: int, before: int) -> tuple[list[list[Unit]], int | None]:
    """Units that may leave, by the numbers of their objects.

    Args:
        connection: for reading.
        after: number of an object; looks at some that follow it.
        before: number of an event: all that happened to a unit is older.

    Returns:
        The units, those of one transaction in one list, in the order in which they must go; and the number to go on
        after, `None` at the end.
    """
    before = min(before, newest_event(connection) - 1)
    (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM object").fetchone()
    batches: list[list[Unit]] = [[]]
    seen = set[str]()
    until = min(after + _SPAN, newest)
    for number, study in connection.execute(_CANDIDATES, (after, until, before)).fetchall():
        if study and study in seen:
            continue
        seen.add(study)
        for found in _units(connection, number, study, before):
            batches[-1].append(found)
            if sum(len(each.objects) for each in batches[-1]) >= _TOGETHER:
                batches.append([])
        if len(batches) > 1:
            return [each for each in batches if each], number
    return [each for each in batches if each], until if until < newest else None


def _units(connection: sqlite3.Connection, number: int, study: str, before: int) -> list[Unit]:
    """All of a study, or an object that is of none; nothing where something of it has to stay."""
    numbers = [number]
    if study:
        rows = connection.execute("SELECT id FROM object WHERE study = ? ORDER BY id", (study,)).fetchall()
        numbers = [row[0] for row in rows]
    found: list[Unit] = []
    for first in range(0, len(numbers), _TOGETHER):
        one = unit(connection, numbers[first : first + _TOGETHER], before)
        if one is None:
            return []
        found.append(one)
    members = {row[0] for each in found for task in each.tasks for row in connection.execute(_MEMBERS, (task,))}
    parted = {task for each in found for task, _ in each.parted}
    return found if members <= {*numbers} and parted <= {task for each in found for task in each.tasks} else []


def unit(connection: sqlite3.Connection, numbers: Sequence[int], before: int) -> Unit | None:
    """What some objects of a study leave with; `None` where one may not, or is not there."""
    objects = _of(connection, "SELECT * FROM object WHERE id = ?", numbers)
    parts = _of(connection, "SELECT * FROM part WHERE object = ? ORDER BY task", numbers)
    tasks = _of(connection, "SELECT * FROM task WHERE id = ?", {row["task"] for row in parts})
    results = _of(connection, "SELECT * FROM result WHERE task = ? ORDER BY id", {row["id"] for row in tasks})
    deliveries = _of(connection, "SELECT * FROM delivery WHERE result = ? ORDER BY id", {row["id"] for row in results})
    tables = {"object": objects, "task": tasks, "result": results, "delivery": deliveries}
    if len(objects) < len(numbers) or not _has_ended(tables) or not _is_old(connection, tables, before):
        return None
    last = {row["id"]: connection.execute(_LAST, (row["id"],)).fetchone()[0] for row in tasks}
    going = [row for row in tasks if last[row["id"]] in numbers]
    gone = {row["id"] for row in going}
    results = [row for row in results if row["task"] in gone]
    told = {row["id"] for row in results}
    deliveries = [row for row in deliveries if row["result"] in told]
    promised = _of(
        connection,
        "SELECT sop_instance FROM promise WHERE sop_instance = ?",
        {row["sop_instance"] for row in objects if row["state"] != "refused"},
    )
    kept = tuple(row["sop_instance"] for row in promised)
    promises = frozenset(kept)
    of_object, answers, sent = _by("object", parts), _by("task", results), _by("result", deliveries)
    lines = (
        *(_object(connection, row, of_object[row["id"]], row["sop_instance"] in promises) for row in objects),
        *(_task(connection, row, answers[row["id"]], sent) for row in going),
    )
    parted = tuple((row["task"], row["object"]) for row in parts if row["task"] not in gone)
    return Unit(_numbers(objects), _numbers(going), _numbers(results), _numbers(deliveries), kept, parted, lines)


def _has_ended(tables: Mapping[str, Rows]) -> bool:
    """Whether nothing of it is open, and no file is left."""
    ends = {state.value for state in ENDS}
    return (
        all(row["state"] in ends for row in (*tables["object"], *tables["task"]))
        and all(row["state"] not in ("pending", "sent") for row in tables["delivery"])
        and not any(row["path"] for row in (*tables["object"], *tables["result"]))
    )


def _is_old(connection: sqlite3.Connection, tables: Mapping[str, Rows], before: int) -> bool:
    for table, rows in tables.items():
        (newest,) = connection.execute(f"SELECT max(id) FROM {table}").fetchone()  # noqa: S608 - a table of ours
        for row in rows:
            if row["id"] == newest or not connection.execute(_OLD, (table, row["id"], before)).fetchone()[0]:
                return False
    return True


def leave(connection: sqlite3.Connection, units: Sequence[Unit], before: int) -> bool:
    """Delete units, where each is as it was when it was told; else none, and `False`."""
    before = min(before, newest_event(connection) - 1)
    if not all(_is_the_same(connection, each, before) for each in units):
        return False
    for each in units:
        _part(connection, each.parted)
        for sql, numbers in (
            ("DELETE FROM asked WHERE delivery = ?", each.deliveries),
            ("DELETE FROM event WHERE what = 'delivery' AND subject = ?", each.deliveries),
            ("DELETE FROM delivery WHERE id = ?", each.deliveries),
            ("DELETE FROM result WHERE id = ?", each.results),
            ("DELETE FROM part WHERE object = ?", each.objects),
            ("DELETE FROM event WHERE what = 'task' AND subject = ?", each.tasks),
            ("DELETE FROM task WHERE id = ?", each.tasks),
            ("DELETE FROM event WHERE what = 'object' AND subject = ?", each.objects),
            ("DELETE FROM object WHERE id = ?", each.objects),
        ):
            connection.executemany(sql, [(number,) for number in numbers])
        for task in each.tasks:
            forget_fact(connection, left_of(task))
        connection.executemany("DELETE FROM promise WHERE sop_instance = ?", [(uid,) for uid in each.promised])
    return True


def _is_the_same(connection: sqlite3.Connection, told: Unit, before: int) -> bool:
    """Whether it is as it was told, and what of its tasks had to leave before it has."""
    earlier = "SELECT 1 FROM part WHERE task = ? AND object < ?"
    if any(connection.execute(earlier, (task, told.objects[0])).fetchone() for task in told.tasks):
        return False
    return unit(connection, told.objects, before) == told


def _part(connection: sqlite3.Connection, pairs: Sequence[tuple[int, int]]) -> None:
    """Remember which objects of a task have left before it: they are told with it."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for task, number in pairs:
        found[task].append(number)
    for task, numbers in found.items():
        keep_fact(connection, left_of(task), json.dumps(_left(connection, task) + numbers))


def _left(connection: sqlite3.Connection, task: int) -> list[int]:
    """Numbers of the objects of a task that have left."""
    kept = fact(connection, left_of(task))
    return [] if kept is None else list(json.loads(kept))


def over(connection: sqlite3.Connection, before: int, alarms_before: int) -> list[str]:
    """Lines of commitments that were reported on and of alarms that were cleared, both long ago; some of them."""
    commitments = connection.execute(_COMMITMENTS, (before, _TOGETHER)).fetchall()
    alarms = connection.execute(_ALARMS, (alarms_before, _TOGETHER)).fetchall()
    return [
        *(_line(commitment=row["transaction_uid"], **_told(row, "transaction_uid", "request"), request=_request(row))
          for row in commitments),
        *(_line(alarm=row["id"], **_told(row)) for row in alarms),
    ]  # fmt: skip


def forget_over(connection: sqlite3.Connection, before: int, alarms_before: int, told: Sequence[str]) -> bool:
    """Delete those, where they are still the same; else none, and `False`."""
    if over(connection, before, alarms_before) != told:
        return False
    connection.execute(
        "DELETE FROM commitment WHERE (transaction_uid, peer) IN"  # noqa: S608 - ours
        f" (SELECT transaction_uid, peer FROM ({_COMMITMENTS}))",
        (before, _TOGETHER),
    )
    connection.execute(
        f"DELETE FROM alarm WHERE id IN (SELECT id FROM ({_ALARMS}))",  # noqa: S608 - ours
        (alarms_before, _TOGETHER),
    )
    return True


def newest_alarm(connection: sqlite3.Connection) -> int:
    """Number of the newest alarm; 0 where there is none."""
    (number,) = connection.execute("SELECT coalesce(max(id), 0) FROM alarm").fetchone()
    return int(number)


def _of(connection: sqlite3.Connection, sql: str, values: Iterable[Any]) -> Rows:
    return [row for value in sorted(values) for row in connection.execute(sql, (value,))]


def _numbers(rows: Rows) -> tuple[int, ...]:
    return tuple(row["id"] for row in rows)


def _by(column: str, rows: Rows) -> defaultdict[int, Rows]:
    found: defaultdict[int, Rows] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return found


def _object(connection: sqlite3.Connection, row: sqlite3.Row, parts: Rows, promised: bool) -> str:
    return _line(
        object=row["id"],
        **_told(row),
        promised=promised,
        tasks=[part["task"] for part in parts],
        events=_events(connection, "object", row["id"]),
    )


def _task(connection: sqlite3.Connection, row: sqlite3.Row, results: Rows, sent: Mapping[int, Rows]) -> str:
    return _line(
        task=row["id"],
        **_told(row),
        objects=[*_left(connection, row["id"]), *(part[0] for part in connection.execute(_MEMBERS, (row["id"],)))],
        results=[
            {
                **_told(result),
                "deliveries": [
                    {**_told(each), "events": _events(connection, "delivery", each["id"])}
                    for each in sent[result["id"]]
                ],
            }
            for result in results
        ],
        events=_events(connection, "task", row["id"]),
    )


def _told(row: sqlite3.Row, *but: str) -> dict[str, Any]:
    """Columns that say something."""
    return {key: row[key] for key in row.keys() if key not in _LEFT_OUT | {*but} and row[key] not in ("", None)}  # noqa: SIM118


def _request(row: sqlite3.Row) -> Any:
    """As it was asked; what is damaged goes along as the text that stands there, and holds up nothing."""
    try:
        return json.loads(row["request"])
    except (ValueError, RecursionError):
        return row["request"].decode("utf-8", "replace")


def _events(connection: sqlite3.Connection, what: str, number: int) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT at, before, event, after, reason FROM event WHERE what = ? AND subject = ? ORDER BY id", (what, number)
    )
    return [_told(row) for row in rows]


def _line(**told: Any) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
