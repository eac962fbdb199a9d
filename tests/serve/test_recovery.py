"""What a start finds: a damaged journal, files without rows, rows without files, tasks that were under way."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgemed.base.errors import DeviceStateError, EdgemedError, IntegrityError, ResourceError
from edgemed.base.hashing import sha256_bytes
from edgemed.serve import adoption
from edgemed.serve.daemon import Daemon
from edgemed.serve.intake import name_of
from edgemed.serve.journal import facts, records, recovery
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.file import OtherVersion
from edgemed.serve.journal.records import move_task
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.reconcile import reconcile
from edgemed.serve.spool import Spool
from edgemed.serve.states import Event
from tests.serve import kit
from tests.serve.store import Disk, arrival, disk, wait_routed

tmp_path = kit.folder_in_memory


@pytest.fixture
def data() -> bytes:
    return kit.encode(kit.image(rows=8, columns=8))


def test_a_file_that_was_kept_without_a_row_is_taken_in_with_all_that_routing_needs(
    tmp_path: Path, data: bytes
) -> None:
    with disk(tmp_path) as one:
        sent = one.send(data)
        (before,) = one.rows()
        one.journal.write(lambda c: c.execute("DELETE FROM object"))
    with disk(tmp_path) as two:
        (after,) = two.rows()
        assert (sent.verdict, two.found.adopted) == ("accepted", 1)
        told = ("inlet", "peer", "called", "sop_class", "sop_instance", "sha256", "size", "path", "syntax", "state")
        assert {key: after[key] for key in told} == {key: before[key] for key in told}
        assert after["study"]
        assert two.send(data).verdict == "repeated"


def test_what_was_half_written_is_swept(tmp_path: Path) -> None:
    with disk(tmp_path) as one:
        one.intake.new_file().write_bytes(b"half")
    with disk(tmp_path) as two:
        assert list(two.spool.incoming.iterdir()) == []
        assert two.rows() == []


def test_what_changed_on_the_disk_is_failed_and_alarmed(tmp_path: Path, data: bytes) -> None:
    with disk(tmp_path) as one:
        one.send(data)
        (row,) = one.rows()
        for table in ("object", "event"):
            one.journal.write(lambda c, table=table: c.execute(f"DELETE FROM {table}"))
    path = tmp_path / row["path"]
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with disk(tmp_path) as two:
        (row,) = two.rows()
        assert (row["state"], two.found.changed) == ("failed", 1)
        assert [alarm.code for alarm in two.alarms.standing] == ["input-failed"]
        assert two.send(data).verdict == "repeated"  # what its sender still has takes its place
        assert [row["state"] for row in two.rows()] == ["received"]
        assert path.read_bytes() == data
    assert reconcile(tmp_path).troubles == []


def test_what_a_start_enters_is_synced_before_its_row_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that was killed may have brought it there and synced nothing: after a power cut the row is alone."""
    images = [kit.encode(kit.image(rows=8, columns=8, instance="1.2.3", level=n)) for n in (100, 200)]
    images.append(kit.encode(kit.image(rows=8, columns=8)))
    with disk(tmp_path) as one:
        for image in images:
            one.send(image)
        paths = [tmp_path / row["path"] for row in one.rows()]
        for table in ("object", "event"):
            one.journal.write(lambda c, table=table: c.execute(f"DELETE FROM {table}"))
    paths[2].write_bytes(images[2][:-1] + bytes([images[2][-1] ^ 1]))
    synced: list[Path] = []
    monkeypatch.setattr(adoption, "fsync_path", synced.append)
    monkeypatch.setattr(adoption, "add_object", lambda *told: entered(*told))
    add_object = records.add_object

    def entered(connection: sqlite3.Connection, new: records.NewObject, *others: Any) -> int:
        path = tmp_path / new.path
        assert {path, path.parent} <= set(synced), new.path
        return add_object(connection, new, *others)

    with disk(tmp_path) as two:
        assert sorted(row["state"] for row in two.rows()) == ["failed", "received", "refused"]


def test_quarantine_without_a_row(tmp_path: Path) -> None:
    first, second = (kit.encode(kit.image(rows=8, columns=8, instance="1.2.3", level=n)) for n in (100, 200))
    with disk(tmp_path) as one:
        one.send(first)
        assert one.send(second).verdict == "conflict"
        assert one.send(second).verdict == "conflict"  # again: one file, one row
        assert [(row["state"], row["repeats"]) for row in one.rows()] == [("received", 0), ("refused", 1)]
        one.journal.write(lambda c: c.execute("DELETE FROM object WHERE state = 'refused'"))
    with disk(tmp_path) as two:
        assert [row["state"] for row in two.rows()] == ["received", "refused"]
        assert two.rows()[1]["path"] == next(iter(two.spool.kept_aside()))


