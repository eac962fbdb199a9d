"""Where a worker stands: one table of (state, event), and what may be known of it from outside."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edgemed.runners.golden import GoldenResult


class State(str, Enum):
    """Of a contained worker."""

    NEW = "new"
    STARTING = "starting"  # the process loads the model
    CHECKING = "checking"  # its golden vectors run; nothing else is answered
    READY = "ready"  # the last golden inference was right
    REBUILDING = "rebuilding"  # it is lost; the next one comes
    REFUSED = "refused"  # it is lost, and none comes unless somebody asks
    CLOSED = "closed"


class Event(str, Enum):
    """What happens to a worker."""

    START = "start"
    LOADED = "loaded"
    RIGHT = "right"  # the golden vectors were answered rightly
    SUSPECT = "suspect"  # a request failed in a way that casts doubt on the worker
    LOST = "lost"  # it died, hung, broke the protocol, had a sticky error, or answered the golden vectors wrongly
    RETRY = "retry"  # the time to wait is over
    GIVE_UP = "give up"  # too many rebuilds, or an error that no rebuild mends
    RESTART = "restart"  # somebody asked for it
    CLOSE = "close"


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.NEW, Event.START): State.STARTING,
    (State.STARTING, Event.LOADED): State.CHECKING,
    (State.CHECKING, Event.RIGHT): State.READY,
    (State.READY, Event.RIGHT): State.READY,
    (State.READY, Event.SUSPECT): State.CHECKING,
    (State.CHECKING, Event.SUSPECT): State.CHECKING,
    (State.STARTING, Event.LOST): State.REBUILDING,
    (State.CHECKING, Event.LOST): State.REBUILDING,
    (State.READY, Event.LOST): State.REBUILDING,
    (State.REBUILDING, Event.RETRY): State.STARTING,
    (State.REBUILDING, Event.GIVE_UP): State.REFUSED,
    (State.REFUSED, Event.RESTART): State.STARTING,
    **{(state, Event.CLOSE): State.CLOSED for state in State if state is not State.CLOSED},
}


@dataclass(frozen=True)
class Health:
    """What is known of a worker at one moment.

    Attributes:
        state: where it stands.
        since_ns: `time.monotonic_ns` of its coming there.
        reason: of the last loss, as a sentence; empty before any.
        generation: number of the worker, from 1.
        rebuilds: how many workers were started after the first one.
        golden: the last verdict on the golden vectors; `None` before any, or where there are none to check.
        golden_ns: `time.monotonic_ns` of that verdict.
        pid: of the worker's process; `None` when there is none.
    """

    state: State = State.NEW
    since_ns: int = 0
    reason: str = ""
    generation: int = 0
    rebuilds: int = 0
    golden: GoldenResult | None = None
    golden_ns: int | None = None
    pid: int | None = None


@dataclass(frozen=True)
class Limits:
    """How long things may take, and how often; nanoseconds.

    Attributes:
        load_ns: from the start of the process to the last golden inference.
        hang_ns: a worker that makes no step for so long is killed: more than the longest inference.
        drain_ns: at the end, for requests that are under way.
        kill_ns: from SIGKILL to the end of the process; a driver that hangs in the kernel can hold it for ever.
        check_every_ns: time between golden checks; `None`: only when there is a reason.
        waiting: requests that may wait for a slot, or for a rebuild; more are refused.
        rebuilds: within `window_ns`; then it is given up.
        window_ns: see `rebuilds`.
        backoff_ns: before the second rebuild of a window (the first is at once); it doubles from one to the next.
        backoff_cap_ns: and grows no further.
    """

    load_ns: int = 120_000_000_000
    hang_ns: int = 5_000_000_000
    drain_ns: int = 2_000_000_000
    kill_ns: int = 5_000_000_000
    check_every_ns: int | None = 60_000_000_000
    waiting: int = 64
    rebuilds: int = 5
    window_ns: int = 600_000_000_000
    backoff_ns: int = 100_000_000
    backoff_cap_ns: int = 30_000_000_000


class Budget:
    """Counts rebuilds within a window of time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._times: deque[int] = deque()

    def spend(self, now_ns: int | None = None) -> int | None:
        """Ask for one rebuild: how long to wait before it, or `None` if there were too many."""
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        while self._times and now_ns - self._times[0] > self._limits.window_ns:
            self._times.popleft()
        spent = len(self._times)
        if spent >= self._limits.rebuilds:
            return None
        self._times.append(now_ns)
        if spent == 0:
            return 0
        return min(self._limits.backoff_ns << min(spent - 1, 40), self._limits.backoff_cap_ns)

    def renew(self) -> None:
        """Forget what was spent."""
        self._times.clear()
