"""Waiting for what another thread or process does: one patience for all tests, long enough for the busiest machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0
_LOOK_S = 0.005


def wait_for(condition: Callable[[], T], what: Callable[[], object] | str = "it", *, seconds: float = PATIENCE_S) -> T:
    """What `condition` gives, once that is true.

    Args:
        condition: asked again and again.
        what: is waited for, or what to show where it does not come: the log of a process.
        seconds: the longest wait.
    """
    end_ns = time.monotonic_ns() + int(seconds * 1e9)
    while not (found := condition()):
        if time.monotonic_ns() > end_ns:
            raise AssertionError(f"{what} did not come" if isinstance(what, str) else str(what()))
        time.sleep(_LOOK_S)
    return found


def has_ended(pid: int) -> bool:
    """Whether a process has, reaped or not: whoever inherited it may not have done that yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
