"""The trail at an audit repository: a TLS server that reads frames of RFC 5425."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from edgemed.base.errors import InputError, IntegrityError, ResourceError
from edgemed.bundle.keys import generate
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.chain import AuditLog
from edgemed.serve.audit.segment import Said, Segment
from edgemed.serve.audit.segments import closed_name
from edgemed.serve.audit.syslog import Forwarder
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.config.network import Tls
from edgemed.serve.journal.database import Journal
from edgemed.serve.tls import server_context
from tests.serve import kit
from tests.serve.dicom.certificates import Authority


class Repository:
    """Takes connections, one after the other, and keeps the frames."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.frames: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    data = b""
                    while more := connection.recv(1 << 16):
                        data += more
                    connection.unwrap()
            except (ssl.SSLError, OSError):
                continue
            while data:
                size, _, data = data.partition(b" ")
                self.frames.append(data[: int(size)])
                data = data[int(size) :]

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "hospital")


@pytest.fixture
def repository(authority: Authority):
    certificate, key = authority.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    made = Repository(context)
    yield made
    made.close()


@pytest.fixture
def trail(tmp_path: Path):
    with Journal(tmp_path / "j.sqlite3") as journal:
        log = AuditLog(kit.bedside(tmp_path), Alarms(journal))
        log.record(AuditEvent("received", user="CT1", study="1.2.3"))
        log.close()
        yield log.folder


def test_each_entry_arrives_once_and_from_where_it_was_left(trail: Path, repository: Repository, authority) -> None:
    address = f"localhost:{repository.port}"
    assert Forwarder(trail, address, authority.path, "bedside").send() == 3
    again = Forwarder(trail, address, authority.path, "bedside")
    assert again.send() == 0
    entries = [frame for frame in repository.frames if frame.startswith(b"<85>1 20")]
    assert len(entries) == len(repository.frames) == 3
    assert b" bedside edgemed " in entries[0]
    assert b" IHE+RFC-3881 - \xef\xbb\xbf<AuditMessage>" in entries[1]
    assert entries[1].endswith(b"</AuditMessage>")


def test_a_new_trail_is_sent_from_its_first_entry_on(tmp_path: Path, repository: Repository, authority) -> None:
    """The old one was longer, and moved away."""
    address, beats = f"localhost:{repository.port}", []
    with Journal(tmp_path / "j.sqlite3") as journal:
        for names in (["old"] * 20, ["new"]):
            log = AuditLog(kit.bedside(tmp_path), Alarms(journal))
            for name in names:
                log.record(AuditEvent("login", user=name))
            log.close()
            forwarder = Forwarder(log.folder, address, authority.path, "bedside")
            assert forwarder.send(lambda: beats.append(1)) == len(names) + 2
            (log.folder / "trail.jsonl").rename(tmp_path / names[0])
            (log.folder / "head.json").unlink()
    assert len(beats) == 25
    assert any(b'UserID="new"' in frame for frame in repository.frames)


def test_it_goes_on_from_segment_to_segment(tmp_path: Path, repository: Repository, authority: Authority) -> None:
    """Segments are closed before, while and after entries wait; one is archived when it was sent."""
    key, _ = generate()

    def said(text: str) -> Said:
        return "2026-01-05T10:00:00Z", f"<AuditMessage>{text}</AuditMessage>"

    segment = Segment(tmp_path, key, lambda seal: said(f"after {seal.last}"))

    def forwarder() -> Forwarder:
        return Forwarder(tmp_path, f"localhost:{repository.port}", authority.path, "bedside")

    segment.append([said("1"), said("2")])
    segment.end()
    segment.append([said("4")])
    one = forwarder()
    assert (one.send(), one.send()) == (4, 0)
    segment.append([said("5")])
    segment.end()
    assert (one.send(), one.send()) == (2, 0)
    segment.end()
    assert (forwarder().send(), one.send()) == (1, 1)  # what was sent twice is the same twice
    for first in (1, 3, 6):
        (tmp_path / closed_name(first)).unlink()
    segment.append([said("8")])
    assert (forwarder().send(), forwarder().send()) == (1, 0)
    segment.close()
    texts = [frame.partition(b"<AuditMessage>")[2].partition(b"<")[0].decode() for frame in repository.frames]
    assert texts == ["1", "2", "after 2", "4", "5", "after 5", "after 6", "after 6", "8"]


def test_what_is_no_entry_is_told(trail: Path, repository: Repository, authority) -> None:
    with (trail / "trail.jsonl").open("ab") as file:
        file.write(b"}{\n")
    with pytest.raises(IntegrityError, match="no entry"):
        Forwarder(trail, f"localhost:{repository.port}", authority.path, "bedside").send()


def test_a_repository_that_nobody_vouches_for_gets_nothing(trail: Path, repository: Repository, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    with pytest.raises(ResourceError, match="takes nothing"):
        Forwarder(trail, f"localhost:{repository.port}", other.path, "bedside").send()
    assert repository.frames == []


def test_what_could_not_be_sent_is_sent_later(trail: Path, authority, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ResourceError, match="takes nothing"):
        Forwarder(trail, f"127.0.0.1:{port}", authority.path, "bedside").send()
    assert not (trail / "sent.json").exists()


def test_a_repository_that_asks_for_a_certificate_is_shown_ours(trail: Path, authority: Authority) -> None:
    certificate, key = authority.issue("localhost")
    context = server_context(Tls(certificate=certificate, key=key, ca=authority.path))
    asking = Repository(context)
    address = f"localhost:{asking.port}"
    try:
        with pytest.raises(ResourceError, match="takes nothing"):
            Forwarder(trail, address, authority.path, "bedside").send()
        assert asking.frames == []
        ours, secret = authority.issue("bedside")
        tls = Tls(certificate=ours, key=secret, ca=authority.path)
        assert Forwarder(trail, address, None, "bedside", tls).send() == 3
        assert len(asking.frames) == 3
    finally:
        asking.close()


def test_a_certificate_that_is_none_is_told_at_the_start_and_later(trail: Path, authority: Authority) -> None:
    certificate, key = authority.issue("bedside")
    tls = Tls(certificate=certificate, key=key, ca=authority.path)
    forwarder = Forwarder(trail, "localhost:1", None, "bedside", tls)
    certificate.write_text("none")
    with pytest.raises(InputError, match="cannot be used for TLS"):
        Forwarder(trail, "localhost:1", None, "bedside", tls)
    with pytest.raises(ResourceError, match="cannot be used for TLS"):
        forwarder.send()


@pytest.mark.parametrize("address", ["repository", ":6514", "repository:port"])
def test_what_is_no_address_is_refused(trail: Path, address: str) -> None:
    with pytest.raises(InputError, match="no address"):
        Forwarder(trail, address, None, "bedside")
