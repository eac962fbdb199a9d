"""Storage commitment asked of us: by Orthanc, in a network of its own, and by pynetdicom on one association."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from edgemed.imaging.dicom.syntaxes import EXPLICIT_LITTLE
from edgemed.serve.deletion import finish_deletions
from edgemed.serve.dicom import commitment
from edgemed.serve.dicom.commands import encode_action
from edgemed.serve.dicom.commitment import Commitments
from edgemed.serve.dicom.reports import encode_data_set, report, send_report
from edgemed.serve.dicom.wire import Wire
from edgemed.serve.journal import facts, requests
from edgemed.serve.journal.records import move_delivery, move_object, receive_again
from edgemed.serve.journal.requests import enter_request
from edgemed.serve.journal.retention import WELL, release
from edgemed.serve.journal.routes import Route, enter
from edgemed.serve.loops import Beat
from edgemed.serve.states import Event
from tests.serve import kit
from tests.serve.dicom import rig
from tests.serve.dicom.orthanc import needs_orthanc, orthanc
from tests.serve.netns import inside, private_network
from tests.waiting import wait_for

COMMITMENT, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"


@needs_orthanc
def test_orthanc_sends_asks_and_is_told(tmp_path: Path) -> None:
    """One success and one failure 0x0112, as Orthanc's own REST interface shows them."""
    peer = {**rig.MODALITY, "ae_title": "ORTHANC", "port": 4242}
    with private_network():
        assert inside()
        with rig.inlet(tmp_path / "ours", peers=[peer], port=11112) as running:
            us = {"AET": "EDGEMED", "Host": "127.0.0.1", "Port": 11112, "AllowStorageCommitment": True}
            with orthanc(tmp_path / "orthanc", {"us": us}) as theirs:
                ds = kit.image()
                uploaded = theirs.post("/instances", kit.encode(ds))
                sent = theirs.post("/modalities/us/store", {"Resources": [uploaded["ID"]], "Synchronous": True})
                assert sent["InstancesCount"] == 1
                assert sent["FailedInstancesCount"] == 0
                assert [row["sop_instance"] for row in running.rows()] == [ds.SOPInstanceUID]
                asked = theirs.post(
                    "/modalities/us/storage-commitment",
                    {
                        "DicomInstances": [
                            {"SOPClassUID": kit.CT, "SOPInstanceUID": str(ds.SOPInstanceUID)},
                            {"SOPClassUID": kit.CT, "SOPInstanceUID": "1.2.3.4.5"},
                        ]
                    },
                )
                report: dict[str, Any] = {}

                def told() -> bool:
                    report.update(theirs.get(f"/storage-commitment/{asked['ID']}"))
                    return report["Status"] != "Pending"

                wait_for(told, "the report")
                assert [each["SOPInstanceUID"] for each in report["Success"]] == [ds.SOPInstanceUID]
                assert [(e["SOPInstanceUID"], e["FailureReason"]) for e in report["Failures"]] == [
                    ("1.2.3.4.5", 0x0112)
                ]
                wait_for(lambda: running.rows("SELECT * FROM commitment WHERE reported IS NOT NULL"), "the entry")


