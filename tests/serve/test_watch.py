"""The daemon watches itself: silence, a clock that was set, certificates, and what systemd is told."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgemed.base.errors import IntegrityError
from edgemed.base.quantity import SECOND
from edgemed.runtime.contained import pulse
from edgemed.runtime.contained.states import Health, State
from edgemed.serve import systemd
from edgemed.serve import watch as watching
from edgemed.serve.config.daemon import GoldenSection
from edgemed.serve.loops import Beat, Loops
from edgemed.serve.metrics import Metrics
from edgemed.serve.models.gate import Gate
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.readiness import Readiness
from edgemed.serve.systemd import Notifier, Patience
from edgemed.serve.watch import ClockWatch, Watch, days_left
from tests.serve import kit
from tests.serve.models.kit import hosting
from tests.waiting import wait_for


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


def test_a_loop_that_had_failed_is_no_alarm_any_more_once_it_goes_on(tmp_path: Path) -> None:
    def stumble(beat: Beat) -> None:
        if not beat.failures:
            raise OSError("once")
        beat.wait(60)

    with kit.running(kit.bedside(tmp_path)) as daemon:
        watch, alarms = Watch(daemon.services), daemon.services.alarms
        alarms.raise_("loop-failed", "It failed before the last restart.", "of another configuration")
        beat = daemon.services.loops.start("stumbles", stumble)
        wait_for(lambda: alarms.stands("loop-failed", "stumbles"))
        watch.step()
        assert [alarm.subject for alarm in alarms.standing if alarm.code == "loop-failed"] == ["stumbles"]
        beat.since_ns -= 61 * SECOND
        watch.step()
        assert not alarms.stands("loop-failed", "stumbles")


@contextmanager
def watched_model(tmp_path: Path, listener: socket.socket) -> Iterator[tuple[HostedModel, Watch, Readiness]]:
    """A ready model, and who tells systemd."""
    with hosting(kit.bedside(tmp_path)) as daemon:
        services = daemon.services
        wait_for(lambda: services.readiness.ready)
        watch = Watch(
            cast(Any, SimpleNamespace(**vars(services), loops=Loops(), config=daemon.config)), notifier(listener)
        )
        watch.step()
        assert listener.recv(1000).startswith(b"WATCHDOG=1")
        yield services.models.get("chest"), watch, services.readiness


def test_the_watchdog_hears_nothing_while_nobody_watches_over_the_worker(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is stopped, and so is the thread that would see it."""
    monkeypatch.setattr(pulse, "LATE_NS", 2 * SECOND)
    with watched_model(tmp_path, listener) as (model, watch, readiness):
        hold = threading.Event()
        desk, status = model._runner.model.desk, model.status
        monkeypatch.setattr(desk, "expire", lambda _: hold.wait(60) and None)
        os.kill(status.model.pid, signal.SIGSTOP)
        wait_for(lambda: model.stuck)
        listener.settimeout(0.2)
        watch.step()
        with pytest.raises(TimeoutError):
            listener.recv(1000)
        assert "neither right nor being mended" in readiness.live[0].reason
        assert not readiness.ready
        wait_for(lambda: watch._services.alarms.stands("not-ready", "chest"))
        hold.set()  # it goes on
        wait_for(lambda: not model.stuck)
        watch.step()
        assert listener.recv(1000).startswith(b"WATCHDOG=1")


def test_a_supervisor_that_ends_by_a_bug_is_seen_and_a_model_that_may_not_run_is_no_reason(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched_model(tmp_path, listener) as (model, watch, readiness):
        monkeypatch.setattr(model._runner.model.desk, "expire", lambda _: 1 // 0)
        wait_for(lambda: model.stuck)
        assert readiness.live
        model.forbid(IntegrityError("It was revoked."))
        watch.step()
        assert listener.recv(1000).startswith(b"WATCHDOG=1")
        assert not readiness.ready


def test_a_worker_where_its_supervisor_would_not_let_it_stand(tmp_path: Path) -> None:
    section = GoldenSection(every_ns=1 * SECOND, believed_ns=3 * SECOND)
    gate = Gate("chest", "0" * 64, section, cast(Any, None), Metrics())
    ready = Health(State.READY, since_ns=0, golden_ns=10 * SECOND)
    assert [gate.overdue(ready, second * SECOND) for second in (16, 17, 18)] == [False, False, True]
    for state in (State.STARTING, State.CHECKING):
        loads = Health(state, since_ns=10 * SECOND, golden_ns=0)  # the verdict is that of the worker before
        assert [gate.overdue(loads, second * SECOND) for second in (610, 611)] == [False, True]
    for state in (State.NEW, State.REBUILDING, State.REFUSED, State.CLOSED):
        assert not gate.overdue(Health(state), 10_000 * SECOND)


def test_a_long_start_asks_for_more_time_while_it_makes_progress(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_ASK_EVERY_NS", 0)
    config = kit.bedside(tmp_path)
    with kit.resting(config) as services:
        for _ in range(3):
            kit.arrive(services, kit.image())
    for file in (tmp_path / "state").glob("journal.sqlite3*"):
        file.unlink()  # all are taken in anew
    monkeypatch.setenv("NOTIFY_SOCKET", listener.getsockname())
    with kit.resting(config):
        listener.setblocking(False)
        for _ in range(4):  # at the beginning, and for each file
            assert listener.recv(1000) == b"EXTEND_TIMEOUT_USEC=120000000\nSTATUS=starting"
        with pytest.raises(BlockingIOError):
            listener.recv(1000)
    monkeypatch.setattr(systemd, "_ASK_EVERY_NS", 60 * SECOND)
    patience = Patience(notifier(listener))
    patience()
    patience()
    assert listener.recv(1000).startswith(b"EXTEND_TIMEOUT_USEC")
    with pytest.raises(BlockingIOError):
        listener.recv(1000)


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


def test_a_loop_goes_on_though_nobody_can_be_told_of_its_failure() -> None:
    done = threading.Event()

    def body(beat: Beat) -> None:
        if not beat.failures:
            raise ValueError("once")
        done.set()

    def deaf(name: str, error: Exception) -> None:
        raise RuntimeError(name)

    loops = Loops(deaf)
    loops.start("fragile", body)
    assert done.wait(30)
    assert loops.stop(10**10) == []


def test_a_loop_that_gets_no_thread_is_none_and_the_others_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = Loops()
    loops.start("first", lambda beat: beat.wait(60) and None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            loops.start("second", lambda beat: beat.wait(60) and None)
    assert list(loops.beats) == ["first"]
    loops.start("second", lambda beat: beat.wait(60) and None)
    assert loops.stop(10**10) == []


def no_thread(_: threading.Thread) -> None:
    """What Python says where there can be no more."""
    raise RuntimeError("can't start new thread")


def test_systemd_hears_on_where_what_is_around_cannot_be_looked_at(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fail(*_: object) -> None:
        failed.set()
        raise KeyError("what was left")

    monkeypatch.setattr(Watch, "_look", fail)
    with kit.running(kit.bedside(tmp_path)) as daemon:
        watch = Watch(daemon.services, notifier(listener))
        watch.start()
        assert failed.wait(30)
        wait_for(lambda: daemon.services.alarms.stands("loop-failed", "surroundings"))
        failures = daemon.services.loops.beats["surroundings"].failures
        heard = [listener.recv(1000) for _ in range(50)]
        assert all(one.startswith((b"READY=1", b"WATCHDOG=1")) for one in heard)
        wait_for(lambda: daemon.services.loops.beats["surroundings"].failures > failures)
        assert daemon.services.loops.beats["watch"].failures == 0


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
