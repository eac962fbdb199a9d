"""What a task is read from: the journal."""

from __future__ import annotations

from pathlib import Path

from edgemed.serve.analysis.task import read_task
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
