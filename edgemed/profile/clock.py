"""Waiting until a point in time: sleep for most of it, then spin; the scheduler's lateness is not the frame's."""

from __future__ import annotations

import time
from typing import Final

SPIN_NS: Final = 200_000  # timer slack is 50 µs, and waking a thread takes up to some 100 µs on a busy board


def wait_until(target_ns: int, spin_ns: int = SPIN_NS) -> int:
    """Return at `target_ns` of `time.monotonic_ns`, or at once where it has passed; gives the time of the return."""
    now = time.monotonic_ns()
    while now < target_ns:
        left = target_ns - now
        if left > spin_ns:
            time.sleep((left - spin_ns) * 1e-9)
        now = time.monotonic_ns()
    return now
