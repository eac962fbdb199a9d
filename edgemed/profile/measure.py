"""The measuring loop: drives a Runner, or a ring, by the clock of a load, and stamps every frame.

Latency counts from when a frame was *meant* to arrive. The loop allocates nothing that lives longer than a frame,
and does nothing between frames but wait.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Protocol

from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError, GpuError, Terminated, UsageError
from edgemed.base.runner import Runner, RunnerInfo
from edgemed.profile.beside import Beside
from edgemed.profile.clock import SPIN_NS, wait_until
from edgemed.profile.facts import ProcessFacts, Usage
from edgemed.profile.load import Load
from edgemed.profile.stagelog import StageLog
from edgemed.profile.stamps import (
    AFTER_GAP,
    ANSWERED,
    DROP_REASONS,
    DROPPED,
    FAILED,
    REASON_SHIFT,
    WARMUP,
    Samples,
    StampFile,
)
from edgemed.runtime.frames import Answer, Drop, Failure, Frame, Outcome

Arrays = Mapping[str, NDArray[Any]]
WARMUP_NS: Final = 1_000_000_000


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        load: when frames arrive.
        frames: so many after the warm-up, or
        duration_ns: those that are meant to arrive within so long after it.
        warmup_frames: at least so many are warm-up, and
        warmup_ns: so are those that are meant to arrive this early. They are kept, and marked.
        deadline_ns: what a ring is told; an answer later than this after its intended arrival is a miss.
        spin_ns: the last part of a wait is spent spinning.
        collector: Python's cyclic garbage collector: `off` (frozen before the first frame) or left `on`.
        window_ns: how often `until` is asked.
        until: ends the run when it says so, at a window's edge: (stamps, first row, end row of the window) → whether.
    """

    load: Load
    frames: int | None = None
    duration_ns: int | None = None
    warmup_frames: int = 1
    warmup_ns: int = WARMUP_NS
    deadline_ns: int | None = None
    spin_ns: int = SPIN_NS
    collector: Literal["off", "on"] = "off"
    window_ns: int = 60_000_000_000
    until: Callable[[StampFile, int, int], bool] | None = None

    def __post_init__(self) -> None:
        if self.frames is None and self.duration_ns is None and self.load.kind != "replay":
            raise UsageError("The load has no end.", "Give --duration or --frames.")


@dataclass(frozen=True)
class Measurement:
    """A run that is over.

    Attributes:
        samples: the stamps of all its frames.
        start_ns: `time.monotonic_ns` at offset 0 of the load.
        end_ns: when the last frame was done.
        usage: of the process, from before the first frame to after the last.
        stop: why it ended early: Ctrl-C, SIGTERM, or a GPU that failed; `None` where it went to its end.
        info: who answered.
    """

    samples: Samples
    start_ns: int
    end_ns: int
    usage: ProcessFacts
    stop: BaseException | None
    info: RunnerInfo
    plan: Plan


class RingFace(Protocol):
    """What is used of a ring: frames in, outcomes out in order, answers released when the loop goes on."""

    def run(self, source: Any) -> Iterator[Outcome]: ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class _Schedule:
    """Intended arrivals of a plan as (status marks, absolute time); ends where the plan ends."""

    def __init__(self, plan: Plan, start_ns: int) -> None:
        self._plan = plan
        self._start_ns = start_ns
        self.warm = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        plan, start, closed, gap = self._plan, self._start_ns, self._plan.load.closed, self._plan.load.gap_ns
        frames, duration, end = plan.frames, plan.duration_ns, None
        now, previous = time.monotonic_ns, -gap
        measured = 0
        for index, offset in enumerate(plan.load.arrivals()):
            if closed:
                offset = now() - start
            if end is None and (index < plan.warmup_frames or offset < plan.warmup_ns):
                mark, self.warm = WARMUP, index + 1
            else:
                if end is None:
                    end = offset + duration if duration is not None else 1 << 62
                if offset >= end or measured == frames:
                    return
                measured += 1
                mark = 0
            if not closed and offset - previous >= gap:
                mark |= AFTER_GAP
            previous = offset
            yield mark, start + offset


