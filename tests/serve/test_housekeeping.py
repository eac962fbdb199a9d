"""What is deleted, and when; and that a crash in the middle leaves nothing that reconcile would call lost."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemed.base.hashing import sha256_bytes
from edgemed.serve import deletion, housekeeping
from edgemed.serve.adoption import take_in
from edgemed.serve.housekeeping import Housekeeping
from edgemed.serve.intake import Arrival, Outcome
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.history import untold
from edgemed.serve.journal.records import NewResult, add_results, move_delivery, move_object, move_task, open_task
from edgemed.serve.journal.retention import Horizon
from edgemed.serve.journal.routes import Route, enter, forward_again
from edgemed.serve.loops import Beat
from edgemed.serve.services import Services
from edgemed.serve.states import Event
from tests.serve import kit
from tests.serve.store import in_memory, rows

tmp_path = kit.folder_in_memory


def beat() -> Beat:
    return Beat("housekeeping", 10**15, threading.Event())


class Bedside:
    """A journal with inputs in every state, and the housekeeping over it."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.housekeeping = Housekeeping(services)
        self.housekeeping.start()
        services.loops.stop(60_000_000_000)  # its loop; from here on it is called by hand

    def sweep(self, times: int = 3) -> None:
        """The first one begins to count the time."""
        for _ in range(times):
            self.housekeeping.sweep(beat())

    def write(self, work: Any, *values: Any, **more: Any) -> Any:
        return self.services.journal.write(lambda connection: work(connection, *values, **more))

    def rows(self, sql: str) -> list[sqlite3.Row]:
        return rows(self.services.journal, sql)

    def receive(self, uid: str, content: bytes = b"image") -> Outcome:
        file = self.services.intake.new_file()
        file.write_bytes(content)
        arrival = Arrival(file, "dicom", "CT1", "", uid, sha256_bytes(content), len(content))
        return self.services.intake.accept(arrival)

    def analyse(self, uid: str, *events: Event) -> int:
        """An object with a task that has gone so far, with two results to be delivered."""
        number = self.receive(uid).number
        task: int = self.write(open_task, "chest", "instance", uid, [number])
        self.write(move_object, number, Event.ROUTE)
        self.write(move_task, task, Event.COMPLETE, "alone")
        for event in events:
            if event is Event.ANSWER:
                self.answer(task)
            self.write(move_task, task, event, "a reason")
        return task

    def answer(self, task: int) -> None:
        names = ("a.json", "b.dcm")
        paths = [self.services.spool.write_result(task, name, b"result") for name in names]
        new = [NewResult(path[-4:], path, sha256_bytes(b"result"), 6) for path in paths]
        self.write(add_results, task, new, {"pacs": [name[-4:] for name in names]})

    def deliver(self, task: int, state: str = "delivered") -> None:
        for row in self.rows(f"SELECT delivery.id FROM delivery JOIN result ON result.id = result WHERE task = {task}"):
            self.write(move_delivery, row["id"], state)

    def files(self) -> set[str]:
        spool = self.services.spool
        return {*spool.kept(), *spool.kept_aside(), *spool.answered()}


def everything(bedside: Bedside) -> None:
    """One input in each state."""
    bedside.receive("received")
    bedside.analyse("queued")
    bedside.analyse("analysing", Event.START)
    bedside.analyse("delivering", Event.START, Event.ANSWER)
    bedside.deliver(bedside.analyse("sent", Event.START, Event.ANSWER), "sent")
    bedside.deliver(bedside.analyse("delivered", Event.START, Event.ANSWER))
    bedside.deliver(bedside.analyse("given up", Event.START, Event.ANSWER), "failed")
    bedside.analyse("broken", Event.START, Event.BREAK)
    bedside.write(move_task, bedside.analyse("declined", Event.START, Event.DECLINE), Event.FINISH)
    unwanted = bedside.receive("unwanted").number
    bedside.write(move_object, unwanted, Event.UNWANTED, "a reason")
    assert bedside.receive("unwanted", b"other content").verdict == "conflict"
    forwarded = bedside.receive("forwarded").number
    bedside.write(enter, Route(forwarded, forward=("pacs",)))
    waiting = bedside.receive("forwarding").number
    bedside.write(enter, Route(waiting, forward=("pacs",)))
    (delivery,) = bedside.rows(
        "SELECT delivery.id FROM delivery JOIN result ON result.id = result WHERE sop_instance = 'forwarded'"
    )
    bedside.write(move_delivery, delivery["id"], "delivered")


GONE = {"delivered", "declined", "unwanted", "forwarded"}
GONE_AT_LAST = GONE | {"given up", "broken"}


