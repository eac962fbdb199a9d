"""Who has which slot, and where every frame is: the ring's states and accounts, without threads and without a lane."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from edgemed.base.errors import EdgemedError
from edgemed.base.runner import RunnerInfo
from edgemed.runtime.frames import DROP_REASONS, Answer, Counts, Drop, DropReason, Failure, Frame, Outcome
from edgemed.runtime.policy import Policy, ServiceTime
from edgemed.runtime.slots import Box, Slot, State


class Ledger:
    """One state machine for all slots of a ring. Every call is made under the ring's lock, and none waits.

    Ctrl-C is raised between any two calls of Python. So what changes together is changed by assignments in a row, with
    no call between them but the last; `recover` mends the rest.

    Args:
        slots: all of them, free.
        policy: decides on frames that come, and on when a filled slot may start.
        depth: slots that may be started and not handed over.
        info: stands in every answer whose slot does not name another Runner.
        release: what an answer calls to give its slot back.
        spans: whether answers carry spans.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        policy: Policy,
        depth: int,
        info: RunnerInfo,
        release: Callable[[Slot], None],
        *,
        spans: bool,
    ) -> None:
        self.slots = slots
        self.closed = False
        self.held = 0
        self.finishing = 0  # the thread that finishes a slot
        self.filled: deque[Slot] = deque()
        self._free = deque(slots)
        self._order: deque[Slot] = deque()  # started, not finished
        self._running = 0  # of those, and the one that is being started
        self._policy = policy
        self._depth = depth
        self._latest = policy.kind == "latest"
        self._limit_ns = policy.deadline_ns if policy.kind == "deadline" else None
        self._info = info
        self._release = release
        self._spans = spans
        self.admitting = False
        self._submitted = self._answered = self._failed = 0
        self._dropped: dict[DropReason, int] = dict.fromkeys(DROP_REASONS, 0)
        self._service = ServiceTime()

    def counts(self, lost: int) -> Counts:
        """Where all frames are, at this instant. What is inside is counted by the slots' states."""
        inside = sum(slot.state not in (State.FREE, State.HELD) for slot in self.slots)
        dropped = dict(self._dropped)
        return Counts(self._submitted, self._answered, self._failed, dropped, inside + self.admitting, lost)

    # ---------------------------------------------------------------- in

    def enter(self, box: Box) -> DropReason | None:
        """A frame comes; one at a time. Until `take` or `refuse` it has no slot, and yet is in flight."""
        self._submitted += 1
        self.admitting = True
        box.seen += 1
        if self._policy.kind == "every-n" and (box.seen - 1) % self._policy.n:
            return "every-n"
        return None

    def refusal(self, frame: Frame, box: Box) -> DropReason | None:
        """Why the frame must not go in now, if it must not."""
        if self.closed or box.abandoned:
            return "closed"
        left_ns = self.left_ns(frame)
        if left_ns is None or left_ns > self._service.ns:
            return None
        if left_ns > 0:
            self._service.dropped()
        return "late"

    def left_ns(self, frame: Frame) -> int | None:
        """Time until a frame is dropped as late; `None`: it never is."""
        if self._limit_ns is None:
            return None
        return (self._deadline(frame) or 0) - time.monotonic_ns()

    def _deadline(self, frame: Frame) -> int | None:
        if frame.deadline_ns is None and self._limit_ns is not None:
            return frame.captured_ns + self._limit_ns
        return frame.deadline_ns

    def room(self) -> bool:
        """Whether there is an empty slot for the next frame, without superseding."""
        return not self.filled and bool(self._free) and self._busy() < self._depth

    def _busy(self) -> int:
        return len(self.slots) - len(self._free) - self.held

    def all_kept_by(self, thread: int) -> bool:
        """Whether every slot waits for that thread: to collect it, or to release it."""
        return all(slot.box is not None and slot.box.thread == thread for slot in self.slots)

    def take(self, frame: Frame, box: Box) -> tuple[Slot, Drop | None] | None:
        """A slot to fill, and the frame that was superseded in it; `None` where the frame has to wait."""
        drop = None
        deadline_ns, now_ns, thread = self._deadline(frame), time.monotonic_ns(), threading.get_ident()
        if self._latest and self.filled:
            place, slot = self.filled, self.filled[0]
            drop = self._settle_drop(slot, "superseded")
        elif self._free and (self._latest or self._busy() < self._depth):
            place, slot = self._free, self._free[0]
        else:
            return None
        self.admitting = False
        slot.thread = thread
        slot.state = State.FILLING
        slot.box = box
        slot.error = None  # of a superseded one
        slot.frame = frame.id
        slot.captured_ns = frame.captured_ns
        slot.deadline_ns = deadline_ns
        slot.taken_ns = now_ns
        box.pending += 1
        place.popleft()
        return slot, drop

    def refuse(self, frame: Frame, reason: DropReason, box: Box) -> Drop:
        """A frame that entered does not get a slot."""
        drop = Drop(frame.id, reason, time.monotonic_ns())
        self.admitting = False
        self._dropped[reason] += 1
        box.drop = drop
        return drop

    def turn_away(self, frame: Frame, box: Box) -> Drop:
        """A frame comes that is wanted no more; others may be entering."""
        drop = Drop(frame.id, "closed", time.monotonic_ns())
        self._submitted += 1
        self._dropped["closed"] += 1
        box.drop = drop
        return drop

    def put_filled(self, slot: Slot) -> None:
        """A slot is filled, or its fill failed; it waits to be started."""
        slot.state = State.WAITING
        slot.thread = 0
        self.filled.append(slot)

    def next_to_start(self) -> Slot | None:
        """The slot to start now, if any: the caller starts it, then says so by `put_started`."""
        # under `latest` a free slot must remain for the frame that comes next: then it need not wait
        if not self.filled or self._running >= self._depth or (self._latest and not self._free):
            return None
        slot, thread = self.filled[0], threading.get_ident()
        slot.thread = thread
        slot.state = State.IN_FLIGHT
        self._running += 1
        self.filled.popleft()
        return slot

    def put_started(self, slot: Slot) -> None:
        """A slot was started, or could not be."""
        slot.thread = 0
        self._order.append(slot)

    # ---------------------------------------------------------------- out

    def claim(self) -> Slot | None:
        """The oldest started slot, for the caller to finish, unless another thread finishes one."""
        while self._order and self._order[0].state is not State.IN_FLIGHT:  # `put_done` was interrupted
            self._order.popleft()
        if self.finishing or not self._order:
            return None
        self.finishing = threading.get_ident()
        return self._order[0]

    def recover(self, interrupt: BaseException) -> list[Drop]:
        """The calling thread was interrupted (Ctrl-C), wherever it was: what it was at work on is nobody's any more.

        A slot that it filled is dropped. One that it started is in doubt: it fails when the lane has let go of it. One
        that it waited for stays the oldest, for the next who comes.
        """
        me, drops = threading.get_ident(), []
        if self.finishing == me:
            self.finishing = 0
        for slot in self.slots:
            done = None if slot.box is None else slot.box.done
            place = {State.FREE: self._free, State.WAITING: self.filled, State.DONE: done}.get(slot.state)
            if slot.thread == me and slot.state is State.FILLING:
                drops.append(self.drop_slot(slot, "closed"))
            elif slot.thread == me and slot.state is State.IN_FLIGHT:
                slot.error, slot.doubtful = unexpected("starting", interrupt), True
                self.put_started(slot)
            elif place is not None and slot not in place:  # on the way out: it is accounted for
                self.vacate(slot)
        return drops

    def put_done(self, slot: Slot) -> None:
        """A claimed slot is finished, or failed."""
        box = _box_of(slot)
        self.finishing = 0
        self._running -= 1
        slot.state = State.DONE
        box.done.append(slot)
        self._order.popleft()
        if slot.error is None:
            self._service.answered(slot.done_ns - slot.taken_ns)

    def hand_over(self, box: Box) -> Outcome | Drop | None:
        """The oldest outcome of a box, if there is one; a drop if the box was abandoned."""
        if not box.done:
            return None
        slot = box.done[0]
        if box.abandoned:
            return self.drop_slot(slot, "closed")
        if slot.error is not None:
            failure = Failure(slot.frame, slot.error, slot.captured_ns, time.monotonic_ns())
            self._failed += 1
            box.pending -= 1
            box.done.popleft()
            self.vacate(slot)
            return failure
        late = slot.deadline_ns is not None and slot.done_ns > slot.deadline_ns
        spans = slot.spans() if self._spans else ()
        release = partial(self._release, slot)
        info = slot.info or self._info
        answer = Answer(slot.frame, slot.outputs, info, slot.captured_ns, slot.done_ns, late, spans, release)
        self._answered += 1
        self.held += 1
        slot.state = State.HELD
        box.pending -= 1
        box.done.popleft()
        return answer

    def abandon(self, box: Box) -> list[Drop]:
        """Nobody wants the rest of a box. Drops what was not started; the rest is dropped as it is finished."""
        box.sealed = box.abandoned = True
        return [self.drop_slot(slot, "closed") for slot in tuple(self.filled) if slot.box is box]

    def settle(self) -> list[Drop]:
        """Drop every slot that neither the lane nor a fill is at work on."""
        idle = [slot for slot in self.slots if slot.state in (State.WAITING, State.DONE)]
        return [self.drop_slot(slot, "closed") for slot in idle]

    def drop_slot(self, slot: Slot, reason: DropReason) -> Drop:
        """Drop the frame of a slot that nobody works on, and free it."""
        drop = self._settle_drop(slot, reason)
        if slot.state is State.DONE:
            _box_of(slot).done.remove(slot)
        elif slot.state is State.WAITING:
            self.filled.remove(slot)
        self.vacate(slot)
        return drop

    def vacate(self, slot: Slot) -> None:
        """Free a slot whose frame is accounted for."""
        if slot.state is State.HELD:
            self.held -= 1
        slot.state = State.FREE
        slot.box = None
        slot.thread = 0
        slot.doubtful = False
        slot.error = None
        slot.outputs = {}
        self._free.append(slot)

    def _settle_drop(self, slot: Slot, reason: DropReason) -> Drop:
        box, drop = _box_of(slot), Drop(slot.frame, reason, time.monotonic_ns())
        box.pending -= 1
        self._dropped[reason] += 1
        box.drop = drop
        return drop


def _box_of(slot: Slot) -> Box:
    assert slot.box is not None, "a slot whose frame is in flight has a box"
    return slot.box


def unexpected(doing: str, error: BaseException) -> EdgemedError:
    """An error outside our tree, as a frame's failure."""
    failure = EdgemedError(f"{type(error).__name__} while {doing}: {error}.", "The log has more.")
    failure.__cause__ = error
    return failure
