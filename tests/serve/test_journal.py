"""The journal: what is committed stays, what fails undoes itself alone, and every state leads to an end."""

from __future__ import annotations

import re
import sqlite3
import threading
from pathlib import Path

import pytest

from edgemed.base.errors import IntegrityError
from edgemed.base.hashing import sha256_bytes
from edgemed.serve.journal.database import Journal
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
)
from edgemed.serve.journal.schema import DIGESTS, SCHEMA, VERSION
from edgemed.serve.states import ENDS, TRANSITIONS, Event, State
from tests.serve.store import rows


def new(uid: str = "1.2.3") -> NewObject:
    return NewObject("dicom", "CT1", "1.2.840", uid, sha256="0" * 64, size=1, path=f"objects/{uid}")


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(tmp_path / "j.sqlite3") as opened:
        yield opened


def states(journal: Journal, table: str) -> list[str]:
    return [row["state"] for row in rows(journal, f"SELECT state FROM {table} ORDER BY id")]


def test_every_state_leads_to_an_end() -> None:
    reaches = set(ENDS)
    for _ in State:
        reaches |= {before for (before, _), after in TRANSITIONS.items() if after in reaches}
    assert reaches | {State.ROUTED} == set(State)  # ROUTED is left by `settle`, which has no row of its own


def test_a_task_from_receipt_to_delivery(journal: Journal) -> None:
    number = journal.write(lambda c: add_object(c, new()))
    task = journal.write(lambda c: open_task(c, "chest", "instance", "1.2.3", [number]))
    journal.write(lambda c: move_object(c, number, Event.ROUTE))
    for event in (Event.COMPLETE, Event.START, Event.ANSWER):
        journal.write(lambda c, e=event: move_task(c, task, e))
    result = NewResult("sr", "results/1/a.dcm", "1" * 64, 10)
    journal.write(lambda c: add_results(c, task, [result], {"pacs": ("sr",), "viewer": ("sc",), "ris": ("sr",)}))
    journal.write(lambda c: move_delivery(c, 1, "delivered"))
    assert states(journal, "task") == ["delivering"]
    journal.write(lambda c: move_delivery(c, 2, "delivered"))
    assert states(journal, "task") == ["delivered"]
    assert states(journal, "object") == ["delivered"]


def test_an_object_of_two_tasks_ends_with_the_worse_of_them(journal: Journal) -> None:
    number = journal.write(lambda c: add_object(c, new()))
    journal.write(lambda c: move_object(c, number, Event.ROUTE))
    for model in ("a", "b"):
        journal.write(lambda c, m=model: open_task(c, m, "instance", "1.2.3", [number]))
    for task in (1, 2):
        journal.write(lambda c, t=task: move_task(c, t, Event.COMPLETE))
        journal.write(lambda c, t=task: move_task(c, t, Event.START))
    journal.write(lambda c: move_task(c, 1, Event.ANSWER))
    journal.write(lambda c: finish_if_delivered(c, 1))
    assert states(journal, "object") == ["routed"]
    journal.write(lambda c: move_task(c, 2, Event.BREAK, "no"))
    assert states(journal, "object") == ["failed"]
    journal.write(lambda c: move_task(c, 2, Event.RETRY))
    assert states(journal, "object") == ["routed"]


def test_what_cannot_happen_does_not(journal: Journal) -> None:
    number = journal.write(lambda c: add_object(c, new()))
    with pytest.raises(NoTransition, match="received"):
        journal.write(lambda c: move_object(c, number, Event.ANSWER))
    assert states(journal, "object") == ["received"]


def test_tables_do_not_change_under_their_version() -> None:
    said = " ".join(re.sub(r"--[^\n]*", " ", SCHEMA).split())
    assert sha256_bytes(said.encode()) == DIGESTS[VERSION], "Other tables are another VERSION: see schema.DIGESTS."
    assert max(DIGESTS) == VERSION


def test_one_failure_undoes_itself_alone(journal: Journal) -> None:
    hold = threading.Event()
    first = journal.submit(lambda c: hold.wait(5))
    good = [journal.submit(lambda c, i=i: add_object(c, new(f"1.{i}"))) for i in range(5)]
    twice = journal.submit(lambda c: add_object(c, new("1.0")))
    hold.set()
    assert first.result(5)
    assert [future.result(5) for future in good] == [1, 2, 3, 4, 5]
    with pytest.raises(sqlite3.IntegrityError):
        twice.result(5)
    assert journal.commits <= 2  # they shared one


def test_a_journal_of_another_make_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(IntegrityError, match="not a journal"):
        Journal(path).__enter__()
    path.write_bytes(b"no database" * 100)
    with pytest.raises(IntegrityError):
        Journal(path).__enter__()