def made(root: Path, **lines: Any) -> Any:
    return kit.resting(kit.bedside(root, spool={"reserve": "1MiB", "warn": "2MiB", "keep_ns": 1, **lines}))


def kept(bedside: Bedside) -> set[str]:
    return {row["sop_instance"] for row in bedside.rows("SELECT sop_instance FROM object WHERE path <> ''")}


def test_only_what_has_ended_is_deleted_and_nothing_that_failed(tmp_path: Path) -> None:
    with made(tmp_path) as services:
        bedside = Bedside(services)
        everything(bedside)
        uids = {row["sop_instance"] for row in bedside.rows("SELECT sop_instance FROM object")}
        before = bedside.rows("SELECT id, state FROM object")
        bedside.sweep()
        assert kept(bedside) == uids - GONE | {"unwanted"}  # its quarantine
        assert bedside.rows("SELECT id, state FROM object") == before
        assert [row[0] for row in bedside.rows("SELECT path FROM object WHERE state = 'refused'")] != [""]
        results = bedside.rows("SELECT task.subject, result.path FROM result JOIN task ON task.id = result.task")
        assert {row["subject"] for row in results if not row["path"]} == {"delivered", "forwarded"}
        check(bedside)
        assert bedside.rows("SELECT * FROM deletion") == []


def test_what_failed_goes_when_the_site_says_so(tmp_path: Path) -> None:
    with made(tmp_path, keep_failed_ns=1) as services:
        bedside = Bedside(services)
        everything(bedside)
        bedside.sweep()
        assert not kept(bedside) & GONE_AT_LAST
        assert list(services.spool.quarantine.iterdir()) == []
        check(bedside)


def test_the_same_image_again_is_a_repeat_although_its_file_is_gone(tmp_path: Path) -> None:
    with made(tmp_path) as services:
        bedside = Bedside(services)
        everything(bedside)
        bedside.sweep()
        assert bedside.receive("delivered").verdict == "repeated"
        assert "delivered" not in kept(bedside)
        check(bedside)


def state_of(bedside: Bedside, uid: str) -> str:
    return str(
        bedside.rows(f"SELECT state FROM object WHERE sop_instance = '{uid}' AND state <> 'refused'")[0]["state"]
    )


def test_what_had_no_answer_and_comes_again_is_kept_and_tried_again(tmp_path: Path) -> None:
    again = {"declined": "routed", "unwanted": "received", "given up": "routed", "broken": "routed"}
    with made(tmp_path, keep_failed_ns=1) as services:
        bedside = Bedside(services)
        everything(bedside)
        bedside.sweep()
        assert not kept(bedside) & set(again)
        told: list[int] = []
        services.intake.on_accepted.append(lambda number, _: told.append(number))
        assert [bedside.receive(uid).verdict for uid in again] == ["repeated"] * 4
        assert {uid: state_of(bedside, uid) for uid in again} == again
        assert len(told) == 1  # what has no task is to be routed; for the others, tasks are queued
        queued = "SELECT subject, revision FROM task WHERE state = 'queued' AND subject <> 'queued'"
        revisions = {row["subject"]: row["revision"] for row in bedside.rows(queued)}
        assert revisions == {"declined": 1, "broken": 1, "given up": 1}
        bedside.sweep()
        assert kept(bedside) >= set(again)
        (task,) = bedside.rows("SELECT id FROM task WHERE subject = 'given up'")
        bedside.write(move_task, task["id"], Event.START)  # results that were given up are gone, and stand in no way
        bedside.answer(task["id"])
        bedside.write(move_task, task["id"], Event.ANSWER)
        bedside.deliver(task["id"])
        assert state_of(bedside, "given up") == "delivered"
        check(bedside)
        with services.journal.read() as connection:
            assert list(untold(connection)) == []


def test_a_series_that_comes_again_is_analysed_with_its_last_image(tmp_path: Path) -> None:
    with made(tmp_path) as services:
        bedside = Bedside(services)
        numbers = [bedside.receive(uid).number for uid in ("one", "two")]
        task = bedside.write(open_task, "chest", "series", "series", numbers)
        for number in numbers:
            bedside.write(move_object, number, Event.ROUTE)
        for event in (Event.COMPLETE, Event.START, Event.DECLINE, Event.FINISH):
            bedside.write(move_task, task, event, "a reason")
        bedside.sweep()
        assert kept(bedside) == set()
        for uid, state in (("one", "not-analysed"), ("two", "queued")):
            assert bedside.receive(uid).verdict == "repeated"
            assert bedside.rows("SELECT state FROM task")[0]["state"] == state
        assert kept(bedside) == {"one", "two"}
        check(bedside)


