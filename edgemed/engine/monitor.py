"""Follow a build and cancel it: TensorRT's progress monitor drives a `Stage`, Ctrl-C ends the build in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Generic, TypeVar

from edgemed.base.progress import Stage
from edgemed.engine.bridge import Native

_SCALE = 1000  # a bar's steps; TensorRT's own counts differ per phase and nest
_POLL_S = 0.1
_START_S = 2.0  # a thread that has not begun by then was never started

Result = TypeVar("Result")
Handler = Callable[[int, FrameType | None], object] | int


class PhaseTree:
    """Nested phases of a build as one fraction that never falls. May be called from any thread."""

    def __init__(self, stage: Stage) -> None:
        self.cancelled = threading.Event()
        self._stage = stage
        self._lock = threading.Lock()
        self._parent: dict[str, str | None] = {}
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._root: str | None = None
        self._shown = 0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins inside `parent`."""
        with self._lock:
            self._parent[phase], self._steps[phase], self._done[phase] = parent, max(steps, 1), 0
            if self._root is None:
                self._root = phase
                self._stage.total(_SCALE)

    def step(self, phase: str, index: int) -> bool:
        """Step `index` (from 0) of a phase is done; answers whether to go on."""
        with self._lock:
            if phase in self._done:
                self._done[phase] = max(self._done[phase], index + 1)
            self._show()
        return not self.cancelled.is_set()

    def finish(self, phase: str) -> None:
        """A phase is over, whether or not all its steps were reported."""
        with self._lock:
            self._done[phase] = self._steps.get(phase, 1)
            if not self.cancelled.is_set():  # a cancelled phase is finished too, yet not done
                self._show()
            if phase != self._root:
                for table in (self._parent, self._steps, self._done):
                    table.pop(phase, None)

    def _show(self) -> None:
        if self._root is None:
            return
        reached = int(_SCALE * self._fraction(self._root))
        if reached > self._shown:
            self._stage.advance(reached - self._shown)
            self._shown = reached

    def _fraction(self, phase: str) -> float:
        open_children = [name for name, parent in self._parent.items() if parent == phase]
        inner = max((self._fraction(name) for name in open_children), default=0.0)
        return min((self._done[phase] + inner) / self._steps[phase], 1.0)


def make_monitor(trt: Native, phases: PhaseTree) -> Native:
    """An `IProgressMonitor` of this module that feeds `phases`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base is imported at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


class _Call(Generic[Result]):
    """Runs a function in a thread and keeps what it returned or raised.

    Its end is an event: `Thread.join` that a signal interrupts takes the thread for ended (Python before 3.13).
    """

    def __init__(self, function: Callable[[], Result]) -> None:
        self._function = function
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._result: list[Result] = []
        self._error: BaseException | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="engine-build").start()

    def _run(self) -> None:
        self._begun.set()
        try:
            self._result.append(self._function())
        except BaseException as error:  # handed on to the thread that waits
            self._error = error
        finally:
            self._ended.set()

    def may_run(self) -> bool:
        """Whether the thread runs; a signal may have come just before it could be started."""
        return self._begun.wait(_START_S)

    def wait(self) -> None:
        while not self._ended.wait(_POLL_S):
            pass

    def outcome(self) -> Result:
        if self._error is not None:
            raise self._error
        return self._result[0]


def interruptible(build: Callable[[], Result], cancel: threading.Event) -> Result:
    """Run `build` so that Ctrl-C and SIGTERM are seen while it is inside C++.

    The build runs in a thread and the caller waits. What interrupts the wait sets `cancel`, and is raised again
    once the build has ended. A second Ctrl-C ends the process at once, for a build that cannot be cancelled
    (TensorRT 8.6 has no monitor).
    """
    call = _Call(build)
    try:
        call.start()
        call.wait()
    except BaseException:
        cancel.set()
        _wait_or_die(call)
        raise
    return call.outcome()


def _wait_or_die(call: _Call[Result]) -> None:
    before = _heed_ctrl_c()
    try:
        if call.may_run():
            call.wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _heed_ctrl_c() -> Handler | None:
    """Make Ctrl-C raise again, should the first have been the last that counts; returns the handler until now."""
    if threading.current_thread() is not threading.main_thread():
        return None  # no signal is raised here
    return signal.signal(signal.SIGINT, signal.default_int_handler)
