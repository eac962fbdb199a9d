"""The ring's core: slots of a lane, frames in at one side, outcomes out at the other, every frame accounted for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from edgemed.base.errors import EdgemedError, UsageError
from edgemed.base.runner import RunnerInfo
from edgemed.runtime.fill import Fill, copy_feeds
from edgemed.runtime.frames import Answer, Counts, Drop, Failure, Frame, Outcome
from edgemed.runtime.lane import Lane, MixedLane
from edgemed.runtime.ledger import Ledger, unexpected
from edgemed.runtime.policy import LOSSLESS, Policy
from edgemed.runtime.slots import Box, Slot

if TYPE_CHECKING:
    from typing_extensions import Self

_LATEST_DEPTH = 2  # one computes while the next is copied; a third would only grow old on the device
_STUCK_S = 10.0  # a wait for a slot that nobody gives back is then worth a word

_LOOK_S = 0.1  # between looks at whether a wait for another producer can ever end
_NOBODY = RunnerInfo("none", "none", "none")

_log = logging.getLogger(__name__)


class Face(Protocol):
    """A stream that goes through the ring."""

    @property
    def lost(self) -> int:
        """Frames that its source lost before the ring saw them."""
        ...

    @property
    def here(self) -> bool:
        """Whether this is one of its threads, as in its callback: to wait for its end would be to wait for itself."""
        ...

    def end(self) -> None:
        """End it now; what is inside is dropped."""
        ...


class RingCore:
    """What the faces of a `Ring` stand on, which says what it takes: frames in, outcomes out.

    An outcome goes to whoever put its frame in, by a `Box`. Locks are taken in the order producer, starter, lock.
    """

    def __init__(
        self,
        lane: Lane,
        *,
        policy: Policy = LOSSLESS,
        fill: Fill | None = None,
        depth: int | None = None,
        on_drop: Callable[[Drop], None] | None = None,
        spans: bool = False,
    ) -> None:
        self.lane = lane
        self.policy = policy
        self._wanted_depth = depth
        self._wanted_fill = fill
        self._on_drop = on_drop
        self._spans = spans
        self._lock = threading.Lock()  # guards the ledger; taken last
        self._changed = threading.Condition(self._lock)
        self._sleepers = 0
        self._producer = threading.RLock()  # one frame enters at a time; taken first
        self._starter = threading.Lock()  # slots are started in the order in which they were filled
        self._ledger = Ledger((), policy, 1, _NOBODY, self._release, spans=spans)  # until entered: closed, no slots
        self._ledger.closed = True
        self._faces: list[Face] = []
        self._reset()

    def _reset(self) -> None:
        self._box = Box()
        self._lost = 0
        self._logged: set[tuple[str, type[Exception]]] = set()

    # ---------------------------------------------------------------- life

    def __enter__(self) -> Self:
        """Enter the lane.

        Raises:
            UsageError: `latest` needs two slots; a depth is 1 or more.
            GpuError, …: what the lane raises.
        """
        self.lane.timed = self._spans
        self.lane.__enter__()
        try:
            self._open()
        except BaseException as error:
            self.lane.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _open(self) -> None:
        lane, latest = self.lane, self.policy.kind == "latest"
        if latest and lane.slots < 2:
            raise UsageError("The policy latest needs two slots: one waits while the other is computed.", "Give more.")
        usual = (_LATEST_DEPTH if lane.overlaps else 1) if latest else lane.slots
        depth = usual if self._wanted_depth is None else self._wanted_depth
        if depth < 1:
            raise UsageError(f"A ring cannot work on {depth} frames at a time.", "Give a depth of 1 or more.")
        self._mixed = lane if isinstance(lane, MixedLane) else None
        self._fill = self._wanted_fill or copy_feeds(lane.specs)
        slots = [Slot(index, partial(lane.inputs, index)) for index in range(lane.slots)]
        self._reset()
        self._ledger = Ledger(slots, self.policy, depth, lane.info, self._release, spans=self._spans)

    @property
    def closed(self) -> bool:
        return self._ledger.closed

    def close(self) -> None:
        """Take no more frames: they are dropped as "closed". What is inside can still be collected."""
        with self._lock:
            self._ledger.closed = True
            self._wake()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, drop what nobody collected, and leave the lane. The memory of answers still held is gone with it.

        Raises:
            UsageError: this is a thread of one of its streams; the ring is as it was.
        """
        if any(face.here for face in tuple(self._faces)):
            raise UsageError(
                "A callback, or a source, cannot leave the ring that calls it: it would wait for itself.",
                "Leave it in the thread that entered it. `Stream.stop` ends a stream from within its callback.",
            )
        self.close()
        try:
            self._end_faces()
            self._drain()
        finally:
            self.lane.__exit__(kind, value, traceback)

    def _end_faces(self) -> None:
        for face in tuple(self._faces):
            face.end()

    def _drain(self) -> None:
        """Wait until the lane works on no slot any more; what was not collected is dropped."""
        drops: list[Drop] = []
        try:
            with self._producer, self._starter:
                while (slot := self._left_over(drops)) is not None:
                    self._finish(slot)
        except BaseException as error:
            self._recover(error)
            raise
        self._tell(drops)

    def _left_over(self, drops: list[Drop]) -> Slot | None:
        """The next slot that the lane works on, once nobody waits for another; what is idle is dropped."""
        with self._lock:
            while self._ledger.finishing:
                self._sleep()
            drops += self._ledger.settle()
            slot = self._ledger.claim()
            self._wake()
            return slot

    # ---------------------------------------------------------------- in

    def submit(self, frame: Frame, box: Box | None = None) -> bool:
        """Put a frame in; `collect` gives its outcome. Waits for a free slot, but under `latest`.

        Args:
            frame: its `done` is called, once, before this returns.
            box: whose outcome it is; for the faces.

        Returns:
            Whether it went in. One that did not was dropped, and `on_drop` told; one that did may yet be superseded.
        """
        mine = self._box if box is None else box
        entered: tuple[Slot | None, Drop | None] = None, None
        try:
            if not self._producer.acquire(blocking=False):
                self._wait_for_turn(frame, mine)
            entered = self._enter(frame, mine)
        except BaseException as error:
            self._recover(error)
            raise
        finally:
            self._leave()
            self._settle(frame, entered[1])
        return entered[0] is not None

    def _wait_for_turn(self, frame: Frame, box: Box) -> None:
        while not self._producer.acquire(timeout=_LOOK_S):
            with self._lock:
                kept = self._ledger.all_kept_by(threading.get_ident())
            if kept:  # the other producer waits for a slot, and all are this thread's
                self.refuse(frame, box)
                raise _would_wait_for_itself()

    def offer(self, frame: Frame, box: Box) -> bool:
        """Put a frame in if that needs no waiting; answers whether the ring took it, if only to drop it.

        For a thread whose own outcomes are in slots: were it to wait, others might wait for those, and it for them.
        """
        took = False
        entered: tuple[Slot | None, Drop | None] = None, None
        try:
            if not self._producer.acquire(blocking=False):
                return False
            took = self.room()
            if took:
                entered = self._enter(frame, box)
        except BaseException as error:
            self._recover(error)
            raise
        finally:
            self._leave()
            if took:
                self._settle(frame, entered[1])
        return took

    def _leave(self) -> None:
        """The next producer may enter. `acquire` may have been interrupted on either side: it can be asked only so."""
        with contextlib.suppress(RuntimeError):  # it is not ours: another producer has it
            self._producer.release()

    def refuse(self, frame: Frame, box: Box) -> None:
        """Drop a frame that was taken of a source, and is wanted no more; for the faces."""
        with self._lock:
            drop = self._ledger.turn_away(frame, box)
        self._settle(frame, drop)

    def _enter(self, frame: Frame, box: Box) -> tuple[Slot | None, Drop | None]:
        slot, drop = self._admit(frame, box)
        if slot is not None:
            self._take_in(slot, frame)
        return slot, drop

    def _settle(self, frame: Frame, drop: Drop | None) -> None:
        """The source may have its buffer back, and whoever wants to know of drops is told."""
        done, frame.done = frame.done, None
        try:
            if done is not None:
                done()
        finally:
            if drop is not None:
                self._tell((drop,))

    def room(self) -> bool:
        """Whether `submit` would find an empty slot now; a lone thread collects first where it would not."""
        with self._lock:
            return self._ledger.room()

    def _admit(self, frame: Frame, box: Box) -> tuple[Slot | None, Drop | None]:
        """A slot to fill, or none; and the frame that was dropped: for it, or this one itself."""
        ledger = self._ledger
        with self._lock:
            try:
                reason = ledger.enter(box)
                while reason is None and (reason := ledger.refusal(frame, box)) is None:
                    if (taken := ledger.take(frame, box)) is not None:
                        if taken[1] is not None:
                            self._wake()  # whoever collects may have waited for the superseded one
                        return taken
                    self._wait_for_slot(frame)
                return None, ledger.refuse(frame, reason, box)
            except BaseException:  # Ctrl-C while it waited
                if ledger.admitting:
                    ledger.refuse(frame, "closed", box)
                raise

    def _wait_for_slot(self, frame: Frame) -> None:
        if self._ledger.all_kept_by(threading.get_ident()):
            raise _would_wait_for_itself()
        left_ns = self._ledger.left_ns(frame)
        timeout = _STUCK_S if left_ns is None else min(_STUCK_S, max(left_ns, 0) / 1e9)
        woken = self._sleep(timeout)
        if not woken and left_ns is None:
            held, slots = self._ledger.held, len(self._ledger.slots)
            _log.warning("No slot came free for %.0f s; unreleased answers hold %d of %d.", timeout, held, slots)

    def _take_in(self, slot: Slot, frame: Frame) -> None:
        """Fill a slot, and have it started as soon as may be."""
        try:
            self._fill(frame, slot.memory)
        except Exception as error:
            slot.error = self._failure("filling its slot", error)
        if self._spans:
            slot.filled_ns = time.monotonic_ns()
        self._launch(slot)

    def _launch(self, filled: Slot | None = None) -> None:
        """Start what may be started, in order."""
        with self._starter:
            try:
                with self._lock:
                    if filled is not None:
                        self._ledger.put_filled(filled)
                    slot = self._ledger.next_to_start()
                while slot is not None:
                    slot = self._start(slot)
            except BaseException as error:
                self._recover(error)  # here, for slots are finished in the order in which they were started
                raise

    def _start(self, slot: Slot) -> Slot | None:
        """Start a slot; gives the next to start."""
        try:
            if slot.error is None:
                self.lane.start(slot.index)
        except Exception as error:
            slot.error = self._failure("starting", error)
        with self._lock:
            self._ledger.put_started(slot)
            self._wake()
            return self._ledger.next_to_start()

    def _recover(self, error: BaseException) -> None:
        """Where this thread was interrupted (Ctrl-C comes anywhere), let go of what it was at work on."""
        if isinstance(error, Exception):
            return
        with self._lock:
            drops = self._ledger.recover(error)
            self._wake()
        self._tell(drops)

    # ---------------------------------------------------------------- out

    def collect(self, box: Box | None = None) -> Outcome | None:
        """The next outcome, in the order of submission; waits for it, and for a frame where none is inside.

        Returns:
            `None` when no frame is inside and none can come: the ring was closed.
        """
        try:
            return self._collect(self._box if box is None else box)
        except BaseException as error:
            self._recover(error)
            raise

    def _collect(self, mine: Box) -> Outcome | None:
        ledger = self._ledger
        while True:
            with self._lock:
                while (handed := ledger.hand_over(mine)) is None and (slot := ledger.claim()) is None:
                    if not mine.pending and (mine.sealed or ledger.closed):
                        return None
                    self._sleep()
                if handed is not None:
                    self._wake()  # its slot is free; or held, and so no longer one of those the depth counts
                waiting = bool(ledger.filled)
            if isinstance(handed, Answer):
                return handed
            if handed is None:
                assert slot is not None
                self._finish(slot)
                continue
            if waiting:
                self._launch()
            if isinstance(handed, Failure):
                return handed
            self._tell((handed,))

    def seal(self, box: Box) -> None:
        """No more frames will come for a box: whoever collects is told so once it is empty."""
        with self._lock:
            box.sealed = True
            self._wake()

    def discard(self, box: Box) -> None:
        """Nobody wants the rest of a box: it is dropped as it is finished, and frames that may yet come at once."""
        with self._lock:
            drops = self._ledger.abandon(box)
            self._wake()
        self._tell(drops)

    def abandon(self, box: Box) -> None:
        """`discard`, and wait until the lane works on none of it."""
        self.discard(box)
        self.collect(box)

    def _finish(self, slot: Slot) -> None:
        """Finish a claimed slot, and start what waited for that."""
        if slot.error is None:
            self._await(slot)
        elif slot.doubtful:
            with contextlib.suppress(Exception):  # the frame has failed already; the lane must have let go of it
                self.lane.finish(slot.index)
        with self._lock:
            self._ledger.put_done(slot)
            self._wake()
            waiting = bool(self._ledger.filled)
        if waiting:
            self._launch()

    def _await(self, slot: Slot) -> None:
        try:
            slot.outputs = self.lane.finish(slot.index)
            slot.done_ns = time.monotonic_ns()
            if self._mixed is not None:
                slot.info = self._mixed.answered_by(slot.index)
            if self._spans:
                slot.stages = self.lane.stages(slot.index)
        except Exception as error:
            slot.error = self._failure("computing", error)

    def _release(self, slot: Slot) -> None:
        with self._lock:
            self._ledger.vacate(slot)
            self._wake()
            waiting = bool(self._ledger.filled)
        if waiting:  # under `latest`, for a slot to be free
            self._launch()

    def _sleep(self, timeout: float | None = None) -> bool:
        self._sleepers += 1
        try:
            return self._changed.wait(timeout)
        finally:
            self._sleepers -= 1

    def _wake(self) -> None:
        """Something changed that others may wait for. Mostly none does, and a look is cheaper than a call."""
        if self._sleepers:
            self._changed.notify_all()

    def _failure(self, doing: str, error: Exception) -> EdgemedError:
        """An error as a frame's failure. One of ours is it; another is a bug, and is logged once with its traceback."""
        if isinstance(error, EdgemedError):
            return error
        if (doing, type(error)) not in self._logged:
            self._logged.add((doing, type(error)))
            _log.error("A frame failed while %s; such errors are logged once.", doing, exc_info=error)
        return unexpected(doing, error)

    def _tell(self, drops: Iterable[Drop]) -> None:
        if self._on_drop is not None:
            for drop in drops:
                self._on_drop(drop)

    def counts(self) -> Counts:
        """Where all frames are, at this instant."""
        with self._lock:
            lost = self._lost + sum(face.lost for face in self._faces)
            return self._ledger.counts(lost)

    def attach(self, face: Face) -> None:
        """A stream begins; for the faces."""
        with self._lock:
            self._faces.append(face)

    def detach(self, face: Face) -> None:
        """A stream has ended; for the faces."""
        with self._lock:
            if face in self._faces:
                self._faces.remove(face)
                self._lost += face.lost

    def add_lost(self, frames: int) -> None:
        """Frames that a source lost before it ended; for the faces."""
        with self._lock:
            self._lost += frames


def _would_wait_for_itself() -> UsageError:
    return UsageError(
        "The loop or callback that this thread is in keeps every slot: it would wait for itself.",
        "Ask from another thread, or outside of it.",
    )
