"""Instances that come one by one, entered together by their study: soon, and not one entry each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_MOST: Final = 100  # instances in one entry
_WITHIN_NS: Final = 2_000_000_000  # what was acknowledged is in the trail at the latest, also if the daemon dies then


class Together:
    """Gathers them.

    Args:
        tell: enters some of one study: its UID, theirs.
    """

    def __init__(self, tell: Callable[[str, tuple[str, ...]], None]) -> None:
        self._enter = tell
        self._studies: dict[str, list[str]] = {}
        self._waiting = 0
        self._since_ns = 0

    def add(self, study: str, instance: str) -> None:
        """One more came."""
        if not self._waiting:
            self._since_ns = time.monotonic_ns()
        self._studies.setdefault(study, []).append(instance)
        self._waiting += 1
        if self._waiting >= _MOST:
            self.tell()

    def look(self) -> None:
        """Time passes."""
        if self._waiting and time.monotonic_ns() - self._since_ns >= _WITHIN_NS:
            self.tell()

    def tell(self) -> None:
        """Enter what was not yet."""
        for study, instances in self._studies.items():
            self._enter(study, tuple(instances))
        self._studies.clear()
        self._waiting = 0