class Modality:
    """A sender that asks on an association and waits there."""

    def __init__(self, port: int, calling: str = "CT1") -> None:
        self.reports: list[tuple[int, Dataset]] = []
        ae = AE(calling)
        ae.add_requested_context(COMMITMENT)
        ae.add_requested_context(kit.CT, rig.EXPLICIT)
        self.association = ae.associate(
            "127.0.0.1", port, ae_title="EDGEMED", evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._told)]
        )
        assert self.association.is_established

    def _told(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append((event.request.EventTypeID, event.event_information))
        return 0x0000, None

    def ask(self, transaction: str, *instances: tuple[str, str]) -> int:
        ds = Dataset()
        ds.TransactionUID = transaction
        ds.ReferencedSOPSequence = []
        for sop_class, uid in instances:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
            ds.ReferencedSOPSequence.append(item)
        answer, _ = self.association.send_n_action(ds, 1, COMMITMENT, INSTANCE)
        return int(answer.Status)


def test_on_the_same_association(tmp_path: Path) -> None:
    good, damaged, gone = kit.image(), kit.image(), kit.image()
    with rig.inlet(tmp_path) as running:
        modality = Modality(running.port)
        for ds in (good, damaged, gone):
            assert modality.association.send_c_store(ds).Status == 0x0000
        files = {row["sop_instance"]: running.services.spool.path(row["path"]) for row in running.rows()}
        with files[damaged.SOPInstanceUID].open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\xff")
        files[gone.SOPInstanceUID].unlink()
        uids = [str(ds.SOPInstanceUID) for ds in (good, damaged, gone)]
        assert modality.ask("1.2.1", *((kit.CT, uid) for uid in uids), (kit.CR, uids[0]), (kit.CT, "1.2.3")) == 0
        wait_for(lambda: modality.reports, "the report")
        kind, said = modality.reports[0]
        assert (kind, said.TransactionUID) == (2, "1.2.1")
        assert [item.ReferencedSOPInstanceUID for item in said.ReferencedSOPSequence] == [uids[0]]
        failed = {
            (i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID): i.FailureReason for i in said.FailedSOPSequence
        }
        assert failed == {
            (kit.CT, uids[1]): 0x0110,
            (kit.CT, uids[2]): 0x0110,
            (kit.CR, uids[0]): 0x0119,
            (kit.CT, "1.2.3"): 0x0112,
        }
        assert modality.ask("1.2.2", (kit.CT, uids[0])) == 0
        wait_for(lambda: len(modality.reports) > 1, "the second report")
        assert modality.reports[1][0] == 1
        assert "FailedSOPSequence" not in modality.reports[1][1]
        modality.association.release()


def test_a_report_outlives_association_and_daemon(tmp_path: Path) -> None:
    ds = kit.image()
    with rig.inlet(tmp_path) as running:
        modality = Modality(running.port)
        assert modality.association.send_c_store(ds).Status == 0x0000
        # the peer does not listen to reports while it sends
        modality.association.unbind(evt.EVT_N_EVENT_REPORT, modality._told)
        assert modality.ask("1.2.3", (kit.CT, str(ds.SOPInstanceUID))) == 0
        modality.association.abort()
    with rig.inlet(tmp_path) as running:
        assert running.rows("SELECT * FROM commitment WHERE reported IS NULL")
        again = Modality(running.port)
        wait_for(lambda: again.reports, "the report")
        assert again.reports[0][1].TransactionUID == "1.2.3"
        again.association.release()
        wait_for(lambda: running.rows("SELECT * FROM commitment WHERE reported IS NOT NULL"), "the entry")


def asked_for(running: rig.Rig, transaction: str, uid: str = "1.2.3") -> None:
    """A peer that is not there has asked."""
    entered = partial(enter_request, transaction=transaction, peer="CT1", address="127.0.0.1", at="2026")
    assert running.services.journal.write(partial(entered, instances=[(kit.CT, uid)]))


def test_a_report_is_given_up_after_time_that_the_daemon_ran_and_alarmed(tmp_path: Path) -> None:
    with rig.inlet(tmp_path) as running:
        asked_for(running, "1.2.8")
        running.services.journal.write(lambda c: c.execute("UPDATE commitment SET received = '1970-01-01'"))
    with rig.inlet(tmp_path) as running:  # the clock was set meanwhile
        commitments = Commitments(running.services, running.services.config.dicom)
        commitments._ages._horizon.ran_ns += 2 * 3600 * 10**9
        commitments._give_up(commitments._ages.count())
        assert len(running.rows("SELECT * FROM commitment WHERE reported IS NULL")) == 1
        assert not running.services.alarms.stands("commitment-failed", "CT1")
        commitments._ages._horizon.ran_ns += 73 * 3600 * 10**9
        commitments._give_up(commitments._ages.count())
        assert [row["reported"] for row in running.rows("SELECT * FROM commitment")] == [""]
        assert running.services.alarms.stands("commitment-failed", "CT1")
        again = Modality(running.port)
        assert again.ask("1.2.8", (kit.CT, "1.2.3")) == 0
        wait_for(lambda: not running.services.alarms.stands("commitment-failed", "CT1"), "the end of the alarm")
        again.association.release()


def test_a_journal_that_was_made_anew_gives_no_report_up(tmp_path: Path) -> None:
    with rig.inlet(tmp_path) as running:
        asked_for(running, "1.2.9")
        running.services.journal.write(facts.forget_numbers)
    with rig.inlet(tmp_path) as running:
        again = Modality(running.port)
        wait_for(lambda: again.reports, "the report")
        assert again.reports[0][1].TransactionUID == "1.2.9"
        again.association.release()
        wait_for(lambda: running.rows("SELECT * FROM commitment WHERE reported <> ''"), "the entry")
        assert not running.services.alarms.stands("commitment-failed", "CT1")


@pytest.mark.parametrize("damaged", ["x'5b5b22'", "x'ff00fe'", "'[]'", "'5'", "'[[1]]'"])
def test_a_request_that_is_damaged_is_given_up_and_holds_up_nobody(tmp_path: Path, damaged: str) -> None:
    with rig.inlet(tmp_path) as running:
        asked_for(running, "1.2.8")
        asked_for(running, "1.2.9")
        sql = f"UPDATE commitment SET request = CAST({damaged} AS TEXT) WHERE transaction_uid = '1.2.8'"
        running.services.journal.write(lambda c: c.execute(sql))
    with rig.inlet(tmp_path) as running:
        again = Modality(running.port)
        wait_for(lambda: again.reports, "the report")
        assert again.reports[0][1].TransactionUID == "1.2.9"
        again.association.release()
        ended = "SELECT reported = '' FROM commitment WHERE reported IS NOT NULL ORDER BY transaction_uid"
        wait_for(lambda: [row[0] for row in running.rows(ended)] == [1, 0], "the ends")
        (alarm,) = running.services.alarms.standing  # a report of another does not clear it
        assert (alarm.code, alarm.subject) == ("commitment-failed", "request of CT1")
        assert running.services.loops.beats[commitment.LOOP].failures == 0


def test_a_late_answer_is_not_about_the_request_that_uses_the_transaction_again(tmp_path: Path) -> None:
    with rig.inlet(tmp_path) as running:
        commitments = Commitments(running.services, running.services.config.dicom)
        asked_for(running, "1.2.8", "1.2.3")
        (first,) = commitments._waiting()
        asked_for(running, "1.2.8", "1.2.4")
        commitments._answered(first, 0)
        (second,) = commitments._waiting()
        with running.services.journal.read() as connection:
            assert requests.requested(connection, first) == []
            assert requests.requested(connection, second) == [(kit.CT, "1.2.4")]
        commitments._answered(second, 0)
        assert commitments._waiting() == []


@pytest.mark.parametrize(("limit", "value"), [("MOST_OPEN", 2), ("MOST_OPEN_BYTES", 90)])
def test_a_peer_that_asks_for_too_much_is_refused_and_shuts_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(requests, limit, value)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # nobody listens there: nothing is reported on
        peers = [{**rig.MODALITY, "port": deaf.getsockname()[1]}, {**rig.MODALITY, "ae_title": "CT2"}]
        with rig.inlet(tmp_path, peers=peers) as running:
            one, other = Modality(running.port), Modality(running.port, "CT2")
            asked = [one.ask(f"1.2.{number}", (kit.CT, "1.2.3")) for number in (1, 2, 3, 2)]
            assert asked == [0, 0, 0x0213, 0]  # asking again is not asking for more
            assert running.services.alarms.stands("commitment-failed", "CT1")
            assert other.ask("1.2.3", (kit.CT, "1.2.3")) == 0
            wait_for(lambda: other.reports, "the report")
            running.services.journal.write(lambda c: c.execute("UPDATE commitment SET reported = ''"))
            assert one.ask("1.2.3", (kit.CT, "1.2.3")) == 0
            one.association.release()
            other.association.release()


def test_a_peer_that_takes_a_byte_at_a_time_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send = Wire.send

    def watched(wire: Wire, data: bytes) -> None:
        sent.append(len(data))
        send(wire, data)

    monkeypatch.setattr(Wire, "send", watched)
    asked = report("1.2.9", [(kit.CT, f"1.2.{number}") for number in range(5000)], [])
    with rig.inlet(tmp_path) as running, rig.raw(running.port) as peer:
        peer.send(rig.associate((COMMITMENT, [rig.EXPLICIT]), max_length=7)).pdu()
        data = encode_data_set(asked, EXPLICIT_LITTLE)
        peer.send(rig.p_data((1, 3, encode_action(1, COMMITMENT, INSTANCE, 1))))
        for at in range(0, len(data), 16000):
            peer.send(rig.p_data((1, 2 if at + 16000 >= len(data) else 0, data[at : at + 16000])))
        left = 13 * len(data)  # a PDU for each byte; the report says it again, and why not
        while left > 0 and (more := peer.socket.recv(1 << 16)):
            left -= len(more)
    assert left <= 0
    assert len(sent) > 2
    assert max(sent) < 2 << 20  # of some 3 MB


def test_a_peer_that_is_away_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tried: list[str] = []

    def counted(section: Any, peer: Any, *others: Any) -> int | None:
        if threading.current_thread() is threading.main_thread():
            tried.append(peer.ae_title)
        return send_report(section, peer, *others)

    monkeypatch.setattr(commitment, "send_report", counted)
    peers = [{**rig.MODALITY, "ae_title": name, "port": port} for name in ("CT1", "CT2")]
    with rig.inlet(tmp_path, peers=peers) as running:
        for name in ("CT1", "CT2"):
            modality, ds = Modality(running.port, name), kit.image()
            assert modality.association.send_c_store(ds).Status == 0x0000
            for number in range(3):
                assert modality.ask(f"1.2.{number}", (kit.CT, str(ds.SOPInstanceUID))) == 0
            modality.association.release()
        commitments = Commitments(running.services, running.services.config.dicom)
        beat, now_ns = Beat("test", 10**10, threading.Event()), time.monotonic_ns()
        monkeypatch.setattr(commitment, "time", SimpleNamespace(monotonic_ns=lambda: now_ns))  # however slow it is
        for row in commitments._waiting():
            commitments._look(row, beat)
        assert tried == ["CT1", "CT2"]  # once each, not for each of their requests
        assert len(running.rows("SELECT * FROM promise")) == 2


def test_a_peer_that_comes_up_late_is_told_on_a_new_association(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ds, told = kit.image(), []
    with rig.inlet(tmp_path, peers=[{**rig.MODALITY, "port": port}]) as running:
        modality = Modality(running.port)
        modality.association.send_c_store(ds)
        assert modality.ask("1.2.4", (kit.CT, str(ds.SOPInstanceUID))) == 0
        modality.association.release()

        def handle(event: evt.Event) -> tuple[int, None]:
            told.append((event.request.EventTypeID, event.assoc.requestor.ae_title))
            return 0x0000, None

        ae = AE("CT1")
        ae.supported_contexts = [build_context(COMMITMENT)]
        ae.supported_contexts[0].scu_role = ae.supported_contexts[0].scp_role = True
        server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, handle)])
        try:
            wait_for(lambda: told, "the report")
        finally:
            server.shutdown()
        assert told == [(1, "EDGEMED")]