def test_what_could_not_be_sent_on_and_comes_again_is_sent_from_the_new_file(tmp_path: Path) -> None:
    with made(tmp_path, keep_failed_ns=1) as services:
        bedside = Bedside(services)
        number = bedside.receive("forwarded").number
        bedside.write(enter, Route(number, forward=("pacs",)))
        bedside.write(move_delivery, 1, "failed")
        bedside.sweep()
        assert bedside.receive("forwarded").verdict == "repeated"
        assert bedside.write(forward_again) == 1
        (row,) = bedside.rows("SELECT delivery.state, path FROM delivery JOIN result ON result.id = result")
        assert (row["state"], services.spool.path(row["path"]).read_bytes()) == ("pending", b"image")


def test_what_comes_again_while_it_is_deleted_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(tmp_path) as services:
        bedside = Bedside(services)
        number = bedside.receive("unwanted").number
        bedside.write(move_object, number, Event.UNWANTED, "a reason")
        with monkeypatch.context() as stuck:
            stuck.setattr(housekeeping, "finish_deletions", lambda *_: 0)
            bedside.sweep()
        assert bedside.receive("unwanted").verdict == "full"
        bedside.sweep()
        assert bedside.receive("unwanted").verdict == "repeated"
        assert kept(bedside) == {"unwanted"}
        check(bedside)


def test_a_task_that_failed_for_want_of_a_file_is_tried_again_when_it_comes(tmp_path: Path) -> None:
    with made(tmp_path) as services:
        bedside = Bedside(services)
        task = bedside.analyse("broken")
        (row,) = bedside.rows("SELECT path FROM object")
        services.spool.path(row["path"]).unlink()
        bedside.write(move_task, task, Event.BREAK, "A file of it is not in the spool any more.")
        assert bedside.receive("broken").verdict == "repeated"
        assert (bedside.rows("SELECT state FROM task")[0][0], state_of(bedside, "broken")) == ("queued", "routed")
        check(bedside)


def test_an_image_that_another_revision_needs_stays(tmp_path: Path) -> None:
    with made(tmp_path) as services:
        bedside = Bedside(services)
        task = bedside.analyse("delivered", Event.START, Event.ANSWER)
        bedside.deliver(task)
        late = bedside.receive("late").number
        bedside.write(open_task, "chest", "instance", "delivered", [1, late], revision=2)
        bedside.sweep()
        assert kept(bedside) == {"delivered", "late"}


def check(bedside: Bedside) -> None:
    """Every row's file is there, every file has its row or is being deleted, and nothing open was touched."""
    files = bedside.files()
    named = {row["path"] for row in bedside.rows("SELECT path FROM object WHERE path <> ''")}
    named |= {row["path"] for row in bedside.rows("SELECT path FROM result WHERE path <> ''")}
    going = {row["path"] for row in bedside.rows("SELECT path FROM deletion")}
    assert named <= files
    assert files <= named | going
    assert not named & going
    ended = "('delivered', 'not-analysed', 'failed', 'refused')"
    assert bedside.rows(f"SELECT 1 FROM object WHERE path = '' AND state NOT IN {ended}") == []
    assert (
        bedside.rows(f"SELECT 1 FROM result JOIN task ON task.id = task WHERE path = '' AND task.state NOT IN {ended}")
        == []
    )


class Crash(BaseException):
    """The power goes."""


SOUND = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=25, deadline=None, suppress_health_check=SOUND)
@given(steps=st.integers(0, 60), failed=st.booleans())
def test_a_crash_at_any_step_leaves_nothing_lost(monkeypatch: pytest.MonkeyPatch, steps: int, failed: bool) -> None:
    lines = {"keep_failed_ns": 1} if failed else {}
    with in_memory() as root, made(root, **lines) as services:
        bedside = Bedside(services)
        everything(bedside)
        bedside.sweep(1)
        with monkeypatch.context() as crashing, suppress(Crash):
            crash_after(steps, crashing)
            bedside.sweep(2)
        check(bedside)
        objects = len(bedside.rows("SELECT 1 FROM object"))
        found = take_in(services.spool, services.journal)
        assert (found.adopted, found.conflicts, found.changed, found.missing) == (0, 0, 0, [])
        bedside.sweep(2)
        check(bedside)
        assert len(bedside.rows("SELECT 1 FROM object")) == objects
        assert not kept(bedside) & (GONE_AT_LAST if failed else GONE - {"unwanted"})
        assert bedside.rows("SELECT 1 FROM deletion") == []


