"""What the page asks of the journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgemed.serve import intake
from edgemed.serve.journal import queries, tally
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import (
    NewObject,
    NewResult,
    add_object,
    add_results,
    move_delivery,
    move_object,
    move_task,
    open_task,
)
from edgemed.serve.journal.requests import WAITING
from edgemed.serve.states import Event, State


def receive(connection: sqlite3.Connection, study: str, series: str, uid: str, peer: str = "CT1") -> int:
    return add_object(
        connection, NewObject("dicom", peer, "1.2.840", uid, "0" * 64, 1, f"objects/{uid}", study, series)
    )


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "j.sqlite3") as opened:
        yield opened


def test_studies_newest_first_with_the_most_urgent_state(journal: Journal) -> None:
    def work(connection: sqlite3.Connection) -> None:
        receive(connection, "1.1", "1.1.1", "a")
        number = receive(connection, "1.1", "1.1.2", "b", "CT2")
        move_object(connection, number, Event.UNREADABLE, "a reason")
        receive(connection, "1.2", "1.2.1", "c")
        receive(connection, "", "", "file:d", "")

    journal.write(work)
    with journal.read() as connection:
        found = queries.studies(connection)
        assert [(one.study, one.series, one.objects, one.state, one.peers) for one in found] == [
            ("1.2", 1, 1, "received", ("CT1",)),
            ("1.1", 2, 2, "failed", ("CT1", "CT2")),
        ]
        assert found[1].number == 2


def test_a_list_of_studies_goes_on_where_the_page_before_ended(journal: Journal) -> None:
    def work(connection: sqlite3.Connection) -> None:
        for number in range(10):
            receive(connection, f"1.{number % 5}", "1", str(number))

    journal.write(work)
    with journal.read() as connection:
        first = queries.studies(connection, 3)
        second = queries.studies(connection, 3, before=first[-1].number)
        assert [one.study for one in first + second] == ["1.4", "1.3", "1.2", "1.1", "1.0"]
        assert queries.studies(connection, 3, before=second[-1].number) == []


def test_tasks_deliveries_and_events(journal: Journal) -> None:
    def work(connection: sqlite3.Connection) -> None:
        for uid in ("a", "b"):
            number = receive(connection, "1.1", "1.1.1", uid)
            task = open_task(connection, "chest", "instance", uid, [number])
            move_object(connection, number, Event.ROUTE)
            move_task(connection, task, Event.COMPLETE, "alone")
        for event in (Event.START, Event.ANSWER):
            move_task(connection, 1, event)
        results = [NewResult("sr", f"results/{name}", "0" * 64, 1) for name in "xy"]
        add_results(connection, 1, results, {"pacs": ("sr",)})
        move_delivery(connection, 1, "sent")

    journal.write(work)
    with journal.read() as connection:
        tasks = queries.open_tasks(connection)
        assert [(one.model, one.state, one.count) for one in tasks] == [
            ("chest", "delivering", 1),
            ("chest", "queued", 1),
        ]
        assert all(0 <= one.age_s < 3600 for one in tasks)
        assert tally.ended(connection) == {"object": {}, "task": {}}
        (waiting,) = queries.waiting(connection)
        assert (waiting.destination, waiting.pending, waiting.sent) == ("pacs", 1, 1)
        assert [one.number for one in queries.tasks_of(connection, "1.1")] == [1, 2]
        assert [one.number for one in queries.recent_tasks(connection)] == [2, 1]
        (queued,) = queries.recent_tasks(connection, state=State.QUEUED)
        assert (queued.subject, queued.completeness, queued.objects) == ("b", "alone", 1)
        newest = queries.events(connection, 2)
        assert newest[0].number == newest[1].number + 1
        assert newest[0].event == "attempt"
        after = queries.events(connection, 2, after=newest[0].number - 3)
        assert [one.number for one in after] == [newest[0].number - 2, newest[0].number - 1]


def steps(connection: sqlite3.Connection, ask: Callable[[sqlite3.Connection], object]) -> int:
    """Of SQLite's machine, until it has answered."""
    count = 0

    def one() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(one, 1)
    try:
        ask(connection)
    finally:
        connection.set_progress_handler(None, 1)
    return count


def test_what_is_asked_all_the_time_costs_no_more_when_the_journal_has_grown(journal: Journal) -> None:
    def end(connection: sqlite3.Connection, first: int, last: int) -> None:
        for number in range(first, last):
            task = open_task(
                connection, "chest", "instance", f"1.{number}", [receive(connection, "1", "1", f"{number}")]
            )
            for event in (Event.COMPLETE, Event.START):
                move_task(connection, task, event)
            result = NewResult("sr", f"{task}/sr", "0" * 64, 1, "1.2", f"2.{number}")
            add_results(connection, task, [result], {"pacs": ("sr",)})
            move_task(connection, task, Event.ANSWER)
            move_delivery(connection, number, "delivered")
            connection.execute(
                "INSERT INTO commitment VALUES (?, 'CT1', '127.0.0.1', '[]', '2026', '2026', ?)",
                (f"1.{number}", number),
            )

    other = NewObject("dicom", "CT1", "1.2.840", "1", "1" * 64, 1, "quarantine/1")

    def asked(connection: sqlite3.Connection) -> list[int]:
        again = lambda connection: intake._conflict(connection, other)  # noqa: E731
        promised = lambda connection: connection.execute(WAITING).fetchall()  # noqa: E731
        return [steps(connection, ask) for ask in (queries.open_tasks, queries.waiting, again, promised)]

    journal.write(lambda connection: intake._conflict(connection, other))
    journal.write(lambda connection: end(connection, 1, 3))
    before = journal.write(asked)
    journal.write(lambda connection: end(connection, 3, 300))
    assert journal.write(asked) == before