def release_all(running: rig.Rig) -> list[str]:
    """What housekeeping would delete, if everything were old."""
    return running.services.journal.write(partial(release, ends=WELL, before=10**9))


def test_what_is_committed_is_kept_until_it_is_sent_on(tmp_path: Path) -> None:
    committed, other = kit.image(), kit.image()
    with rig.inlet(tmp_path) as running:
        modality = Modality(running.port)
        for ds in (committed, other):
            assert modality.association.send_c_store(ds).Status == 0x0000
        assert modality.ask("1.2.5", (kit.CT, str(committed.SOPInstanceUID))) == 0
        wait_for(lambda: modality.reports, "the report")
        journal, (first, second) = running.services.journal, running.rows()
        for row in (first, second):
            journal.write(partial(move_object, number=row["id"], event=Event.UNWANTED, reason="No model is for it."))
        assert release_all(running) == [second["path"]]
        assert release_all(running) == []
        finish_deletions(running.services.spool, journal)
        assert modality.ask("1.2.6", *((kit.CT, str(ds.SOPInstanceUID)) for ds in (committed, other))) == 0
        wait_for(lambda: len(modality.reports) > 1, "the second report")
        _, said = modality.reports[1]
        assert [item.ReferencedSOPInstanceUID for item in said.ReferencedSOPSequence] == [committed.SOPInstanceUID]
        assert [item.FailureReason for item in said.FailedSOPSequence] == [0x0112]
        send_on(running, first["id"])
        assert release_all(running) == [first["path"]]
        modality.association.release()


