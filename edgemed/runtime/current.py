"""Who is inside the CUDA context: pushed and popped by each thread for itself, whatever ends the thread or the process.

pycuda aborts the process when a thread ends with a context pushed, also when it is a daemon thread that the interpreter
stops at its own end. So each thread's depth is known, and both ends are seen to.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType

from edgemed.runtime.driver import translate

_LEAVE_NS = 1_000_000_000  # how long the end of the process waits for daemon threads to leave their blocks


class _Stack:
    """How deep one thread is inside. `depth` rises before the context is pushed and falls before it is popped."""

    __slots__ = ("__weakref__", "_error", "_pop", "depth")

    def __init__(self, pop: Callable[[], None], error: type[Exception]) -> None:
        self._pop = pop
        self._error = error
        self.depth = 0

    def __del__(self) -> None:
        # the thread ends, and its thread-local values with it, before pycuda looks
        if self.depth > 0:
            with contextlib.suppress(self._error):
                self._pop()


class _Stacks(threading.local):
    def __init__(self, everyone: weakref.WeakSet[_Stack], pop: Callable[[], None], error: type[Exception]) -> None:
        self.mine = _Stack(pop, error)
        everyone.add(self.mine)


class Current:
    """Makes the context current in this thread for a block; blocks may nest, and cost under a microsecond."""

    __slots__ = ("_error", "_everyone", "_pop", "_push", "_stacks")

    def __init__(self, push: Callable[[], None], pop: Callable[[], None], error: type[Exception]) -> None:
        self._push = push
        self._pop = pop
        self._error = error
        self._everyone: weakref.WeakSet[_Stack] = weakref.WeakSet()
        self._stacks = _Stacks(self._everyone, pop, error)

    def __enter__(self) -> None:
        stack = self._stacks.mine
        if stack.depth:
            stack.depth += 1
            return
        stack.depth = 1
        try:
            self._push()
        except BaseException as error:
            stack.depth = 0
            if isinstance(error, self._error):
                raise translate(error) from error
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stack = self._stacks.mine
        stack.depth -= 1
        if stack.depth:
            return
        try:
            self._pop()
        except self._error as error:
            failed = translate(error)
            if value is None:  # else that it failed is a consequence, and what came first goes on
                raise failed from error

    def refuse(self, push: Callable[[], None]) -> None:
        """Have every later outermost entry raise what `push` raises."""
        self._push = push

    def end(self) -> None:
        """At the end of the process, in its main thread: have daemon threads leave, and none enter any more."""
        mine, push, main = self._stacks.mine, self._push, threading.get_ident()

        def gate() -> None:
            if threading.get_ident() != main:
                threading.Event().wait()  # for ever: the interpreter is about to stop this thread
            push()

        self._push = gate
        deadline_ns = time.monotonic_ns() + _LEAVE_NS
        while self._others_inside(mine):
            if time.monotonic_ns() > deadline_ns:
                return  # one waits for the device; it will not come back before the process is gone
            time.sleep(0.001)
        time.sleep(0.001)  # `depth` falls just before the context is popped

    def _others_inside(self, mine: _Stack) -> bool:
        try:
            return any(stack.depth > 0 for stack in self._everyone if stack is not mine)
        except RuntimeError:  # a thread came to it for the first time meanwhile
            return True

    def forget(self) -> None:
        """In a forked child: this thread is not inside, and leaving what it was inside of does nothing."""
        self._stacks.mine.depth = 0
        self._pop = _nothing
        self._stacks = _Stacks(self._everyone, _nothing, self._error)


def _nothing() -> None:
    return None
