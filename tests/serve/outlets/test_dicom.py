"""C-STORE and storage commitment against a PACS that does what PACS do: keep, refuse, hang, abort, lie, be away."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from edgemed.serve.outlets.lane import Lane
from edgemed.serve.outlets.outlets import make_lane
from edgemed.serve.services import Services
from tests.serve import kit
from tests.serve.dicom.certificates import Authority
from tests.serve.outlets import bench
from tests.serve.outlets.bench import always
from tests.serve.outlets.pacs import JPEG, ToyPacs, toy
from tests.waiting import wait_for

RETRY = {"first": "1ms", "cap": "2ms", "timeout": "5s"}


def place(port: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "dicom",
        "name": "pacs",
        "ae_title": "PACS",
        "host": "127.0.0.1",
        "port": port,
        "retry": RETRY,
        "commitment": False,
        **more,
    }


@contextmanager
def lane(root: Path, port: int, **more: Any) -> Iterator[tuple[Services, Lane]]:
    with bench.services(root, place(port, **more)) as services:
        yield services, make_lane(services, services.config.destinations[0])


def add_image(services: Services, *, kind: str = "sr", syntax: str | None = None) -> tuple[str, bytes]:
    """Queue an image as a result; its UID and the bytes of its data set."""
    ds = kit.image(rows=32, columns=33)
    if syntax is not None:
        ds.file_meta.TransferSyntaxUID = UID(syntax)
        ds.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        ds["PixelData"].is_undefined_length = True
    data = kit.encode(ds)
    bench.add_task(services, [(kind, ds.SOPInstanceUID, data)], subject=ds.SOPInstanceUID)
    return ds.SOPInstanceUID, data[bench._offset(data) :]


def test_the_very_bytes_arrive_over_one_association(tmp_path: Path) -> None:
    with toy(ToyPacs()) as pacs, lane(tmp_path, pacs.port) as (services, it):
        sent = [add_image(services), add_image(services, kind="image", syntax=JPEG), add_image(services)]
        it.step(always)
        assert pacs.stored == sent
        assert pacs.associations == 1
        assert bench.states(services) == ["delivered"] * 3
        assert bench.states(services, "task") == ["delivered"] * 3


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        (0xB000, "delivered", "with a warning: 0xB000"),
        (0x0111, "delivered", "has it already"),
        (0xA700, "pending", "out of resources"),
        (0xA900, "failed", "does not match its SOP class"),
        (0xC123, "failed", "cannot understand"),
        (0x0122, "failed", "does not take this SOP class"),
        (0x0110, "pending", "did not store it"),
    ],
)
def test_what_its_status_means(tmp_path: Path, status: int, state: str, reason: str) -> None:
    with toy(ToyPacs(on_store=lambda pacs, event: status)) as pacs, lane(tmp_path, pacs.port) as (services, it):
        add_image(services)
        it.step(always)
        assert bench.states(services) == [state]
        assert reason in bench.reasons(services)[0]


def test_a_duplicate_of_an_image_may_be_another_one(tmp_path: Path) -> None:
    """UIDs of results are made of what they are about; of an image that is sent on, its maker answers for it."""
    with toy(ToyPacs(on_store=lambda pacs, event: 0x0111)) as pacs, lane(tmp_path, pacs.port) as (services, it):
        add_image(services, kind="image")
        it.step(always)
        assert bench.states(services) == ["failed"]
        assert "or another one, under the same SOP Instance UID" in bench.reasons(services)[0]


def test_what_it_does_not_negotiate_fails_and_the_rest_is_stored(tmp_path: Path) -> None:
    with toy(ToyPacs()) as pacs, lane(tmp_path, pacs.port) as (services, it):
        add_image(services, kind="image", syntax="1.2.840.10008.1.2.4.90")
        uid, _ = add_image(services)
        it.step(always)
        assert bench.states(services) == ["failed", "delivered"]
        assert "transfer syntax" in bench.reasons(services)[0]
        assert [stored for stored, _ in pacs.stored] == [uid]


def test_a_pacs_of_implicit_little_endian_gets_what_we_made_but_no_changed_image(tmp_path: Path) -> None:
    implicit = "1.2.840.10008.1.2"
    with toy(ToyPacs(syntaxes=(implicit,))) as pacs, lane(tmp_path, pacs.port) as (services, it):
        uid, data = add_image(services)
        add_image(services, kind="image")
        it.step(always)
        assert bench.states(services) == ["delivered", "failed"]
        assert "transfer syntax" in bench.reasons(services)[1]
        ((stored, received),) = pacs.stored
        assert stored == uid
        assert received != data
        theirs, ours = decode(BytesIO(received), True, True), decode(BytesIO(data), False, True)
        assert theirs.to_json() == ours.to_json().replace('"vr": "OB"', '"vr": "OW"')


def test_one_that_makes_it_abort_does_not_stop_the_others(tmp_path: Path) -> None:
    bad: list[str] = []

    def fussy(pacs: ToyPacs, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid in bad:
            event.assoc.abort()
        pacs.stored.append((uid, b""))
        return 0

    with toy(ToyPacs(on_store=fussy)) as pacs, lane(tmp_path, pacs.port) as (services, it):
        uids = [add_image(services)[0] for _ in range(3)]
        bad.append(uids[0])
        for _ in range(20):
            it.step(always)
            if bench.states(services) == ["pending", "delivered", "delivered"]:
                break
        assert bench.states(services) == ["pending", "delivered", "delivered"]
        bad.clear()

        def all_there() -> bool:  # in steps: until it is due again, as often as it was tried before
            it.step(always)
            return bench.states(services) == ["delivered"] * 3

        wait_for(all_there, "the one that made it abort", seconds=90)


def test_a_pacs_that_hangs_is_left_after_its_time(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(pacs: ToyPacs, event: Any) -> int:
        release.wait(10)
        return 0

    retry = {**RETRY, "timeout": "300ms"}
    with toy(ToyPacs(on_store=hang)) as pacs, lane(tmp_path, pacs.port, retry=retry) as (services, it):
        add_image(services)
        it.step(always)
        assert bench.states(services) == ["pending"]
        assert "does not answer in time" in bench.reasons(services)[0]
        release.set()


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (b"", "closed the connection"),
        (b"\x03\x00\x00\x00\x00\x04\x00\x01\x01\x07", "does not have the AE title that we call"),
        (b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x02", "takes no more associations now"),
        (b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00", "aborts the association"),
        (b"\x02\x00\x00\x00\x00\x04\x00\x00\x00\x00", "is damaged"),
        (b"\x02\x00\xff\xff\xff\xff", "a PDU is too long"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ""),
    ],
)
def test_what_is_no_pacs(tmp_path: Path, say: bytes, reason: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(say)

        thread = threading.Thread(target=serve)
        thread.start()
        with lane(tmp_path, server.getsockname()[1]) as (services, it):
            add_image(services)
            it.step(always)
            assert bench.states(services) == ["pending"]
            assert reason in bench.reasons(services)[0]
        thread.join()


def test_a_pacs_that_is_away_gets_it_when_it_is_back(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    with lane(tmp_path, port) as (services, it):
        sent = [add_image(services)]
        for _ in range(3):
            it.step(always)
            threading.Event().wait(0.01)  # longer than the cap of its rest
        assert bench.states(services) == ["pending"]
        assert "delivery-late" in bench.alarms(services)
        with toy(ToyPacs(), port=port) as pacs:
            threading.Event().wait(0.01)
            it.step(always)
            assert pacs.stored == sent
        assert bench.states(services) == ["delivered"]
        assert bench.alarms(services) == set()


def test_a_file_that_has_changed_is_not_sent(tmp_path: Path) -> None:
    with toy(ToyPacs()) as pacs, lane(tmp_path, pacs.port) as (services, it):
        add_image(services)
        add_image(services, kind="image")
        with services.journal.read() as connection:
            paths = [services.spool.path(row[0]) for row in connection.execute("SELECT path FROM result ORDER BY id")]
        for path in paths:
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
        add_image(services)
        it.step(always)
        assert bench.states(services) == ["failed", "failed", "delivered"]
        assert "damaged" in bench.reasons(services)[0]
        paths[0].unlink()


def test_over_tls_to_who_the_site_trusts(tmp_path: Path) -> None:
    site, other = Authority(tmp_path, "site"), Authority(tmp_path, "other")
    ours, theirs = site.issue("ours"), site.issue("theirs")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*theirs)
    server.load_verify_locations(site.path)
    server.verify_mode = ssl.CERT_REQUIRED
    tls = {"certificate": ours[0], "key": ours[1]}
    with toy(ToyPacs(), tls=server) as pacs:
        named = {"host": "localhost", "tls": {**tls, "ca": site.path}}
        unnamed = {"tls": {**tls, "ca": site.path, "verify_host": False}}  # for the certificate knows no 127.0.0.1
        for name, place in (("a", named), ("e", unnamed)):
            with lane(tmp_path / name, pacs.port, **place) as (services, it):
                sent = add_image(services)
                it.step(always)
                assert pacs.stored.pop() == sent
                assert bench.states(services) == ["delivered"]
        wrong = {"b": {"host": "localhost", "ca": other.path}, "c": {"host": "localhost"}, "f": {"ca": site.path}}
        for name, changed in wrong.items():
            host = changed.pop("host", "127.0.0.1")
            with lane(tmp_path / name, pacs.port, host=host, tls={**tls, **changed}) as (services, it):
                add_image(services)
                it.step(always)
                assert bench.states(services) == ["pending"]
                assert "certificate is not trusted" in bench.reasons(services)[0]
    with toy(ToyPacs()) as plain, lane(tmp_path / "d", plain.port, tls={**tls, "ca": site.path}) as (services, it):
        add_image(services)
        it.step(always)
        assert bench.states(services) == ["pending"]
        assert plain.stored == []


# storage commitment


def test_committed_on_the_same_association(tmp_path: Path) -> None:
    with toy(ToyPacs()) as pacs, lane(tmp_path, pacs.port, commitment=True) as (services, it):
        for _ in range(3):
            add_image(services)
        it.step(always)
        assert bench.states(services) == ["delivered"] * 3
        assert len(pacs.requests) == 1
        assert wait_for(lambda: pacs.answers) == [0]


def test_a_pacs_that_says_success_and_keeps_nothing(tmp_path: Path) -> None:
    def lie(pacs: ToyPacs, event: Any) -> int:
        return 0

    with toy(ToyPacs(on_store=lie)) as pacs, lane(tmp_path, pacs.port, commitment=True) as (services, it):
        uid, _ = add_image(services)
        for _ in range(2):
            it.step(always)
            assert "delivered" not in bench.states(services)
            threading.Event().wait(0.005)
        assert "0x0112" in str(_history(services))
        assert bench.states(services, "task") == ["delivering"]
        del uid


def test_a_pacs_without_commitment_is_told_of(tmp_path: Path) -> None:
    with toy(ToyPacs(commits=False)) as pacs, lane(tmp_path, pacs.port, commitment=True) as (services, it):
        add_image(services)
        for _ in range(3):
            it.step(always)
            threading.Event().wait(0.005)
        assert bench.states(services) == ["sent"]
        assert len(pacs.stored) == 1
        alarms = [alarm.text for alarm in services.alarms.standing if alarm.code == "delivery-late"]
        assert "commitment = false" in alarms[0]


def _history(services: Services) -> list[str]:
    with services.journal.read() as connection:
        return [row[0] for row in connection.execute("SELECT reason FROM event WHERE what = 'delivery'")]
