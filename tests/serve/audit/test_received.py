"""Each object that the journal accepted has its entry in the trail, and one, whenever the daemon is killed."""

from __future__ import annotations

import errno
import io
import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest
from pynetdicom import AE

from edgemed.bundle.keys import read_public_key
from edgemed.imaging.dicom.part10 import read_meta
from edgemed.serve.audit.chain import AuditLog
from edgemed.serve.audit.message import message, received_in
from edgemed.serve.audit.received import Received
from edgemed.serve.audit.segments import FOLDER, PUBLIC, messages_after
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.audit.verify import verify_trail
from edgemed.serve.intake import Arrival
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import vanish
from tests.serve import kit, process, store
from tests.serve.dicom import rig
from tests.waiting import wait_for

ROOT = "1.2.3.4."


def uid(number: int) -> str:
    return f"{ROOT}{number}"


@dataclass
class Bedside:
    """Disk, journal and trail, and what stands between; a daemon without its loops."""

    disk: store.Disk
    log: AuditLog
    received: Received

    def take(self, *numbers: int) -> None:
        for number in numbers:
            assert self.disk.send(kit.encode(kit.image(rows=4, columns=4, instance=uid(number)))).success


@contextmanager
def bedside(root: Path) -> Iterator[Bedside]:
    """A start, and an end that tells nothing of what was not told."""
    with store.disk(root / "state") as disk:
        log = AuditLog(kit.bedside(root), disk.alarms)
        try:
            yield Bedside(disk, log, Received(disk.journal, log, disk.intake, {}))
        finally:
            log.close()


def told(root: Path) -> Counter[str]:
    """How often the trail says of each object that it was received."""
    messages = messages_after(root / "state" / FOLDER, 0)
    return Counter(name for text in messages for name in received_in(text) if name.startswith(ROOT))


def once(*numbers: int) -> Counter[str]:
    return Counter({uid(number): 1 for number in numbers})


