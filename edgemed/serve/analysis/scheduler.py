"""In front of a model's worker: requests in the order of `edf`, several in one inference where the bundle allows it.

Nothing waits behind the worker that could wait here, where what is more urgent still overtakes it: `depth` inferences
are asked for at a time. With 1 the bound of `edf` holds as it stands; each more adds one inference to it, and hides the
way between the processes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError, ResourceError
from edgemed.base.runner import RunnerSpecs
from edgemed.base.spans import Span
from edgemed.bundle.read import Bundle
from edgemed.runners.ort import check_feeds
from edgemed.runtime.contained.requests import Reply, same
from edgemed.serve.analysis.edf import EdfQueue, Job, Rules

log = logging.getLogger(__name__)

Feeds = Mapping[str, NDArray[Any]]
Drop = Literal["expired", "full", "closed", "cancelled"]
OnDrop = Callable[[Drop, int], None]
"""Called with the reason and the number of requests that were not computed; it must not fail, and not block."""


class Ask(Protocol):
    """Asks the worker; `ContainedRunner.submit` is one."""

    def __call__(self, feeds: Feeds, *, frame: int | None = None, deadline_ns: int | None = None) -> Future[Reply]: ...


@dataclass(eq=False)
class _Request(Job):
    feeds: Feeds = field(default_factory=dict)
    frame: int | None = None
    future: Future[Reply] = field(default_factory=Future)


class Scheduler:
    """One for each worker.

    Args:
        ask: the worker.
        specs: what it takes and gives.
        rules: of the queue.
        least: samples that an inference must have; fewer are filled up with the last one, and cut off again.
        depth: inferences that the worker is asked for at a time.
        on_drop: told of requests that were not computed.

    Attributes:
        dropped: requests that were not computed, by reason.
    """

    def __init__(
        self,
        ask: Ask,
        specs: RunnerSpecs,
        rules: Rules | None = None,
        *,
        least: int = 1,
        depth: int = 1,
        on_drop: OnDrop | None = None,
    ) -> None:
        self._ask = ask
        self._on_drop = on_drop
        self._specs = specs
        self._least = least
        self._depth = depth
        self._varies = all(spec.shape[:1] == (None,) for spec in (*specs.inputs, *specs.outputs))
        rules = rules or Rules()
        self._queue: EdfQueue[_Request] = EdfQueue(rules if self._varies else replace(rules, most=1))
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._flying = 0
        self._pumping = self._again = self._closed = False
        self._look_ns: int | None = None
        self._watcher: threading.Thread | None = None
        self.dropped: Counter[Drop] = Counter()

    @classmethod
    def of_bundle(
        cls,
        ask: Ask,
        bundle: Bundle,
        specs: RunnerSpecs,
        *,
        batch: int | None = None,
        depth: int = 1,
        on_drop: OnDrop | None = None,
    ) -> Scheduler:
        """With the batches that a bundle takes, at most `batch`."""
        taken = bundle.manifest.batch
        most = 1 if taken is None else taken.max
        most = most if batch is None else min(most, batch)
        least = 1 if taken is None else taken.min
        return cls(ask, specs, Rules(most=most), least=least, depth=depth, on_drop=on_drop)

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def submit(
        self,
        feeds: Feeds,
        *,
        due_ns: int | None = None,
        deadline_ns: int | None = None,
        live: bool = False,
        frame: int | None = None,
    ) -> Future[Reply]:
        """See `Served.submit`.

        Raises:
            InputError: the feeds do not fit.
        """
        check_feeds(self._specs, feeds)
        request = _Request(
            size=self._size(feeds),
            kind=_kind(feeds),
            due_ns=due_ns,
            deadline_ns=deadline_ns,
            live=live,
            submitted_ns=time.monotonic_ns(),
            feeds=feeds,
            frame=frame,
        )
        reason: Drop | None = None
        request.future.add_done_callback(lambda future: self._withdrawn(request) if future.cancelled() else None)
        with self._lock:
            if self._closed:
                reason = "closed"
            elif not self._queue.push(request):
                reason = "full"
        if reason is not None:
            self._drop(request, reason)
            return request.future
        self._pump()
        self._plan()
        return request.future

    def change(self, **rules: int) -> None:
        """Other `Rules` from now on, by name."""
        with self._lock:
            changed = replace(self._queue.rules, **rules)
            self._queue.rules = changed if self._varies else replace(changed, most=1)
        self._pump()
        self._plan()

    def close(self) -> None:
        """Take nothing more; what waits ends with the reason. What the worker was asked for is answered still."""
        with self._lock:
            self._closed = True
            left = self._queue.drain()
            self._changed.notify_all()
        for request in left:
            self._drop(request, "closed")
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()

    def _size(self, feeds: Feeds) -> int:
        return len(next(iter(feeds.values()))) if self._varies else 1

    def _withdrawn(self, request: _Request) -> None:
        """Who asked has gone away: what waits still makes room."""
        with self._lock:
            if self._queue.withdraw(request):
                request.feeds = {}
                self._count("cancelled")

    def _pump(self) -> None:
        """Ask for what is next, as far as the worker takes it. One thread at a time: others leave it to that one."""
        with self._lock:
            if self._pumping:
                self._again = True
                return
            self._pumping = True
        try:
            while self._pump_once():
                pass
        except BaseException:  # else nobody would ever ask again
            self._pumping = False
            raise

    def _pump_once(self) -> bool:
        """Whether there may be more; where there is none, the next to come pumps again."""
        with self._lock:
            now_ns = time.monotonic_ns()
            late = self._queue.expired(now_ns)
            batch = self._queue.take(now_ns) if self._flying < self._depth and not self._closed else []
            self._flying += bool(batch)
            if not batch and not late and not self._again:
                self._pumping = False
                return False
            self._again = False
        try:
            for request in late:
                self._drop(request, "expired")
        finally:
            if batch:
                self._start(batch, now_ns)
        return True

    def _start(self, batch: Sequence[_Request], now_ns: int) -> None:
        wanted = [request for request in batch if not request.future.cancelled()]
        if len(wanted) < len(batch):
            for request in batch:
                if request not in wanted:
                    request.feeds = {}
            with self._lock:
                self._count("cancelled", len(batch) - len(wanted))
        if not wanted:
            self._landed()
            return
        try:
            asked = self._ask(self._joined(wanted), frame=wanted[0].frame, deadline_ns=_last_deadline(wanted))
        except Exception as error:
            self._failed(wanted, error)
            self._landed()
            return
        asked.add_done_callback(lambda future: self._done(wanted, now_ns, future))

    def _joined(self, requests: Sequence[_Request]) -> Feeds:
        """The feeds of all as one."""
        short = self._least - sum(request.size for request in requests)
        if not self._varies or (len(requests) == 1 and short <= 0):
            return requests[0].feeds
        joined = {}
        for name in requests[0].feeds:
            parts = [request.feeds[name] for request in requests]
            parts += [np.repeat(parts[-1][-1:], short, axis=0)] if short > 0 else []
            joined[name] = np.concatenate(parts)
        return joined

    def _done(self, batch: Sequence[_Request], sent_ns: int, future: Future[Reply]) -> None:
        try:
            error = future.exception()
            if error is not None:
                self._failed(batch, error)
            else:
                size = sum(request.size for request in batch)
                with self._lock:
                    self._queue.cost.saw(size, time.monotonic_ns() - sent_ns)
                self._answer(batch, sent_ns, future.result())
        except BaseException as error:  # nobody may wait for ever, and the worker is free again
            for request in batch:
                _end(request, error)
            raise
        finally:
            self._landed()

    def _landed(self) -> None:
        with self._lock:
            self._flying -= 1
            if not len(self._queue):  # whoever was answered waits for this thread to let go of the interpreter
                return
        self._pump()
        self._plan()

    def _answer(self, batch: Sequence[_Request], sent_ns: int, reply: Reply) -> None:
        first = 0
        for request in batch:
            part = slice(first, first + request.size)
            outputs = {name: value[part] for name, value in reply.outputs.items()} if self._varies else reply.outputs
            spans = reply.spans
            if request.frame != batch[0].frame:  # which the worker was told
                spans = tuple(replace(span, frame=request.frame) for span in spans)
            waited = Span("queue", request.submitted_ns, sent_ns, request.frame)
            _end(request, Reply(outputs, reply.info, (waited, *spans), reply.generation, reply.tries))
            first += request.size

    def _failed(self, batch: Sequence[_Request], error: BaseException) -> None:
        """One of several may be to blame: each is asked for once more, alone."""
        if len(batch) > 1:
            for request in batch:
                request.alone = True
            with self._lock:
                left = batch if self._closed else [request for request in batch if not self._queue.push(request)]
        else:
            left = batch
        for request in left:
            _end(request, same(error) if isinstance(error, EdgemedError) else error)

    def _drop(self, request: _Request, reason: Drop) -> None:
        self._count(reason)
        if reason == "expired":
            error = ResourceError("The deadline passed before there was an answer.", "Allow it more time.")
        elif reason == "full":
            error = ResourceError(f"{self._queue.rules.bound} requests wait already.", "Ask for less at a time.")
        else:
            error = ResourceError("The model is being closed.", "Try again in a moment.")
        _end(request, error)

    def _count(self, reason: Drop, number: int = 1) -> None:
        self.dropped[reason] += number
        if self._on_drop is not None:
            self._on_drop(reason, number)

    # -- what has to be looked at though nothing happens -------------------------------------------------------------

    def _plan(self) -> None:
        """Have somebody look when something that waits expires."""
        with self._lock:
            look_ns = self._queue.look_ns(busy=self._flying >= self._depth)
            if look_ns is None or self._closed or (self._look_ns is not None and self._look_ns <= look_ns):
                return
            if self._watcher is None and not self._begin_to_watch():
                return
            self._look_ns = look_ns
            self._changed.notify_all()

    def _begin_to_watch(self) -> bool:
        watcher = threading.Thread(target=self._watch, name="scheduler", daemon=True)
        try:
            watcher.start()
        except RuntimeError:  # there can be no more threads: the next request tries again
            log.warning("nobody looks at deadlines of what waits: there can be no more threads")
            return False
        self._watcher = watcher
        return True

    def _watch(self) -> None:
        while True:
            with self._lock:
                while not self._closed and (self._look_ns is None or self._look_ns > time.monotonic_ns()):
                    left_ns = None if self._look_ns is None else self._look_ns - time.monotonic_ns()
                    self._changed.wait(None if left_ns is None else max(0.0, left_ns / 1e9))
                if self._closed:
                    return
                self._look_ns = None
            try:
                self._pump()
                self._plan()
            except Exception:  # it is the only one who looks
                log.exception("what waits could not be looked at")


def _kind(feeds: Feeds) -> Hashable:
    """Feeds of one kind can be stacked."""
    return tuple((name, feeds[name].dtype, feeds[name].shape[1:]) for name in sorted(feeds))


def _last_deadline(requests: Sequence[_Request]) -> int | None:
    """From when on nobody wants the answer."""
    deadlines = [request.deadline_ns for request in requests]
    return None if None in deadlines else max(d for d in deadlines if d is not None)


def _end(request: _Request, outcome: Reply | BaseException) -> None:
    with suppress(InvalidStateError):  # cancelled
        if isinstance(outcome, BaseException):
            request.future.set_exception(outcome)
        else:
            request.future.set_result(outcome)
    request.feeds = {}  # its memory may be wanted
