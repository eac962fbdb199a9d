"""A Runner whose model lives in a process of its own, with another one to fall back on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from numpy.typing import NDArray

from edgemed.base.errors import DeviceStateError, InputError
from edgemed.base.runner import RunnerInfo, RunnerSpecs
from edgemed.base.spans import SpanLog
from edgemed.bundle.model import RunPrecision
from edgemed.runners.golden import GoldenResult
from edgemed.runners.ort import check_feeds
from edgemed.runtime.contained.berths import Berth, Berths
from edgemed.runtime.contained.requests import Reply, Request, same
from edgemed.runtime.contained.spec import Backend, BundleWorker, WorkerSpec
from edgemed.runtime.contained.states import Health, Limits, State
from edgemed.runtime.contained.supervisor import Supervisor

Fallback = Literal["refuse", "onnxruntime"]
_ASKED = (State.READY, State.CHECKING)
_OVER = (State.REFUSED, State.CLOSED)


@dataclass(frozen=True)
class Status:
    """Where a contained model stands.

    Attributes:
        state: of the model's own worker; `fallback` where that one does not answer and the other one does.
        model: the worker of the model.
        fallback: the one to fall back on, if any.
    """

    state: str
    model: Health
    fallback: Health | None

    @property
    def answers(self) -> bool:
        """Whether the last golden inference of a worker that takes requests was right."""
        return self.state in (State.READY.value, "fallback")


OnStatus = Callable[[Status], None]


class ContainedRunner:
    """Runs a model in a worker process; what breaks there is killed and built anew.

    Every request ends once: in a `Reply` of a worker whose last golden inference was right and that has shown no sign
    of a fault, or in an error that says why there is none.

    Args:
        spec: what the worker runs.
        fallback: what answers on the CPU while the worker does not; `None`: requests wait for a rebuild, and are
            refused when there will be none.
        standby: `warm`: the fallback is loaded and checked from the beginning, so that it is known to work when it is
            needed; `lazy`: from the first loss on, which saves its memory until then.
        slots: requests that a worker is asked for at a time.
        lane_slots: slots besides, for a `ContainedLane`.
        berths: slots besides, for `berth`.
        timed: a lane in the worker tells the device's own stages; else there is one, `compute`.
        limits: how long things may take.
        fallback_limits: the same for the fallback; a CPU may need more time for an inference.
        on_status: called with each change, in threads of ours: it must not block.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        fallback: WorkerSpec | None = None,
        standby: Literal["warm", "lazy"] = "warm",
        slots: int = 3,
        lane_slots: int = 0,
        berths: int = 0,
        timed: bool = False,
        limits: Limits | None = None,
        fallback_limits: Limits | None = None,
        on_status: OnStatus | None = None,
    ) -> None:
        self.lane_slots = lane_slots
        self._standby = standby
        self._on_status = on_status
        self._moving = threading.Lock()
        self._pid = os.getpid()
        reserved = lane_slots + berths
        self.model = Supervisor(
            spec, limits, slots=slots, reserved=reserved, on_change=self._changed, reroute=self._leave_model
        )
        self._berths = Berths(self.model, range(lane_slots, reserved))
        self.model.timed = timed
        self.fallback: Supervisor | None = None
        if fallback is not None:
            pool = slots + reserved
            self.fallback = Supervisor(
                fallback, fallback_limits or limits, slots=pool, on_change=self._changed, reroute=self._leave_fallback
            )

    @classmethod
    def of_bundle(
        cls,
        bundle: Path,
        backend: Backend = "tensorrt",
        *,
        precision: RunPrecision | None = None,
        fallback: Fallback = "refuse",
        options: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> ContainedRunner:
        """A bundle in a worker.

        Args:
            bundle: the `NAME.edgemed` directory.
            backend: what runs it.
            precision: `None`: the bundle's own.
            fallback: what to do while the worker does not answer.
            options: for the Runner.
            others: see the class.
        """
        other = BundleWorker(bundle, "onnxruntime", precision) if fallback == "onnxruntime" else None
        return cls(BundleWorker(bundle, backend, precision, options or {}), fallback=other, **others)

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def specs(self) -> RunnerSpecs:
        for supervisor in self._supervisors:
            if supervisor.specs is not None:
                return supervisor.specs
        raise RuntimeError("the Runner was not entered")

    @property
    def info(self) -> RunnerInfo:
        """Who would answer now. Who has answered stands in each `Reply`."""
        ready = [s for s in self._supervisors if s.health.state is State.READY]
        for supervisor in (*ready, *self._supervisors):
            if supervisor.info is not None:
                return supervisor.info
        raise RuntimeError("the Runner was not entered")

    @property
    def timed(self) -> bool:
        """Whether workers that are built from now on tell the device's own stages."""
        return self.model.timed

    @timed.setter
    def timed(self, timed: bool) -> None:
        self.model.timed = timed

    @property
    def status(self) -> Status:
        model = self.model.health
        fallback = self.fallback.health if self.fallback is not None else None
        state = model.state.value
        if model.state is not State.READY and fallback is not None and fallback.state is State.READY:
            state = "fallback"
        return Status(state, model, fallback)

    def stuck(self, now_ns: int) -> bool:
        """Whether a worker is watched by nobody any more: a supervisor does not look, or ended by a bug of ours."""
        return any(
            supervisor.pulse.late(now_ns) or supervisor.health.state is State.CLOSED
            for supervisor in self._supervisors
            if not supervisor.closing
        )

    @property
    def _supervisors(self) -> list[Supervisor]:
        return [self.model] if self.fallback is None else [self.model, self.fallback]

    # -- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> ContainedRunner:
        """Start the worker, and wait until it, or the fallback, has answered its golden vectors rightly.

        Raises:
            EdgemedError: neither does; why the model's own worker does not.
        """
        try:
            self.begin()
            health = self.model.settle()
            if health.state is not State.READY and self.fallback is not None:
                self.fallback.start()
                health = self.fallback.settle()
            if health.state is not State.READY:
                raise self.model.refusal or RuntimeError("a worker that is neither ready nor refused")
        except BaseException:
            self.close()
            raise
        return self

    def begin(self) -> None:
        """Start the worker, and do not wait: `status` tells how it goes, and a refusal is mended by `restart`.

        Raises:
            InputError: what the spec names is not there.
            IntegrityError: it is damaged.
        """
        for supervisor in self._supervisors:
            supervisor.read()
        self.model.start()
        if self.fallback is not None and self._standby == "warm":
            self.fallback.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. Requests that are under way are answered if it does not take long; others are not."""
        for supervisor in self._supervisors:
            supervisor.stop()
        for supervisor in self._supervisors:
            supervisor.close()

    def check(self) -> Future[GoldenResult]:
        """Run the golden vectors of the model's own worker now; a wrong answer has it rebuilt."""
        return self.model.check()

    def restart(self) -> None:
        """Try again after a refusal, with the budget of rebuilds renewed."""
        for supervisor in self._supervisors:
            supervisor.restart()

    # -- requests --------------------------------------------------------------------------------------------------

    def infer(
        self, feeds: Mapping[str, NDArray[Any]], *, frame: int | None = None, spans: SpanLog | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run once, and wait for it; a lost worker's request is asked once more. Interrupted, it is cancelled.

        Raises:
            InputError: the feeds do not fit.
            EdgemedError: there is no answer, and why.
        """
        self._check(feeds)
        request = Request(feeds, frame)
        try:
            self.place(request)
            reply = request.future.result()
        except BaseException:  # Ctrl-C: it would wait for nobody now
            request.future.cancel()
            raise
        if spans is not None:
            spans.spans.extend(reply.spans)
        return reply.outputs

    def submit(
        self,
        feeds: Mapping[str, NDArray[Any]],
        *,
        frame: int | None = None,
        deadline_ns: int | None = None,
        timeout_ns: int | None = None,
        retries: int = 1,
    ) -> Future[Reply]:
        """Ask for one inference, and do not wait.

        Args:
            feeds: arrays as in `specs.inputs`; they must not be changed before the future is done.
            frame: id that the spans carry.
            deadline_ns: `time.monotonic_ns` after which no answer is wanted.
            timeout_ns: the same, from now on.
            retries: how many more workers may be asked when one is lost under way. An inference has no side
                effects; 0 is for frames that would be too old.

        Returns:
            A future that ends once: with a `Reply`, or with an `EdgemedError`. Its callbacks run in a thread of ours
            and must not block.

        Raises:
            InputError: the feeds do not fit.
        """
        self._check(feeds)
        if timeout_ns is not None:
            by_ns = time.monotonic_ns() + timeout_ns
            deadline_ns = by_ns if deadline_ns is None else min(deadline_ns, by_ns)
        request = Request(feeds, frame, deadline_ns, retries)
        if isinstance(feeds, Berth):
            request.berth, request.home, request.slot = feeds, feeds.home, feeds.slot
        self.place(request)
        return request.future

    def berth(self) -> Berth | None:
        """Memory to put the feeds of one `submit` into, which copies them otherwise; `None` where none is free."""
        return self._berths.take()

    def _check(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Refuse feeds that no slot takes."""
        inputs = self.model.inputs
        if inputs is None:
            check_feeds(self.specs, feeds)
        elif not inputs.takes(feeds):
            check_feeds(self.specs, feeds)
            area = next(area for area in inputs.layout.areas if not area.admits(feeds[area.spec.name].shape))
            raise InputError(
                f"{area.spec} got {feeds[area.spec.name].shape}, and takes {area.greatest} at most.",
                "Give smaller or fewer frames at a time.",
            )

    def place(self, request: Request) -> None:
        """Give a request to the worker that will answer it first, as far as can be known.

        Raises:
            DeviceStateError: this process was forked from the one that has the workers.
        """
        if os.getpid() != self._pid:  # the socket is the parent's: what is sent here would be answered there
            raise DeviceStateError(
                "This process was forked from the one that has the model's worker.",
                "Make a Runner of its own here, or start the process anew (multiprocessing: 'spawn').",
            )
        chosen = self._other_for_now() or self.model
        error = chosen.desk.take(request)
        if error is None:
            return
        other = self._other_for_now()  # it has been refused between one look and the next
        if other is None or other is chosen:
            request.fail(same(error))
        else:
            other.desk.offer(request)

    def _other_for_now(self) -> Supervisor | None:
        """The fallback, where it is the one to ask."""
        model, other = self.model.health.state, self.fallback
        if other is None or model in _ASKED:
            return None
        ready = other.health.state is State.READY
        return other if ready or (model in _OVER and other.health.state not in _OVER) else None

    def _leave_model(self, request: Request) -> bool:
        """The model's worker is lost: whether the fallback takes what waited for it."""
        return self._move(self.fallback, request)

    def _leave_fallback(self, request: Request) -> bool:
        return self._move(self.model, request)

    def _move(self, to: Supervisor | None, request: Request) -> bool:
        if to is None or to.health.state is not State.READY:
            return False
        to.desk.offer(request)
        return True

    def _changed(self, _: Health) -> None:
        """One of the two has changed: what waits for the model goes to the fallback, if that is what answers now."""
        status = self.status
        other = self.fallback
        if other is not None and status.model.state not in (State.NEW, State.STARTING, *_ASKED, State.CLOSED):
            if other.health.state is State.NEW:
                other.start()
            if status.state == "fallback" or status.model.state is State.REFUSED:
                with self._moving:
                    for request in self.model.desk.withdraw():
                        other.desk.offer(request)
        if self._on_status is not None:
            self._on_status(status)