def test_who_sent_from_where_is_told_of_each_study(tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    config = kit.bedside(
        tmp_path,
        dicom={"host": "127.0.0.1", "port": 0, "peers": [rig.MODALITY]},
        folders=[{"name": "drop", "path": drop, "settle": "100ms"}],
    )
    with kit.running(config) as daemon:
        (drop / "one.dcm").write_bytes(kit.encode(kit.image(study="1.2.3.7", instance=uid(1))))
        url = f"http://127.0.0.1:{daemon.part('http').port}/dicom-web/studies"  # type: ignore[attr-defined]
        body = kit.encode(kit.image(study="1.2.3.8", instance=uid(2)))
        for _ in range(2):  # the second time it is repeated, and told as well
            assert httpx.post(url, content=body, headers={"Content-Type": "application/dicom"}).status_code == 200
        entity = AE("CT1")
        entity.add_requested_context(kit.CT, rig.EXPLICIT)
        association = entity.associate("127.0.0.1", daemon.part("dicom").port, ae_title="EDGEMED")  # type: ignore[attr-defined]
        for number in (3, 4, 5):
            image = kit.image(study=f"1.2.3.{9 + number // 5}", instance=uid(number))
            assert association.send_c_store(image).Status == 0
        association.release()
        wait_for(lambda: uid(1) in told(tmp_path), "the folder's")
    assert told(tmp_path) == once(1, 3, 4, 5) + Counter({uid(2): 2})
    entries = [ET.fromstring(text) for text in messages_after(tmp_path / "state" / FOLDER, 0) if ROOT in text]
    said = {
        (
            next(one for one in entry.iter("EventID")).attrib["originalText"],
            user.attrib["UserID"],
            user.get("NetworkAccessPointID", ""),
            next(one for one in entry.iter("ParticipantObjectIdentification")).attrib["ParticipantObjectID"],
        )
        for entry in entries
        for user in entry.iter("ActiveParticipant")
    }
    assert said >= {
        ("Import", drop.as_uri(), "", "1.2.3.7"),
        ("DICOM Instances Transferred", "CT1", "127.0.0.1", "1.2.3.9"),
        ("DICOM Instances Transferred", "CT1", "127.0.0.1", "1.2.3.10"),
    }


def test_what_was_not_told_before_a_kill_is_told_after_it(tmp_path: Path) -> None:
    with bedside(tmp_path) as one:
        one.take(1, 2)
        one.received.tell()
        one.take(3, 4)
    assert told(tmp_path) == once(1, 2)
    with bedside(tmp_path) as two:
        two.take(5)
        two.received.tell()
    assert told(tmp_path) == once(1, 2, 3, 4, 5)


def test_what_was_told_and_not_marked_is_not_told_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bedside(tmp_path) as one:
        one.take(1, 2)
        one.received.tell()
        one.take(3)
        monkeypatch.setattr(Journal, "along", lambda *_: None)  # it dies before the commit
        one.received.tell()
    monkeypatch.undo()
    with bedside(tmp_path) as two:
        two.take(4)
        two.received.tell()
        two.received.tell()
    assert told(tmp_path) == once(1, 2, 3, 4)


def test_what_is_sent_on_under_its_own_name_is_no_receipt(tmp_path: Path) -> None:
    with bedside(tmp_path) as one:
        one.take(1)
        one.log.record(AuditEvent("sent", user="pacs", study="1.2.3", instances=(uid(1),)))
    with bedside(tmp_path) as two:
        two.received.tell()
    assert told(tmp_path) == once(1)


def test_a_journal_that_is_made_anew_tells_nothing_twice(tmp_path: Path) -> None:
    with bedside(tmp_path) as one:
        one.take(1, 2)
        one.received.tell()
        one.take(3)
    (tmp_path / "state/journal.sqlite3").write_bytes(b"no database" * 100)
    (tmp_path / "state/journal.sqlite3-wal").unlink(missing_ok=True)
    with bedside(tmp_path) as two:
        assert two.disk.damage is not None
        two.received.tell()
        two.take(4)
        two.received.tell()
    assert told(tmp_path) == once(1, 2, 3, 4)


def marks(one: Bedside) -> int:
    return len(one.disk.rows("SELECT * FROM fact WHERE name = 'audit received'"))


def test_nothing_is_marked_that_the_disk_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with bedside(tmp_path) as one:
        one.take(1)
        with monkeypatch.context() as full:
            full.setattr(os, "ftruncate", refuse)
            one.received.tell(timeout_s=0.1)
            one.received.tell(timeout_s=0.1)
            assert marks(one) == 0
        one.take(2)
        one.received.tell(timeout_s=20)
        assert marks(one) == 1
    assert told(tmp_path) == once(1, 2)


def test_numbers_of_events_that_vanished_are_given_again(tmp_path: Path) -> None:
    """An object that vanishes takes the newest event with it, whose number the next one has."""
    with bedside(tmp_path) as one:
        one.take(1)
        one.received.tell()

        def arrive_and_vanish(connection: sqlite3.Connection) -> None:
            (number,) = connection.execute(
                "INSERT INTO object"
                " (inlet, peer, sop_class, sop_instance, sha256, size, path, state, received, changed)"
                " VALUES ('dicom', '', '', 'gone', '', 0, 'x', 'arriving', '', '') RETURNING id"
            ).fetchone()
            connection.execute(
                "INSERT INTO event (at, what, subject, before, event, after)"
                " VALUES ('', 'object', ?, '', 'arrive', 'arriving')",
                (number,),
            )
            one.disk.journal.along(lambda c: vanish(c, number))

        one.disk.journal.write(arrive_and_vanish)
        one.received.tell()
        one.take(2)
        one.received.tell()
    assert told(tmp_path) == once(1, 2)


def test_a_picture_that_is_no_dicom_is_named_by_its_content() -> None:
    text = message(AuditEvent("received", user="drop", instances=("file:0a1b",)), "2026-01-05T10:20:30Z", "bedside")
    assert list(received_in(text)) == ["file:0a1b"]


def test_thousands_come_in_entries_of_a_hundred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemed.serve.audit.received._AT_ONCE", 7)
    with bedside(tmp_path) as one:
        one.take(*range(1, 31))
        one.received.tell()
    assert told(tmp_path) == once(*range(1, 31))


class Sends(threading.Thread):
    """Sends images until the daemon is gone, and remembers which of them were acknowledged."""

    def __init__(self, port: int, first: int) -> None:
        super().__init__()
        self.port, self.number = port, first
        self.acknowledged: list[int] = []

    def run(self) -> None:
        with suppress(OSError, AssertionError), rig.raw(self.port) as peer:
            peer.send(rig.associate(calling="SENDER")).pdu()
            while True:
                peer.send(rig.p_data((1, 3, rig.store_command(kit.CT, uid(self.number)))))
                peer.send(rig.p_data((1, 2, _data_set(uid(self.number)))))
                assert peer.status() == 0
                self.acknowledged.append(self.number)
                self.number += 1


def _data_set(instance: str) -> bytes:
    whole = io.BytesIO(kit.encode(kit.image(rows=4, columns=4, instance=instance)))
    whole.seek(read_meta(whole).offset)
    return whole.read()


def _has(sends: Sends, wanted: int) -> bool:
    return len(sends.acknowledged) > wanted


def test_kill_9_loses_no_entry(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for life in range(3):
        with process.started(tmp_path) as daemon:
            daemon.ready()
            sends = Sends(daemon.dicom, 1 + 100_000 * life)
            sends.start()
            wanted = 20 + 15 * life
            wait_for(partial(_has, sends, wanted), "images")
            daemon.child.send_signal(signal.SIGKILL)
            daemon.child.wait(30)
            sends.join(30)
            acknowledged += sends.acknowledged
    with process.started(tmp_path) as daemon:
        daemon.ready()
        assert daemon.stop() == 0
    seen = told(tmp_path)
    assert {uid(number) for number in acknowledged} <= seen.keys()
    assert set(seen.values()) == {1}
    folder = tmp_path / "state" / FOLDER
    assert verify_trail([folder], read_public_key(folder / PUBLIC)).entries > 0


def test_an_arrival_says_from_where(tmp_path: Path) -> None:
    with bedside(tmp_path) as one:
        file = one.disk.intake.new_file()
        file.write_bytes(b"x")
        one.disk.intake.accept(Arrival(file, "dicom", "CT1", "", uid(1), "0" * 64, 1, address="192.0.2.1"))
        one.received.tell()
    texts = [text for text in messages_after(tmp_path / "state" / FOLDER, 0) if uid(1) in text]
    assert ['NetworkAccessPointID="192.0.2.1"' in text for text in texts] == [True]
