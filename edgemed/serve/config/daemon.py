"""The daemon itself: what it keeps, checks, trusts and tells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgemed.base.quantity import SECOND
from edgemed.serve.config.network import Tls
from edgemed.serve.config.section import HOUR, MINUTE, Bytes, Name, Nanoseconds, Section


class DaemonSection(Section):
    """Where it keeps its journal and spool, and how it ends."""

    name: Name = "edgemed"
    state: Path = Field(description="directory of journal, spool, audit trail and keys; nobody else writes there")
    drain_ns: Nanoseconds = Field(20 * SECOND, description="for work under way when it is told to stop")
    research_use_only: bool = Field(True, description="results say so; lift it where the site has validated the use")


class SpoolSection(Section):
    """How much may lie on the disk, and for how long. What is not delivered is never deleted."""

    reserve_bytes: Bytes = Field(1 << 30, description="free space below which inputs are refused")
    warn_bytes: Bytes = Field(5 << 30, description="free space below which an alarm is raised")
    keep_ns: Nanoseconds = Field(24 * HOUR, description="images and results after their end")
    keep_failed_ns: Nanoseconds | None = Field(
        None, description="inputs that failed, and quarantine; None: until somebody looks at them"
    )
    keep_events_ns: Nanoseconds = Field(400 * 24 * HOUR, description="lines of the journal on what happened when")
    keep_rows_ns: Nanoseconds = Field(
        3 * 365 * 24 * HOUR, description="what became of each input, in the journal; then in the archive"
    )


class GoldenSection(Section):
    """When golden inferences run, and for how long one is believed."""

    every_ns: Nanoseconds = MINUTE
    believed_ns: Nanoseconds = Field(3 * MINUTE, description="older than this, and the daemon is not ready")


class TrustSection(Section):
    """Whose models run here."""

    keys: tuple[Path, ...] = Field((), description="public keys (Ed25519, PEM) of those who may sign bundles")
    revoked: Path | None = Field(None, description="file of digests and key ids, one a line, that run no more")
    allow_unsigned: bool = Field(False, description="for trials: hashes protect against accident, not against intent")


class AuditSection(Section):
    """The audit trail."""

    key: Path | None = Field(None, description="Ed25519 private key that signs it; None: one is made in the state")
    segment_bytes: Annotated[Bytes, Field(ge=64 << 10, le=1 << 30)] = Field(
        64 << 20, description="a segment of the trail is closed when it has grown so long"
    )
    syslog: str | None = Field(None, description="host:port of an audit repository (RFC 5425, TLS)")
    syslog_ca: Path | None = Field(None, description="who signs its certificate; None: whom the system trusts")
    syslog_tls: Tls | None = Field(
        None, description="a certificate of ours for the repository, and its `ca`; None: none is shown"
    )

    @model_validator(mode="after")
    def _one_ca(self) -> AuditSection:
        if self.syslog_tls is not None and self.syslog_ca is not None:
            raise ValueError("the ca of syslog stands in syslog_tls, where there is one")
        return self


class ThermalSection(Section):
    """What happens as the device warms. Degrees Celsius of its hottest zone."""

    warm_c: float = 85.0
    throttled_c: float = 95.0
    hysteresis_c: Annotated[float, Field(gt=0)] = 5.0
    idle_ns: Nanoseconds | None = Field(None, description="an inference after so long without any keeps clocks up")


class LogSection(Section):
    """Structured logs, one JSON object a line, without names: identifiers are keyed pseudonyms."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"
