"""Runs some of a model's inputs a second time elsewhere, after they were answered, and never in the way.

What is mirrored is copied when it is asked for, and only where there is room for it: nobody waits, nothing piles up.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError, ResourceError
from edgemed.runtime.contained.requests import Reply

log = logging.getLogger(__name__)

Feeds = Mapping[str, NDArray[Any]]
Judge = Callable[[Reply, "Reply | EdgemedError"], None]
_ROOM: Final = 2
_NICE: Final = 15
_JOIN_S: Final = 5.0  # it may wait for an answer that nobody wants any more


class Ask(Protocol):
    """Asks the other worker."""

    def __call__(self, feeds: Feeds) -> Future[Reply]: ...


class Mirror:
    """One other worker that is asked, too.

    Args:
        name: of the thread.
        ask: the other worker.
        judge: told of both answers, or why there was no other one.
        share: of the inputs.
        dropped: called for one that found no room.
        timeout_s: for the other answer.
    """

    def __init__(
        self,
        name: str,
        ask: Ask,
        judge: Judge,
        *,
        share: float = 1.0,
        dropped: Callable[[], None] = lambda: None,
        timeout_s: float = 120.0,
    ) -> None:
        self._ask, self._judge, self._dropped = ask, judge, dropped
        self._share, self._timeout_s = share, timeout_s
        self._random = random.Random()  # noqa: S311 - a sample, not a secret
        self._queue: queue.SimpleQueue[tuple[Feeds, Reply] | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_ROOM)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def copy(self, feeds: Feeds) -> Feeds | None:
        """The feeds for a second inference; `None` where this one is not mirrored."""
        if self._closed or (self._share < 1 and self._random.random() >= self._share):
            return None
        if not self._room.acquire(blocking=False):
            self._dropped()
            return None
        try:
            return {name: np.array(value) for name, value in feeds.items()}
        except MemoryError:
            self._room.release()
            self._dropped()
            return None

    def answered(self, feeds: Feeds, future: Future[Reply]) -> None:
        """The first answer to what was copied is there; it does not wait."""
        if self._closed or future.cancelled() or future.exception() is not None:
            self._room.release()
            return
        self._queue.put((feeds, future.result()))

    def close(self) -> None:
        """Take no more; it ends when it has judged what it has."""
        self._closed = True
        self._queue.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._closed:
                continue
            try:
                self._judge(item[1], self._second(item[0]))
            except Exception:
                log.exception("an answer could not be compared")
            finally:
                self._room.release()

    def _second(self, feeds: Feeds) -> Reply | EdgemedError:
        try:
            return self._ask(feeds).result(self._timeout_s)
        except EdgemedError as error:
            return error
        except LateError:
            return ResourceError(f"There was no answer in {self._timeout_s:g} s.", "Allow it more time.")


def stand_back(pid: int | None) -> None:
    """Let a process go after everybody else; the priority of a Linux process is each thread's own."""
    threads = Path(f"/proc/{pid}/task").glob("*") if pid is not None else ()
    with suppress(OSError):  # it has ended
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICE)


def compute_ns(reply: Reply) -> int:
    """Time that the device worked for an answer."""
    spans = [span.duration_ns for span in reply.spans if span.name == "compute"]
    return sum(spans) if spans else sum(span.duration_ns for span in reply.spans if span.name != "queue")
