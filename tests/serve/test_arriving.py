"""File and row of an input go to the disk at the same time: what is promised, and what a start makes of half of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgemed.base.errors import ResourceError
from edgemed.serve.intake import Outcome, name_of
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import NewObject, add_object
from edgemed.serve.reconcile import reconcile
from edgemed.serve.spool import Spool
from edgemed.serve.states import State
from tests.serve import kit
from tests.serve.store import Disk, arrival, disk, rows

UID = "1.2.3"
WAIT_S = 60


tmp_path = kit.folder_in_memory


@pytest.fixture
def data() -> bytes:
    return kit.encode(kit.image(rows=8, columns=8, instance=UID))


class SlowDisk:
    """Files do not come to the disk before they may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.may, self.fails, self.count = threading.Event(), threading.Event(), False, 0
        real = Spool.keep

        def keep(spool: Spool, incoming: Path, name: str, note: str = "") -> str:
            self.count += 1
            self.asked.set()
            assert self.may.wait(WAIT_S)
            if self.fails:
                self.fails = False
                incoming.unlink()
                raise ResourceError("The disk does not take it.", "Check the disk.")
            return real(spool, incoming, name, note)

        monkeypatch.setattr(Spool, "keep", keep)


def states(store: Disk) -> list[str]:
    """As the file of the journal says."""
    return [row["state"] for row in rows(store.journal)]


def test_success_is_told_when_both_are_there(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowDisk(monkeypatch)
    with disk(tmp_path) as store, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(store.send, data)
        assert slow.asked.wait(WAIT_S)
        store.journal.submit(lambda connection: None).result()  # the row was asked for before, and comes before
        assert states(store) == ["arriving"]
        assert not sent.done()
        assert reconcile(tmp_path).troubles == []  # half of it is no trouble
        slow.may.set()
        assert sent.result(WAIT_S).verdict == "accepted"
        assert states(store) == ["arriving"]  # until the next commit, which nobody waits for
        store.journal.write(lambda connection: None)
        assert states(store) == ["received"]
    assert reconcile(tmp_path).troubles == []


@pytest.mark.parametrize(("fails", "verdicts"), [(False, ["accepted", "repeated"]), (True, ["full", "accepted"])])
def test_the_same_from_two_senders_at_once_is_promised_to_neither_too_early(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch, fails: bool, verdicts: list[str]
) -> None:
    slow = SlowDisk(monkeypatch)
    slow.fails = fails
    with disk(tmp_path) as store, ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.send, data)
        assert slow.asked.wait(WAIT_S)
        second = pool.submit(store.send, data)
        store.journal.write(lambda connection: None)
        assert not second.done()
        assert slow.count == 1  # the second one waits for what becomes of the first
        slow.may.set()
        outcomes: list[Outcome] = [first.result(WAIT_S), second.result(WAIT_S)]
        assert [outcome.verdict for outcome in outcomes] == verdicts
        assert [row["state"] for row in store.rows()] == ["received"]
    assert reconcile(tmp_path).troubles == []


def remove(path: Path) -> None:
    path.unlink()


def change(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


HALVES: dict[str, tuple[Callable[[Path], Any], list[str], list[str], str]] = {
    "its file is whole": (lambda path: None, ["received"], [], "repeated"),
    "its file is not there": (remove, [], [], "accepted"),
    "its file changed": (change, ["failed"], ["input-failed"], "repeated"),
}


@pytest.mark.parametrize("half", HALVES)
def test_what_was_arriving_when_the_daemon_was_killed(tmp_path: Path, data: bytes, half: str) -> None:
    spoil, left, alarms, again = HALVES[half]
    with disk(tmp_path) as one:
        file = one.intake.new_file()
        file.write_bytes(data)
        came = arrival(file, data)
        path = one.spool.keep(file, name_of(came.sop_instance, came.sha256))
        new = NewObject("dicom", "CT1", came.sop_class, UID, came.sha256, came.size, path)
        one.journal.write(lambda connection: add_object(connection, new, State.ARRIVING))
    spoil(tmp_path / path)
    with disk(tmp_path) as two:
        assert [row["state"] for row in two.rows()] == left
        assert [alarm.code for alarm in two.alarms.standing] == alarms
        assert (two.found.arrived, two.found.vanished, two.found.changed) == (
            int(left == ["received"]),
            int(not left),
            int(left == ["failed"]),
        )
        assert two.send(data).verdict == again
        assert [row["state"] for row in two.rows()] == ["received"]
        assert (tmp_path / path).read_bytes() == data
    assert reconcile(tmp_path).troubles == []


def test_what_goes_along_has_no_commit_of_its_own_and_outlives_one_that_fails(tmp_path: Path) -> None:
    def put(name: str) -> Callable[[Any], Any]:
        return lambda connection: connection.execute("INSERT INTO fact VALUES (?, '')", (name,))

    def break_off(connection: Any) -> None:
        connection.execute("ROLLBACK")
        raise ResourceError("The disk is full.", "Free some space.")

    def names() -> list[str]:
        with journal.read() as connection:
            return [row[0] for row in connection.execute("SELECT name FROM fact ORDER BY name")]

    with Journal(tmp_path / "j.sqlite3") as journal:
        journal.settle()  # there is nothing to bring
        assert journal.commits == 0
        journal.along(put("a"))
        assert (names(), journal.commits) == ([], 0)
        with pytest.raises(ResourceError):
            journal.write(break_off)
        assert names() == []
        journal.settle()
        assert (names(), journal.commits) == (["a"], 1)
        journal.along(put("b"))
        journal.write(put("c"))
        assert (names(), journal.commits) == (["a", "b", "c"], 2)
        journal.along(put("d"))
    with Journal(tmp_path / "j.sqlite3") as journal:
        assert names() == ["a", "b", "c", "d"]
