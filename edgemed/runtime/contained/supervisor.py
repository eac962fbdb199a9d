"""The supervisor: one worker after the other for one model, and one thread that watches over them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from edgemed.base.errors import ChildError, EdgemedError, GateError, IntegrityError
from edgemed.base.runner import RunnerInfo, RunnerSpecs, TensorSpec
from edgemed.runners.golden import GoldenResult
from edgemed.runtime.contained.attend import Attendant, Lost
from edgemed.runtime.contained.desk import Desk
from edgemed.runtime.contained.link import Link
from edgemed.runtime.contained.loaded import Loaded
from edgemed.runtime.contained.process import WorkerProcess, readable
from edgemed.runtime.contained.protocol import Kind, Message
from edgemed.runtime.contained.pulse import Pulse
from edgemed.runtime.contained.requests import Request, same
from edgemed.runtime.contained.shared import HEADER, Layout, Slots, create, forbid_writing
from edgemed.runtime.contained.spec import GoldenCase, Known, WorkerSpec
from edgemed.runtime.contained.states import TRANSITIONS, Budget, Event, Health, Limits, State

_log = logging.getLogger(__name__)
_LONG_NS = 60_000_000_000
_SETTLED = (State.READY, State.REFUSED, State.CLOSED)

OnChange = Callable[[Health], None]
Reroute = Callable[[Request], bool]


class Supervisor:
    """Keeps a worker for one model.

    Args:
        spec: what the workers run.
        limits: how long things may take.
        slots: requests that a worker is asked for at a time.
        reserved: slots besides, whose memory callers fill themselves (see `inputs`).
        on_change: called with each new state, in the supervisor's thread: it must not block.
        reroute: asked, when a worker is lost, whether it takes a request that waits.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        limits: Limits | None = None,
        *,
        slots: int = 3,
        reserved: int = 0,
        on_change: OnChange | None = None,
        reroute: Reroute | None = None,
    ) -> None:
        self._spec = spec
        self.limits = limits or Limits()
        self.golden_slot = slots + reserved
        self.closing = False
        self.pulse = Pulse()
        self.timed = False  # a lane in the worker tells the device's own stages
        self.wake_descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake_lock = threading.Lock()
        self.desk = Desk(reserved, slots, self.limits.waiting, self._wake)
        self._on_change, self._reroute = on_change, reroute
        self._known: Known | None = None
        self._budget = Budget(self.limits)
        self._health = Health()
        self._changed = threading.Condition()
        self._checks: list[Future[GoldenResult]] = []
        self._restart = False
        self._thread: threading.Thread | None = None
        self._loaded: Loaded | None = None
        self._inputs: tuple[int, Slots] | None = None
        self._undead: list[WorkerProcess] = []

    # -- from any thread -------------------------------------------------------------------------------------------

    @property
    def health(self) -> Health:
        return self._health

    @property
    def specs(self) -> RunnerSpecs | None:
        """What the model takes and gives, once known."""
        known = self._known.specs if self._known is not None else None
        return self._loaded.specs if self._loaded is not None else known

    @property
    def info(self) -> RunnerInfo | None:
        """Who answers, once known."""
        return self._loaded.info if self._loaded is not None else None

    @property
    def inputs(self) -> Slots | None:
        """The slots' input memory, once a worker has loaded; the same for all workers to come."""
        return self._inputs[1] if self._inputs is not None else None

    @property
    def refusal(self) -> EdgemedError | None:
        """Why requests are refused, while they are."""
        return self.desk.refusal

    def read(self) -> Known:
        """What is known of the model without loading it; read once.

        Raises:
            InputError: what the spec names is not there.
            IntegrityError: it is damaged.
        """
        if self._known is None:
            self._known = self._spec.read()
        return self._known

    def start(self) -> None:
        """Start the first worker; more calls change nothing.

        Raises:
            InputError: what the spec names is not there.
            IntegrityError: it is damaged.
        """
        self.read()
        if self._thread is not None:
            return
        self.desk.accept()
        self._thread = threading.Thread(target=self._watch, name="edgemed-supervisor", daemon=True)
        self._thread.start()

    def settle(self, timeout_ns: int | None = None) -> Health:
        """Wait until a worker is ready, or none will be."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._health.state in _SETTLED, None if timeout_ns is None else timeout_ns / 1e9
            )
            return self._health

    def check(self) -> Future[GoldenResult]:
        """Ask for a golden check; the future has the verdict of one that began after this call."""
        future: Future[GoldenResult] = Future()
        with self._changed:
            if self._health.state not in (State.REFUSED, State.CLOSED):
                self._checks.append(future)
                self._wake()
            else:
                future.set_exception(ChildError(f"There is no worker to check. {self._health.reason}", "Restart it."))
        return future

    def restart(self) -> None:
        """Try again after a refusal, with the budget of rebuilds renewed."""
        self._restart = True
        self._wake()

    def stop(self) -> None:
        """Begin to end the worker: what is under way is answered if it does not take long, what waits is not."""
        self.closing = True
        self.desk.refuse(ChildError("The worker is shutting down.", "Ask again after a restart."))
        self._wake()

    def close(self) -> None:
        """`stop`, and wait for the end."""
        self.stop()
        thread = self._thread
        if thread is None:
            with self._wake_lock:
                if self.wake_descriptor >= 0:
                    os.close(self.wake_descriptor)
                    self.wake_descriptor = -1
        elif thread is not threading.current_thread():
            thread.join()

    def _wake(self) -> None:
        with self._wake_lock:
            if self.wake_descriptor >= 0:
                os.eventfd_write(self.wake_descriptor, 1)

    # -- for the attendant -----------------------------------------------------------------------------------------

    @property
    def golden(self) -> GoldenCase | None:
        return self._known.golden if self._known is not None else None

    def woken(self) -> list[Future[GoldenResult]]:
        self._quiet()
        with self._changed:
            asked, self._checks = self._checks, []
        return asked

    def _quiet(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_descriptor)

    def judged(self, result: GoldenResult) -> None:
        self._health = replace(self._health, golden=result, golden_ns=time.monotonic_ns())

    def become(self, event: Event, reason: str | None = None) -> None:
        before = self._health
        state = TRANSITIONS[before.state, event]
        now_ns = before.since_ns if state is before.state else time.monotonic_ns()
        health = replace(before, state=state, since_ns=now_ns)
        self._tell(health if reason is None else replace(health, reason=reason))

    def _tell(self, health: Health) -> None:
        with self._changed:
            self._health = health
            self._changed.notify_all()
        if self._on_change is not None:
            try:
                self._on_change(health)
            except Exception:
                _log.exception("A callback for the state of a worker failed.")

    def connect(self, process: WorkerProcess, generation: int, loaded: Loaded) -> Link:
        assert self._known is not None, "read before the first worker was started"
        self._agree(loaded, self._known)
        slots, greatest = self.golden_slot + 1, self._known.greatest
        takes = Layout.of(loaded.specs.inputs, greatest, slots)
        gives = Layout.of(loaded.specs.outputs, greatest, slots, HEADER)
        if self._inputs is None:
            descriptor = create("edgemed-inputs", takes.size)
            self._inputs = (descriptor, Slots(descriptor, takes, write=True))
            forbid_writing(descriptor)
        self._loaded = loaded
        descriptor = create("edgemed-outputs", gives.size)
        try:
            outputs = Slots(descriptor, gives, write=True)
            body = json.dumps({"slots": slots, "greatest": dict(greatest)}).encode()
            process.channel.send(Message(Kind.MEMORY, generation, body=body), [self._inputs[0], descriptor])
        finally:
            os.close(descriptor)
        link = Link(process.channel, generation, loaded, self._inputs[1], outputs)
        self.desk.connect(link)
        return link

    def _agree(self, loaded: Loaded, known: Known) -> None:
        """The worker loaded the model that is meant, and the one that the workers before it loaded."""
        if self._loaded is not None and loaded.specs != self._loaded.specs:
            raise IntegrityError("The rebuilt worker has another model.", "Restart with the one that is meant.")
        wanted = known.specs
        if wanted is not None and (_names(wanted.inputs), _names(wanted.outputs)) != (
            _names(loaded.specs.inputs),
            _names(loaded.specs.outputs),
        ):
            raise IntegrityError("The worker's model is not what the manifest says.", "Build the bundle anew.")
        if known.golden is not None and not known.golden.fits(loaded.specs):
            raise IntegrityError("The golden vectors are of another model.", "Build the bundle anew.")

    # -- the supervisor's thread -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self.become(Event.START)
            while not self.closing:
                lost = self._generation()
                if lost is None or not self._again(lost):
                    break
        except BaseException as error:  # a bug of ours, and still nobody may wait for ever
            _log.exception("The supervisor of a worker failed.")
            self._health = replace(self._health, reason=f"The supervisor failed: {type(error).__name__}: {error}.")
        finally:
            self._end()

    def _end(self) -> None:
        error = ChildError(f"The worker is closed. {self._health.reason}".rstrip(), "Start it again.")
        self.desk.refuse(error)
        for request in self.desk.disconnect():
            request.fail(same(error))
        self.become(Event.CLOSE)
        self._fail_checks(error)
        self._undead = [process for process in self._undead if not _reaped(process)]
        with self._wake_lock:
            os.close(self.wake_descriptor)
            self.wake_descriptor = -1
        if self._inputs is not None:
            os.close(self._inputs[0])

    def _generation(self) -> Lost | None:
        """One worker's life; gives how it was lost, if it was."""
        process: WorkerProcess | None = None
        attendant: Attendant | None = None
        lost: Lost | None = None
        generation = self._health.generation + 1
        self.pulse.until(time.monotonic_ns())
        self._health = replace(self._health, generation=generation, rebuilds=generation - 1)
        try:
            process = WorkerProcess()
            self._health = replace(self._health, pid=process.pid)
            assert self._known is not None, "read before the first worker was started"
            body = json.dumps({**self._known.message, "timed": self.timed}).encode()
            process.channel.send(Message(Kind.LOAD, generation, body=body))
            attendant = Attendant(self, process, generation)
            attendant.asked(self.woken())
            attendant.attend()
        except Lost as caught:
            lost = caught
        except EdgemedError as error:
            lost = Lost(error)
        except OSError as error:
            lost = Lost(ChildError(f"The worker cannot be spoken to: {error}.", "Try again."))
        finally:
            lost = self._bury(process, lost)
            with self._changed:
                self._checks += attendant.checks_left() if attendant is not None else []
        return lost

    def _bury(self, process: WorkerProcess | None, lost: Lost | None) -> Lost | None:
        """Whatever happened: no process is left, and every request of the worker goes on or ends."""
        self.pulse.until(time.monotonic_ns() + self.limits.kill_ns)
        requests = self.desk.disconnect()
        if lost is not None and not self.closing:
            self.become(Event.LOST, lost.error.what)
        if process is not None:
            if process.kill(self.limits.kill_ns):
                log = process.printed()
                if lost is not None and lost.error.__cause__ is None:
                    lost.error.__cause__ = log
                process.close()
            else:
                self._undead.append(process)
                what = f"The worker does not die: a driver holds it. Before that: {lost.error.what if lost else ''}"
                lost = Lost(ChildError(what, "Restart the machine."), permanent=True)
        self._health = replace(self._health, pid=None)
        error = lost.error if lost is not None else ChildError("The worker was shut down.", "Ask again.")
        self._go_on(requests, error)
        return lost

    def _go_on(self, requests: list[Request], error: EdgemedError) -> None:
        """Requests that a lost worker was asked for: to another one, if they may, else they end."""
        again = []
        for request in requests:
            if request.retries > 0 and not self.closing:
                request.retries -= 1
                again.append(request)
            else:
                request.fail(same(error))
        waiting = again + self.desk.withdraw()
        self.desk.again([r for r in waiting if self._reroute is None or not self._reroute(r)])

    def _again(self, lost: Lost) -> bool:
        """Wait for the next worker's time; `False` when it is the end."""
        delay_ns = None if lost.permanent else self._budget.spend()
        if delay_ns is not None:
            self._wait(time.monotonic_ns() + delay_ns)
        elif not self.closing:
            error = lost.error if lost.permanent else self._given_up(lost.error)
            self._restart = False
            self.become(Event.GIVE_UP, error.what)
            self.desk.refuse(error)
            self._fail_checks(error)
            self._wait(None)
        if self.closing:
            return False
        if delay_ns is None:
            self._undead = [process for process in self._undead if not _reaped(process)]
            self._budget.renew()
            self.desk.accept()
        self.become(Event.RESTART if delay_ns is None else Event.RETRY)
        return True

    def _wait(self, until_ns: int | None) -> None:
        """Until that time, or (`None`) until somebody asks for a restart; deadlines of requests pass meanwhile."""
        while not self.closing and not (until_ns is None and self._restart):
            now_ns = time.monotonic_ns()
            if until_ns is not None and now_ns >= until_ns:
                return
            self.desk.expire(now_ns)
            look_ns = self.desk.plan(until_ns if until_ns is not None else now_ns + _LONG_NS)
            self.pulse.until(look_ns)
            readable(self.wake_descriptor, max(look_ns - now_ns, 0))
            self._quiet()

    def _fail_checks(self, error: EdgemedError) -> None:
        for future in self.woken():
            if future.set_running_or_notify_cancel():
                future.set_exception(same(error))

    def _given_up(self, error: EdgemedError) -> EdgemedError:
        what = f"Given up after {self.limits.rebuilds} rebuilds in {self.limits.window_ns / 60e9:g} minutes."
        kind = GateError if isinstance(error, GateError) else ChildError
        given_up = kind(f"{what} The last time: {error.what}", error.hint)
        given_up.__cause__ = error.__cause__
        return given_up


def _reaped(process: WorkerProcess) -> bool:
    """Whether a process that would not die has died since."""
    dead = process.kill(0)
    if dead:
        process.close()
    return dead


def _names(specs: tuple[TensorSpec, ...]) -> list[tuple[str, str, int]]:
    return [(spec.name, spec.dtype, len(spec.shape)) for spec in specs]
