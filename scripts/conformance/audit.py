"""Audit messages (PS3.15 A.5) and the ciphers of TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgemed.serve.audit.message import NOBODY, ROWS, Coded
from edgemed.serve.audit.syslog import PRIORITY
from edgemed.serve.audit.trail import Kind
from edgemed.serve.tls import CIPHERS
from scripts.conformance.tables import table

_WHEN: Final[dict[Kind, str]] = {
    "start": "the daemon begins",
    "stop": "the daemon ends",
    "association": "an association is rejected, aborted or lost, or objects of it are refused; a connection is turned "
    "away; the protocol is broken",
    "imported": "files of one study were taken from a watched folder, which is the source media",
    "queried": "`edgemed reconcile --against-pacs` asks an archive; entered when the daemon runs",
    "consulted": "somebody reads the trail on the page or by its interface",
    "received": "instances of one study were kept: C-STORE and STOW-RS",
    "sent": "results or images of one study were sent to a destination, or given up",
    "accessed": "somebody looks at a study on the page",
    "login": "a token is used for the first time in an hour, refused, or wrong",
    "model": "a model's version is proposed, switched to, taken back or rejected",
    "config": "entries of the trail were lost",
    "retry": "an operator asks for something to be tried again, or puts an alarm out",
}


def events() -> str:
    """Which message is written when."""
    return table(
        ("when", "EventID", "EventTypeCode", "action", "role of who is named"),
        [
            (_WHEN.get(kind, kind), _code(row.event), _code(row.type), row.action, _code(row.user))
            for kind, row in ROWS.items()
        ],
    )


def _code(code: Coded | None) -> str:
    return "" if code is None else f"{code.value} {code.meaning}"


FILLS: Final[dict[str, Callable[[], str]]] = {
    "audit_events": events,
    "nobody": lambda: NOBODY,
    "ciphers": lambda: CIPHERS,
    "syslog_priority": lambda: str(PRIORITY),
}
