"""How old something is, in time that daemons ran: what is decided by age must not be decided by the calendar."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from edgemed.base.errors import EdgemedError
from edgemed.base.quantity import SECOND
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.retention import keep_horizon, load_horizon, newest_event

log = logging.getLogger(__name__)

_KEPT_EVERY_NS: Final = 60 * SECOND


class Ages:
    """Which events are older than a time; it goes on with the next daemon. See `Horizon`.

    Args:
        journal: whose events; the count is kept there.
        name: of the count; no two have the same.
        keep_ns: the time.
        clock: monotonic.
    """

    def __init__(self, journal: Journal, name: str, keep_ns: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._journal, self._name, self._clock = journal, name, clock
        with journal.read() as connection:
            self._horizon = load_horizon(connection, name, keep_ns)
        self._last_ns = self._kept_ns = clock()

    def count(self) -> int:
        """Count the time until now.

        Returns:
            Number of the newest event that is older; 0 where none is.
        """
        now_ns = self._clock()
        with self._journal.read() as connection:
            newest = newest_event(connection)
        marked = self._horizon.goes_on(now_ns - self._last_ns, newest)
        self._last_ns = now_ns
        if marked or now_ns - self._kept_ns >= _KEPT_EVERY_NS:
            self._kept_ns = now_ns
            try:
                self._journal.write(partial(keep_horizon, name=self._name, horizon=self._horizon))
            except EdgemedError as error:  # after the next start, things are younger than they are
                log.error("an age could not be kept: %s", error.what)
        return self._horizon.before
