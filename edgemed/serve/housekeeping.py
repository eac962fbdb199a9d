"""Keeps the disk from filling up: watermarks, and what may be deleted.

Nothing is deleted that is not at its end, for as long as the site wants to keep it. Rows stay much
longer, for they say what became of each input: after `keep_rows` they leave the journal for the archive. Events go
after `keep_events`, golden inferences after 90 days, procedure steps three days after their last change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from edgemed.base.quantity import SECOND
from edgemed.serve.archive import Archive
from edgemed.serve.deletion import finish_deletions
from edgemed.serve.journal.leaving import newest_alarm
from edgemed.serve.journal.retention import (
    BADLY,
    WELL,
    Horizon,
    forget,
    keep_horizon,
    load_horizon,
    may_release,
    newest_event,
    newest_golden,
    release,
)
from edgemed.serve.journal.steps import forget_steps
from edgemed.serve.loops import Beat
from edgemed.serve.readiness import Finding
from edgemed.serve.services import Services

LOOP: Final = "housekeeping"

_EVERY_S: Final = 10.0
_LIMIT_NS: Final = 60 * SECOND
_KEPT_EVERY_NS: Final = 60 * SECOND
_GOLDEN_NS: Final = 90 * 24 * 3600 * SECOND
STEPS_NS: Final = 3 * 24 * 3600 * SECOND  # that an examination and its images may take
_ABOVE: Final = 1.1  # times a watermark, and its alarm is over: else it would come and go with every image


class Housekeeping:
    """One loop for both."""

    name = "housekeeping"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._horizons: dict[str, Horizon] = {}
        self._archive = Archive(services.config.daemon.state, services.journal)
        self._last_ns = 0
        self._kept_ns = 0

    def start(self) -> None:
        """Look at the disk, then begin."""
        spool = self._services.config.spool
        times = {"ended": spool.keep_ns, "failed": spool.keep_failed_ns, "events": spool.keep_events_ns}
        times |= {"golden": _GOLDEN_NS, "steps": STEPS_NS}
        times |= {"rows": spool.keep_rows_ns, "alarms": spool.keep_rows_ns}
        with self._services.journal.read() as connection:
            self._horizons = {
                name: load_horizon(connection, name, keep_ns) for name, keep_ns in times.items() if keep_ns is not None
            }
        self._last_ns = self._kept_ns = time.monotonic_ns()
        self.look()
        self._services.readiness.register("inputs", self._finding)
        self._services.loops.start(LOOP, self._run, limit_ns=_LIMIT_NS)

    def drain(self) -> None:
        """Nothing is under way that could not end anywhere."""

    def stop(self) -> None:
        """The loop has ended with the others."""

    def _run(self, beat: Beat) -> None:
        while True:
            self.look()
            self.sweep(beat)
            if not beat.wait(_EVERY_S):
                return

    def look(self) -> None:
        """Hold the free space against the watermarks."""
        services, spool = self._services, self._services.config.spool
        free = services.spool.free_bytes
        services.metrics.free_bytes.set(free)
        for code, mark, text in (
            ("disk-low", spool.warn_bytes, "The disk fills up: {:,} bytes are free."),
            ("disk-full", spool.reserve_bytes, "The disk is nearly full, and inputs are refused: {:,} bytes are free."),
        ):
            stands = services.alarms.stands(code)
            if free < mark and not stands:
                services.alarms.raise_(code, text.format(free))
            elif free >= mark * _ABOVE and stands:
                services.alarms.clear(code)

    def sweep(self, beat: Beat) -> None:
        """Delete what has had its time."""
        self._count()
        for name, ends in (("ended", WELL), ("failed", BADLY)):
            if name in self._horizons:
                self._release(ends, self._horizons[name].before, beat)
        finish_deletions(self._services.spool, self._services.journal, beat)
        before, golden = self._horizons["events"].before, self._horizons["golden"].before
        while self._services.journal.write(partial(forget, before=before, golden_before=golden)) and _goes_on(beat):
            pass
        steps = self._horizons["steps"].before
        while self._services.journal.write(partial(forget_steps, before=steps)) and _goes_on(beat):
            pass
        # last: a disk that does not take the archive keeps nothing else from going
        rows, alarms = self._horizons["rows"].before, self._horizons["alarms"].before
        self._archive.sweep(rows, alarms, partial(_goes_on, beat))

    def _release(self, ends: Sequence[str], before: int, beat: Beat) -> None:
        journal = self._services.journal
        while before and _goes_on(beat):
            with journal.read() as connection:
                some = may_release(connection, ends, before)
            if not some or not journal.write(partial(release, ends=ends, before=before)):
                return
            finish_deletions(self._services.spool, journal, beat)

    def _count(self) -> None:
        """Count the time, and keep the count."""
        now_ns = time.monotonic_ns()
        elapsed_ns, self._last_ns = now_ns - self._last_ns, now_ns
        with self._services.journal.read() as connection:
            newest = newest_event(connection)
            others = {"golden": newest_golden(connection), "alarms": newest_alarm(connection)}
        marked = [horizon.goes_on(elapsed_ns, others.get(name, newest)) for name, horizon in self._horizons.items()]
        if any(marked) or now_ns - self._kept_ns >= _KEPT_EVERY_NS:
            self._kept_ns = now_ns
            for name, horizon in self._horizons.items():
                self._services.journal.write(partial(keep_horizon, name=name, horizon=horizon))

    def _finding(self) -> Finding | None:
        """Images are refused; who asks for an inference is answered as before, so that nothing stops."""
        for code, why in (("disk-full", "is full"), ("disk-failed", "did not take the last one")):
            if self._services.alarms.stands(code):
                return Finding("inputs", f"The disk {why}: images are refused, inference goes on.", stops=False)
        return None


def _goes_on(beat: Beat) -> bool:
    beat()
    return not beat.stopping.is_set()
