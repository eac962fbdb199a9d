"""The desk: takes requests from any thread, gives them slots, and knows of each where it is until it has ended.

A request is *waiting* (no slot, or no worker to ask), *flying* (the worker has been asked), or *held* (answered by a
worker that has come under suspicion since, and is being checked). One lock guards these places; frames are copied
and futures are ended outside of it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from threading import Lock

from edgemed.base.errors import ChildError, EdgemedError, ResourceError
from edgemed.runtime.contained.link import Link
from edgemed.runtime.contained.protocol import Message, ProtocolError
from edgemed.runtime.contained.requests import Reply, Request, same
from edgemed.runtime.contained.shared import Shapes

Wake = Callable[[], None]


class Desk:
    """Keeps the requests of one worker, over all of its generations.

    Args:
        reserved: slots from 0 that requests bring along.
        pool: slots behind them, for requests that bring none.
        limit: how many requests may wait.
        wake: called when something has to be looked at sooner than was planned.
    """

    def __init__(self, reserved: int, pool: int, limit: int, wake: Wake) -> None:
        self._lock = Lock()
        self._free = deque(range(reserved, reserved + pool))
        self._reserved = reserved
        self._limit = limit
        self._wake = wake
        self._waiting: deque[Request] = deque()
        self._flying: dict[int, Request] = {}
        self._held: list[tuple[Request, Reply]] = []
        self._numbers = itertools.count(1)
        self._link: Link | None = None
        self._open = False
        self._refusal: EdgemedError | None = ChildError("The worker was not started.", "Enter it first.")
        self._look_ns = 0
        self.broken: OSError | None = None  # a send failed: the worker is gone, or does not read

    # -- from any thread -------------------------------------------------------------------------------------------

    def offer(self, request: Request) -> None:
        """Take a request; it may have ended with an error when this returns."""
        if (error := self.take(request)) is not None:
            request.fail(same(error))

    def take(self, request: Request) -> EdgemedError | None:
        """Take a request, or say why not."""
        ended: list[Request] = []
        with self._lock:
            if len(self._waiting) >= self._limit:
                ended = self._sweep()
            error = self._refusal
            link, slot = self._ready_for(request) if error is None and not self._waiting else (None, -1)
            if error is None and link is None:
                if len(self._waiting) >= self._limit:
                    error = ResourceError(f"{self._limit} requests wait already.", "Ask for less at a time.")
                else:
                    self._waiting.append(request)
            early = request.deadline_ns is not None and request.deadline_ns < self._look_ns
        for one in ended:
            one.wanted()  # tells those who wait for it
        if error is not None:
            return error
        if link is not None and self._send(request, link, slot):
            self.pump()
        if early:
            self._wake()
        return None

    def pump(self) -> None:
        """Send what waits, as far as there are slots."""
        while True:
            with self._lock:
                link, slot = self._ready_for(self._waiting[0]) if self._waiting else (None, -1)
                if link is None:
                    return
                request = self._waiting.popleft()
            self._send(request, link, slot)

    def _sweep(self) -> list[Request]:
        """With the lock: take away what waits and has ended, as by a cancellation; it is in nobody's way then."""
        ended = [request for request in self._waiting if request.ended]
        self._waiting = deque(request for request in self._waiting if not request.ended)
        return ended

    def _ready_for(self, request: Request) -> tuple[Link | None, int]:
        """With the lock: the link, and a slot that is taken for the request; no link if it has to wait."""
        if self._link is None or not self._open:
            return None, -1
        if request.home is self:  # flying still: with one that was given up
            return (None, -1) if request.slot in self._flying else (self._link, request.slot)
        return (self._link, self._free.popleft()) if self._free else (None, -1)

    def _send(self, request: Request, link: Link, slot: int) -> bool:
        """Fill the slot and ask the worker; back to the head of the queue if it was lost meanwhile.

        Returns:
            Whether the slot was not used after all, so that what waits has to be looked at again.
        """
        try:
            return self._send_from(request, link, slot)
        except BaseException:  # Ctrl-C
            with self._lock:
                if self._flying.get(slot) is not request and slot not in self._free:
                    self._release(slot)
            request.fail(ResourceError("The request was interrupted.", "Ask again."))
            raise

    def _send_from(self, request: Request, link: Link, slot: int) -> bool:
        feeds = request.feeds  # before `ended` is looked at: they are dropped after the end
        wanted = request.wanted()
        if wanted and request.home is not self:
            try:
                link.fill(slot, feeds)
            except EdgemedError as error:
                request.fail(error)
                wanted = False
        with self._lock:
            if wanted and self._link is link:
                self._fly(request, link, slot, {name: array.shape for name, array in feeds.items()})
                return False
            self._release(slot)
            if wanted:
                self._waiting.appendleft(request)
            refusal = self._refusal
        if refusal is not None:
            self._fail_waiting(refusal)
        return True

    def _fly(self, request: Request, link: Link, slot: int, shapes: Shapes) -> None:
        request.sent_at(next(self._numbers))
        self._flying[slot] = request
        try:
            link.run(slot, request.number, shapes)
        except OSError as error:
            self.broken = error
            self._wake()
        except BaseException:  # Ctrl-C: whether the worker was asked cannot be known
            self.broken = InterruptedError()
            self._wake()
            raise

    def _release(self, slot: int) -> None:
        if slot >= self._reserved:
            self._free.append(slot)

    # -- from the thread that watches the worker -------------------------------------------------------------------

    def connect(self, link: Link) -> None:
        """A worker has loaded. Nothing is sent before `open`."""
        with self._lock:
            self._link, self._open = link, False

    def accept(self) -> None:
        """Take requests from now on: a worker is there, or will be."""
        with self._lock:
            self._refusal = None

    def open(self) -> None:
        """The worker is sound: deliver what was held, send what waits."""
        with self._lock:
            self._open = True
            held, self._held = self._held, []
        for request, reply in held:
            request.answer(reply)
        self.pump()

    def suspect(self) -> None:
        """Send nothing more, and hold back what is answered, until `open`."""
        with self._lock:
            self._open = False

    def flying(self, message: Message) -> Request:
        """The request that a worker's message is about.

        Raises:
            ProtocolError: it was asked for no such thing.
        """
        with self._lock:
            request = self._flying.get(message.slot)
        if request is None or request.number != message.request:
            raise ProtocolError(f"an answer to request {message.request} in slot {message.slot}, which was not asked")
        return request

    def land(self, message: Message) -> None:
        """The slot of a flying request is free again; whoever calls this takes care of the request."""
        with self._lock:
            del self._flying[message.slot]
            self._release(message.slot)

    def hold(self, request: Request, reply: Reply) -> None:
        """Keep a reply until the worker has been checked."""
        with self._lock:
            self._held.append((request, reply))

    def again(self, requests: list[Request]) -> None:
        """Put requests at the head of those that wait."""
        with self._lock:
            self._waiting.extendleft(reversed(requests))
            refusal = self._refusal
        if refusal is not None:
            self._fail_waiting(refusal)

    def disconnect(self) -> list[Request]:
        """The worker is lost: what it was asked for, in that order. Nothing it still says counts."""
        with self._lock:
            self._link, self._open, self.broken = None, False, None
            lost = [request for request, _ in self._held]
            lost += sorted(self._flying.values(), key=lambda request: request.number)
            for slot in self._flying:
                self._release(slot)
            self._flying, self._held = {}, []
            return [request for request in lost if not request.ended]

    @property
    def refusal(self) -> EdgemedError | None:
        """Why requests are refused, while they are."""
        return self._refusal

    def withdraw(self) -> list[Request]:
        """Take away all that wait, in order."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            return [request for request in waiting if not request.ended]

    def refuse(self, error: EdgemedError) -> None:
        """Fail what waits, and whatever comes from now on."""
        with self._lock:
            self._refusal = error
        self._fail_waiting(error)

    def _fail_waiting(self, error: EdgemedError) -> None:
        for request in self.withdraw():
            request.fail(same(error))

    @property
    def idle(self) -> bool:
        """Whether the worker has been asked for nothing."""
        with self._lock:
            return not self._flying

    @property
    def first(self) -> int:
        """Number of the request that has been flying longest; 0 for none."""
        with self._lock:
            return min((request.number for request in self._flying.values()), default=0)

    def plan(self, look_ns: int) -> int:
        """Tell when the watching thread means to look next; gives an earlier time where a deadline wants it."""
        with self._lock:
            places = itertools.chain(self._waiting, self._flying.values(), (request for request, _ in self._held))
            deadlines = [r.deadline_ns for r in places if r.deadline_ns is not None and not r.ended]
            self._look_ns = min([look_ns, *deadlines])
            return self._look_ns

    def expire(self, now_ns: int) -> None:
        """End all whose deadline has passed. A slot that flies stays taken until the worker has answered."""
        with self._lock:
            places = [*self._waiting, *self._flying.values(), *(request for request, _ in self._held)]
            late = [r for r in places if r.deadline_ns is not None and r.deadline_ns <= now_ns and not r.ended]
            for request in late:
                if request in self._waiting:
                    self._waiting.remove(request)
        for request in late:
            request.fail(ResourceError("The deadline passed before there was an answer.", "Allow it more time."))
