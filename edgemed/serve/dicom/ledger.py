"""What an association leaves behind: metrics, log lines without names, and the audit trail with them."""

from __future__ import annotations

import logging

from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.dicom.strangers import Strangers
from edgemed.serve.services import Services

log = logging.getLogger(__name__)


class Ledger:
    """Of one association, if it ends badly. What it brought is told by `serve/audit/received.py`."""

    def __init__(self, services: Services, strangers: Strangers, address: str) -> None:
        self._services = services
        self._strangers = strangers
        self._address = address
        self._calling = ""
        self._stored = 0
        self._refused = 0

    def denied(self, reason: str, calling: str, called: str) -> None:
        """No association was given; `reason` is one of a fixed list."""
        self._services.metrics.rejected.labels(reason).inc()
        line = f"association of {calling} from {self._address} with {called} was denied: {reason}"
        self._stranger(line, calling, f"An association with {called} was denied: {reason}.")

    def turned_away(self, reason: str, detail: str = "") -> None:
        """The connection did not come as far as to ask for an association."""
        self._services.metrics.rejected.labels(reason).inc()
        line = f"a connection from {self._address} was closed: {reason} {detail}"
        self._stranger(line, "", f"A connection was closed: {reason}. {detail}".rstrip())

    def accepted(self, calling: str) -> None:
        self._calling = calling
        self._services.metrics.associations.inc()

    def stored(self) -> None:
        """An object was acknowledged; the journal knows it, and tells the trail."""
        self._stored += 1

    def refused(self, status: int, instance: str) -> None:
        """An object was not taken, and its sender told so."""
        self._refused += 1
        name = self._services.pseudonyms.of(instance)
        log.warning("an object of %s was refused with status 0x%04X: %s", self._calling, status, name)

    def broken(self, what: str) -> None:
        """The peer broke the protocol."""
        if self._calling:
            log.warning("association of %s from %s was aborted: %s", self._calling, self._address, what)
        else:
            self._services.metrics.rejected.labels("protocol").inc()
            self._stranger(f"association of somebody from {self._address} was aborted: {what}", "", what)

    def ended(self, how: str) -> None:
        """It is over."""
        if not self._calling:
            return
        self._services.metrics.associations.dec()
        detail = f"It was {how}; {self._stored} objects were taken, {self._refused} refused."
        log.info("association of %s from %s: %s", self._calling, self._address, detail)
        # PS3.15 A.5.3.11: who reports successes too drowns the alerts; what came is told of by Instances Transferred
        if how != "released" or self._refused:
            self._services.audit.record(AuditEvent("association", "minor", self._calling, self._address, detail=detail))

    def _stranger(self, line: str, user: str, detail: str) -> None:
        self._strangers.tell(AuditEvent("association", "serious", user, self._address, detail=detail), line)
