"""The audit trail: any byte that is changed, any entry that goes, is found; full disks are told, not hidden."""

from __future__ import annotations

import errno
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgemed.base.errors import IntegrityError
from edgemed.bundle.keys import new_key, read_public_key
from edgemed.cli import main as cli
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit import chain
from edgemed.serve.audit import left as left_by_others
from edgemed.serve.audit.chain import AuditLog
from edgemed.serve.audit.left import Collector, Leaver
from edgemed.serve.audit.message import ROWS, message
from edgemed.serve.audit.segments import FOLDER, HEAD, PUBLIC, TRAIL
from edgemed.serve.audit.trail import AuditEvent, Kind
from edgemed.serve.audit.verify import verify_trail
from edgemed.serve.journal.database import Journal
from tests.serve import kit
from tests.serve.store import fails_in
from tests.waiting import wait_for

EVENTS = [
    AuditEvent("received", user="CT1", address="127.0.0.1", study="1.2.3", instances=("1.2.3.4", "1.2.3.5")),
    AuditEvent("association", "serious", user="EVIL\x1b[2J", detail="unknown\nAE title"),
    AuditEvent("sent", user="pacs", study="1.2.3", instances=("1.2.9",)),
    AuditEvent("login", "minor", user="anna"),
]


@pytest.fixture
def alarms(tmp_path: Path):
    with Journal(tmp_path / "j.sqlite3") as journal:
        yield Alarms(journal)


@pytest.fixture
def write(tmp_path: Path, alarms: Alarms) -> Callable[..., Path]:
    def run(*events: AuditEvent) -> Path:
        log = AuditLog(kit.bedside(tmp_path), alarms)
        for event in events:
            log.record(event)
        log.close()
        return log.folder

    return run


def verify(folder: Path) -> int:
    return verify_trail([folder], read_public_key(folder / PUBLIC)).entries


def test_a_trail_goes_on_over_restarts(write: Callable[..., Path]) -> None:
    folder = write(*EVENTS)
    assert verify(folder) == len(EVENTS) + 2  # and start and stop
    write(*EVENTS)
    assert verify(folder) == 2 * (len(EVENTS) + 2)
    assert (folder / TRAIL).stat().st_mode & 0o777 == 0o600
    assert (folder / "private.pem").stat().st_mode & 0o777 == 0o600


def test_every_byte_counts(write: Callable[..., Path]) -> None:
    folder = write(EVENTS[0])
    for name in (TRAIL, HEAD):
        whole = (folder / name).read_bytes()
        for place in range(0, len(whole), 7):  # each line and each field is hit many times
            for other in (whole[place] ^ 1, 0x20):
                if other == whole[place]:
                    continue
                (folder / name).write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
                with pytest.raises(IntegrityError):
                    verify(folder)
        (folder / name).write_bytes(whole)
    assert verify(folder) == 3


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda lines: lines[:2] + lines[3:], "entries were taken out"),
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: [], "cut off"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "taken out, put in or moved"),
        (lambda lines: [*lines, lines[-1]], "taken out, put in or moved"),
        (lambda lines: [*lines[:-1], lines[-1] + b"\n"], "changed"),
        (lambda lines: [*lines, b'{"n":7}'], "changed"),
        (lambda lines: [lines[0].replace(b'{"at"', b'{ "at"', 1), *lines[1:]], "spelt otherwise"),
    ],
)
def test_what_is_done_to_lines_is_found(write: Callable[..., Path], change, what: str) -> None:
    folder = write(*EVENTS)
    lines = (folder / TRAIL).read_bytes().splitlines()
    (folder / TRAIL).write_bytes(b"".join(line + b"\n" for line in change(lines)))
    with pytest.raises(IntegrityError, match=what):
        verify(folder)


def test_an_older_head_or_none_does_not_hide_a_cut(write: Callable[..., Path]) -> None:
    folder = write(*EVENTS)
    old = (folder / HEAD).read_bytes()
    write(*EVENTS)
    (folder / HEAD).write_bytes(old)
    assert verify_trail([folder], read_public_key(folder / PUBLIC)).behind == len(EVENTS) + 2  # told, as after a crash
    (folder / HEAD).unlink()
    with pytest.raises(IntegrityError, match="missing"):
        verify(folder)


