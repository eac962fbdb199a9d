"""Attending to one worker, from its start to its loss or its end, in the one thread that watches over it.

The worker is lost at the first sign of a fault: it says so, it ends, it makes no step for too long, it breaks the
protocol, or it answers a golden vector wrongly. From then on nothing that it has said or will say is believed:
messages that lie in the socket unread are not answers any more.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Protocol

from edgemed.base.errors import (
    ChildError,
    DeviceStateError,
    EdgemedError,
    GateError,
    GpuError,
    InputError,
    IntegrityError,
    MissingSoftwareError,
    ResourceError,
    UsageError,
)
from edgemed.runners.golden import GoldenResult
from edgemed.runtime.contained.desk import Desk
from edgemed.runtime.contained.golden import GoldenRun, wrong
from edgemed.runtime.contained.link import Link, check_answer
from edgemed.runtime.contained.loaded import Loaded
from edgemed.runtime.contained.process import WorkerProcess
from edgemed.runtime.contained.protocol import Kind, Message, ProtocolError, error_from_json
from edgemed.runtime.contained.pulse import Pulse
from edgemed.runtime.contained.spec import GoldenCase
from edgemed.runtime.contained.stall import Stall
from edgemed.runtime.contained.states import Event, Limits

_PERMANENT: Final = (DeviceStateError, InputError, IntegrityError, MissingSoftwareError, UsageError)
_LAST_WORDS: Final = 64  # messages that a dead worker may have left
_DYING_NS: Final = 1_000_000_000
_HINT = "The log of the worker says more: --debug shows it."


class Lost(Exception):
    """A worker is lost.

    Attributes:
        error: what became of it.
        permanent: no other worker would fare better.
    """

    def __init__(self, error: EdgemedError, *, permanent: bool = False) -> None:
        super().__init__(error.what)
        self.error = error
        self.permanent = permanent


class Host(Protocol):
    """What outlives the worker, as seen from here."""

    desk: Desk
    limits: Limits
    closing: bool
    wake_descriptor: int
    pulse: Pulse

    @property
    def golden(self) -> GoldenCase | None: ...

    @property
    def golden_slot(self) -> int: ...

    def become(self, event: Event, reason: str | None = None) -> None:
        """Something has happened to the worker."""
        ...

    def connect(self, process: WorkerProcess, generation: int, loaded: Loaded) -> Link:
        """Give the worker its memory."""
        ...

    def judged(self, result: GoldenResult) -> None:
        """There is a verdict on the golden vectors."""
        ...

    def woken(self) -> list[Future[GoldenResult]]:
        """Clear the wake-up call; those who asked for a golden check since."""
        ...


class Attendant:
    """Watches one worker.

    Args:
        host: what outlives it.
        process: the worker.
        generation: its number.
    """

    def __init__(self, host: Host, process: WorkerProcess, generation: int) -> None:
        self._host, self._process, self._generation = host, process, generation
        self._limits, self._desk = host.limits, host.desk
        self._link: Link | None = None
        self._run: GoldenRun | None = None
        self._run_again = False
        self._runs = 0
        self._asked: list[Future[GoldenResult]] = []
        self._asking: list[Future[GoldenResult]] = []
        self._doubt = True  # until its golden vectors were answered rightly, and after every suspicion
        self._load_by_ns: int | None = time.monotonic_ns() + self._limits.load_ns
        self._check_ns: int | None = None
        self._drain_by_ns: int | None = None
        self._stall = Stall(self._limits.hang_ns)
        self._handlers: dict[Kind, Callable[[Message], None]] = {Kind.FAULT: self._on_fault}

    def attend(self) -> None:
        """Until the worker has ended as it was told to.

        Raises:
            Lost: it is lost.
        """
        process, host = self._process, self._host
        poll = select.poll()
        speaks = process.channel.fileno()
        for descriptor in (process.ended, process.log, speaks, host.wake_descriptor):
            poll.register(descriptor, select.POLLIN)
        self._handlers[Kind.LOADED] = self._on_loaded
        look_ns = 0
        while True:
            now_ns = time.monotonic_ns()
            if now_ns >= look_ns:
                self._tick(now_ns)
                look_ns = self._desk.plan(self._next_look(now_ns))
                host.pulse.until(look_ns)
            events = poll.poll(max(look_ns - now_ns, 0) // 1_000_000 + 1)
            if len(events) == 1 and events[0][0] == speaks:  # the usual case, and nothing else has happened
                self._hear()
                continue
            ready = {descriptor for descriptor, _ in events}
            if process.log in ready and not process.read_log():
                poll.unregister(process.log)
            if host.wake_descriptor in ready:
                self._asked += host.woken()
                look_ns = 0
            if process.ended in ready:
                if self._drain_by_ns is not None and process.ended_well():
                    self._hear_the_last()
                    return
                raise self._death()
            if speaks in ready:
                self._hear()

    def asked(self, checks: list[Future[GoldenResult]]) -> None:
        """Golden checks that were asked for before."""
        self._asked += checks

    def checks_left(self) -> list[Future[GoldenResult]]:
        """Golden checks that were asked for and have no verdict yet."""
        return self._asking + self._asked

    # -- what the worker says --------------------------------------------------------------------------------------

    def _hear(self) -> None:
        try:
            self._handle_one()
        except BlockingIOError:
            return
        except EOFError:
            raise self._death() from None

    def _hear_the_last(self) -> None:
        """Answers of a worker that has ended in order, as it was told to."""
        with contextlib.suppress(BlockingIOError, EOFError):
            while True:
                self._handle_one()

    def _handle_one(self) -> None:
        try:
            message = self._process.channel.receive()
            check_answer(message, self._generation, self._handlers)
            self._handlers[message.kind](message)
        except ProtocolError as error:
            what = f"The worker broke the protocol: it sent {error}."
            raise Lost(ChildError(what, "Report this as a bug, unless its memory was damaged.")) from error

    def _on_loaded(self, message: Message) -> None:
        loaded = Loaded.from_json(message.json())
        try:
            self._link = self._host.connect(self._process, self._generation, loaded)
        except OSError:
            raise self._death() from None
        except EdgemedError as error:
            raise Lost(error, permanent=isinstance(error, _PERMANENT)) from error
        del self._handlers[Kind.LOADED]
        self._handlers.update({Kind.DONE: self._on_done, Kind.FAILED: self._on_failed})
        self._stall = Stall(self._limits.hang_ns, self._link.outputs.steps)
        self._host.become(Event.LOADED)
        self._check()

    def _on_done(self, message: Message) -> None:
        link = self._linked
        if message.slot == self._host.golden_slot:
            self._golden_done(message)
            return
        request = self._desk.flying(message)
        reply = None
        if not request.ended:
            try:
                reply = link.reply(request, message)
            except MemoryError:
                request.fail(ResourceError("There is no memory for the answer.", "Close other programs or add swap."))
        self._desk.land(message)
        if reply is not None and self._doubt:
            self._desk.hold(request, reply)
        elif reply is not None:
            request.answer(reply)
        self._desk.pump()

    def _on_failed(self, message: Message) -> None:
        error = error_from_json(message.json())
        if (isinstance(error, GpuError) and error.sticky) or message.slot == self._host.golden_slot:
            raise Lost(error)
        request = self._desk.flying(message)
        self._desk.land(message)
        if isinstance(error, InputError):  # the fault of the frame
            request.fail(error)
            self._desk.pump()
            return
        self._doubt = True
        self._desk.suspect()
        self._host.become(Event.SUSPECT, error.what)
        if request.retries > 0:
            request.retries -= 1
            self._desk.again([request])
        else:
            request.fail(error)
        self._check()

    def _on_fault(self, message: Message) -> None:
        raise self._fault(message)

    def _fault(self, message: Message) -> Lost:
        error = error_from_json(message.json())
        return Lost(error, permanent=self._link is None and isinstance(error, _PERMANENT))

    def _death(self) -> Lost:
        """What a worker that is gone has said at last, or how it ended. Answers among its last words do not count."""
        with contextlib.suppress(BlockingIOError, EOFError, ProtocolError):
            for _ in range(_LAST_WORDS):
                message = self._process.channel.receive()
                if message.kind is Kind.FAULT:
                    return self._fault(message)
        how = self._process.end(_DYING_NS) or "closed its end of the socket, and did not end"
        doing = "" if self._link is not None else " while it loaded the model"
        return Lost(ChildError(f"The worker {how}{doing}.", _HINT))

    # -- the golden vectors ----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Begin a golden check; one that runs already does not count."""
        if self._run is not None:
            self._run_again = True
            return
        self._asking, self._asked = self._asking + self._asked, []
        case = self._host.golden
        if case is None:
            self._right()
            return
        self._run = GoldenRun(case)
        self._ask_golden(self._run)

    def _ask_golden(self, run: GoldenRun) -> None:
        feeds, slot = run.feeds, self._host.golden_slot
        self._runs += 1
        self._linked.fill(slot, feeds)
        try:
            self._linked.run(slot, self._runs, {name: array.shape for name, array in feeds.items()})
        except OSError:
            raise self._death() from None

    def _golden_done(self, message: Message) -> None:
        run = self._run
        if run is None or message.request != self._runs:
            raise ProtocolError("an answer to a golden vector that was not asked")
        outputs, _ = self._linked.answer(message)
        result = run.take(outputs)
        if self._run_again:
            self._run, self._run_again = None, False
            self._check()
        elif result is None and self._drain_by_ns is None:  # a worker that was told to stop hears no more
            self._ask_golden(run)
        elif result is not None:
            self._run = None
            self._verdict(result)

    def _verdict(self, result: GoldenResult) -> None:
        self._host.judged(result)
        for future in self._asking:
            if future.set_running_or_notify_cancel():
                future.set_result(result)
        self._asking = []
        if not result.passed:
            raise Lost(GateError(wrong(result), "The next worker is checked before it answers anything."))
        self._right()

    def _right(self) -> None:
        self._doubt = False
        self._load_by_ns = None
        if self._limits.check_every_ns is not None and self._host.golden is not None:
            self._check_ns = time.monotonic_ns() + self._limits.check_every_ns
        self._host.become(Event.RIGHT)
        self._desk.open()

    # -- time ------------------------------------------------------------------------------------------------------

    def _next_look(self, now_ns: int) -> int:
        times = [now_ns + self._stall.tick_ns]
        times += [t for t in (self._load_by_ns, self._drain_by_ns) if t is not None]
        if self._check_ns is not None and self._run is None:
            times.append(self._check_ns)
        return min(times)

    def _tick(self, now_ns: int) -> None:
        self._desk.expire(now_ns)
        if isinstance(self._desk.broken, BlockingIOError):
            raise Lost(ChildError("The worker does not read what it is sent.", _HINT))
        if self._desk.broken is not None:
            raise self._death()
        if self._load_by_ns is not None:
            if now_ns > self._load_by_ns:
                raise Lost(
                    ChildError(
                        f"The worker was not ready {self._limits.load_ns / 1e9:g} s after its start.",
                        "Allow it more time to load (load_ns), or use a smaller model.",
                    )
                )
        elif self._stall.hangs(now_ns, (self._desk.first, self._runs if self._run is not None else 0)):
            raise Lost(
                ChildError(
                    f"The worker hung: it made no step in {self._limits.hang_ns / 1e9:g} s.",
                    "Where an inference takes so long, allow it more time (hang_ns).",
                )
            )
        self._close_or_check(now_ns)

    def _close_or_check(self, now_ns: int) -> None:
        if self._host.closing:
            self._drain(now_ns)
        elif self._link is not None and self._run is None:
            due = self._check_ns is not None and now_ns >= self._check_ns
            if due or self._asked:
                self._check_ns = None
                self._check()

    def _drain(self, now_ns: int) -> None:
        """The end was asked for: let the worker answer what it was asked, and free its device."""
        stopped = Lost(ChildError("The worker was shut down before it had answered.", "Ask again after a restart."))
        if self._link is None or self._doubt:
            raise stopped
        if self._drain_by_ns is None:
            self._drain_by_ns = now_ns + self._limits.drain_ns
            try:
                self._process.channel.send(Message(Kind.STOP, self._generation))
            except OSError:
                raise stopped from None
        elif now_ns >= self._drain_by_ns:
            raise stopped

    @property
    def _linked(self) -> Link:
        assert self._link is not None, "answers are heard only after LOADED"
        return self._link
