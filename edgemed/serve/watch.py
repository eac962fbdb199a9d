"""Watches the daemon itself: loops, clock, certificates; tells systemd, and only while everything makes progress."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from edgemed.base.errors import EdgemedError, IntegrityError, ResourceError
from edgemed.base.quantity import SECOND
from edgemed.serve.alarms import Alarm
from edgemed.serve.audit.left import Collector
from edgemed.serve.audit.segments import FOLDER
from edgemed.serve.audit.syslog import Forwarder
from edgemed.serve.clock import utc
from edgemed.serve.config import Config
from edgemed.serve.config.network import Tls
from edgemed.serve.loops import Beat
from edgemed.serve.readiness import Finding
from edgemed.serve.services import Services
from edgemed.serve.systemd import Notifier

_EVERY_S: Final = 1.0
_STEADY_NS: Final = 60 * SECOND  # of a loop that had failed: longer than the longest pause before it is started again
_JUMP_NS: Final = 2 * SECOND  # an adjustment by NTP is slower than this
_JUMP_SHOWN_NS: Final = 600 * SECOND
_EXPIRES_DAYS: Final = 30
_CERTIFICATES_EVERY_NS: Final = 3600 * SECOND
_FORWARD_EVERY_S: Final = 5.0


class Watch:
    """Starts last: what it says is there when it says so."""

    name = "watch"

    def __init__(self, services: Services, notifier: Notifier | None = None) -> None:
        self._services = services
        self._notifier = notifier or Notifier()
        self._clock = ClockWatch()
        self._left = Collector(services.config.daemon.state, services.audit)
        self._certificates_ns: int | None = None
        self._forwarder: Forwarder | None = None

    def start(self) -> None:
        """Begin to watch, and tell systemd that the daemon is there."""
        services = self._services
        services.readiness.register("loops", self._silent, live=True)
        services.readiness.register("alarms", self._alarmed)
        audit = services.config.audit
        if audit.syslog is not None:
            folder = services.config.daemon.state / FOLDER
            name = services.config.daemon.name
            self._forwarder = Forwarder(folder, audit.syslog, audit.syslog_ca, name, audit.syslog_tls)
            services.loops.start("audit syslog", self._forward, limit_ns=60 * SECOND)
        services.loops.start("surroundings", self._look_around)
        services.loops.start(self.name, self._run)
        self._notifier.tell("READY=1", f"STATUS={self._status()}")

    def drain(self) -> None:
        """Tell systemd that the end has begun, and how long it may take."""
        drain_us = self._services.config.daemon.drain_ns // 1000 + 10_000_000
        self._notifier.tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={drain_us}")

    def stop(self) -> None:
        """Nothing is held."""

    def step(self) -> None:
        """One look at the daemon itself; systemd hears of it."""
        services = self._services
        self._loops()
        standing = services.alarms.standing
        for severity in ("warning", "alarm"):
            services.metrics.alarms.labels(severity).set(sum(alarm.severity == severity for alarm in standing))
        if not services.readiness.live:
            self._notifier.tell("WATCHDOG=1", f"STATUS={self._status()}")

    def _look_around(self, beat: Beat) -> None:
        """At what else may change, in a loop of its own: an error there is none of the daemon's life."""
        while beat.wait(_EVERY_S):
            self._look(beat)

    def _look(self, beat: Beat) -> None:
        services = self._services
        self._left.look(beat)
        if self._clock.jumped():
            services.alarms.raise_("clock-jumped", "The clock of this machine was set by more than two seconds.")
        elif self._clock.quiet_ns > _JUMP_SHOWN_NS:
            services.alarms.clear("clock-jumped")
        if self._certificates_ns is None or time.monotonic_ns() - self._certificates_ns > _CERTIFICATES_EVERY_NS:
            self._certificates_ns = time.monotonic_ns()
            self._certificates()

    def _run(self, beat: Beat) -> None:
        every = _EVERY_S
        if self._notifier.watchdog_ns is not None:
            every = min(every, self._notifier.watchdog_ns / 4e9)
        while beat.wait(every):
            self.step()

    def _loops(self) -> None:
        alarms, silent = self._services.alarms, set(self._services.loops.silent)
        for name in silent:
            alarms.raise_("loop-silent", f"The loop {name} makes no progress.", name)
        for alarm in alarms.standing:
            if alarm.subject not in silent and (alarm.code == "loop-silent" or self._is_mended(alarm)):
                alarms.clear(alarm.code, alarm.subject)

    def _is_mended(self, alarm: Alarm) -> bool:
        """Whether a loop that had failed goes on, or is of another configuration."""
        beat = self._services.loops.beats.get(alarm.subject)
        return alarm.code == "loop-failed" and (beat is None or time.monotonic_ns() - beat.since_ns > _STEADY_NS)

    def _silent(self) -> Finding | None:
        silent = self._services.loops.silent
        return Finding("loops", f"No progress: {', '.join(silent)}.") if silent else None

    def _alarmed(self) -> Finding | None:
        """An alarm that stands is a reservation: it answers, and somebody has to look."""
        first = next((alarm for alarm in self._services.alarms.standing if alarm.severity == "alarm"), None)
        return None if first is None else Finding("alarms", first.text, stops=False)

    def _status(self) -> str:
        findings = self._services.readiness.findings
        return findings[0].reason if findings else "ready"

    def _certificates(self) -> None:
        for use, path in certificates_of(self._services.config):
            days = days_left(path)
            if days is None:
                continue
            self._services.metrics.certificate_days.labels(use).set(days)
            if days < _EXPIRES_DAYS:
                text = (
                    f"The certificate for {use} expires in {days:.0f} days."
                    if days > 0
                    else f"That of {use} has expired."
                )
                self._services.alarms.raise_("certificate-expires", text, use)
            else:
                self._services.alarms.clear("certificate-expires", use)

    def _forward(self, beat: Beat) -> None:
        assert self._forwarder is not None
        while beat.wait(_FORWARD_EVERY_S):
            self._send(self._forwarder, beat)

    def _send(self, forwarder: Forwarder, beat: Beat) -> None:
        try:
            forwarder.send(beat)
            self._services.alarms.clear("audit-failed", "syslog")
        except (ResourceError, IntegrityError) as error:
            self._services.alarms.raise_("audit-failed", error.what, "syslog")


