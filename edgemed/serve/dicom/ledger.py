"""What an association leaves behind: metrics, log lines without names, and the audit trail with them."""

from __future__ import annotations

import logging

from edgemed.serve.audit.together import Together
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.dicom.strangers import Strangers
from edgemed.serve.services import Services

log = logging.getLogger(__name__)


class Ledger:
    """Of one association: audit events for each study that it brings, while it does; for itself if it ends badly."""

    def __init__(self, services: Services, strangers: Strangers, address: str) -> None:
        self._services = services
        self._strangers = strangers
        self._address = address
        self._calling = ""
        self._together = Together(self._tell)
        self._stored = 0
        self._refused = 0

    def denied(self, reason: str, calling: str, called: str) -> None:
        """No association was given; `reason` is one of a fixed list."""
        self._services.metrics.rejected.labels(reason).inc()
        log.warning("association of %s from %s with %s was denied: %s", calling, self._address, called, reason)
        self._audit("serious", calling, f"An association with {called} was denied: {reason}.")

    def turned_away(self, reason: str, detail: str = "") -> None:
        """The connection did not come as far as to ask for an association."""
        self._services.metrics.rejected.labels(reason).inc()
        log.warning("a connection from %s was closed: %s %s", self._address, reason, detail)
        self._audit("serious", "", f"A connection was closed: {reason}. {detail}".rstrip())

    def accepted(self, calling: str) -> None:
        self._calling = calling
        self._services.metrics.associations.inc()

    def stored(self, study: str, instance: str) -> None:
        """An object was acknowledged."""
        self._stored += 1
        self._together.add(study, instance)

    def look(self) -> None:
        """Time passes between two messages."""
        self._together.look()

    def refused(self, status: int, instance: str) -> None:
        """An object was not taken, and its sender told so."""
        self._refused += 1
        name = self._services.pseudonyms.of(instance)
        log.warning("an object of %s was refused with status 0x%04X: %s", self._calling, status, name)

    def broken(self, what: str) -> None:
        """The peer broke the protocol."""
        log.warning("association of %s from %s was aborted: %s", self._calling or "somebody", self._address, what)
        if not self._calling:
            self._services.metrics.rejected.labels("protocol").inc()
            self._audit("serious", "", what)

    def ended(self, how: str) -> None:
        """It is over."""
        if not self._calling:
            return
        self._services.metrics.associations.dec()
        detail = f"It was {how}; {self._stored} objects were taken, {self._refused} refused."
        log.info("association of %s from %s: %s", self._calling, self._address, detail)
        # PS3.15 A.5.3.11: who reports successes too drowns the alerts; what came is told of by Instances Transferred
        if how != "released" or self._refused:
            self._audit("minor", self._calling, detail)
        self._together.tell()

    def _tell(self, study: str, instances: tuple[str, ...]) -> None:
        event = AuditEvent("received", "success", self._calling, self._address, study, instances)
        self._services.audit.record(event)

    def _audit(self, result: str, user: str, detail: str) -> None:
        event = AuditEvent("association", result, user, self._address, detail=detail)  # type: ignore[arg-type]
        (self._services.audit if self._calling else self._strangers).record(event)
