"""The parts of a ring: slots, and the boxes that their outcomes go to."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum

from edgemed.base.errors import EdgemedError
from edgemed.base.runner import RunnerInfo
from edgemed.base.spans import Span
from edgemed.runtime.fill import Memory
from edgemed.runtime.frames import Arrays, Drop
from edgemed.runtime.lane import Stage


class State(Enum):
    """Where a slot is; the order is that of its life. From all but `FREE` and `HELD` its frame is in flight."""

    FREE = "free"
    FILLING = "filling"
    WAITING = "waiting"  # filled, and not started yet
    IN_FLIGHT = "in flight"
    DONE = "done"  # finished, and not collected yet
    HELD = "held"  # by an answer that was not released


class Slot:
    """One frame's place. States change under the ring's lock; whoever changed it last owns the other attributes.

    Attributes:
        thread: that fills or starts it; 0: none does.
        doubtful: its start was interrupted, so that the lane may be at work on it or not.
    """

    __slots__ = (
        "box", "captured_ns", "deadline_ns", "done_ns", "doubtful", "error", "filled_ns", "frame", "index", "info",
        "memory", "outputs", "stages", "state", "taken_ns", "thread",
    )  # fmt: skip

    def __init__(self, index: int, memory: Memory) -> None:
        self.index = index
        self.memory = memory
        self.state = State.FREE
        self.frame = 0
        self.captured_ns = 0
        self.deadline_ns: int | None = None
        self.taken_ns = 0
        self.filled_ns = 0
        self.done_ns = 0
        self.thread = 0
        self.doubtful = False
        self.error: EdgemedError | None = None
        self.info: RunnerInfo | None = None  # where the lane's answers come from different Runners
        self.outputs: Arrays = {}
        self.stages: Sequence[Stage] = ()
        self.box: Box | None = None

    def spans(self) -> tuple[Span, ...]:
        """`fill`, `queue` (until the lane begins with it), and the lane's own stages.

        The lane may place its stages by another clock than ours. They cannot have begun before the slot was filled nor
        ended after it was finished: what its uncertainty moves beyond that is moved back.
        """
        first, last = self.filled_ns, self.done_ns
        stages = [Span(name, max(start, first), min(end, last), self.frame) for name, start, end in self.stages]
        begun = stages[0].start_ns if stages else last
        head = (
            Span("fill", self.taken_ns, self.filled_ns, self.frame),
            Span("queue", self.filled_ns, begun, self.frame),
        )
        return (*head, *stages)


class Box:
    """Where the outcomes of one stream or request wait for whoever collects them. All under the ring's lock.

    Attributes:
        done: finished slots, oldest first; a slot stays taken until its outcome is collected, so this cannot grow.
        pending: frames that went in and were not collected yet.
        sealed: with none pending, collecting is over: no more will come, or only from the thread that collects.
        abandoned: nobody wants the rest; it is dropped.
        seen: frames that were handed in, for `every-n`.
        drop: the last frame of this box that was dropped.
        thread: the only one that collects, where one alone does.
    """

    __slots__ = ("abandoned", "done", "drop", "pending", "sealed", "seen", "thread")

    def __init__(self, *, sealed: bool = False, thread: int | None = None) -> None:
        self.done: deque[Slot] = deque()
        self.pending = 0
        self.sealed = sealed
        self.abandoned = False
        self.seen = 0
        self.drop: Drop | None = None
        self.thread = thread
