"""Who is turned away: everybody can cause that, as often as he likes, and nobody may fill the disk by it."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from edgemed.serve.audit.trail import Audit, AuditEvent

log = logging.getLogger(__name__)

ALL: Final = 100
"""Addresses that are told of in a minute."""

_MINUTE_NS: Final = 60_000_000_000


@dataclass
class _Minute:
    """Of one address, or of all beyond those that are told of: since when, how many, and the first of them."""

    began_ns: int
    event: AuditEvent
    count: int = 1


class Strangers:
    """Tells log and trail of the first of each address in a minute, and when it is over, how many more there were.

    All of them are in the metrics.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._lock = threading.Lock()
        self._minutes: OrderedDict[str, _Minute] = OrderedDict()  # in the order in which they began
        self._others: _Minute | None = None

    def tell(self, event: AuditEvent, line: str) -> None:
        """Somebody was turned away.

        Args:
            event: the entry of the trail; its address says whom it is about.
            line: of the log.
        """
        with self._lock:
            now_ns = time.monotonic_ns()
            self._end_minutes(now_ns)
            if (minute := self._minutes.get(event.address)) is not None:
                minute.count += 1
            elif len(self._minutes) < ALL:
                self._minutes[event.address] = _Minute(now_ns, event)
                self._say(event, line)
            elif self._others is not None:
                self._others.count += 1
            else:
                self._others = _Minute(now_ns, replace(event, user="", address=""))

    def look(self) -> None:
        """Time has passed: tell what minutes that are over had more; to be called now and then."""
        with self._lock:
            self._end_minutes(time.monotonic_ns())

    def _end_minutes(self, now_ns: int) -> None:
        while self._minutes and _is_over(minute := next(iter(self._minutes.values())), now_ns):
            address, _ = self._minutes.popitem(last=False)
            if minute.count > 1:
                what = f"{minute.count - 1} more were turned away within a minute."
                self._say(replace(minute.event, detail=what), f"from {address}: {what}")
        if self._others is not None and _is_over(self._others, now_ns):
            what = f"{self._others.count} were turned away from other addresses within a minute."
            self._say(replace(self._others.event, detail=what), what)
            self._others = None

    def _say(self, event: AuditEvent, line: str) -> None:
        log.warning("%s", line)
        self._audit.record(event)


def _is_over(minute: _Minute, now_ns: int) -> bool:
    return now_ns - minute.began_ns > _MINUTE_NS
