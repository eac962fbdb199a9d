"""Telling a worker that hangs from one that works, or from a machine that stood still."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

_TICK_NS = 250_000_000
_SHORTEST_TICK_NS = 5_000_000
_IDLE_NS = 2_000_000_000  # an idle worker makes a step each 100 ms; a busy machine may delay some


class Stall:
    """Adds up the time in which the worker's count of steps stood still.

    Only changes of the count matter, not its value: it lies in memory that a broken worker can write to. Between two
    looks no more than two ticks are added, so that a pause of this process, or of the whole machine, is not taken
    for one of the worker.

    Args:
        hang_ns: how long a worker that has been asked for something may stand still.
        steps: the count; `None`: nothing to look at yet.
    """

    def __init__(self, hang_ns: int, steps: NDArray[Any] | None = None) -> None:
        self._hang_ns = hang_ns
        self._steps = steps
        self._seen: tuple[int, ...] = ()
        self._stalled_ns = 0
        self._looked_ns = 0
        self.tick_ns = max(min(hang_ns // 4, _TICK_NS), _SHORTEST_TICK_NS)

    def hangs(self, now_ns: int, asked: tuple[int, ...]) -> bool:
        """Look, at most once a tick.

        Args:
            now_ns: the time.
            asked: numbers of what the worker was asked for, 0 for nothing: a change is a new beginning.
        """
        if self._steps is None or now_ns - self._looked_ns < self.tick_ns:
            return False
        seen = (int(self._steps[0]), *asked)
        if seen == self._seen:
            self._stalled_ns += min(now_ns - self._looked_ns, 2 * self.tick_ns)
        else:
            self._seen, self._stalled_ns = seen, 0
        self._looked_ns = now_ns
        return self._stalled_ns >= (self._hang_ns if any(asked) else max(self._hang_ns, _IDLE_NS))