def measure_runner(
    runner: Runner, feeds: Sequence[Arrays], plan: Plan, stamps: Path, beside: Sequence[Beside] = ()
) -> Measurement:
    """Measure a Runner, one frame at a time.

    Args:
        runner: entered.
        feeds: inputs, taken in turn.
        plan: what to measure.
        stamps: the file that takes the stamps.
        beside: what goes on meanwhile.

    Returns:
        What was measured, also where Ctrl-C, SIGTERM or a lost GPU ended it.

    Raises:
        EdgemedError: the very first frame failed: nothing was measured.
        ResourceError: the file cannot be written.
    """
    with ExitStack() as stack:
        file = stack.enter_context(StampFile(stamps))
        for each in beside:
            stack.enter_context(each)
        stack.enter_context(_collector(plan.collector))
        before = Usage.now()
        start_ns = time.monotonic_ns()
        stop = _drive(runner, feeds, plan, file, start_ns)
        after = Usage.now()
    return Measurement(file.close(), start_ns, after.at_ns, before.until(after), stop, runner.info, plan)


def _drive(runner: Runner, feeds: Sequence[Arrays], plan: Plan, file: StampFile, start_ns: int) -> BaseException | None:
    """The loop. Names are local, since it runs as often as the model does."""
    now, wait, put, infer = time.monotonic_ns, wait_until, file.put, runner.infer
    log, spin, many, closed = StageLog(), plan.spin_ns, len(feeds), plan.load.closed
    take, window = log.take, _Window(plan, file, start_ns)
    index = 0
    try:
        for mark, intended in _Schedule(plan, start_ns):
            taken = intended if closed else wait(intended, spin)
            try:
                infer(feeds[index % many], frame=index, spans=log)
            except EdgemedError as error:
                put(index, mark | FAILED, intended, taken, 0, *take(), now())
                if index == 0 or (isinstance(error, GpuError) and error.sticky):
                    return _refuse_first(error, index)
            else:
                put(index, mark | ANSWERED, intended, taken, 0, *take(), now())
            index += 1
            if intended >= window.edge_ns and window.over(index, intended):
                break
    except (KeyboardInterrupt, Terminated) as stop:
        return stop
    return None


def _refuse_first(error: EdgemedError, index: int) -> EdgemedError:
    if index == 0:
        raise error
    return error


class _Window:
    """Asks the plan at the edge of each window whether the run is over."""

    def __init__(self, plan: Plan, file: StampFile, start_ns: int) -> None:
        self._plan, self._file, self._row = plan, file, 0
        self.edge_ns = start_ns + plan.window_ns if plan.until is not None else 1 << 62

    def over(self, row: int, now_ns: int) -> bool:
        first, self._row = self._row, row
        while self.edge_ns <= now_ns:
            self.edge_ns += self._plan.window_ns
        return self._plan.until is not None and self._plan.until(self._file, first, row)


@contextmanager
def _collector(state: Literal["off", "on"]) -> Iterator[None]:
    """Collect what there is, and keep the collector from walking it again; off, it does not run at all."""
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    if state == "off":
        gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()


def measure_ring(
    make: Callable[[Callable[[Drop], None]], AbstractContextManager[RingFace]],
    info: Callable[[], RunnerInfo],
    feeds: Sequence[Arrays],
    plan: Plan,
    stamps: Path,
    beside: Sequence[Beside] = (),
) -> Measurement:
    """Measure a ring: frames arrive by the load whether or not those before them are answered.

    Args:
        make: gives a ring, with `spans=True`, that tells its drops to the function handed in.
        info: tells who answers; asked once the ring is entered.
        feeds: frames' data, taken in turn.
        plan: what to measure.
        stamps: the file that takes the stamps.
        beside: what goes on meanwhile.

    Raises:
        EdgemedError: the very first frame failed: nothing was measured.
        ResourceError: the file cannot be written.
    """
    with ExitStack() as stack:
        file = stack.enter_context(StampFile(stamps))
        rows = _RingRows(file)
        ring = stack.enter_context(make(rows.dropped))
        who = info()
        for each in beside:  # after the ring: power at idle is that of a loaded model
            stack.enter_context(each)
        stack.enter_context(_collector(plan.collector))
        before = Usage.now()
        start_ns = time.monotonic_ns()
        source = _Arrivals(plan, start_ns, feeds, rows)
        stop = _listen(ring, source, rows, _Window(plan, file, start_ns))
        after = Usage.now()
    return Measurement(file.close(), start_ns, after.at_ns, before.until(after), stop, who, plan)


