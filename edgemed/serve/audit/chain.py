"""The trail as a file."""

from __future__ import annotations

from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.config import Config


class AuditLog:
    """The trail as a file."""

    def __init__(self, config: Config, alarms: Alarms) -> None:
        self._config = config
        self._alarms = alarms

    def record(self, event: AuditEvent) -> None:
        """See `Audit`."""

    def close(self) -> None:
        """End it."""