def test_a_purge_that_was_cut_short_is_finished(tmp_path: Path, data: bytes) -> None:
    with disk(tmp_path) as one:
        one.send(data)
        one.journal.write(lambda c: c.execute("UPDATE object SET path = ''"))
    with disk(tmp_path) as two:
        assert (two.found.swept, two.found.adopted, list(two.spool.kept())) == (1, 0, [])
        assert two.send(data).success  # it has had its end


def test_a_lost_file_is_brought_back_by_a_repeat(tmp_path: Path, data: bytes) -> None:
    with disk(tmp_path) as one:
        one.send(data)
        path = one.spool.path(one.rows()[0]["path"])
        path.unlink()
    with disk(tmp_path) as two:
        assert [alarm.code for alarm in two.alarms.standing] == ["input-failed"]
        assert two.send(data).verdict == "repeated"
        assert path.read_bytes() == data


def test_tasks_that_were_under_way_are_queued_again(tmp_path: Path, data: bytes) -> None:
    with disk(tmp_path) as one:
        task = one.routed(one.send(data).number)
        one.journal.write(lambda c: move_task(c, task, Event.START))
        one.spool.write_result(task, "sr.dcm", b"told nobody")
    with disk(tmp_path) as two:
        assert [(row["state"], row["tries"]) for row in two.rows("SELECT * FROM task")] == [("queued", 1)]
        assert list(two.spool.answered()) == []


COMMITMENT = (
    "INSERT INTO commitment (transaction_uid, peer, address, request, received, event)"
    " VALUES ('1.2', 'CT1', '127.0.0.1', '[]', 'now', 1)"
)


def flip(path: Path, offset: int, length: int = 64) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(length))


