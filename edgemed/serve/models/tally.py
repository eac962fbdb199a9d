"""How the requests of one version went: what a version on probation is judged by."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from statistics import median
from typing import Final

from edgemed.base.errors import ChildError, GpuError
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.models.mirror import compute_ns

_KEPT: Final = 200


class Tally:
    """Counts ends of requests, and keeps the times of the last ones.

    Attributes:
        answered: ended in a reply.
        failed: ended by a fault of the worker or its device.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: deque[int] = deque(maxlen=_KEPT)
        self.answered = 0
        self.failed = 0

    def count(self, future: Future[Reply]) -> None:
        """A request has ended."""
        if future.cancelled():
            return
        error = future.exception()
        with self._lock:
            if error is None:
                self.answered += 1
                self._times.append(compute_ns(future.result()))
            elif isinstance(error, (ChildError, GpuError)):  # not what senders decide: feeds, deadlines, how many wait
                self.failed += 1

    def median_ns(self, least: int) -> int | None:
        """Of the device's time for one request; `None` before there are so many."""
        with self._lock:
            return int(median(self._times)) if len(self._times) >= least else None
