"""What each object is for, and when a series is complete.

One loop does both. Its state is in the journal: what is RECEIVED is to be routed, what is COLLECTING waits. Timers
alone are in memory; they start anew with the daemon, and associations of an earlier run count as aborted.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import EdgemedError, InputError, ResourceError, out_of_handles
from edgemed.base.quantity import SECOND
from edgemed.serve.completeness import Collector
from edgemed.serve.intake import Arrival
from edgemed.serve.journal.queries import open_tasks
from edgemed.serve.journal.records import FORWARD, move_task
from edgemed.serve.journal.routes import (
    Route,
    Routed,
    collecting,
    complete,
    enter,
    forward_again,
    parts_of,
)
from edgemed.serve.loops import Beat
from edgemed.serve.matching import check_matches
from edgemed.serve.performed import Performed
from edgemed.serve.planning import Planner
from edgemed.serve.services import Services
from edgemed.serve.states import Event, State

if TYPE_CHECKING:
    from edgemed.imaging.dicom.describe import Described

log = logging.getLogger(__name__)

LOOP: Final = "router"
ANALYST: Final = "analyst"
OUTLETS: Final = "outlets"

_NEW: Final = "state IN ('arriving', 'received')"  # as the index says it
_TOGETHER: Final = 64
_LIMIT_NS: Final = 60 * SECOND  # the largest header that is allowed takes seconds to parse on a small board
_IDLE_S: Final = 1.0
_GATHER_S: Final = 0.05  # a stream of images is routed in groups, or each would make its sender wait for our sync
_TRIES: Final = 3
_UNSEEN: Final = (None, None)
_GONE: Final = "It cannot be read back from the disk."
_BUG: Final = "It could not be routed: an error of ours, see the log."


class Router:
    """Takes what was received, opens tasks, and says when they are complete."""

    name = "router"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._planner = Planner(services.config)
        self._rules = {model.name: model.completeness for model in services.config.models}
        self._lock = threading.Lock()  # of what listeners tell
        self._arrived: dict[int, tuple[int, Described | None]] = {}
        self._ends: list[tuple[str, bool, int]] = []
        self._collector = Collector()
        self._performed = Performed(services, self._collector)
        self._tries: dict[int, int] = {}
        self._shown: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Begin with what an earlier run has left.

        Raises:
            InputError: a model asks for what cannot be.
        """
        check_matches(self._services.config)
        self._services.intake.on_accepted.append(self._accepted)
        self._services.intake.on_association_ended.append(self._association_ended)
        self._services.loops.start(LOOP, self._run, limit_ns=_LIMIT_NS)

    def drain(self) -> None:
        """What is not routed yet is in the journal; the next run takes it."""

    def stop(self) -> None:
        """The loop has ended with the others."""

    def _accepted(self, number: int, arrival: Arrival) -> None:
        self._services.timelines.arrived(number, arrival.first_ns)
        with self._lock:
            self._arrived[number] = (time.monotonic_ns(), arrival.described)
        self._services.loops.wake(LOOP)

    def _association_ended(self, name: str, released: bool) -> None:
        with self._lock:
            self._ends.append((name, released, time.monotonic_ns()))
        self._services.loops.wake(LOOP)

    def _run(self, beat: Beat) -> None:
        self._restore()
        while True:
            now_ns = time.monotonic_ns()  # what was accepted before this is routed below, then it is decided
            routed = self._route_all(beat)
            self._forward_again()
            self._decide(now_ns)
            self._measure()
            if routed and beat.stopping.wait(_GATHER_S):
                return
            next_ns = self._collector.next_ns
            wait_s = _IDLE_S if next_ns is None else min(_IDLE_S, max(0.0, (next_ns - time.monotonic_ns()) / 1e9))
            if not beat.wait(wait_s):
                return

    def _restore(self) -> None:
        """Tasks that were collecting; their quiet time starts now."""
        self._collector.clear()
        self._performed.clear()
        self._services.journal.settle()
        now_ns = time.monotonic_ns()
        with self._services.journal.read() as connection:
            left = [(row, parts_of(connection, row["id"])) for row in collecting(connection)]
        for task, parts in left:
            rules = self._rules.get(task["model"])
            if rules is None:
                self._drop(task["id"], task["model"])
                continue
            self._collector.opened(task["id"], rules, now_ns, revision=task["revision"])
            for part in parts:
                self._collector.added(task["id"], [part["id"]], now_ns, association=part["association"])
            if task["expected"] is not None:
                self._collector.expect(task["id"], task["expected"])
            self._performed.follow(task["id"], (task["model"], task["level"], task["subject"]), now_ns)

    def _drop(self, task: int, model: str) -> None:
        reason = f"The model {model} is not configured any more."
        self._services.journal.write(lambda connection: move_task(connection, task, Event.BREAK, reason))
        self._services.alarms.raise_("input-failed", reason, model)

    def _route_all(self, beat: Beat) -> bool:
        """Route what is received by now; what comes meanwhile is for the next round."""
        journal = self._services.journal
        with journal.read() as connection:
            (newest,) = connection.execute(f"SELECT max(id) FROM object WHERE {_NEW}").fetchone()  # noqa: S608 - ours
        after, some = 0, False
        while newest is not None and after < newest and not beat.stopping.is_set():
            with journal.read() as connection:
                rows = connection.execute(
                    f"SELECT * FROM object WHERE {_NEW} AND id > ? AND id <= ? ORDER BY id LIMIT ?",  # noqa: S608
                    (after, newest, _TOGETHER),
                ).fetchall()
            if not rows:
                break
            after = rows[-1]["id"]
            rows = self._are_here(rows)
            self._route(rows, beat)
            some = some or bool(rows)
        if not some:  # of what is here already, and nobody told us, the journal says so now
            journal.settle()
        return some

    def _are_here(self, rows: list[sqlite3.Row]) -> list[sqlite3.Row]:
        """Without those that are still arriving. Of what was accepted the journal may say so until its next commit."""
        with self._lock:
            return [row for row in rows if row["state"] == State.RECEIVED.value or row["id"] in self._arrived]

    def _route(self, rows: list[sqlite3.Row], beat: Beat) -> None:
        """Decide on some objects, then enter them together: they share a sync."""
        asked = []
        for row in rows:
            beat()
            route = self._plan(row)
            if route is not None:
                asked.append((row, route, self._services.journal.submit(partial(self._enter, route=route))))
        for row, route, future in asked:
            self._finish(row, route, future)
        if asked:
            for loop in (ANALYST, OUTLETS):
                self._services.loops.wake(loop)
            unread = {row["inlet"] for row, route, _ in asked if route.unreadable}
            self._clear({row["inlet"] for row, _, _ in asked} - unread)

    def _clear(self, inlets: set[str]) -> None:
        """An alarm is over when its inlet brings what can be read, and nothing lies there any more that could not."""
        sql = (
            "SELECT 1 FROM object WHERE path <> '' AND inlet = ? AND state = 'failed'"
            " AND NOT EXISTS (SELECT 1 FROM part WHERE part.object = object.id)"
        )
        for inlet in inlets:
            if self._services.alarms.stands("input-failed", inlet):
                with self._services.journal.read() as connection:
                    left = connection.execute(sql, (inlet,)).fetchone()
                if left is None:
                    self._services.alarms.clear("input-failed", inlet)

    def _plan(self, row: sqlite3.Row) -> Route | None:
        """What is decided of an object; `None` where the disk is to be asked again later."""
        number, path = row["id"], self._services.spool.path(row["path"])
        _, described = self._arrived.get(number, _UNSEEN)
        try:
            return self._planner.plan(row, path, described)
        except InputError as error:
            return Route(number, reason=f"It cannot be read: {error.what}", unreadable=True)
        except (OSError, ResourceError, MemoryError) as error:
            return self._unread(number, path, error)
        except Exception as error:  # ours; the object must not stop those behind it
            log.exception("an object could not be routed: %s", type(error).__name__)
            return Route(number, reason=_BUG, unreadable=True)

    def _unread(self, number: int, path: Path, error: Exception) -> Route | None:
        """The disk did not give it: a few times it may have been the disk."""
        if out_of_handles(error):
            log.warning("an object could not be read back: too many files are open")
            return None
        tries = self._tries[number] = self._tries.get(number, 0) + 1
        if tries < _TRIES and path.exists():
            log.warning("an object could not be read back, try %d: %s", tries, type(error).__name__)
            return None
        return Route(number, reason=_GONE, unreadable=True)

    def _enter(self, connection: sqlite3.Connection, route: Route) -> Routed:
        """In the journal's thread. Timelines are told before anybody can see the task."""
        routed = enter(connection, route)
        timelines = self._services.timelines
        for joined in routed.joined:
            timelines.opened(joined.task, joined.model, [route.number])
            if joined.level == "instance":
                timelines.reached(joined.task, "complete")
        return routed

    def _finish(self, row: sqlite3.Row, route: Route, future: Future[Routed]) -> None:
        """See what became of an object; what of ours stops it again and again ends it, and not the loop."""
        try:
            routed = future.result()
        except (EdgemedError, MemoryError):  # the disk: all of it is tried again
            raise
        except Exception as error:
            number = route.number
            tries = self._tries[number] = self._tries.get(number, 0) + 1
            log.exception("an object could not be entered, try %d: %s", tries, type(error).__name__)
            if tries < _TRIES:
                return
            route = Route(number, reason=_BUG, unreadable=True)
            routed = self._services.journal.write(partial(self._enter, route=route))
        self._entered(row, route, routed)

    def _entered(self, row: sqlite3.Row, route: Route, routed: Routed) -> None:
        number = route.number
        with self._lock:
            arrived_ns, _ = self._arrived.pop(number, _UNSEEN)
        self._tries.pop(number, None)
        arrived_ns = time.monotonic_ns() if arrived_ns is None else arrived_ns
        wants = {want.model: want for want in route.wants}
        for joined in routed.joined:
            if joined.level == "instance":
                continue
            task = joined.task
            if task not in self._collector:
                rules = self._rules[joined.model]
                self._collector.opened(task, rules, arrived_ns, revision=joined.revision)
                self._collector.added(task, joined.earlier, arrived_ns)
                self._performed.follow(task, (joined.model, joined.level, wants[joined.model].subject), arrived_ns)
            self._collector.added(
                task, [number], arrived_ns, association=row["association"], expected=wants[joined.model].expected
            )
        self._performed.came(row["sop_instance"], arrived_ns)
        if routed.state in (State.FAILED, State.NOT_ANALYSED):
            self._services.metrics.ends.labels("none", routed.state.value).inc()
        if route.unreadable:
            self._services.alarms.raise_("input-failed", routed.reason, row["inlet"])

    def _forward_again(self) -> None:
        with self._services.journal.read() as connection:
            (asked,) = connection.execute(
                "SELECT count(*) FROM task WHERE state = 'queued' AND model = ?", (FORWARD,)
            ).fetchone()
        while asked and self._services.journal.write(forward_again):
            self._services.loops.wake(OUTLETS)

    def _decide(self, now_ns: int) -> None:
        """Complete what is complete, by what had come before `now_ns`."""
        with self._lock:
            ends, self._ends = self._ends, []
        for name, released, at_ns in ends:
            self._collector.association_ended(name, released, at_ns)
        self._performed.look(now_ns)
        due = self._collector.due(now_ns)
        asked = {
            task: self._services.journal.submit(partial(self._complete, task=task, reason=reason))
            for task, reason in due.items()
        }
        for task, future in asked.items():
            future.result()
            self._collector.closed(task)
            self._performed.closed(task, now_ns)
        if asked:
            self._services.loops.wake(ANALYST)

    def _complete(self, connection: sqlite3.Connection, task: int, reason: str) -> None:
        if complete(connection, task, reason):
            self._services.timelines.reached(task, "complete")

    def _measure(self) -> None:
        try:
            with self._services.journal.read() as connection:
                tasks = open_tasks(connection)
        except EdgemedError:
            return
        metrics = self._services.metrics
        for pair in self._shown - {(task.model, task.state) for task in tasks}:
            metrics.open_tasks.labels(*pair).set(0)
        self._shown |= {(task.model, task.state) for task in tasks}
        oldest = dict.fromkeys(self._rules, 0.0)
        for task in tasks:
            metrics.open_tasks.labels(task.model, task.state).set(task.count)
            if task.state not in (State.DELIVERING.value, State.NOTIFYING.value):
                oldest[task.model] = max(oldest.get(task.model, 0.0), task.age_s)
        for model, age_s in oldest.items():
            metrics.oldest.labels(model).set(age_s)
