"""What is written into the audit trail, and the face of who writes it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal[
    "start",  # Application Activity: the daemon began
    "stop",
    "association",  # Security Alert: it was rejected, or ended badly
    "received",  # DICOM Instances Transferred, from a peer
    "imported",  # Import, from a watched folder
    "sent",  # DICOM Instances Transferred, to a destination
    "queried",  # Query: an archive was asked what it has
    "consulted",  # Audit Log Used: somebody read the trail
    "accessed",  # somebody looked at results
    "login",  # a token was used, or refused
    "model",  # a version was switched, rolled back, rejected
    "config",
    "retry",  # an operator asked for something to be tried again
]
Result = Literal["success", "minor", "serious", "major"]
"""Event Outcome Indicator 0, 4, 8, 12 (PS3.15 A.5)."""


@dataclass(frozen=True)
class AuditEvent:
    """One entry.

    Attributes:
        kind: what happened.
        result: how it went.
        user: AE title, name of a token, or the daemon itself.
        address: of the peer, where there is one.
        study: Study Instance UID; the audit trail names it in clear, as PS3.15 asks.
        instances: SOP Instance UIDs.
        detail: a sentence.
        subject: what was read or asked: the URI of the trail, or of a service; the SOP class of a query of DICOM.
        query: that was asked, in base64.
        syntax: UID of the transfer syntax of a query of DICOM; '' of another's.
    """

    kind: Kind
    result: Result = "success"
    user: str = ""
    address: str = ""
    study: str = ""
    instances: tuple[str, ...] = ()
    detail: str = ""
    subject: str = ""
    query: str = ""
    syntax: str = ""


class Audit(Protocol):
    """Writes the trail."""

    def record(self, event: AuditEvent) -> None:
        """Write an entry. It never fails its caller: what cannot be written raises an alarm."""
        ...


class Trail(Audit, Protocol):
    """The same, and says when it is written."""

    def record_all(self, events: Sequence[AuditEvent]) -> threading.Event | None:
        """Write entries; what is returned is set when all are on the disk. `None`: too many wait, none is written."""
        ...