def test_another_key_is_another_trail(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(*EVENTS)
    (folder / "private.pem").unlink()
    with pytest.raises(IntegrityError):  # it would go on where it cannot have been
        write()


def test_a_site_may_give_its_own_key_which_nobody_else_reads(tmp_path: Path, alarms: Alarms) -> None:
    new_key(tmp_path / "site")
    config = kit.bedside(tmp_path, audit={"key": tmp_path / "site"})
    AuditLog(config, alarms).close()
    folder = config.daemon.state / FOLDER
    assert verify_trail([folder], read_public_key(tmp_path / "site.pub")).entries == 2
    assert not (folder / "private.pem").exists()
    (tmp_path / "site").chmod(0o640)
    with pytest.raises(IntegrityError, match="Others may read"):
        AuditLog(config, alarms)


@pytest.mark.parametrize("began", [True, False])
def test_entries_whose_sectors_came_to_the_disk_in_part_are_cut_off_and_told(
    tmp_path: Path, alarms: Alarms, write: Callable[..., Path], began: bool
) -> None:
    """Power went while a batch was synced: its first sectors are missing, its last line is there."""
    folder = write(EVENTS[0])
    whole = (folder / TRAIL).read_bytes()
    head = (folder / HEAD).read_bytes()
    write(*EVENTS)
    later = (folder / TRAIL).read_bytes()
    (folder / TRAIL).write_bytes(
        later[: len(whole)] + bytes(512) + later[len(whole) + 512 :] if began else bytes(512) + later[512:]
    )
    if began:
        (folder / HEAD).write_bytes(head)
    else:
        (folder / HEAD).unlink()
    log = AuditLog(kit.bedside(tmp_path), alarms)
    log.close()
    assert verify(folder) == (5 if began else 2)
    text = (folder / TRAIL).read_text()
    assert f"{len(later) - (len(whole) if began else 0)} bytes of an entry that was never whole" in text


def test_a_torn_entry_is_cut_off_and_told(write: Callable[..., Path]) -> None:
    folder = write(*EVENTS)
    with (folder / TRAIL).open("ab") as file:
        file.write(b'{"at":"2026-01-01T00:0')
    write()
    assert verify(folder) == len(EVENTS) + 4
    assert b"22 bytes of an entry that was never whole" in (folder / TRAIL).read_bytes()
    assert [one.read_bytes() for one in folder.glob("torn-*")] == [b'{"at":"2026-01-01T00:0']


def test_a_daemon_does_not_go_on_behind_a_cut(write: Callable[..., Path]) -> None:
    folder = write(*EVENTS)
    lines = (folder / TRAIL).read_bytes().splitlines(keepends=True)
    (folder / TRAIL).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(IntegrityError, match="cut off"):
        write()


def test_while_the_disk_is_full_entries_wait_and_an_alarm_stands(
    tmp_path: Path, alarms: Alarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(kit.bedside(tmp_path), alarms)
    log.record(EVENTS[0])
    full = True

    def fsync(number: int, really=os.fsync) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(number)

    monkeypatch.setattr(os, "fsync", fsync)
    raised = _once(alarms, "audit-failed", True)
    log.record(EVENTS[1])
    assert raised.wait(10)
    full = False
    cleared = _once(alarms, "audit-failed", False)
    log.record(EVENTS[2])
    assert cleared.wait(10)
    log.close()
    assert verify(log.folder) == 5  # start, the three, stop


def test_a_read_only_disk_does_not_end_the_writer(
    tmp_path: Path, alarms: Alarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(kit.bedside(tmp_path), alarms)
    raised, cleared = _once(alarms, "audit-failed", True), _once(alarms, "audit-failed", False)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as readonly:
        for call in ("write", "ftruncate", "fsync"):
            readonly.setattr(os, call, refuse)
        log.record(EVENTS[0])
        assert raised.wait(10)
    log.record(EVENTS[1])
    assert cleared.wait(10)
    log.close()
    assert verify(log.folder) == 4


def test_too_many_entries_are_counted_and_the_end_comes_all_the_same(
    tmp_path: Path, alarms: Alarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_MOST_WAITING", 5)
    monkeypatch.setattr(chain, "_TOGETHER", 1)
    log = AuditLog(kit.bedside(tmp_path), alarms)
    raised, cleared = _once(alarms, "audit-failed", True), _once(alarms, "audit-failed", False)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "ftruncate", refuse)
        log.record(EVENTS[0])
        assert raised.wait(10)
        for _ in range(20):
            log.record(EVENTS[0])
    assert cleared.wait(10)
    log.close()
    assert b"entries could not be kept" in (log.folder / TRAIL).read_bytes()
    verify(log.folder)


def _once(alarms: Alarms, code: str, raised: bool):
    import threading

    seen = threading.Event()
    alarms.listeners.append(lambda alarm, now: seen.set() if alarm.code == code and now is raised else None)
    return seen


def test_messages_are_dicoms(write: Callable[..., Path]) -> None:
    text = message(EVENTS[0], "2026-01-05T10:20:30.000000Z", "bedside")
    root = ET.fromstring(text)
    assert root.find("EventIdentification").attrib == {
        "EventActionCode": "C",
        "EventDateTime": "2026-01-05T10:20:30.000000Z",
        "EventOutcomeIndicator": "0",
    }
    assert root.find("EventIdentification/EventID").attrib["csd-code"] == "110104"
    assert [each.attrib["UID"] for each in root.iter("Instance")] == ["1.2.3.4", "1.2.3.5"]
    assert requestors(root) == {"bedside": "false", "CT1": "true"}
    assert requestors(ET.fromstring(message(EVENTS[2], "x", "bedside"))) == {"bedside": "true", "pacs": "false"}
    hostile = message(EVENTS[1], "2026-01-05T10:20:30.000000Z", "bedside")
    assert "\n" not in hostile
    assert "\x1b" not in hostile
    for kind in ROWS:
        assert ET.fromstring(message(AuditEvent(kind), "x", "bedside")).tag == "AuditMessage"


def requestors(root: ET.Element) -> dict[str, str]:
    return {each.attrib["UserID"]: each.attrib["UserIsRequestor"] for each in root.iter("ActiveParticipant")}


QUERY = b64encode(b"a query").decode()


@pytest.mark.parametrize("kind", ROWS)
def test_messages_have_what_the_schema_demands(kind: Kind) -> None:
    """PS3.15 A.5.1.1: one requestor at most; of each object an ID type, then a name or a query."""
    event = AuditEvent(kind, user="CT1", address="192.0.2.1", study="1.2.3", subject="1.2.9", query=QUERY, syntax="1.2")
    root = ET.fromstring(message(event, "2026-01-01T00:00:00Z", "bedside"))
    assert list(requestors(root).values()).count("true") == 1
    for thing in root.iter("ParticipantObjectIdentification"):
        first, second, *_ = thing
        assert first.tag == "ParticipantObjectIDTypeCode"
        assert second.tag in ("ParticipantObjectName", "ParticipantObjectQuery")
        assert second.text
        assert thing.attrib["ParticipantObjectID"]


@pytest.mark.parametrize("kind", ["received", "sent", "imported", "accessed"])
def test_where_a_patient_must_be_named_nobody_is(kind: Kind) -> None:
    root = ET.fromstring(message(AuditEvent(kind, user="CT1", study="1.2.3"), "x", "bedside"))
    patients = [each for each in root.iter("ParticipantObjectIdentification") if each[0].get("csd-code") == "2"]
    assert [(each.get("ParticipantObjectID"), each.get("ParticipantObjectTypeCodeRole")) for each in patients] == [
        ("UNKNOWN", "1")
    ]
    assert patients[0][0].get("codeSystemName") == "RFC-3881"


def test_what_was_imported_came_from_a_medium() -> None:
    root = ET.fromstring(message(AuditEvent("imported", user="file:///drop", study="1.2"), "x", "bedside"))
    ours, medium = root.iter("ActiveParticipant")
    assert (ours[0].get("csd-code"), medium[0].get("csd-code")) == ("110152", "110155")
    assert medium[1][0].get("csd-code") == "110037"


def test_a_query_is_kept_as_it_was_asked() -> None:
    asked = AuditEvent("queried", user="pacs", subject="1.2.9", query=QUERY, syntax="1.2.840.10008.1.2")
    (thing,) = ET.fromstring(message(asked, "x", "bedside")).iter("ParticipantObjectIdentification")
    assert (thing.get("ParticipantObjectID"), thing[0].get("csd-code")) == ("1.2.9", "110181")
    assert b64decode(thing.findtext("ParticipantObjectQuery", "")) == b"a query"
    detail = thing.find("ParticipantObjectDetail")
    assert detail is not None
    assert (detail.get("type"), b64decode(detail.get("value", ""))) == ("TransferSyntax", b"1.2.840.10008.1.2")


def test_what_another_process_leaves_is_entered_once_then_goes(tmp_path: Path, alarms: Alarms) -> None:
    with Leaver(tmp_path) as left:
        left.record(EVENTS[0])
        left.record(EVENTS[2])
    (file,) = (tmp_path / left_by_others.FOLDER).iterdir()
    of_another_version = '{"kind": "unheard of", "instances": []}'
    file.write_text(f"{file.read_text()}no event\n{of_another_version}\n{'[' * 100_000}\n")
    log = AuditLog(kit.bedside(tmp_path), alarms)
    collector = Collector(tmp_path, log)
    collector.look()
    assert file.exists()
    wait_for(lambda: (collector.look(), not file.exists())[1], "its end")
    collector.look()
    log.close()
    assert verify(log.folder) == 4  # start, the two, stop


def test_what_another_process_leaves_that_cannot_be_read_holds_up_nothing(tmp_path: Path, alarms: Alarms) -> None:
    """Left by another user, say."""
    with Leaver(tmp_path) as left:
        left.record(EVENTS[0])
    (file,) = (tmp_path / left_by_others.FOLDER).iterdir()
    unreadable = file.with_name("0.jsonl")
    unreadable.mkdir()
    log = AuditLog(kit.bedside(tmp_path), alarms)
    collector = Collector(tmp_path, log)
    wait_for(lambda: (collector.look(), not file.exists())[1], "its end")
    log.close()
    assert unreadable.exists()


def test_much_that_another_process_leaves_comes_in_pieces(tmp_path: Path, alarms: Alarms) -> None:
    """Who enters it shows progress at each: one file for all results took longer than a loop may be silent."""
    with Leaver(tmp_path) as left:
        for number in range(2_500):
            left.record(AuditEvent("queried", user="pacs", subject="1.2.9", detail=f"Number {number}."))
    files = sorted((tmp_path / left_by_others.FOLDER).iterdir())
    assert [len(file.read_text().splitlines()) for file in files] == [1_000, 1_000, 500]
    log = AuditLog(kit.bedside(tmp_path), alarms)
    collector, steps = Collector(tmp_path, log), iter(range(1_000_000))
    collector.look(lambda: next(steps) and None)
    assert next(steps) == 3
    wait_for(lambda: (collector.look(), not any(file.exists() for file in files))[1], "their end")
    log.close()
    assert verify(log.folder) == 2_502  # start, stop
    (*told,) = re.findall(r"Number (\d+)\.", (log.folder / TRAIL).read_text())
    assert [*map(int, told)] == [*range(2_500)]


def test_what_another_process_leaves_stays_until_the_disk_has_it(
    tmp_path: Path, alarms: Alarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Leaver(tmp_path) as left:
        left.record(EVENTS[0])
    (file,) = (tmp_path / left_by_others.FOLDER).iterdir()
    log = AuditLog(kit.bedside(tmp_path), alarms)
    wait_for(lambda: log.written == 1, "the start")
    with monkeypatch.context() as failing:
        failing.setattr(os, "write", fails_in("audit"))
        collector = Collector(tmp_path, log)
        for _ in range(3):
            collector.look()
            assert file.exists()
        log.close()  # what waited in memory is lost
    log = AuditLog(kit.bedside(tmp_path), alarms)
    collector = Collector(tmp_path, log)
    wait_for(lambda: (collector.look(), not file.exists())[1], "its end")
    log.close()
    assert verify(log.folder) == 4  # start, start, the one, stop


def test_the_command(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(*EVENTS)
    assert cli._run(["audit", "verify", str(folder.parent)]) == 0
    assert "6 entries" in capsys.readouterr().out
    lines = (folder / TRAIL).read_bytes()
    (folder / TRAIL).write_bytes(lines.replace(b"CT1", b"CT2"))
    assert cli._run(["audit", "verify", str(folder)]) == 5
    assert "Line 2" in capsys.readouterr().err
    assert cli._run(["audit", "verify", str(folder.parent / "objects")]) == 2


@pytest.mark.parametrize(("kind", "ours", "theirs"), [("received", "110152", "110153"), ("sent", "110153", "110152")])
def test_both_ends_of_a_transfer_have_their_roles(kind: Any, ours: str, theirs: str) -> None:
    root = ET.fromstring(message(AuditEvent(kind, user="CT1", study="1.2"), "2026-01-01T00:00:00Z", "bedside"))
    roles = {end.get("UserID"): end[0].get("csd-code") for end in root.iter("ActiveParticipant")}
    assert roles == {"bedside": ours, "CT1": theirs}
