"""What a task is read from: the journal."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from edgemed.serve import clock
from edgemed.serve.analysis.task import first_queued, read_task
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import NewObject, NewResult, add_object, add_results, move_task, open_task
from edgemed.serve.spool import Spool
from edgemed.serve.states import Event


def test_a_revision_knows_the_reports_that_it_replaces(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "state")
    with Journal(tmp_path / "j.sqlite3") as journal:

        def revise(number: int, subject: str, model: str = "chest") -> int:
            def work(connection):  # type: ignore[no-untyped-def]
                new = NewObject("dicom", "CT", "1.2.840", f"{subject}.{model}.{number}", "0" * 64, 1, "objects/x")
                task = open_task(connection, model, "study", subject, [add_object(connection, new)], revision=number)
                for event in (Event.COMPLETE, Event.START):
                    move_task(connection, task, event)
                files = [NewResult(kind, f"{task}/{kind}", "0" * 64, 1, "", f"{task}.{kind}") for kind in ("sr", "sc")]
                add_results(connection, task, files, {})
                move_task(connection, task, Event.ANSWER)
                return task

            return int(journal.write(work))

        first, _, _ = revise(1, "1.2"), revise(1, "1.3"), revise(1, "1.2", "other")
        second = revise(2, "1.2")
        third = revise(3, "1.2")
        with journal.read() as connection:
            found = [read_task(connection, number, spool).replaces for number in (first, second, third)]
    assert found == [(), (f"{first}.sr",), (f"{first}.sr", f"{second}.sr")]


def test_who_was_complete_first_is_first_though_the_calendar_went_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.utc
    with Journal(tmp_path / "j.sqlite3") as journal:

        def opened(number: int) -> int:
            def work(connection):  # type: ignore[no-untyped-def]
                new = NewObject("dicom", "CT", "1.2.840", f"1.{number}", "0" * 64, 1, "objects/x")
                return open_task(connection, "chest", "instance", f"1.{number}", [add_object(connection, new)])

            return int(journal.write(work))

        late, early, third = opened(1), opened(2), opened(3)
        journal.write(lambda connection: move_task(connection, early, Event.COMPLETE))
        monkeypatch.setattr(clock, "utc", lambda: now() - timedelta(days=365))
        for task in (late, third):
            journal.write(lambda connection, task=task: move_task(connection, task, Event.COMPLETE))  # type: ignore[misc]
        order = []
        for _ in range(3):
            with journal.read() as connection:
                row = first_queued(connection, "chest")
            assert row is not None
            order.append(row["id"])
            journal.write(lambda connection, task=row["id"]: move_task(connection, task, Event.START))  # type: ignore[misc]
    assert order == [early, late, third]
