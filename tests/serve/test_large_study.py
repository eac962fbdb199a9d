"""A study of many images holds up nobody: what is done to all of it is done in pieces, or in a few statements."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest

from edgemed.base.errors import InputError
from edgemed.serve.again import retry
from edgemed.serve.archive import FOLDER, Archive
from edgemed.serve.journal import routes, steps
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.facts import forget_numbers
from edgemed.serve.journal.records import NewObject, NewResult, add_object, add_results, move_delivery, move_task
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.journal.returns import bring_back
from edgemed.serve.reconcile import reconcile
from edgemed.serve.spool import Spool
from edgemed.serve.states import Event, State

Work = Callable[[Connection], None]

_ALL = 2**62
_IMAGES = 50
_VOLUME = 1  # number of the task about all of them; the others are about one each

_KILLED = """
import os, signal, sys
from pathlib import Path
from edgemed.serve.archive import Archive
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.recovery import JOURNAL

left, fsync = [int(sys.argv[2])], os.fsync

def dies(file):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)

with Journal(Path(sys.argv[1]) / JOURNAL) as journal:
    archive = Archive(Path(sys.argv[1]), journal)
    os.fsync = dies
    archive.sweep(2**62, 0, lambda: True)
"""


def new(number: int, path: str = "") -> NewObject:
    return NewObject("dicom", "CT1", "1.2", f"1.5.{number}", "0" * 64, 1, path)


def enter(connection: Connection, number: int, study: str = "1.5") -> routes.Routed:
    number = add_object(connection, new(number))
    wants = (routes.Want("liver", "series", study), routes.Want("chest", "instance", f"{study}.{number}"))
    return routes.enter(connection, routes.Route(number, study, study, "1.2", wants))


def answer(connection: Connection, task: int, state: str) -> None:
    move_task(connection, task, Event.START)
    (result,) = add_results(connection, task, [NewResult("sr", f"{task}", "0" * 64, 1)], {"pacs": ("sr",)})
    move_task(connection, task, Event.ANSWER)
    connection.execute("UPDATE result SET path = '' WHERE id = ?", (result,))
    (delivery,) = connection.execute("SELECT id FROM delivery WHERE result = ?", (result,)).fetchone()
    move_delivery(connection, delivery, state)


def fill(connection: Connection, state: str = "delivered") -> None:
    """A study that has ended, long ago; and an image of another, the newest of all, which stays."""
    for number in range(1, _IMAGES + 1):
        enter(connection, number)
    other = enter(connection, _IMAGES + 1, "1.6")
    for task in (_VOLUME, other.joined[0].task):
        move_task(connection, task, Event.COMPLETE)
    for (task,) in connection.execute("SELECT id FROM task ORDER BY id").fetchall():
        answer(connection, task, state)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    Spool(tmp_path).prepare()
    with Journal(tmp_path / JOURNAL) as opened:
        yield opened


def leave(state: Path, journal: Journal, times: int = 1000) -> None:
    rounds = iter(range(times))
    Archive(state, journal).sweep(_ALL, 0, lambda: next(rounds, None) is not None)


def told(state: Path, what: str) -> dict[int, dict[str, Any]]:
    """Lines of the archive by number, each once."""
    data = b"".join(gzip.decompress(path.read_bytes()) for path in sorted((state / FOLDER).glob("*.gz")))
    lines = [line for line in map(json.loads, data.splitlines()) if what in line]
    found = {line[what]: line for line in lines}
    assert len(found) == len(lines)
    return found


def numbers(journal: Journal, table: str) -> set[int]:
    with journal.read() as connection:
        return {row[0] for row in connection.execute(f"SELECT id FROM {table}")}


def assert_all_told(state: Path, journal: Journal) -> None:
    """Everything but the newest has left, and is told as if it had left at once."""
    objects, tasks = told(state, "object"), told(state, "task")
    assert objects.keys() == {*range(1, _IMAGES + 1)}
    assert (numbers(journal, "object"), numbers(journal, "task") & tasks.keys()) == ({_IMAGES + 1}, set())
    assert tasks[_VOLUME]["objects"] == [*range(1, _IMAGES + 1)]
    for number, line in objects.items():
        assert len(line["tasks"]) == 2
        assert line["tasks"][0] == _VOLUME
        assert tasks[line["tasks"][1]]["objects"] == [number]
    with journal.read() as connection:
        assert connection.execute("SELECT count(*) FROM fact WHERE name LIKE 'left %'").fetchone()[0] == 0
        assert connection.execute("SELECT count(*) FROM event WHERE what <> 'object'").fetchone()[0] == 2 * 6
    assert reconcile(state).troubles == []


def test_a_large_study_leaves_in_pieces_and_each_moment_makes_sense(tmp_path: Path, journal: Journal) -> None:
    journal.write(fill)
    while (there := len(numbers(journal, "object"))) > 1:
        leave(tmp_path, journal, 1)  # each time as a daemon that has just been started
        gone = there - len(numbers(journal, "object"))
        assert 0 < gone <= 20
        assert told(tmp_path, "object").keys() == {*range(1, _IMAGES + 1)} - numbers(journal, "object")
        assert told(tmp_path, "task").keys() == {*range(1, _IMAGES + 2)} - numbers(journal, "task")
        assert reconcile(tmp_path).troubles == []
    assert_all_told(tmp_path, journal)


@pytest.mark.parametrize("nth", [2, 3, 4, 5])
def test_killed_between_two_pieces_it_goes_on(tmp_path: Path, nth: int) -> None:
    Spool(tmp_path).prepare()
    with Journal(tmp_path / JOURNAL) as journal:
        journal.write(fill)
    ran = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), str(nth)], capture_output=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    with Journal(tmp_path / JOURNAL) as journal:
        assert reconcile(tmp_path).troubles == []
        leave(tmp_path, journal)
        assert_all_told(tmp_path, journal)


def test_what_changes_between_two_pieces_keeps_the_rest(tmp_path: Path, journal: Journal) -> None:
    journal.write(fill)
    rounds = iter(range(1000))

    def goes_on() -> bool:
        if next(rounds) == 1:
            journal.write(lambda c: c.execute("UPDATE object SET path = 'objects/x' WHERE id = 21"))
        return True

    Archive(tmp_path, journal).sweep(_ALL, 0, goes_on)
    assert numbers(journal, "object") == {*range(21, _IMAGES + 2)}
    journal.write(lambda c: c.execute("UPDATE object SET path = '' WHERE id = 21"))
    leave(tmp_path, journal)
    assert_all_told(tmp_path, journal)


def test_a_task_that_has_begun_to_leave_is_not_answered_again_of_what_is_left(tmp_path: Path, journal: Journal) -> None:
    journal.write(partial(fill, state="failed"))
    leave(tmp_path, journal, 1)
    for number in range(21, _IMAGES + 1):  # what is left comes again, all of it
        journal.write(lambda c, n=number: bring_back(c, n, "", new(n, f"objects/{n}")))  # type: ignore[misc]
    with journal.read() as connection:
        states = dict(connection.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall())
        assert connection.execute("SELECT state FROM task WHERE id = ?", (_VOLUME,)).fetchone()[0] == "failed"
    assert states == {"failed": 1 + 2, "queued": _IMAGES - 20}  # it, the other study; the image's own are tried again
    with pytest.raises(InputError, match="The images of task 1 were deleted"):
        retry(tmp_path, _VOLUME)
    assert _VOLUME not in retry(tmp_path, None)
    late = journal.write(lambda c: enter(c, _IMAGES + 2))
    assert [joined.level for joined in late.joined] == ["instance"]  # no revision of the series


def test_a_journal_that_was_made_anew_knows_nothing_of_what_had_begun_to_leave(
    tmp_path: Path, journal: Journal
) -> None:
    journal.write(fill)
    leave(tmp_path, journal, 1)
    journal.write(forget_numbers)
    with journal.read() as connection:
        assert connection.execute("SELECT count(*) FROM fact").fetchone()[0] == 0


def _queue_again(connection: Connection) -> None:
    move_task(connection, _VOLUME, Event.RETRY)


def _fail_again(connection: Connection) -> None:
    move_task(connection, _VOLUME, Event.BREAK)


def _come_late(connection: Connection) -> None:
    assert enter(connection, _IMAGES + 2).joined[0].opened  # a revision, and all images are open again


@pytest.mark.parametrize(("first", "work"), [([], _queue_again), ([_queue_again], _fail_again), ([], _come_late)])
def test_images_end_and_are_open_again_in_a_few_statements(journal: Journal, first: list[Work], work: Work) -> None:
    journal.write(partial(fill, state="failed"))
    journal.write(lambda c: c.execute("UPDATE object SET path = 'objects/' || id"))
    for each in first:
        journal.write(each)
    statements: list[str] = []

    def asked(connection: Connection) -> None:
        connection.set_trace_callback(statements.append)
        try:
            work(connection)
        finally:
            connection.set_trace_callback(None)

    journal.write(asked)
    assert sum("event" in each for each in statements) < _IMAGES / 2


def test_steps_of_many_images_are_forgotten_a_few_at_a_time(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_IMAGES_TOGETHER", 10)
    for number, images in enumerate((4, 6, 1, 30, 2)):
        series = {f"1.7.{number}": [f"1.7.{number}.{each}" for each in range(images)]}
        journal.write(lambda c, n=number, s=series: steps.create_step(c, f"1.9.{n}", "CT1", "1.5", s))  # type: ignore[misc]
    gone = [journal.write(partial(steps.forget_steps, before=_ALL)) for _ in range(5)]
    assert gone == [2, 1, 1, 1, 0]
    with journal.read() as connection:
        assert connection.execute("SELECT count(*) FROM step_image").fetchone()[0] == 0


def test_what_is_to_be_sent_on_again_is_taken_a_few_at_a_time(tmp_path: Path, journal: Journal) -> None:
    def forward(connection: Connection) -> None:
        for number in range(1, 101):
            add_object(connection, new(number, f"objects/{number}"))
            routes.enter(connection, routes.Route(number, "1.5", "1.5", "1.2", forward=("pacs",)))
            move_delivery(connection, number, "failed")

    journal.write(forward)
    assert len(retry(tmp_path, None)) == 100
    assert [journal.write(routes.forward_again) for _ in range(3)] == [64, 36, 0]
    with journal.read() as opened:
        states = opened.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall()
    assert [tuple(row) for row in states] == [(State.DELIVERING.value, 100)]
