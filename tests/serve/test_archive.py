"""Rows leave the journal for files that stay: each is told once, wherever the daemon is killed meanwhile."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgemed.serve.alarms import Alarms
from edgemed.serve.archive import FOLDER, Archive
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.facts import forget_numbers
from edgemed.serve.journal.history import untold
from edgemed.serve.journal.leaving import leave, newest_alarm
from edgemed.serve.journal.records import NewObject, add_object
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.journal.retention import newest_event
from edgemed.serve.journal.tally import deliveries, ended, miscounted
from edgemed.serve.states import State
from tests.serve.years import fill

_ALL = 2**62
_OBJECTS = 120  # the last study stays, for it has the newest rows

_KILLED = """
import os, signal, sys
from pathlib import Path
from edgemed.serve.archive import Archive
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.recovery import JOURNAL

left, point = [int(sys.argv[2])], getattr(os, sys.argv[3])

def dies(*args, **more):
    left[0] -= 1
    if left[0] == 0:
        if sys.argv[3] == "write":
            point(args[0], args[1][: len(args[1]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return point(*args, **more)

with Journal(Path(sys.argv[1]) / JOURNAL) as journal:
    archive = Archive(Path(sys.argv[1]), journal)
    setattr(os, sys.argv[3], dies)
    archive.sweep(2**62, 0, lambda: True)
print("done")
"""


def lines(state: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((state / FOLDER).glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).decode().splitlines()
    ]


def numbers(journal: Journal, table: str) -> set[int]:
    with journal.read() as connection:
        return {row[0] for row in connection.execute(f"SELECT id FROM {table}")}


def assert_told_once(state: Path, journal: Journal) -> None:
    told = lines(state)
    for table in ("object", "task"):
        gone = [line[table] for line in told if table in line]
        assert len(gone) == len(set(gone))
        assert set(gone) == set(range(1, _OBJECTS + 1)) - numbers(journal, table)


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(tmp_path / JOURNAL) as opened:
        opened.write(lambda c: fill(c, _OBJECTS))
        yield opened


def test_what_became_of_an_image_is_told_after_its_rows_are_gone(tmp_path: Path, journal: Journal) -> None:
    journal.write(lambda c: c.execute("INSERT INTO promise SELECT sop_instance FROM object WHERE id = 7"))
    journal.write(lambda c: c.execute("INSERT INTO asked VALUES ('1.9', 7)"))
    assert Archive(tmp_path, journal).sweep(_ALL, 0, lambda: True) == 2 * (_OBJECTS - 10)
    told = lines(tmp_path)
    (image,) = [line for line in told if line.get("object") == 7]
    assert image["sop_instance"].endswith(".00000000000000000000000000000000000007")
    assert (image["state"], image["promised"], image["tasks"]) == ("delivered", True, [7])
    assert [event["after"] for event in image["events"]] == ["arriving", "received", "routed", "delivered"]
    (task,) = [line for line in told if line.get("task") == 7]
    assert task["objects"] == [7]
    assert task["results"][0]["deliveries"][0]["destination"] == "pacs"
    assert_told_once(tmp_path, journal)
    with journal.read() as connection:
        assert list(untold(connection)) == []
        assert miscounted(connection) == []
        assert ended(connection) == {"object": {}, "task": {"delivered": 10}}
        assert deliveries(connection)["pacs"].delivered == 10
        assert connection.execute("SELECT count(*) FROM event WHERE what = 'task' AND subject = 7").fetchone()[0] == 0
        assert connection.execute("SELECT count(*) FROM promise").fetchone()[0] == 0
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    number = journal.write(  # the same image is a new one now
        lambda c: add_object(c, NewObject("dicom", "CT1", "1.2", image["sop_instance"], "0" * 64, 1, "objects/x"))
    )
    assert number == _OBJECTS + 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE object SET state = 'routed' WHERE id = 7",
        "UPDATE object SET path = 'objects/x' WHERE id = 7",
        "UPDATE task SET state = 'queued' WHERE id = 7",
        "UPDATE result SET path = 'results/x' WHERE id = 7",
        "UPDATE delivery SET state = 'sent' WHERE id = 7",
        "INSERT INTO part (task, object) VALUES (7, 120)",  # a part of what stays
    ],
)
def test_what_has_not_ended_keeps_all_of_its_study(tmp_path: Path, journal: Journal, change: str) -> None:
    journal.write(lambda c: c.execute(change))
    Archive(tmp_path, journal).sweep(_ALL, 0, lambda: True)
    assert numbers(journal, "object") == {*range(1, 11), *range(111, 121)}
    assert_told_once(tmp_path, journal)


def test_what_happened_lately_keeps_a_study(tmp_path: Path, journal: Journal) -> None:
    with journal.read() as connection:
        before = newest_event(connection)
    row = "INSERT INTO event (at, what, subject, before, event, after) VALUES ('', 'delivery', 7, 'failed', '', 'x')"
    journal.write(lambda c: c.execute(row))
    Archive(tmp_path, journal).sweep(before, 0, lambda: True)
    assert numbers(journal, "object") == {*range(1, 11), *range(111, 121)}


def test_what_changes_while_it_is_told_stays_and_is_not_told(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(connection: Any, **more: Any) -> bool:
        connection.execute("UPDATE object SET repeats = repeats + 1 WHERE id = 7")
        return leave(connection, **more)

    monkeypatch.setattr("edgemed.serve.archive.leave", late)
    Archive(tmp_path, journal).sweep(_ALL, 0, lambda: True)
    assert numbers(journal, "object") == {*range(1, 11), *range(111, 121)}  # its study
    assert_told_once(tmp_path, journal)
    monkeypatch.undo()
    Archive(tmp_path, journal).sweep(_ALL, 0, lambda: True)
    assert_told_once(tmp_path, journal)


@pytest.mark.parametrize(
    ("point", "nth"), [*(("write", nth) for nth in (1, 2, 3)), *(("fsync", n) for n in range(1, 6))]
)
def test_killed_in_the_middle_each_row_is_told_once(tmp_path: Path, point: str, nth: int) -> None:
    with Journal(tmp_path / JOURNAL) as journal:
        journal.write(lambda c: fill(c, _OBJECTS))
        journal.write(lambda c: c.execute("UPDATE object SET study = ''"))  # many units: several batches
    ran = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), str(nth), point], capture_output=True, text=True, check=False
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    with Journal(tmp_path / JOURNAL) as journal:
        with journal.read() as connection:
            assert miscounted(connection) == []
        Archive(tmp_path, journal).sweep(_ALL, 0, lambda: True)
        assert numbers(journal, "object") == {_OBJECTS}
        assert_told_once(tmp_path, journal)


def test_what_was_cut_short_is_cut_off(tmp_path: Path, journal: Journal) -> None:
    archive = Archive(tmp_path, journal)
    rounds = iter([True, False])
    journal.write(lambda c: c.execute("UPDATE object SET study = ''"))
    archive.sweep(_ALL, 0, lambda: next(rounds))
    (path,) = (tmp_path / FOLDER).iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("ab") as file:
        file.write(gzip.compress(b'{"object":1}\n')[:9])
    archive.sweep(_ALL, 0, lambda: True)
    assert_told_once(tmp_path, journal)


def test_a_folder_that_was_taken_away_is_made_again(tmp_path: Path, journal: Journal) -> None:
    archive = Archive(tmp_path, journal)
    archive._open()  # killed before the first line
    (tmp_path / FOLDER).rmdir()
    archive.sweep(_ALL, 0, lambda: True)
    assert_told_once(tmp_path, journal)


def test_a_journal_that_was_made_anew_begins_another_file(tmp_path: Path, journal: Journal) -> None:
    archive = Archive(tmp_path, journal)
    rounds = iter([True, False])
    journal.write(lambda c: c.execute("UPDATE object SET study = ''"))
    archive.sweep(_ALL, 0, lambda: next(rounds))
    journal.write(forget_numbers)
    archive.sweep(_ALL, 0, lambda: True)
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    assert_told_once(tmp_path, journal)


def test_commitments_and_alarms_that_are_over_leave_too(tmp_path: Path, journal: Journal) -> None:
    def work(connection: Any) -> None:
        values = "('{}', 'CT1', '10.0.0.1', '[[\"1.2\", \"1.3\"]]', '', {}, 5)"
        connection.execute(f"INSERT INTO commitment VALUES {values.format('1.7', 'NULL')}")
        connection.execute(f"INSERT INTO commitment VALUES {values.format('1.8', repr('2026'))}")
        for number, cleared in ((1, "'2026'"), (2, "NULL"), (3, "'2026'")):
            connection.execute(
                "INSERT INTO alarm (code, subject, text, severity, raised, cleared)"
                f" VALUES ('hot', '{number}', 'It is hot.', 'warning', '2026', {cleared})"
            )

    journal.write(work)
    Archive(tmp_path, journal).sweep(10, 3, lambda: True)
    told = [line for line in lines(tmp_path) if "object" not in line and "task" not in line]
    assert [line.get("commitment") or line.get("alarm") for line in told] == ["1.8", 1]
    assert told[0]["request"] == [["1.2", "1.3"]]
    assert numbers(journal, "alarm") == {2, 3}
    with journal.read() as connection:
        assert [row[0] for row in connection.execute("SELECT transaction_uid FROM commitment")] == ["1.7"]


def test_the_age_of_an_alarm_is_that_of_its_end(tmp_path: Path, journal: Journal) -> None:
    alarms = Alarms(journal)
    for code in ("hot", "throttled", "disk-low"):
        alarms.raise_(code, "Something is wrong.")
    alarms.clear("throttled")
    years_ago = journal.submit(newest_alarm).result()
    alarms.clear("hot")  # yesterday
    alarms.raise_("disk-full", "Something is wrong.")
    journal.submit(newest_alarm).result()  # behind what was submitted
    Archive(tmp_path, journal).sweep(1, years_ago, lambda: True)
    assert [line["code"] for line in lines(tmp_path) if "alarm" in line] == ["throttled"]
    with journal.read() as connection:
        found = connection.execute("SELECT code, cleared IS NULL FROM alarm ORDER BY id").fetchall()
    assert [tuple(row) for row in found] == [("disk-low", 1), ("hot", 0), ("disk-full", 1)]


def test_a_commitment_that_is_damaged_leaves_as_it_stands_and_holds_up_nobody(tmp_path: Path, journal: Journal) -> None:
    def work(connection: Any) -> None:
        for number, request in enumerate(("x'5b5b22'", "x'5bff'", '\'[["1.2", "1.3"]]\'')):
            values = f"('1.{number}', 'CT1', '10.0.0.1', CAST({request} AS TEXT), '', '2026', 5)"
            connection.execute(f"INSERT INTO commitment VALUES {values}")

    journal.write(work)
    Archive(tmp_path, journal).sweep(10, 0, lambda: True)
    told = {line["commitment"]: line["request"] for line in lines(tmp_path) if "commitment" in line}
    assert told == {"1.0": '[["', "1.1": "[\ufffd", "1.2": [["1.2", "1.3"]]}
    with journal.read() as connection:
        assert connection.execute("SELECT count(*) FROM commitment").fetchone()[0] == 0


def test_refused_ones_leave_by_themselves(tmp_path: Path, journal: Journal) -> None:
    refused = NewObject("stow", "pump", "1.2", "", "0" * 64, 1, "")
    for _ in range(3):
        journal.write(lambda c: add_object(c, refused, State.REFUSED, "It is none of ours."))
    with journal.read() as connection:
        assert ended(connection)["object"] == {"refused": 3}
    Archive(tmp_path, journal).sweep(_ALL, 0, lambda: True)
    with journal.read() as connection:
        assert (ended(connection)["object"], miscounted(connection)) == ({"refused": 1}, [])
