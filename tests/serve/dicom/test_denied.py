"""Deny by default: each denial by a real sender or a socket, with what it is told and what is counted."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE

from edgemed.base.errors import ResourceError, UsageError
from edgemed.imaging.dicom.part10 import read_meta
from edgemed.serve import intake
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.check import check
from edgemed.serve.dicom import strangers
from edgemed.serve.dicom.admission import Rate
from edgemed.serve.dicom.contexts import storage_class
from tests.serve import kit
from tests.serve.dicom import rig
from tests.serve.store import fails_in
from tests.waiting import wait_for

REJECTED_PERMANENT, REJECTED_TRANSIENT = 1, 2


def answer(port: int, request: bytes) -> tuple[int, bytes]:
    with rig.raw(port) as peer:
        return peer.send(request).pdu()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    peers = [
        rig.MODALITY,
        {"ae_title": "FAR", "addresses": ["192.0.2.0/24"]},
        {"ae_title": "ONE", "addresses": rig.LOOPBACK, "associations": 1},
        {"ae_title": "CRONLY", "addresses": rig.LOOPBACK, "sop_classes": ["ComputedRadiographyImageStorage"]},
        {"ae_title": "SLOW", "addresses": rig.LOOPBACK, "per_minute": 2},
        {"ae_title": "ECHO", "addresses": rig.LOOPBACK, "may": ["echo"]},
    ]
    with rig.inlet(tmp_path_factory.mktemp("inlet"), peers=peers, associations=4, max_object="1MiB") as running:
        yield running


@pytest.mark.parametrize(
    ("names", "diagnostic", "reason"),
    [
        ({"application": "1.2.3"}, 2, "context"),
        ({"called": "NOBODY"}, 7, "called"),
        ({"calling": "NOBODY"}, 3, "calling"),
        ({"calling": "FAR"}, 3, "address"),
    ],
)
def test_who_is_not_named(shared: rig.Rig, names: dict[str, str], diagnostic: int, reason: str) -> None:
    before = shared.metric("associations_rejected_total", reason=reason)
    kind, body = answer(shared.port, rig.associate(**names))
    assert (kind, body[1:]) == (3, bytes([REJECTED_PERMANENT, 1, diagnostic]))
    wait_for(lambda: shared.metric("associations_rejected_total", reason=reason) == before + 1)


def test_another_version_of_the_protocol_is_rejected(shared: rig.Rig) -> None:
    asked = rig.associate()
    before = shared.metric("associations_rejected_total", reason="version")
    assert answer(shared.port, asked[:6] + b"\x00\x02" + asked[8:]) == (3, bytes([0, REJECTED_PERMANENT, 2, 2]))
    assert answer(shared.port, asked[:6] + b"\x00\x03" + asked[8:])[0] == 2  # of two versions, one is ours
    wait_for(lambda: shared.metric("associations_rejected_total", reason="version") == before + 1)


@rig.needs("echoscu")
def test_dcmtk_is_told(shared: rig.Rig) -> None:
    said = rig.dcmtk("echoscu", "-aet", "NOBODY", "-aec", "EDGEMED", "127.0.0.1", shared.port, check=False)
    assert "Calling AE Title Not Recognized" in said


def test_an_address_that_is_nobodys_is_not_even_listened_to(tmp_path: Path) -> None:
    with rig.inlet(tmp_path, peers=[{"ae_title": "CT1", "addresses": ["192.0.2.7"]}]) as running:
        assert answer(running.port, rig.associate()) == (0, b"")
        wait_for(lambda: running.metric("associations_rejected_total", reason="address") == 1)


def test_nobody_waits_for_a_name_server_that_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, ask = threading.Event(), socket.getaddrinfo

    def asked(host: str, *others: Any, **more: Any) -> Any:
        if host != "pacs.invalid":
            return ask(host, *others, **more)
        answers.wait(60)
        return ask("127.0.0.9", *others, **more)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    pacs = {"name": "pacs", "kind": "dicom", "ae_title": "PACS", "host": "pacs.invalid", "port": 104}
    peers = [{"ae_title": "CT1", "addresses": ["127.0.0.1"]}]

    def from_elsewhere() -> int:
        with socket.create_connection(("127.0.0.1", running.port), 20, ("127.0.0.9", 0)) as sock:
            sock.sendall(rig.associate(calling="PACS"))
            try:
                return next(iter(sock.recv(1)), 0)
            except ConnectionError:
                return 0

    with rig.inlet(tmp_path, peers=peers, sections={"destinations": [pacs]}) as running:
        assert from_elsewhere() == 0
        assert answer(running.port, rig.associate())[0] == 2
        answers.set()
        wait_for(lambda: from_elsewhere() == 2, "the name to be known")


def test_more_associations_than_allowed(shared: rig.Rig) -> None:
    with ExitStack() as stack:
        open_ones = [stack.enter_context(rig.raw(shared.port)) for _ in range(4)]
        assert open_ones[0].send(rig.associate(calling="ONE")).pdu()[0] == 2
        assert answer(shared.port, rig.associate(calling="ONE")) == (3, bytes([0, REJECTED_TRANSIENT, 3, 2]))
        for peer in open_ones[1:]:
            assert peer.send(rig.associate()).pdu()[0] == 2
        assert answer(shared.port, rig.associate()) == (3, bytes([0, REJECTED_TRANSIENT, 3, 2]))
        assert shared.metric("associations") == 4
    wait_for(lambda: shared.metric("associations") == 0)
    assert answer(shared.port, rig.associate(calling="ONE"))[0] == 2  # and again, when there is room


@pytest.mark.parametrize(
    ("calling", "accepted"), [("CT1", [True, True]), ("CRONLY", [False, True]), ("ECHO", [False, False])]
)
def test_sop_classes_that_are_not_wanted_are_not_negotiated(
    shared: rig.Rig, calling: str, accepted: list[bool]
) -> None:
    ae = AE(calling)
    ae.add_requested_context(kit.CT, rig.EXPLICIT)
    ae.add_requested_context(kit.CR, rig.EXPLICIT)
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", shared.port, ae_title="EDGEMED")
    assert [cx.abstract_syntax for cx in association.accepted_contexts] == [
        uid for uid, yes in zip([kit.CT, kit.CR], accepted, strict=True) if yes
    ] + (["1.2.840.10008.1.1"])
    assert association.send_c_echo().Status == 0
    association.release()


def test_private_transfer_syntaxes_are_not_negotiated(shared: rig.Rig) -> None:
    kind, body = answer(shared.port, rig.associate((kit.CT, ["1.2.840.113619.5.2"])))
    assert kind == 2
    at = body.index(b"\x21\x00")
    assert body[at + 6] == 4  # transfer syntaxes not supported


def test_too_many_in_a_minute(shared: rig.Rig) -> None:
    ae = AE("SLOW")
    ae.add_requested_context(kit.CT, rig.EXPLICIT)
    association = ae.associate("127.0.0.1", shared.port, ae_title="EDGEMED")
    images = [kit.image() for _ in range(3)]
    answers = [association.send_c_store(ds) for ds in images]
    association.release()
    assert [each.Status for each in answers] == [0, 0, 0xA700]
    assert "Busy" in answers[2].ErrorComment
    refused = shared.rows("SELECT * FROM object WHERE state = 'refused' ORDER BY id")[-1]
    assert (refused["sop_instance"], refused["peer"]) == (images[2].SOPInstanceUID, "SLOW")


def test_a_rate_fills_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0
    monkeypatch.setattr("time.monotonic_ns", lambda: now_ns)
    rate = Rate(60)
    assert [rate.take() for _ in range(61)] == [True] * 60 + [False]
    now_ns = 1_500_000_000
    assert [rate.take() for _ in range(2)] == [True, False]


def store(peer: rig.Raw, body: bytes, sop_class: str = kit.CT, instance: str = "1.2.3") -> int:
    peer.send(rig.p_data((1, 3, rig.store_command(sop_class, instance))))
    for at in range(0, max(len(body), 1), 16000):
        last = at + 16000 >= len(body)
        peer.send(rig.p_data((1, 2 if last else 0, body[at : at + 16000])))
    return peer.status()


def encoded(ds: Any, folder: Path) -> bytes:
    path = kit.write(ds, folder / "a.dcm")
    with path.open("rb") as file:
        file.seek(read_meta(file).offset)
        return file.read()


def test_who_may_not_store_does_not_in_a_context_of_something_else(shared: rig.Rig, tmp_path: Path) -> None:
    verification = "1.2.840.10008.1.1"
    ds = kit.image()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = verification
    uid, body = str(ds.SOPInstanceUID), encoded(ds, tmp_path)
    with rig.raw(shared.port) as peer:
        peer.send(rig.associate((verification, [rig.EXPLICIT]), calling="ECHO")).pdu()
        assert store(peer, body, sop_class=verification, instance=uid) == 0x0211
    assert [row["state"] for row in shared.rows() if row["sop_instance"] == uid] == ["refused"]


def test_what_is_not_what_it_says(shared: rig.Rig, tmp_path: Path) -> None:
    ds = kit.image(study="1.9")
    uid, body = str(ds.SOPInstanceUID), encoded(ds, tmp_path)
    before = len(shared.rows())
    with rig.raw(shared.port) as peer:
        peer.send(rig.associate()).pdu()
        assert store(peer, body, instance="1.2.3") == 0xA900
        assert store(peer, body, sop_class=kit.CR, instance=uid) == 0x0122
        assert store(peer, b"no data set, but long enough to be one", instance=uid) == 0xC000
        assert store(peer, b"", instance=uid) == 0xA900
        assert store(peer, body, instance="") == 0x0117
        assert store(peer, body + bytes(1 << 20), instance=uid) == 0xA700  # larger than allowed
        assert list(shared.services.spool.incoming.iterdir()) == []
        assert store(peer, body, instance=uid) == 0x0000
        changed = body[:-1] + bytes([body[-1] ^ 1])
        assert store(peer, changed, instance=uid) == 0xC111
        assert store(peer, body, instance=uid) == 0x0000
    rows = shared.rows()[before:]
    assert [row["state"] for row in rows] == ["refused"] * 6 + ["received", "refused"]
    assert all(row["reason"] for row in rows if row["state"] == "refused")


def test_one_without_a_data_set_is_journalled_too(shared: rig.Rig) -> None:
    before = len(shared.rows())
    with rig.raw(shared.port) as peer:
        peer.send(rig.associate()).pdu()
        assert peer.send(rig.p_data((1, 3, rig.store_command(kit.CT, "1.2.3.8", data=False)))).status() == 0xC000
    (row,) = shared.rows()[before:]
    assert (row["state"], row["sop_instance"], row["reason"]) == ("refused", "1.2.3.8", "There is no data set.")


def test_larger_than_allowed_is_refused_while_it_comes(shared: rig.Rig) -> None:
    """More than twice as much as is allowed is not read to its end."""
    with rig.raw(shared.port) as peer:
        peer.send(rig.associate()).pdu()
        peer.send(rig.p_data((1, 3, rig.store_command(kit.CT, "1.2.3.9"))))
        piece = rig.p_data((1, 0, bytes(16000)))
        try:
            for _ in range(1000):
                peer.send(piece)
        except ConnectionError:
            return
        assert peer.pdu()[0] in (0, 7)


def test_a_full_disk(tmp_path: Path) -> None:
    spool = {"reserve": "1000000GiB", "warn": "1000000GiB"}
    with rig.inlet(tmp_path, sections={"spool": spool}) as running, rig.raw(running.port) as peer:
        peer.send(rig.associate()).pdu()
        assert store(peer, encoded(kit.image(), tmp_path)) == 0xA700
        assert [alarm.code for alarm in running.services.alarms.standing] == ["disk-full"]
        assert [row["state"] for row in running.rows()] == ["refused"]


def test_a_disk_that_fails_is_not_called_full_and_the_next_image_ends_the_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig.inlet(tmp_path) as running, rig.raw(running.port) as peer:
        peer.send(rig.associate()).pdu()
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", fails_in("incoming"))
            assert store(peer, encoded(kit.image(), tmp_path)) == 0xA700
        assert [alarm.code for alarm in running.services.alarms.standing] == ["disk-failed"]
        ds = kit.image()
        assert store(peer, encoded(ds, tmp_path), instance=str(ds.SOPInstanceUID)) == 0
        assert running.services.alarms.standing == []


def test_a_fault_of_ours_is_not_laid_on_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise ZeroDivisionError

    ds = kit.image()
    with rig.inlet(tmp_path) as running, rig.raw(running.port) as peer:
        peer.send(rig.associate()).pdu()
        with monkeypatch.context() as patched:
            patched.setattr(intake, "name_of", faulty)
            assert store(peer, encoded(ds, tmp_path), instance=str(ds.SOPInstanceUID)) == 0x0110
        assert store(peer, encoded(ds, tmp_path), instance=str(ds.SOPInstanceUID)) == 0


def test_the_audit_trail_names_associations_and_studies(tmp_path: Path) -> None:
    ds = kit.image(study="1.2.3.77")
    with rig.inlet(tmp_path) as running:
        with rig.raw(running.port) as peer:
            peer.send(rig.associate()).pdu()
            assert store(peer, encoded(ds, tmp_path), instance=str(ds.SOPInstanceUID)) == 0
            peer.send(rig.RELEASE).pdu()
        answer(running.port, rig.associate(calling="NOBODY"))
    trail = (tmp_path / "state" / "audit" / "trail.jsonl").read_text()
    assert trail.count("1.2.3.77") == 1
    assert "NOBODY" in trail


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with (
        rig.inlet(tmp_path / "a") as running,
        pytest.raises(ResourceError, match="cannot be listened on"),
        rig.inlet(tmp_path / "b", port=running.port),
    ):
        pass


def test_sop_classes_by_keyword_or_uid() -> None:
    assert storage_class("CTImageStorage") == storage_class(kit.CT) == kit.CT
    with pytest.raises(UsageError, match="CTImage"):
        storage_class("CTImage")


def test_a_sop_class_that_is_none_is_found_before_the_daemon_runs(tmp_path: Path) -> None:
    peers = [{**rig.MODALITY, "sop_classes": ["CTImage"]}]
    config = kit.bedside(tmp_path, dicom={"host": "127.0.0.1", "port": 0, "peers": peers})
    found = [line.text for line in check(config) if line.what == "dicom" and line.verdict == "error"]
    assert len(found) == 1
    assert "CTImageStorage" in found[0]


def test_strangers_fill_neither_the_log_nor_the_audit_trail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[AuditEvent] = []
    now_ns = 0
    monkeypatch.setattr(strangers.time, "monotonic_ns", lambda: now_ns)

    class Kept:
        def record(self, event: AuditEvent) -> None:
            events.append(event)

    door = strangers.Strangers(Kept())

    def told() -> list[tuple[str, str]]:
        """Log and trail tell the same, line by line."""
        lines, entries = [record.message for record in caplog.records], list(events)
        caplog.clear()
        events.clear()
        assert len(lines) == len(entries)
        assert all(entry.detail in line for line, entry in zip(lines, entries, strict=True))
        return [(entry.address, entry.detail) for entry in entries]

    def come(address: str, times: int = 1) -> list[tuple[str, str]]:
        for _ in range(times):
            door.tell(AuditEvent("association", "serious", address=address, detail="No."), f"from {address}: No.")
        return told()

    assert come("10.0.0.1", 1000) == [("10.0.0.1", "No.")]
    assert come("10.0.0.2") == [("10.0.0.2", "No.")]
    now_ns = 61_000_000_000
    door.look()
    assert told() == [("10.0.0.1", "999 more were turned away within a minute.")]
    scan = [each for number in range(1000) for each in come(f"10.1.{number >> 8}.{number & 255}", 2)]
    assert len(scan) == strangers.ALL
    now_ns = 122_000_000_000
    summary = [("", "1800 were turned away from other addresses within a minute.")]
    each = [(address, "1 more were turned away within a minute.") for address, _ in scan]
    assert come("10.0.0.1") == [*each, *summary, ("10.0.0.1", "No.")]
