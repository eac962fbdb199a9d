"""A request and how it ends: with a reply, or with an error that says why; exactly one of them, once."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError
from edgemed.base.runner import RunnerInfo
from edgemed.base.spans import Span

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Reply:
    """What a worker answered.

    Attributes:
        outputs: arrays of this process's own memory.
        info: the Runner that computed it, fallback or not.
        spans: `queue` (for a slot, or a rebuild), then what the Runner records.
        generation: number of the worker.
        tries: how many workers were asked.
    """

    outputs: dict[str, NDArray[Any]]
    info: RunnerInfo
    spans: tuple[Span, ...]
    generation: int
    tries: int


@dataclass(eq=False)
class Request:
    """One inference that somebody asked for.

    Attributes:
        feeds: arrays that must not change before the end; dropped at the end.
        frame: id that the spans carry.
        deadline_ns: `time.monotonic_ns` after which no answer is wanted.
        retries: how many more workers may be asked when one is lost.
        home: the slots that `slot` is one of, where the feeds lie in a slot already.
        slot: see `home`.
        into: arrays to put the outputs into; `None`: fresh ones.
        berth: the slot's, which stays taken for as long as a worker may be reading it, however the request has ended.
    """

    feeds: Arrays
    frame: int | None = None
    deadline_ns: int | None = None
    retries: int = 1
    home: object | None = None
    slot: int = -1
    into: dict[str, NDArray[Any]] | None = None
    berth: object | None = None
    future: Future[Reply] = field(default_factory=Future)
    submitted_ns: int = field(default_factory=time.monotonic_ns)
    sent_ns: int = 0
    number: int = 0
    tries: int = 0
    told: bool = False

    @property
    def ended(self) -> bool:
        return self.future.done()

    def wanted(self) -> bool:
        """Whether a worker is to be asked; no longer after its end, by a deadline or because the caller cancelled."""
        if self.ended:
            self._notify()
        return not self.ended

    def sent_at(self, number: int) -> None:
        """A worker is asked, by that number."""
        self.number = number
        self.tries += 1
        self.sent_ns = time.monotonic_ns()

    def answer(self, reply: Reply) -> None:
        """End it well, unless it has ended."""
        try:
            self.future.set_result(reply)
        except InvalidStateError:
            self._notify()
        self.feeds = {}

    def fail(self, error: EdgemedError) -> None:
        """End it with a reason, unless it has ended."""
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            self._notify()
        self.feeds = {}

    def _notify(self) -> None:
        """Tell those who wait for a cancelled future; it is never marked as running, so it can be until its end."""
        if self.future.cancelled() and not self.told:
            self.told = True
            with contextlib.suppress(RuntimeError):  # another thread was quicker
                self.future.set_running_or_notify_cancel()
        self.feeds = {}


def same(error: EdgemedError) -> EdgemedError:
    """The error once more: one that is raised in several threads would collect their tracebacks."""
    one = copy.copy(error)
    one.__cause__ = error.__cause__
    return one