class ClockWatch:
    """Sees when the calendar's clock goes another way than the monotonic one."""

    def __init__(self) -> None:
        self._offset_ns = self._offset()
        self._jumped_ns: int | None = None

    def jumped(self) -> bool:
        """Whether it was set since the last look."""
        offset = self._offset()
        jumped = abs(offset - self._offset_ns) > _JUMP_NS
        self._offset_ns = offset
        if jumped:
            self._jumped_ns = time.monotonic_ns()
        return jumped

    @property
    def quiet_ns(self) -> int:
        """Since the last jump."""
        return time.monotonic_ns() - (self._jumped_ns or 0)

    @staticmethod
    def _offset() -> int:
        return int(utc().timestamp() * 1e9) - time.monotonic_ns()


def certificates_of(config: Config) -> list[tuple[str, Path]]:
    """Our own certificates, each with what it is for."""
    uses: list[tuple[str, Tls | None]] = [("http", config.http.tls)]
    if config.dicom is not None:
        uses.append(("dicom", config.dicom.tls))
    uses += [(f"destination {each.name}", each.tls) for each in config.destinations if each.kind != "folder"]
    uses.append(("audit", config.audit.syslog_tls))
    return [(use, tls.certificate) for use, tls in uses if tls is not None]


def days_left(path: Path) -> float | None:
    """Until a certificate expires; `None` where there is none to read, which who uses it will say."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, EdgemedError):
        return None
    expires: datetime = certificate.not_valid_after_utc
    return (expires - datetime.now(timezone.utc)).total_seconds() / 86400
