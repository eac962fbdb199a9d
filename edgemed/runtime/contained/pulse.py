"""Whether the thread that watches over a worker goes on: who watches the watchman."""

from __future__ import annotations

from typing import Final

LATE_NS: Final = 30_000_000_000
"""What it does between two looks takes moments, or a few seconds on a machine that swaps; never so long."""


class Pulse:
    """Of one supervisor. Written by its thread, read by any."""

    def __init__(self) -> None:
        self._due_ns: int | None = None

    def until(self, due_ns: int) -> None:
        """Its thread means to look again by then (`time.monotonic_ns`)."""
        self._due_ns = due_ns

    def late(self, now_ns: int) -> bool:
        """Whether that time is long over."""
        return self._due_ns is not None and now_ns - self._due_ns > LATE_NS
