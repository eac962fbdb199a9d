"""The audit trail's entries about who is turned away: everybody can cause them, nobody may fill the disk with them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Final

from edgemed.serve.audit.trail import Audit, AuditEvent

EACH: Final = 10  # entries in a minute about one address
ALL: Final = 100  # and about all of them
_MINUTE_NS: Final = 60_000_000_000
_ADDRESSES: Final = 4096


class Strangers:
    """Enters the first of each minute, then how many there were. All of them are in the metrics."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._lock = threading.Lock()
        self._minutes: OrderedDict[str, tuple[int, int]] = OrderedDict()  # when it began, and how many came in it

    def record(self, event: AuditEvent) -> None:
        """Enter it, or count it."""
        with self._lock:
            _, before = self._count("", ALL)
            number, missed = self._count(event.address, EACH)
            total = self._minutes[""][1]
        if number > EACH or total > ALL:
            return
        missed = max(missed, before if number == 1 and total == 1 else 0)
        if missed:
            event = replace(event, detail=f"{event.detail} {missed} more in an earlier minute are not listed.".lstrip())
        self._audit.record(event)

    def _count(self, key: str, most: int) -> tuple[int, int]:
        """One more: its number in this minute; and of the minute before, where it has just ended, what was too many."""
        now_ns = time.monotonic_ns()
        began_ns, count = self._minutes.pop(key, (now_ns, 0))
        missed = 0
        if now_ns - began_ns > _MINUTE_NS:
            began_ns, count, missed = now_ns, 0, max(0, count - most)
        self._minutes[key] = (began_ns, count + 1)
        if len(self._minutes) > _ADDRESSES:
            self._minutes.popitem(last=False)
        return count + 1, missed