def ruin_page(path: Path) -> None:
    for page in range(1, path.stat().st_size // 4096):  # every page but the first: whatever is read is ruined
        flip(path, page * 4096, 512)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a page": ruin_page,
    "its head": lambda path: flip(path, 0, 100),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "no database": lambda path: path.write_bytes(b"no database" * 1000),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_journal_is_made_anew_from_the_spool(tmp_path: Path, kind: str) -> None:
    images = [kit.encode(kit.image(rows=8, columns=8)) for _ in range(5)]
    with disk(tmp_path) as one:
        assert all(one.send(data).success for data in images)
        one.journal.write(lambda c: c.execute("INSERT INTO fact VALUES ('promise', 'kept')"))
        before = {row["sop_instance"]: row["sha256"] for row in one.rows()}
    DAMAGES[kind](tmp_path / JOURNAL)
    with disk(tmp_path) as two:
        assert {row["sop_instance"]: row["sha256"] for row in two.rows()} == before
        assert {row["state"] for row in two.rows()} == {"received"}
        assert [alarm.code for alarm in two.alarms.standing] == ["journal-damaged"]
        assert two.send(images[0]).verdict == "repeated"
        assert two.send(kit.encode(kit.image(rows=8, columns=8))).verdict == "accepted"
    with disk(tmp_path) as three:
        assert (three.found.adopted, three.damage) == (0, None)
        assert three.alarms.stands("journal-damaged") == any(three.spool.damaged.iterdir())


def test_what_counts_by_numbers_of_events_begins_anew_with_the_journal(tmp_path: Path) -> None:
    def work(connection: sqlite3.Connection) -> None:
        for name in ("horizon rows", facts.ARCHIVE, facts.TOLD, "sequence chest"):
            facts.keep_fact(connection, name, "999")
        connection.execute("INSERT INTO step VALUES (1, '1.2', 'CT1', '1.3', 'COMPLETED', 0, '2026', '2026', 999)")
        connection.execute("INSERT INTO commitment VALUES ('1.7', 'CT1', '10.0.0.1', '[]', '', NULL, 999)")

    with disk(tmp_path) as one:
        one.journal.write(work)
        one.journal.on_damage(IntegrityError("The journal is damaged: test."))
    with disk(tmp_path) as two, two.journal.read() as connection:
        assert two.damage is not None
        kept = {name for (name,) in connection.execute("SELECT name FROM fact WHERE value = '999'")}
        assert kept == {"sequence chest"}  # that no older version may answer is kept
        for table in ("step", "commitment"):
            assert [row[0] for row in connection.execute(f"SELECT event FROM {table}")] == [0]


def test_damage_that_cannot_be_told_does_not_end_the_writer(tmp_path: Path) -> None:
    def damaged(_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    def deaf(error: IntegrityError) -> None:
        raise OSError(errno.EIO, error.what)

    with Journal(tmp_path / JOURNAL) as journal:
        journal.on_damage = deaf
        with pytest.raises(IntegrityError):
            journal.submit(damaged).result(30)
        assert journal.submit(lambda c: c.execute("SELECT 1").fetchone()[0]).result(30) == 1


def test_a_disk_that_does_not_even_take_the_mark_ends_the_daemon_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with kit.running(kit.bedside(tmp_path)) as daemon:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "exists", fail)
            daemon.services.journal.on_damage(IntegrityError("The journal is damaged: test."))
        assert daemon.ended.is_set()


def test_a_ruined_log_loses_no_object(tmp_path: Path, data: bytes) -> None:
    """SQLite takes what follows a bad frame for never written: the rows are gone, without an error."""
    with disk(tmp_path) as one:
        one.send(data)
        log = tmp_path / f"{JOURNAL}-wal"
        size = log.stat().st_size
        kept = log.read_bytes(), (tmp_path / JOURNAL).read_bytes()
    log.write_bytes(kept[0])
    (tmp_path / JOURNAL).write_bytes(kept[1])
    flip(log, size // 4, size // 2)
    with disk(tmp_path) as two:
        assert [row["state"] for row in two.rows()] == ["received"]


def promise(one: Disk, data: bytes) -> None:
    """Keep an image, promises, and ages beside another fact."""
    one.send(data)
    one.journal.write(lambda c: c.execute(COMMITMENT))
    one.journal.write(lambda c: c.execute("INSERT INTO promise VALUES ('1.2.3')"))
    one.journal.write(lambda c: c.execute("INSERT INTO fact VALUES ('horizon ended', '{}'), ('other', 'kept')"))


def test_promises_to_peers_outlive_the_journal_where_they_can_be_read(tmp_path: Path, data: bytes) -> None:
    with disk(tmp_path) as one:
        promise(one, data)
        one.journal.on_damage(IntegrityError("The journal is damaged: test."))
    with disk(tmp_path) as two:
        assert two.damage is not None
        assert [row["transaction_uid"] for row in two.rows("SELECT * FROM commitment")] == ["1.2"]
        assert [row["sop_instance"] for row in two.rows("SELECT * FROM promise")] == ["1.2.3"]
        # ages are counted by events, and those have other numbers now
        assert [row["name"] for row in two.rows("SELECT * FROM fact")] == ["other"]
    with disk(tmp_path) as three:
        assert three.damage is None  # the mark is gone


def promised(tmp_path: Path, data: bytes) -> None:
    """A state whose journal holds promises, ages, and is no journal any more by what its head says."""
    with disk(tmp_path) as one:
        promise(one, data)
        one.journal.write(lambda c: c.execute("PRAGMA application_id=7") and None)


def assert_promised(tmp_path: Path) -> None:
    with disk(tmp_path) as one:
        assert [row["sop_instance"] for row in one.rows("SELECT * FROM promise")] == ["1.2.3"]
        assert [row["event"] for row in one.rows("SELECT event FROM commitment")] == [0]
        assert [row["name"] for row in one.rows("SELECT * FROM fact")] == ["other"]
        assert [row["state"] for row in one.rows()] == ["received"]
        assert one.alarms.stands("journal-damaged")
    with disk(tmp_path) as two:
        assert two.damage is None
        assert two.rows("SELECT * FROM promise")
    assert not [path.name for path in tmp_path.iterdir() if "anew" in path.name]


class Killed(BaseException):
    """What the daemon does not live to see."""


CALLS = ("open", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "link")


def test_killed_at_each_step_of_making_the_journal_anew_no_promise_is_lost(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    promised(tmp_path / "first", data)
    left = 0

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def then(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return call(*args, **more)

        return then

    for step in range(1, 100):
        state, left = tmp_path / f"state{step}", step
        shutil.copytree(tmp_path / "first", state)
        with monkeypatch.context() as patched:
            for name in CALLS:
                patched.setattr(os, name, watched(getattr(os, name)))
            patched.setattr(Spool, "prepare", lambda _: None)  # it is no part of this, and makes 512 folders
            patched.setattr(recovery, "forget_numbers", watched(facts.forget_numbers))
            try:
                with recovery.opened_journal(Spool(state)):
                    break
            except Killed:
                pass
        assert_promised(state)
        shutil.rmtree(state)
    assert step > 15


def test_a_full_disk_costs_no_promise(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    promised(tmp_path, data)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(ResourceError, match="full"), disk(tmp_path):
            pass
    assert_promised(tmp_path)


def test_a_start_that_cannot_mark_where_it_moves_the_journal_leaves_nothing(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches starts it again and again, for as long as the disk is full."""
    promised(tmp_path, data)

    def full(*_: object) -> None:
        raise ResourceError("The disk is full.", "")

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "write_atomic", full)
        for _ in range(2):
            with pytest.raises(ResourceError, match="full"), disk(tmp_path):
                pass
    assert list(Spool(tmp_path).damaged.iterdir()) == []
    assert_promised(tmp_path)


def test_what_stands_before_the_damage_of_a_table_is_kept(tmp_path: Path) -> None:
    with disk(tmp_path) as one:
        one.journal.write(
            lambda c: c.executemany("INSERT INTO promise VALUES (?)", [(f"1.2.{n:060d}",) for n in range(1000)])
        )
        one.journal.write(lambda c: c.execute("PRAGMA application_id=7") and None)
    data = (tmp_path / JOURNAL).read_bytes()
    flip(tmp_path / JOURNAL, data.index(f"1.2.{900:060d}".encode()) // 4096 * 4096, 512)
    with disk(tmp_path) as two:
        kept = [row["sop_instance"] for row in two.rows("SELECT * FROM promise ORDER BY 1")]
        assert 800 < len(kept) < 1000
        assert kept == [f"1.2.{n:060d}" for n in range(len(kept))]


def test_the_journal_of_another_version_is_left_alone(tmp_path: Path) -> None:
    with disk(tmp_path):
        pass
    with sqlite3.connect(tmp_path / JOURNAL) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(OtherVersion, match="version 99"), disk(tmp_path):
        pass


def test_a_page_that_is_ruined_while_it_runs_ends_the_daemon_and_the_next_start_mends(tmp_path: Path) -> None:
    config = kit.bedside(tmp_path)
    state = tmp_path / "state"
    data = kit.encode(kit.image(rows=8, columns=8))
    with Daemon(config) as daemon:
        file = daemon.services.intake.new_file()
        file.write_bytes(data)
        assert daemon.services.intake.accept(arrival(file, data)).success
        wait_routed(daemon.services.journal)  # nothing is written any more
        daemon.services.journal.write(lambda c: c.execute("PRAGMA shrink_memory") and None)
        with sqlite3.connect(state / JOURNAL) as other:  # so that everything is read from the file
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        ruin_page(state / JOURNAL)
        with pytest.raises(EdgemedError), daemon.services.journal.read() as connection:
            connection.execute("SELECT * FROM object").fetchall()
        with pytest.raises(IntegrityError, match="damaged"):
            daemon.wait()
    with Daemon(config) as daemon:
        assert daemon.services.alarms.stands("journal-damaged")
        with daemon.services.journal.read() as connection:
            assert connection.execute("SELECT count(*) FROM object").fetchone()[0] == 1


def test_two_daemons_do_not_share_a_state(tmp_path: Path) -> None:
    import subprocess
    import sys

    holder = (
        "import sys; from pathlib import Path; from edgemed.serve.lock import state_lock\n"
        f"with state_lock(Path({str(tmp_path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        config = kit.bedside(tmp_path, daemon={"name": "bedside", "state": tmp_path})
        with pytest.raises(DeviceStateError, match="Another daemon"):
            Daemon(config).__enter__()
        process.kill()
    with kit.running(config):
        pass


def test_names_of_files_say_what_they_hold() -> None:
    assert Spool.place_of(name_of("1.2.3", sha256_bytes(b"x"))) != Spool.place_of(name_of("1.2.3", sha256_bytes(b"y")))


def test_an_orphan_in_another_transfer_syntax_is_no_conflict(tmp_path: Path) -> None:
    ds = kit.image(rows=8, columns=8, instance="1.2.3")
    first = kit.encode(ds)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    second = kit.encode(ds)
    with disk(tmp_path) as one:
        one.send(first)
        file = one.intake.new_file()
        file.write_bytes(second)
        came = arrival(file, second)
        one.spool.keep(file, name_of(came.sop_instance, came.sha256))  # and killed before it was compared
    with disk(tmp_path) as two:
        assert (two.found.conflicts, two.found.swept, len(list(two.spool.kept()))) == (0, 1, 1)
        assert two.send(first).verdict == "repeated"