def _listen(ring: RingFace, source: _Arrivals, rows: _RingRows, window: _Window) -> BaseException | None:
    try:
        for outcome in ring.run(source):
            intended = rows.answered(outcome) if isinstance(outcome, Answer) else rows.failed(outcome)
            if isinstance(outcome, Failure):
                error = outcome.error
                if outcome.frame == 0 or (isinstance(error, GpuError) and error.sticky):
                    return _refuse_first(error, outcome.frame)
            if intended >= window.edge_ns and window.over(outcome.frame + 1, intended):
                source.close()
    except (KeyboardInterrupt, Terminated) as stop:
        source.close()
        return stop
    return None


class _RingRows:
    """Writes the rows of a ring's frames; drops are told in other threads than answers."""

    def __init__(self, file: StampFile) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._pending: dict[int, tuple[int, int]] = {}

    def sent(self, frame: int, mark: int, intended_ns: int) -> None:
        self._pending[frame] = mark, intended_ns

    def dropped(self, drop: Drop) -> None:
        mark, intended = self._pending.pop(drop.frame)
        status = mark | DROPPED | (DROP_REASONS.index(drop.reason) + 1) << REASON_SHIFT
        with self._lock:
            self._file.put(drop.frame, status, intended, 0, 0, 0, 0, 0, 0, 0, 0, drop.dropped_ns)

    def failed(self, failure: Failure) -> int:
        mark, intended = self._pending.pop(failure.frame)
        with self._lock:
            self._file.put(failure.frame, mark | FAILED, intended, 0, 0, 0, 0, 0, 0, 0, 0, failure.failed_ns)
        return intended

    def answered(self, answer: Answer) -> int:
        mark, intended = self._pending.pop(answer.frame)
        at = {span.name: (span.start_ns, span.end_ns) for span in answer.spans}
        none = (0, 0)
        taken, filled = at.get("fill", none)
        stages = (*at.get("copy-in", none), *at.get("compute", none), *at.get("copy-out", none))
        row = (mark | ANSWERED, intended, taken or intended, filled or taken or intended, *stages, answer.answered_ns)
        with self._lock:
            self._file.put(answer.frame, *row)
        return intended


class _Arrivals:
    """The load as a source of frames; live unless it is closed, where the ring takes a frame when it has room."""

    def __init__(self, plan: Plan, start_ns: int, feeds: Sequence[Arrays], rows: _RingRows) -> None:
        self._plan, self._start_ns, self._feeds, self._rows = plan, start_ns, feeds, rows
        self.live = not plan.load.closed
        self.lost = 0
        self._over = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        late = self._plan.deadline_ns
        for index, (mark, intended) in enumerate(_Schedule(self._plan, self._start_ns)):
            if self.live:
                self._wait(intended)
            if self._over.is_set():
                return
            self._rows.sent(index, mark, intended)
            feeds = self._feeds[index % len(self._feeds)]
            yield Frame(index, feeds, intended, None if late is None else intended + late)

    def _wait(self, target_ns: int) -> None:
        """Sleep so that `close` wakes it; spin at the end as ever."""
        spin = self._plan.spin_ns
        while not self._over.is_set() and (left := target_ns - time.monotonic_ns()) > spin:
            self._over.wait((left - spin) / 1e9)
        if not self._over.is_set():
            wait_until(target_ns, spin)

    def close(self) -> None:
        """No more frames."""
        self._over.set()

    def __enter__(self) -> _Arrivals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
