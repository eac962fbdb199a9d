"""The daemon watches itself: silence, a clock that was set, certificates, and what systemd is told."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgemed.serve import watch as watching
from edgemed.serve.loops import Beat, Loops
from edgemed.serve.systemd import Notifier
from edgemed.serve.watch import ClockWatch, Watch, days_left
from tests.serve import kit


@pytest.fixture
def listener(tmp_path: Path):
    """What systemd would hear."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(10)
        yield heard


def notifier(listener: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "200000"})


def test_systemd_hears_of_the_start_of_life_and_of_the_end(tmp_path: Path, listener: socket.socket) -> None:
    with kit.running(kit.bedside(tmp_path)) as daemon:
        watch = Watch(daemon.services, notifier(listener))
        watch.start()
        assert listener.recv(1000).startswith(b"READY=1\nSTATUS=")
        assert listener.recv(1000).startswith(b"WATCHDOG=1")
        watch.drain()
        heard = listener.recv(1000)
        while heard.startswith(b"WATCHDOG"):
            heard = listener.recv(1000)
        assert heard == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000"


def test_the_watchdog_hears_nothing_while_a_loop_is_silent(tmp_path: Path, listener: socket.socket) -> None:
    with kit.running(kit.bedside(tmp_path)) as daemon:
        watch, hold = Watch(daemon.services, notifier(listener)), threading.Event()
        daemon.services.readiness.register("loops", watch._silent, live=True)
        watch.step()
        assert listener.recv(1000).startswith(b"WATCHDOG=1")
        daemon.services.loops.start("hangs", lambda beat: hold.wait(60) and None, limit_ns=1)
        listener.settimeout(0.2)
        watch.step()
        with pytest.raises(TimeoutError):
            listener.recv(1000)
        assert ("loop-silent", "hangs") in {(a.code, a.subject) for a in daemon.services.alarms.standing}
        assert not daemon.services.readiness.ready
        hold.set()


def test_an_abstract_socket_and_none(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0edgemed-test-notify")
        assert Notifier({"NOTIFY_SOCKET": "@edgemed-test-notify"}).tell("READY=1")
        assert heard.recv(100) == b"READY=1"
    assert not Notifier({}).tell("READY=1")
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell("READY=1")
    assert Notifier({"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).watchdog_ns is None


def test_a_clock_that_was_set_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, real = ClockWatch(), watching.utc
    assert not clock.jumped()
    monkeypatch.setattr(watching, "utc", lambda: real() - dt.timedelta(days=365))
    assert clock.jumped()
    assert not clock.jumped()


def test_a_loop_that_fails_is_started_again_and_told() -> None:
    told, done, runs = [], threading.Event(), []

    def body(beat: Beat) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("once")
        done.set()

    loops = Loops(lambda name, error: told.append((name, type(error))))
    loops.start("fragile", body)
    assert done.wait(30)
    assert told == [("fragile", ValueError)]
    assert loops.stop(10**10) == []


@pytest.mark.parametrize("days", [3, 300, -3])
def test_days_of_a_certificate(tmp_path: Path, days: int) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bedside")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1).not_valid_before(now - dt.timedelta(days=9))
    path = tmp_path / "c.pem"
    certificate = builder.not_valid_after(now + dt.timedelta(days=days)).sign(key, hashes.SHA256())
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    assert days_left(path) == pytest.approx(days, abs=0.01)  # the time of this test
    assert days_left(tmp_path / "none.pem") is None
