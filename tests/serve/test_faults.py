"""Disks that are full, fail or are read-only, and clocks that jump: what the sender is told is true, and it goes on."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from edgemed.base.errors import EdgemedError, ResourceError
from edgemed.serve import clock, spool
from edgemed.serve.journal import database
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.file import log_of
from edgemed.serve.journal.records import move_delivery
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.reconcile import reconcile
from tests.serve import kit
from tests.serve.http.client import Client
from tests.serve.powercut.campaign import build_shim
from tests.serve.process import Process, free_port, started
from tests.serve.store import Disk, disk
from tests.waiting import wait_for

tmp_path = kit.folder_in_memory


@cache
def image(number: int) -> bytes:
    return kit.encode(kit.image(rows=8, columns=8, instance=f"1.2.{number}"))


def codes(store: Disk) -> list[str]:
    return [alarm.code for alarm in store.alarms.standing]


@pytest.mark.parametrize("step", ["the file's sync", "the rename", "the folder's sync"])
@pytest.mark.parametrize(
    ("code", "alarm"), [(errno.ENOSPC, "disk-full"), (errno.EIO, "disk-failed"), (errno.EROFS, "disk-failed")]
)
def test_a_step_that_fails_is_told_and_the_next_image_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, alarm: str
) -> None:
    tried: list[Path] = []

    def fail(path: Path) -> None:
        tried.append(path)
        raise OSError(code, os.strerror(code), str(path))

    def fsync(fd: int, real: Any = os.fsync) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if step == "the folder's sync" and "objects" in path.parts:
            fail(path)
        real(fd)

    def fsync_file(path: Path, real: Any = spool.fsync_path) -> None:
        if step == "the file's sync":
            fail(path)
        real(path)

    def replace(source: Path, target: Path, real: Any = os.replace) -> None:
        if step == "the rename":
            fail(target)
        real(source, target)

    with disk(tmp_path) as store:
        with monkeypatch.context() as patched:
            patched.setattr(spool.os, "fsync", fsync)
            patched.setattr(spool, "fsync_path", fsync_file)
            patched.setattr(spool.os, "replace", replace)
            outcome = store.send(image(1))
        assert len(tried) == 1  # never tried again on the same file: the second time it might lie
        assert (outcome.verdict, outcome.success, codes(store)) == ("full", False, [alarm])
        assert store.rows() == []
        assert list(store.spool.incoming.iterdir()) == []
        assert store.send(image(2)).verdict == "accepted"
        assert codes(store) == []
        assert store.send(image(1)).verdict == "accepted"  # the sender tries again
    with disk(tmp_path) as store:
        assert len(store.rows()) == 2
    assert reconcile(tmp_path).troubles == []


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("needs root, to mount a small disk")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False).returncode:
        pytest.skip("needs leave to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_at_every_step_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    promised: set[str] = set()
    verdicts = []

    def send(store: Disk, number: int) -> str:
        try:
            outcome = store.send(image(number))
        except (OSError, EdgemedError):  # the inlet could not write it
            for left in store.spool.incoming.iterdir():
                left.unlink()
            return "inlet"
        if outcome.success:
            promised.add(f"1.2.{number}")
        return str(outcome.verdict)

    with small_disk(tmp_path / "disk", "6m") as small:
        ballast = small / "ballast"
        with disk(small / "state") as store:
            store.intake._config = store.intake._config.model_copy(update={"reserve_bytes": 1})
            for number in range(24):
                free = os.statvfs(small).f_bavail * 4096
                with suppress(OSError):  # the journal may have taken some meanwhile: then it is full
                    ballast.write_bytes(bytes(max(0, free - number * 4096)))
                verdicts.append(send(store, number))
                if "full" in verdicts[-1:]:
                    assert "disk-full" in codes(store)
                ballast.unlink()
            assert {"full", "accepted"} <= set(verdicts)
            assert send(store, 100) == "accepted"  # space is back: nobody had to do anything
            assert codes(store) == []
        with disk(small / "state") as store:
            assert promised <= {row["sop_instance"] for row in store.rows()}
        assert reconcile(small / "state").troubles == []


def test_below_the_reserve_inputs_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with disk(tmp_path) as store:
        enough = store.intake._config
        store.intake._config = enough.model_copy(update={"reserve_bytes": 1 << 60})
        with pytest.raises(ResourceError, match="nearly full"):
            store.intake.new_file()
        assert codes(store) == ["disk-full"]
        store.intake._config = enough
        assert store.send(image(1)).success
        assert codes(store) == []


def test_a_log_that_cannot_be_written_or_synced_is_no_promise(tmp_path: Path) -> None:
    """The journal's own disk errors, below SQLite: the sender keeps its image, and the journal works afterwards."""
    shim, state, fault = build_shim(tmp_path), tmp_path / "state", tmp_path / "fault"
    environment = os.environ | {
        "LD_PRELOAD": str(shim), "POWERCUT_ROOT": str(state), "POWERCUT_LOG": str(tmp_path / "log"),
        "POWERCUT_FAULT": str(fault), "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    child = Path(__file__).parent / "powercut" / "patient.py"
    promised, number = [], 0
    faults = (
        ("", "accepted", ""),
        ("write 28 -wal", "full", "disk-full"),
        ("", "accepted", ""),
        ("fsync 5 -wal", "full", "disk-failed"),
        ("", "accepted", ""),
        ("write 5 -wal", "full", "disk-failed"),
        ("fsync 5 incoming", "full", "disk-failed"),
        ("fsync 30 objects", "full", "disk-failed"),
        ("", "accepted", ""),
    )
    state.mkdir()
    with subprocess.Popen(
        [sys.executable, child, state], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text, verdict, alarm in faults:
            number += 1
            if text:
                fault.write_text(text)
            else:
                fault.unlink(missing_ok=True)
            process.stdin.write(f"2.25.{number}\n")
            process.stdin.flush()
            said, _, standing = process.stdout.readline().strip().partition(" ")
            assert (text, said) == (text, verdict)
            assert alarm in standing.split(",") if alarm else not standing
            promised += [f"2.25.{number}"] if said == "accepted" else []
        process.stdin.close()
        assert process.wait(30) == 0
    with disk(state) as store:
        assert set(promised) <= {row["sop_instance"] for row in store.rows()}
    assert reconcile(state).troubles == []


def test_a_clock_that_goes_back_by_a_year_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.utc
    with disk(tmp_path) as store:
        first = store.routed(store.send(image(1)).number)
        monkeypatch.setattr(clock, "utc", lambda: now() - timedelta(days=365))
        store.answered(first)
        second = store.routed(store.send(image(2)).number)
        store.answered(second)
        for delivery in (1, 2):
            store.journal.write(lambda c, d=delivery: move_delivery(c, d, "delivered"))
        assert store.send(image(1)).verdict == "repeated"
        store.alarms.raise_("hot", "It is hot.")
        store.alarms.clear("hot")
    monkeypatch.setattr(clock, "utc", now)
    with disk(tmp_path) as store:
        assert {row["state"] for row in store.rows()} == {"delivered"}
        assert codes(store) == []
    assert reconcile(tmp_path).troubles == []


def test_the_log_stays_short_while_somebody_always_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LOG_BYTES", 1 << 18)
    monkeypatch.setattr(database, "_LOOK_EVERY", 4)
    ended, most = threading.Event(), 0

    def read(journal: Journal) -> None:
        while not ended.is_set():  # two of these overlap: SQLite by itself never finds a moment without readers
            with journal.read() as connection:
                connection.execute("SELECT count(*) FROM fact").fetchone()
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM fact").fetchone()
                ended.wait(0.002)

    with Journal(tmp_path / JOURNAL) as journal:
        threads = [threading.Thread(target=read, args=(journal,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(400):
            journal.write(lambda c, n=number: c.execute("INSERT INTO fact VALUES (?, ?)", (str(n), "x" * 5000)))
            most = max(most, log_of(journal.path).stat().st_size)
        ended.set()
        for thread in threads:
            thread.join()
    assert most < 3 << 18


def test_a_change_that_nobody_waits_for_any_more_does_not_end_the_writer(tmp_path: Path) -> None:
    with Journal(tmp_path / JOURNAL) as journal:
        hold = threading.Event()
        first = journal.submit(lambda c: hold.wait(5))
        given_up = journal.submit(lambda c: c.execute("INSERT INTO fact VALUES ('given', 'up')"))
        assert given_up.cancel()
        hold.set()
        assert first.result(5)
        with pytest.raises(KeyboardInterrupt):
            journal.write(_interrupted)
        assert journal.write(lambda c: c.execute("SELECT count(*) FROM fact").fetchone()[0]) == 0
    with pytest.raises(ResourceError, match="closed"):
        journal.write(lambda c: None)


def _interrupted(_: object) -> None:
    raise KeyboardInterrupt


def test_readers_do_not_pile_up_with_the_threads_that_read(tmp_path: Path) -> None:
    with Journal(tmp_path / JOURNAL) as journal:

        def read() -> None:
            with journal.read() as connection:
                connection.execute("SELECT 1").fetchone()

        for _ in range(50):
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
        descriptors = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert descriptors.count(journal.path) <= 2


def test_without_handles_nothing_that_was_taken_fails_and_every_inlet_comes_back(tmp_path: Path) -> None:
    """A daemon of its own may open no more files for a while, under images, requests and files that come."""
    port, folder, sent = free_port(), tmp_path / "in", [kit.image(rows=8, columns=8) for _ in range(9)]
    folder.mkdir()
    sections = {
        "http": {"host": "127.0.0.1", "port": free_port(), "grpc_port": port},
        "folders": [{"name": "drop", "path": str(folder), "settle": "100ms"}],
    }
    with started(tmp_path, **sections) as process:
        process.http = f"http://127.0.0.1:{sections['http']['port']}"
        wait_for(lambda: '"watch started"' in process.log, lambda: process.log)
        process.ready()
        with associated(process) as early:
            assert [stored(early, each) for each in sent[:5]] == [0] * 5
            limits = resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE, (4, limits[1]))
            assert stored(early, sent[5]) == 0xA700
            kit.write(sent[6], folder / "image.dcm")
            with socket.create_connection(("127.0.0.1", process.dicom)):
                for subject in ("dicom", "folder drop"):
                    wait_for(lambda subject=subject: raised(process, subject), lambda: process.log)
            resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE, limits)
            assert stored(early, sent[5]) == 0  # its sender tries again
        process.ready()
        with associated(process) as late:
            assert [stored(late, each) for each in sent[7:]] == [0] * 2
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert Client(channel).call("ServerLive").live
        uids = {str(each.SOPInstanceUID) for each in sent}
        wait_for(lambda: ended(process, uids) == {"delivered"}, lambda: process.log)
        wait_for(lambda: not standing(process) - {"loop-failed"}, lambda: process.log)  # those stand for a minute
        assert process.stop() == 0
    assert reconcile(tmp_path / "state").troubles == []


@contextmanager
def associated(process: Process) -> Iterator[Association]:
    entity = AE("SENDER")
    entity.add_requested_context(kit.CT, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", process.dicom, ae_title="EDGEMED")
    assert association.is_established, process.log
    yield association
    association.release()


def stored(association: Association, image: Dataset) -> int:
    status: int = association.send_c_store(image).Status
    return status


def asked(process: Process, sql: str, *values: str) -> list[tuple[str, ...]]:
    """Of the journal of a daemon that runs."""
    with closing(sqlite3.connect(f"file:{process.root / 'state' / JOURNAL}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


def raised(process: Process, subject: str) -> bool:
    return bool(asked(process, "SELECT 1 FROM alarm WHERE subject = ?", subject))


def standing(process: Process) -> set[str]:
    return {code for (code,) in asked(process, "SELECT code FROM alarm WHERE cleared IS NULL")}


def ended(process: Process, uids: set[str]) -> set[str]:
    """States of what is known by these UIDs; what is missing among them."""
    rows = asked(process, "SELECT sop_instance, state FROM object WHERE state <> 'refused'")
    known = {uid: state for uid, state in rows if uid in uids}
    return {known.get(uid, "missing") for uid in uids}
