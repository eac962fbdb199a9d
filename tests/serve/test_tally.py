"""What is tallied is what counting says, whatever happens; and what is asked again and again looks at no old row."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemed.serve.journal import queries, retention, routes
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.leaving import leave, leaving
from edgemed.serve.journal.records import (
    NewObject,
    NewResult,
    NoTransition,
    add_object,
    add_results,
    finish_if_delivered,
    move_delivery,
    move_object,
    move_task,
    open_task,
    vanish,
)
from edgemed.serve.journal.requests import WAITING
from edgemed.serve.journal.tally import deliveries, ended, miscounted
from edgemed.serve.outlets import rows
from edgemed.serve.spool import Spool
from edgemed.serve.states import Event, State
from tests.serve.store import in_memory
from tests.serve.years import fill

_DO = ("refuse", "arrive", "vanish", "take", "task", "move", "answer", "deliver", "fail", "again", "leave", "reopen")


class _Undone(Exception):
    """So that a transaction ends without a trace."""


def _one(connection: sqlite3.Connection, what: str, pick: int) -> None:
    def any_(table: str, where: str = "1") -> int | None:
        found = [row[0] for row in connection.execute(f"SELECT id FROM {table} WHERE {where} ORDER BY id")]
        return found[pick % len(found)] if found else None

    uid = f"1.{connection.execute('SELECT coalesce(max(id), 0) FROM event').fetchone()[0]}.{pick}"
    if what in ("refuse", "arrive", "take"):
        state = {"refuse": State.REFUSED, "arrive": State.ARRIVING, "take": State.RECEIVED}[what]
        add_object(connection, NewObject("dicom", "CT1", "1.2", uid, "0" * 64, 1, ""), state)
    elif what == "vanish" and (number := any_("object", "state = 'arriving'")):
        vanish(connection, number)
    elif what == "task" and (number := any_("object", "state = 'received'")):
        move_object(connection, number, Event.ROUTE)
        move_task(connection, open_task(connection, "chest", "instance", uid, [number]), Event.COMPLETE)
    elif what == "move" and (number := any_("task")):
        move_task(connection, number, list(Event)[pick % len(Event)])
    elif what == "answer" and (number := any_("task", "state IN ('delivering', 'notifying')")):
        places: dict[str, Any] = {f"pacs{each}": ("sr",) for each in range(pick % 3)}
        add_results(connection, number, [NewResult("sr", f"results/{pick}", "0" * 64, 1)], places)
        connection.execute("UPDATE result SET path = ''")
        finish_if_delivered(connection, number)
    elif what in ("deliver", "fail", "again") and (number := any_("delivery")):
        move_delivery(connection, number, {"deliver": "delivered", "fail": "failed", "again": "pending"}[what])
    elif what == "leave":
        units, _ = leaving(connection, 0, 2**62)
        leave(connection, units, 2**62)


@given(st.lists(st.tuples(st.sampled_from(_DO), st.integers(0, 200), st.booleans()), max_size=80))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_tally_is_what_counting_says(steps: list[tuple[str, int, bool]]) -> None:
    with in_memory() as folder:
        journal = Journal(folder / "j.sqlite3").__enter__()
        for what, pick, undone in steps:
            if what == "reopen":
                journal.close()
                journal = Journal(folder / "j.sqlite3").__enter__()
                continue

            def work(connection: sqlite3.Connection, what: str = what, pick: int = pick, undone: bool = undone) -> None:
                _one(connection, what, pick)
                if undone:
                    raise _Undone

            with contextlib.suppress(NoTransition, _Undone):
                journal.write(work)
            with journal.read() as connection:
                assert miscounted(connection) == []
        journal.close()


def test_a_wrong_tally_is_found(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite3") as journal:
        journal.write(lambda c: fill(c, 50, events=False))
        journal.write(lambda c: c.execute("UPDATE tally SET count = 7 WHERE what = 'task'"))
        with journal.read() as connection:
            assert miscounted(connection) == [("task chest delivered", 7, 50)]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory):
    with Journal(tmp_path_factory.mktemp("years") / "j.sqlite3") as opened:
        opened.write(lambda c: fill(c, 20_000))
        yield opened


def _finish(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE task SET state = 'delivering' WHERE id = 7")
    finish_if_delivered(connection, 7)


def _again(connection: sqlite3.Connection) -> None:
    add_results(connection, 9, [NewResult("sr", "results/9", "0" * 64, 1)], {"pacs": ("sr",)})


@pytest.mark.parametrize(
    "ask",
    [
        queries.open_tasks,
        queries.waiting,
        queries.recent_tasks,
        lambda c: queries.tasks_of(c, "1.2"),
        ended,
        deliveries,
        rows.counts,
        lambda c: list(rows.waiting(c, Spool(Path("/nowhere")), "pacs", "pending", 5)),
        lambda c: c.execute(WAITING).fetchall(),
        routes.collecting,
        routes.forward_again,
        _finish,
        _again,
        lambda c: retention.may_release(c, retention.WELL, 2**62),
        lambda c: retention.may_release(c, retention.BADLY, 2**62),
        lambda c: retention.newest_event(c) + retention.newest_golden(c),
        lambda c: move_task(c, open_task(c, "chest", "instance", "1.3", [11]), Event.COMPLETE),
    ],
)
def test_what_is_asked_all_the_time_takes_no_longer_after_years(journal: Journal, ask: Any) -> None:
    steps = [0]

    def counted() -> int:
        steps[0] += 1
        return 0

    def work(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(counted, 1000)  # instructions of SQLite's machine: a row takes some
        try:
            ask(connection)
        finally:
            connection.set_progress_handler(None, 0)
        raise _Undone

    with pytest.raises(_Undone):
        journal.write(work)
    assert steps[0] < 15  # of 20,000 rows, none was looked at in turn