def crash_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the power go before a step that changes something."""
    left = [steps]

    def counted(real: Any) -> Any:
        def step(*values: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return real(*values, **more)

        return step

    monkeypatch.setattr(Journal, "write", counted(Journal.write))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    monkeypatch.setattr(Path, "rmdir", counted(Path.rmdir))
    monkeypatch.setattr(deletion, "fsync_path", counted(deletion.fsync_path))


def test_age_is_time_that_the_daemon_ran() -> None:
    horizon = Horizon(keep_ns=100)
    assert horizon.goes_on(10, newest=5)
    assert not horizon.goes_on(1, newest=6)
    assert horizon.goes_on(50, newest=7)
    assert horizon.before == 0
    horizon.goes_on(48, newest=8)
    assert horizon.before == 0
    horizon.goes_on(1, newest=9)
    assert horizon.before == 5
    horizon.goes_on(1000, newest=10)
    assert horizon.before == 8
    assert len(horizon.marks) <= 2


def test_marks_do_not_grow() -> None:
    horizon = Horizon(keep_ns=1000)
    for number in range(5000):
        horizon.goes_on(7, newest=number)
        assert len(horizon.marks) <= 55
    assert 4999 - 1000 // 7 - 25 // 7 - 3 <= horizon.before <= 4999 - 1000 // 7


def test_the_time_goes_on_with_the_next_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(housekeeping.time, "monotonic_ns", lambda: now[0])
    with kit.resting(kit.bedside(tmp_path, spool={"reserve_bytes": 1, "warn_bytes": 1, "keep_ns": 100})) as services:
        first = Housekeeping(services)
        for daemon in (first, Housekeeping(services)):
            monkeypatch.setattr(services.loops, "start", lambda *_, **__: None)
            daemon.start()
            for _ in range(3):
                now[0] += 20
                daemon.sweep(beat())
            now[0] += 10**9  # without power
        assert daemon._horizons["ended"].ran_ns == 120
        assert daemon._horizons["ended"].marks[0][0] == 20


def test_events_and_golden_inferences_do_not_grow_for_ever(tmp_path: Path) -> None:
    with made(tmp_path, keep_events_ns=1) as services:
        bedside = Bedside(services)
        everything(bedside)
        insert = "INSERT INTO golden (at, model, digest, backend, passed) VALUES (?, 'm', 'd', 'b', 1)"

        def add(*years: int) -> None:
            for year in years:
                services.journal.write(lambda c, year=year: c.execute(insert, (f"{year}-01-01T00:00:00.000000Z",)))

        add(2999, 1970)
        states = bedside.rows("SELECT state FROM object")
        (newest,) = bedside.rows("SELECT max(id) FROM event")
        bedside.sweep()
        assert [row["id"] for row in bedside.rows("SELECT id FROM event")] == [newest[0]]  # numbers go on from it
        assert len(bedside.rows("SELECT at FROM golden")) == 2  # whatever the calendar said
        golden = bedside.housekeeping._horizons["golden"]
        golden.ran_ns += 2 * 24 * 3600 * 10**9
        bedside.sweep(1)
        add(2026)
        golden.ran_ns += 91 * 24 * 3600 * 10**9
        bedside.sweep()
        assert [row["at"][:4] for row in bedside.rows("SELECT at FROM golden")] == ["2026"]
        assert bedside.rows("SELECT state FROM object") == states


def test_watermarks_raise_alarms_that_do_not_flutter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(tmp_path) as services:
        bedside = Bedside(services)
        free = [10 << 20]
        monkeypatch.setattr(type(services.spool), "free_bytes", property(lambda _: free[0]))
        mib = 1 << 20
        for now, expected in (
            (10 * mib, []),
            (2 * mib - 1, ["disk-low"]),
            (mib - 1, ["disk-full", "disk-low"]),
            (mib + 1, ["disk-full", "disk-low"]),  # not at once
            (int(1.2 * mib), ["disk-low"]),
            (2 * mib, ["disk-low"]),
            (3 * mib, []),
        ):
            free[0] = now
            bedside.housekeeping.look()
            assert sorted(alarm.code for alarm in services.alarms.standing) == expected
            assert services.readiness.light == ("degraded" if "disk-full" in expected else "ready")
        assert [alarm.count for alarm in services.alarms.standing] == []
        services.alarms.raise_("disk-failed", "An input could not be kept.")
        (finding,) = services.readiness.findings
        assert (finding.subject, finding.stops) == ("inputs", False)
        assert services.metrics.free_bytes._value.get() == 3 * mib
