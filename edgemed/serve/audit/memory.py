"""How long the trail was, kept in the journal: a trail that goes with its head, as a whole, is missed there."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from edgemed.base.errors import EdgemedError
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.chain import AuditLog
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.facts import fact, keep_fact

_FACT: Final = "audit entries"


def missed(journal: Journal, audit: AuditLog, alarms: Alarms) -> None:
    """At the start: raise an alarm where entries are gone. It stands until somebody has seen to it."""
    with journal.read() as connection:
        had = int(fact(connection, _FACT) or 0)
    if audit.found < had:
        text = f"The audit trail had {had} entries at least, and now {audit.found}: it was moved away or deleted."
        alarms.raise_("audit-failed", text, "trail")
    remember(journal, audit)


def remember(journal: Journal, audit: AuditLog) -> None:
    """Keep its length."""
    with suppress(EdgemedError):  # the journal takes nothing: it alarms itself, and the length of the start stands
        journal.write(lambda connection: keep_fact(connection, _FACT, str(audit.written)))
