"""What the page shows, as plain data: each of these is a page's content and the JSON of its `/api` path alike.

UIDs leave as pseudonyms, the same ones as in the logs; a study is named by the number of its newest object.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from edgemed.base.errors import EdgemedError, InputError
from edgemed.serve.audit.segments import FOLDER, last_messages
from edgemed.serve.clock import stamp
from edgemed.serve.journal import queries, tally
from edgemed.serve.live.board import Channel, Shown
from edgemed.serve.services import Services
from edgemed.serve.timeline import Timeline
from edgemed.serve.weekly import WEEKS_BEFORE, report, to_document

Facts = dict[str, Any]

_STUDIES: Final = 50
_TASKS: Final = 100
_ENTRIES: Final = 100
_ORDER: Final = ("queue", "decode", "preprocess", "h2d", "infer", "compute", "d2h", "postprocess", "write", "deliver")
_WAYS: Final = 500  # ended tasks whose times are drawn


def overview(services: Services) -> Facts:
    """What the bedside looks at: the light and why, models, live sources, alarms, what waits."""
    readiness = services.readiness
    with services.journal.read() as connection:
        waits = [asdict(row) for row in queries.open_tasks(connection)]
        destinations = [asdict(row) for row in queries.waiting(connection)]
        ended = tally.ended(connection)
    return {
        "name": services.config.daemon.name,
        "at": stamp(),
        "light": readiness.light,
        "findings": [asdict(finding) for finding in readiness.findings],
        "models": [model(services, name, golden=1) for name in services.models.names()],
        "live": [channel(each) for each in services.board.channels.values()],
        "alarms": alarms(services),
        "waiting": {
            "tasks": sum(row["count"] for row in waits),
            "oldest_s": max((row["age_s"] for row in waits), default=0.0),
            "deliveries": sum(row["pending"] + row["sent"] for row in destinations),
        },
        "ended": {state: ended["task"].get(state, 0) for state in ("delivered", "not-analysed", "failed")},
        "refused": ended["object"].get("refused", 0),
    }


def alarms(services: Services) -> list[Facts]:
    """Alarms that stand."""
    return [asdict(alarm) for alarm in services.alarms.standing]


def model(services: Services, name: str, *, golden: int = 50) -> Facts:
    """How one model stands, and its last golden inferences.

    Raises:
        InputError: there is none of that name.
    """
    found = dict(services.models.describe(name))
    found["golden"] = found.get("golden", [])[:golden]
    return found


def channel(each: Channel) -> Facts:
    """A live source: its newest answer, and how old that is."""
    shown, counts = each.shown, each.counts
    found: Facts = {
        "name": each.name,
        "model": each.model,
        "state": each.state,
        "reason": each.reason,
        "stale_ms": each.stale_ns / 1e6,
        "number": each.number,
        "age_ms": None,
        "frame": None,
        "said": "",
        "counts": None,
    }
    if shown is not None:
        found |= {"age_ms": shown.age_ns / 1e6, "frame": shown.frame, "said": said(shown)}
    if counts is not None:
        found["counts"] = {
            "submitted": counts.submitted,
            "answered": counts.answered,
            "failed": counts.failed,
            "dropped": {str(reason): count for reason, count in counts.dropped.items()},
            "in_flight": counts.in_flight,
            "lost": counts.lost,
            "unaccounted": counts.unaccounted,
        }
    return found


def studies(services: Services, before: int | None = None) -> Facts:
    """Studies, newest first."""
    with services.journal.read() as connection:
        rows = queries.studies(connection, _STUDIES, before=before)
    listed = [{**asdict(row), "study": services.pseudonyms.of(row.study)} for row in rows]
    return {"studies": listed, "next": rows[-1].number if len(rows) == _STUDIES else None}


def study_uid(services: Services, number: int) -> str:
    """Study Instance UID of an object: for the audit trail, not for the page.

    Raises:
        InputError: there is no study with that object.
    """
    with services.journal.read() as connection:
        row = connection.execute("SELECT study FROM object WHERE id = ?", (number,)).fetchone()
    if row is None or not row["study"]:
        raise InputError(f"There is no study of object {number}.", "Choose one of /studies.")
    uid: str = row["study"]
    return uid


def study(services: Services, number: int) -> Facts:
    """One study: its tasks, and what happened to them.

    Raises:
        InputError: there is none with that object.
    """
    uid = study_uid(services, number)
    with services.journal.read() as connection:
        tasks = queries.tasks_of(connection, uid)
        objects = _objects(connection, uid)
        results = _results(connection, [task.number for task in tasks])
        happened = _events(connection, [task.number for task in tasks])
    name = services.pseudonyms.of
    return {
        "study": name(uid),
        "objects": objects,
        "tasks": [{**asdict(task), "subject": name(task.subject)} for task in tasks],
        "results": results,
        "events": happened,
    }


def queue(services: Services) -> Facts:
    """What waits: tasks by model and state, deliveries by destination, and the last tasks."""
    with services.journal.read() as connection:
        waits = {row.destination: row for row in queries.waiting(connection)}
        tasks = queries.recent_tasks(connection, _TASKS)
        opened = queries.open_tasks(connection)
        past = tally.deliveries(connection)
    standing = {(alarm.code, alarm.subject): alarm for alarm in services.alarms.standing}
    destinations = []
    for each in services.config.destinations:
        wait, done = waits.get(each.name), past.get(each.name, tally.Delivered())
        late = standing.get(("delivery-late", each.name))
        destinations.append(
            {
                "name": each.name,
                "kind": each.kind,
                "pending": wait.pending if wait else 0,
                "sent": wait.sent if wait else 0,
                "oldest": wait.oldest if wait else None,
                **asdict(done),
                "trouble": late.text if late else "",
            }
        )
    return {
        "open": [asdict(row) for row in opened],
        "destinations": destinations,
        "tasks": [{**asdict(task), "subject": services.pseudonyms.of(task.subject)} for task in tasks],
    }


def latency(services: Services) -> Facts:
    """Where the time of the last tasks went: one row each, and percentiles of each stage. Milliseconds."""
    ways = [way for way in map(_way, services.timelines.answered[-_WAYS:]) if way is not None]
    seen = {name for way in ways for name in way["stages"]}
    stages = [name for name in _ORDER if name in seen] + sorted(seen.difference(_ORDER))
    deadlines = {section.name: section.deadline_ns / 1e6 for section in services.config.models}
    return {
        "deadlines_ms": deadlines,
        "total": _percentiles([way["total_ms"] for way in ways]),
        "stages": {
            name: _percentiles([way["stages"][name] for way in ways if name in way["stages"]]) for name in stages
        },
        "ways": ways,
    }


def drift(services: Services) -> Facts:
    """Each model's newest week against its bundle's images and the weeks before, as `edgemed drift --json`."""
    state = services.config.daemon.state
    try:
        found = report(state, weeks=WEEKS_BEFORE)
    except InputError:  # no task has been counted
        found = []
    return to_document(state, found)


def audit(services: Services) -> Facts:
    """The last entries of the audit trail, newest first, as they stand there."""
    try:
        entries = last_messages(services.config.daemon.state / FOLDER, _ENTRIES)
    except (EdgemedError, OSError, ValueError):
        entries = []
    return {"entries": entries}


def certificates(services: Services) -> Facts:
    """Days until each of our certificates expires."""
    from edgemed.serve.watch import certificates_of, days_left

    return {use: days_left(path) for use, path in certificates_of(services.config)}


def said(shown: Shown) -> str:
    """What a model says of a frame, in a few words; empty where it found nothing."""
    words = []
    for reading in shown.readings:
        if reading.value is not None:
            words.append(f"{reading.output} {reading.value:.4g}")
        words += [f"{score.name} {score.value:.2f}" for score in reading.scores if score.found]
    return ", ".join(words) or shown.note


def _objects(connection: sqlite3.Connection, uid: str) -> list[Facts]:
    rows = connection.execute(
        "SELECT state, reason, inlet, peer, count(*) AS count, min(received) AS first, max(received) AS last"
        " FROM object WHERE study = ? GROUP BY state, reason, inlet, peer ORDER BY first",
        (uid,),
    )
    return [dict(row) for row in rows]


def _results(connection: sqlite3.Connection, tasks: Sequence[int]) -> list[Facts]:
    marks = ",".join("?" * len(tasks))
    rows = connection.execute(
        "SELECT result.task, result.kind, result.size, result.created, delivery.destination, delivery.state,"  # noqa: S608
        " delivery.tries, delivery.reason FROM result LEFT JOIN delivery ON delivery.result = result.id"
        f" WHERE result.task IN ({marks}) ORDER BY result.id",
        tuple(tasks),
    )
    return [dict(row) for row in rows]


def _events(connection: sqlite3.Connection, tasks: Sequence[int]) -> list[Facts]:
    marks = ",".join("?" * len(tasks))
    rows = connection.execute(
        "SELECT at, what, subject, before, event, after, reason FROM event"  # noqa: S608 - marks are ours
        f" WHERE what = 'task' AND subject IN ({marks}) ORDER BY id LIMIT 500",
        tuple(tasks),
    )
    return [dict(row) for row in rows]


def _way(line: Timeline) -> Facts | None:
    """One task, from its first byte to its result."""
    points = line.points
    if "written" not in points or not (
        starts := [points[name] for name in ("first_byte", "complete") if name in points]
    ):
        return None
    stages: dict[str, float] = {}
    for span in line.spans:
        stages[span.name] = stages.get(span.name, 0.0) + span.duration_ns / 1e6
    return {
        "task": line.task,
        "model": line.model,
        "ago_s": (time.monotonic_ns() - points["written"]) / 1e9,
        "total_ms": (points["written"] - min(starts)) / 1e6,
        "sent_ms": (points["sent"] - min(starts)) / 1e6 if "sent" in points else None,
        "stages": stages,
    }


def _percentiles(values: Sequence[float]) -> Facts:
    """Median, 99th percentile where there are values enough to have one, and the greatest."""
    ordered = sorted(values)
    if not ordered:
        return {"n": 0, "p50": None, "p99": None, "max": None}
    p99 = ordered[-(-99 * len(ordered) // 100) - 1] if len(ordered) >= 100 else None
    return {"n": len(ordered), "p50": ordered[(len(ordered) - 1) // 2], "p99": p99, "max": ordered[-1]}