def send_on(running: rig.Rig, number: int) -> None:
    """A destination has it, as it came."""

    def work(connection: sqlite3.Connection) -> None:
        receive_again(connection, number, "")
        enter(connection, Route(number, forward=("pacs",)))
        move_delivery(connection, connection.execute("SELECT id FROM delivery").fetchone()[0], "delivered")

    running.services.journal.write(work)


def test_a_report_is_about_the_time_when_it_is_sent(tmp_path: Path) -> None:
    ds = kit.image()
    with rig.inlet(tmp_path) as running:
        first = Modality(running.port)
        assert first.association.send_c_store(ds).Status == 0x0000
        first.association.unbind(evt.EVT_N_EVENT_REPORT, first._told)  # it does not listen: pynetdicom answers 0x0110
        assert first.ask("1.2.7", (kit.CT, str(ds.SOPInstanceUID))) == 0
        wait_for(lambda: running.rows("SELECT * FROM promise"), "the first look")
        first.association.abort()
        (row,) = running.rows()
        running.services.spool.path(row["path"]).unlink()  # the disk has lost it meanwhile
        again = Modality(running.port)
        wait_for(lambda: again.reports, "the report")
        assert [item.FailureReason for item in again.reports[0][1].FailedSOPSequence] == [0x0110]
        again.association.release()


@pytest.mark.parametrize("may", [("store",), ("store", "commit")])
def test_only_who_may(tmp_path: Path, may: tuple[str, ...]) -> None:
    with rig.inlet(tmp_path, peers=[{**rig.MODALITY, "may": may}]) as running:
        with rig.raw(running.port) as peer:
            kind, body = peer.send(rig.associate((COMMITMENT, [rig.EXPLICIT]), (kit.CT, [rig.EXPLICIT]))).pdu()
        assert kind == 2
        results = {body[at + 4]: body[at + 6] for at in range(len(body)) if body[at : at + 2] == b"\x21\x00"}
        assert results == {1: 0 if "commit" in may else 3, 3: 0}
