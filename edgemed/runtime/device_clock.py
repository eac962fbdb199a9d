"""The device's events on the host's clock.

A driver tells the time between two events as a float32 of milliseconds: exact to 0.1 µs after a second, to 0.4 ms after
an hour. So nothing is summed up: about once a second an event is recorded on a stream that has nothing else to do and
waited for, and the host's clock is read before and after. Frames are placed by the last such anchor.

A place is uncertain by half the time between the two readings (`uncertainty_ns`, 10 to 20 µs on common machines), the
resolution of events (0.5 µs), and what the two clocks drift apart in the second since (tens of ppm: tens of µs).
Durations within a frame are free of the first and the last.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgemed.runtime.arena import Arena
from edgemed.runtime.streams import Event

ANCHOR_EVERY_NS = 1_000_000_000
_TRIES = 5  # the first anchor is the best of some: the first use of an event is slow


@dataclass(frozen=True, slots=True)
class Anchor:
    """An event whose time the host knows.

    Attributes:
        host_ns: on the clock of `time.monotonic_ns`.
        uncertainty_ns: to both sides of it.
    """

    event: Event
    host_ns: int
    uncertainty_ns: int

    def place(self, event: Event) -> int:
        """Time of an event that has come, on the clock of `time.monotonic_ns`. Called with the context current."""
        return self.host_ns + event.elapsed_ns(self.event)


class DeviceClock:
    """Gives anchors. Makes its events once, and uses them in turn.

    Args:
        arena: owns them.
        frames: that may be in flight between one anchor and its use.
    """

    def __init__(self, arena: Arena, frames: int) -> None:
        self._stream = arena.stream()
        # frames end in the order in which they began, and each takes at most one new anchor: with more events than
        # frames, used in turn, none is recorded anew while a frame still needs it
        count = max(frames + 1, _TRIES)
        self._events = [arena.event(timing=True, blocking=False) for _ in range(count)]
        self._last = 0  # event of the present anchor
        self._anchor: Anchor | None = None
        self._taken_ns = 0

    def anchor(self) -> Anchor:
        """The present anchor; takes a new one where it is old. Called with the context current, by one thread."""
        now_ns = time.monotonic_ns()
        if self._anchor is None:
            tried = [self._take(index) for index in range(_TRIES)]
            self._anchor = min(tried, key=lambda each: each.uncertainty_ns)
            self._last, self._taken_ns = tried.index(self._anchor), now_ns
        elif now_ns - self._taken_ns > ANCHOR_EVERY_NS:
            self._last = (self._last + 1) % len(self._events)
            self._anchor, self._taken_ns = self._take(self._last), now_ns
        return self._anchor

    def _take(self, index: int) -> Anchor:
        event = self._events[index]
        before_ns = time.monotonic_ns()
        event.record(self._stream)
        event.synchronize()
        after_ns = time.monotonic_ns()
        return Anchor(event, (before_ns + after_ns) // 2, (after_ns - before_ns + 1) // 2)
