"""The protocol broken on purpose, by a socket: an A-ABORT with its reason, and the connection is closed."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path

import pytest

from tests.serve import kit
from tests.serve.dicom import rig
from tests.waiting import wait_for

ABORT_PROVIDER = 2
UNRECOGNISED, UNEXPECTED, PARAMETER = 1, 2, 6
COMMAND = rig.store_command(kit.CT, "1.2.3")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    with rig.inlet(tmp_path_factory.mktemp("inlet")) as running:
        yield running
        wait_for(lambda: not running.inlet._open, "the end of all associations")
        assert list(running.services.spool.incoming.iterdir()) == []


def test_golden_bytes_of_an_acceptance(shared: rig.Rig) -> None:
    """A-ASSOCIATE-AC: the titles come back as they were sent, one context is accepted, one is not."""
    request = rig.associate((kit.CT, ["1.2.840.10008.1.2", rig.EXPLICIT]), ("1.2.3.4", [rig.EXPLICIT]))
    with rig.raw(shared.port) as peer:
        kind, body = peer.send(request).pdu()
    assert kind == 2
    assert body[:4] == b"\x00\x01\x00\x00"
    assert body[4:36] == b"EDGEMED".ljust(16) + b"CT1".ljust(16)
    context = b"\x21\x00\x00\x1b\x01\x00\x00\x00\x40\x00\x00\x13" + rig.EXPLICIT.encode()
    assert context in body
    assert b"\x21\x00" + struct.pack(">H", 27) + b"\x03\x00\x03\x00" in body
    assert b"\x51\x00\x00\x04" + struct.pack(">L", 131072) in body


def test_golden_bytes_of_echo_and_release(shared: rig.Rig) -> None:
    with rig.raw(shared.port) as peer:
        peer.send(rig.associate(("1.2.840.10008.1.1", [rig.EXPLICIT]))).pdu()
        kind, body = peer.send(rig.p_data((1, 3, rig.echo_command()))).pdu()
        assert (kind, body[:6]) == (4, struct.pack(">LBB", len(body) - 4, 1, 3))
        assert body[6:] == b"".join(
            (
                rig.element(0x0000, struct.pack("<L", len(body) - 6 - 12)),
                rig.element(0x0002, b"1.2.840.10008.1.1\0"),
                rig.element(0x0100, b"\x30\x80"),
                rig.element(0x0120, b"\x01\x00"),
                rig.element(0x0800, b"\x01\x01"),
                rig.element(0x0900, b"\x00\x00"),
            )
        )
        assert peer.send(rig.RELEASE).pdu() == (6, bytes(4))
        assert peer.pdu() == (0, b"")


BEFORE = {
    "a PDU of an unknown type": (b"\x09\x00\x00\x00\x00\x00", UNRECOGNISED),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", UNRECOGNISED),
    "P-DATA before an association": (rig.p_data((1, 3, COMMAND)), UNEXPECTED),
    "a release before an association": (rig.RELEASE, UNEXPECTED),
    "a request of 4 GiB": (b"\x01\x00\xff\xff\xff\xff", PARAMETER),
    "an empty request": (b"\x01\x00\x00\x00\x00\x00", PARAMETER),
    "a request cut short": (b"\x01\x00" + struct.pack(">L", 100) + rig.associate()[6:106], PARAMETER),
}


@pytest.mark.parametrize("what", BEFORE)
def test_before_an_association(shared: rig.Rig, what: str) -> None:
    data, reason = BEFORE[what]
    with rig.raw(shared.port) as peer:
        assert peer.send(data).pdu() == (7, bytes([0, 0, ABORT_PROVIDER, reason]))
        assert peer.pdu() == (0, b"")


AFTER = {
    "a second request": (rig.associate(), UNEXPECTED),
    "an acceptance": (b"\x02\x00\x00\x00\x00\x04\x00\x00\x00\x00", UNEXPECTED),
    "a PDU longer than negotiated": (b"\x04\x00\x00\x10\x00\x00", PARAMETER),
    "an empty P-DATA": (b"\x04\x00\x00\x00\x00\x00", PARAMETER),
    "a value longer than its PDU": (b"\x04\x00\x00\x00\x00\x06" + struct.pack(">LBB", 100, 1, 3), PARAMETER),
    "a value without a header": (b"\x04\x00\x00\x00\x00\x05" + struct.pack(">LB", 1, 1), PARAMETER),
    "another context": (rig.p_data((7, 3, COMMAND)), PARAMETER),
    "a data set without a command": (rig.p_data((1, 2, b"abc")), UNEXPECTED),
    "two commands": (rig.p_data((1, 3, COMMAND), (1, 3, COMMAND)), UNEXPECTED),
    "a command that is none": (rig.p_data((1, 3, b"\xff" * 40)), PARAMETER),
    "a command without a field": (rig.p_data((1, 3, rig.element(0x0110, b"\x01\x00"))), PARAMETER),
    "a UID of letters": (rig.p_data((1, 3, rig.store_command(kit.CT, "1.2.x/../.."))), PARAMETER),
    "a command without end": (b"".join(rig.p_data((1, 1, bytes(30000))) for _ in range(3)), PARAMETER),
}


@pytest.mark.parametrize("what", AFTER)
def test_in_an_association(shared: rig.Rig, what: str) -> None:
    data, reason = AFTER[what]
    with rig.raw(shared.port) as peer:
        assert peer.send(rig.associate()).pdu()[0] == 2
        assert peer.send(data).pdu() == (7, bytes([0, 0, ABORT_PROVIDER, reason]))
        assert peer.pdu() == (0, b"")


def test_operations_that_are_not_offered(shared: rig.Rig) -> None:
    store = rig.store_command(kit.CT, "1.2.3", data=False)
    find = store.replace(rig.element(0x0100, b"\x01\x00"), rig.element(0x0100, b"\x20\x00"))
    with rig.raw(shared.port) as peer:
        peer.send(rig.associate()).pdu()
        assert peer.send(rig.p_data((1, 3, find))).status() == 0x0211
        assert peer.send(rig.p_data((1, 3, store))).status() == 0xC000
        assert peer.send(rig.RELEASE).pdu()[0] == 6


def test_a_hundred_at_once(tmp_path: Path) -> None:
    peers = [{**rig.MODALITY, "associations": 100}]
    with rig.inlet(tmp_path, peers=peers, associations=100) as running:
        images = [kit.image(rows=16, columns=16) for _ in range(100)]
        said: list[int] = []

        def one(ds: object) -> None:
            body = kit.encode(ds)  # type: ignore[arg-type]
            with rig.raw(running.port) as peer:
                assert peer.send(rig.associate()).pdu()[0] == 2
                barrier.wait(60)
                uid = str(ds.SOPInstanceUID)  # type: ignore[attr-defined]
                peer.send(rig.p_data((1, 3, rig.store_command(kit.CT, uid)), (1, 2, body[_begin(body) :])))
                said.append(peer.status())
                peer.send(rig.RELEASE).pdu()

        barrier = threading.Barrier(100)
        threads = [threading.Thread(target=one, args=(ds,)) for ds in images]
        for at, thread in enumerate(threads):  # no more than 16 of one address may wait for their association
            thread.start()
            wait_for(lambda at=at: running.metric("associations") > at - 12)
        for thread in threads:
            thread.join(60)
        assert said == [0] * 100
        assert len(running.rows()) == 100
        wait_for(lambda: not running.inlet._open, "the end of all associations")


def _begin(body: bytes) -> int:
    import io

    from edgemed.imaging.dicom.part10 import read_meta

    return read_meta(io.BytesIO(body)).offset


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory):
    with rig.inlet(tmp_path_factory.mktemp("impatient"), association="1s", idle="1s") as running:
        yield running


def test_who_connects_and_says_nothing(impatient: rig.Rig) -> None:
    with rig.raw(impatient.port) as peer:
        assert peer.pdu() == (7, bytes(4))
        assert peer.pdu() == (0, b"")


def test_who_says_nothing_more(impatient: rig.Rig) -> None:
    with rig.raw(impatient.port) as peer:
        peer.send(rig.associate()).pdu()
        assert peer.pdu() == (7, bytes(4))


@pytest.mark.parametrize("what", ["request", "header", "body", "message"])
def test_a_byte_now_and_then_holds_nobody(impatient: rig.Rig, what: str) -> None:
    """Each byte comes in time, and all of them do not."""
    with rig.raw(impatient.port) as peer:
        if what == "request":
            drops = [bytes([byte]) for byte in rig.associate()]
        else:
            peer.send(rig.associate()).pdu()
            whole = rig.p_data((1, 3, COMMAND), (1, 0, bytes(1000)))
            drops = [bytes([byte]) for byte in whole]
            if what == "body":
                peer.send(whole[:20])
                drops = drops[20:]
            if what == "message":
                peer.send(rig.p_data((1, 3, COMMAND)))
                drops = [rig.p_data((1, 0, b"\0"))] * 1000
        began = time.monotonic_ns()
        try:
            for drop in drops:
                peer.send(drop)
                time.sleep(0.1)
                if not impatient.inlet._open:
                    break
        except ConnectionError:
            pass
        assert time.monotonic_ns() - began < 60e9
        wait_for(lambda: not impatient.inlet._open, "its end")


def test_the_end_of_the_daemon_lets_a_message_come_to_its_end(tmp_path: Path) -> None:
    ds = kit.image()
    body = kit.encode(ds)
    body = body[_begin(body) :]
    with rig.inlet(tmp_path) as running, rig.raw(running.port) as peer, rig.raw(running.port) as idle:
        idle.send(rig.associate()).pdu()
        peer.send(rig.associate()).pdu()
        peer.send(rig.p_data((1, 3, rig.store_command(kit.CT, str(ds.SOPInstanceUID))), (1, 0, body[:100])))
        wait_for(lambda: list(running.services.spool.incoming.iterdir()))
        running.inlet.drain()
        assert idle.pdu() == (7, bytes(4))
        peer.send(rig.p_data((1, 2, body[100:])))
        assert peer.status() == 0
        assert peer.pdu() == (7, bytes(4))
        assert len(running.rows()) == 1
