"""One version of a model in a worker of its own: asked, watched, tried again when it was given up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from numpy.typing import NDArray

from edgemed.base.errors import ChildError, DeviceStateError, EdgemedError, InputError, from_os_error
from edgemed.base.quantity import SECOND
from edgemed.base.runner import RunnerInfo, RunnerSpecs
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle
from edgemed.evaluate.bundled import reader_of
from edgemed.imaging.samples import SampleReader
from edgemed.runners.golden import GoldenResult
from edgemed.runtime.contained.berths import Berth
from edgemed.runtime.contained.requests import Reply, same
from edgemed.runtime.contained.runner import ContainedRunner, Status
from edgemed.runtime.contained.states import State
from edgemed.serve.alarms import Alarms
from edgemed.serve.analysis.scheduler import Drop, Scheduler
from edgemed.serve.config import Config
from edgemed.serve.config.models import ModelSection
from edgemed.serve.journal.database import Journal
from edgemed.serve.metrics import Metrics
from edgemed.serve.models import workers
from edgemed.serve.models.batches import BatchCheck
from edgemed.serve.models.gate import Gate, wrong_last
from edgemed.serve.models.mirror import Mirror
from edgemed.serve.models.tally import Tally
from edgemed.serve.readiness import Finding

log = logging.getLogger(__name__)

RETRY_NS: Final = 5 * SECOND
RETRY_CAP_NS: Final = 300 * SECOND
_REST: Final = 4
_BERTHS: Final = 4
"""Inputs that come over the network at a time straight to where the worker reads them; more are copied there."""
_USUAL_NS: Final = 25_000_000
_GRACE_NS: Final = 10 * SECOND
"""A rebuild takes a second or two; what is not ready for longer is an alarm."""

Feeds = Mapping[str, NDArray[Any]]


class HostedModel:
    """See `Served`.

    Args:
        config: of the daemon.
        section: of this model.
        bundle: verified, and trusted.
        version: of this bedside.
        journal: takes the history of golden inferences.
        alarms: told, once it is the active version.
        metrics: likewise.
    """

    def __init__(
        self,
        config: Config,
        section: ModelSection,
        bundle: Bundle,
        version: str,
        journal: Journal,
        alarms: Alarms,
        metrics: Metrics,
    ) -> None:
        self.section, self.bundle, self.version = section, bundle, version
        self.name = section.name
        self.reader: SampleReader = reader_of(bundle)
        self.gate = Gate(section.name, bundle.digest, config.golden, journal, metrics)
        self.why: str | None = None
        self.mirrors: tuple[Mirror, ...] = ()
        self.tally = Tally()
        self._config, self._alarms, self._metrics = config, alarms, metrics
        self._specs = specs_of(bundle)
        self._lock = threading.Lock()
        self._runner: ContainedRunner | None = None
        self._broken: EdgemedError | None = None  # it could not even be begun
        self._forbidden: EdgemedError | None = None  # it is not trusted any more
        self._rebuilds = 0
        self._retry_ns: int | None = None
        self._pause_ns = RETRY_NS
        self._down_ns: int | None = time.monotonic_ns()
        self._said = ""  # the alarm that stands
        self._closed = threading.Event()
        self.used_ns = time.monotonic_ns()
        self._batches = BatchCheck(bundle, section.precision)
        self._together = 1
        self._rests = False
        self.scheduler = Scheduler.of_bundle(self._ask, bundle, self._specs, batch=1, on_drop=self._dropped)

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def specs(self) -> RunnerSpecs:
        return self._specs

    @property
    def info(self) -> RunnerInfo:
        try:
            return self._worker.info
        except (DeviceStateError, RuntimeError):  # nobody has loaded it yet
            precision = self.section.precision or self.bundle.manifest.precision
            return RunnerInfo("none", precision, "none", self.bundle.digest)

    @property
    def status(self) -> Status | None:
        """Of its workers, once they were begun."""
        return self._runner.status if self._runner is not None else None

    @property
    def on_fallback(self) -> bool:
        status = self.status
        return status is not None and status.state == "fallback"

    @property
    def finding(self) -> Finding | None:
        if self._forbidden is not None:
            return Finding(self.name, f"It may not run any more. {self._forbidden.what}")
        if self._closed.is_set():
            return Finding(self.name, "This version was replaced.")
        if self._broken is not None:
            return Finding(self.name, f"It cannot be loaded, and is tried again later. {self._broken.what}")
        status = self.status
        if status is None:
            return Finding(self.name, "It is being loaded.")
        if self.stuck:
            return Finding(
                self.name, "Its worker is neither right nor being mended: the daemon has to be started anew."
            )
        found = self.gate.finding(status)
        if found is None and self._batches.wrong:
            return Finding(self.name, "It answers batches wrongly: images are asked one at a time.", stops=False)
        return found

    @property
    def stuck(self) -> bool:
        """Whether its worker neither answers rightly, nor is rebuilt, nor was given up: nothing of ours mends that."""
        if self._runner is None or self._closed.is_set():
            return False
        now_ns = time.monotonic_ns()
        return self._runner.stuck(now_ns) or self.gate.overdue(self._runner.status.model, now_ns)

    @property
    def stopped(self) -> bool:
        """Whether nothing right can be answered."""
        found = self.finding
        return found is not None and found.stops

    @property
    def announced(self) -> bool:
        """Whether it is the active version: alarms and figures are about it."""
        return self.gate.counted

    @announced.setter
    def announced(self, announced: bool) -> None:
        self.gate.counted = announced

    @property
    def given_up(self) -> bool:
        """Whether its worker was refused, and no fallback answers."""
        status = self.status
        refused = status is not None and status.state == State.REFUSED.value
        return refused or self._broken is not None or self._forbidden is not None

    @property
    def forbidden(self) -> bool:
        """Whether it may not run any more."""
        return self._forbidden is not None

    @property
    def wrong(self) -> bool:
        """Whether it has ever answered a golden inference wrongly."""
        return self.gate.wrongs > 0

    @property
    def rebuilds(self) -> int:
        """Workers that were lost."""
        return self._rebuilds

    @property
    def progress(self) -> str:
        """How far its loading is, as a word."""
        status = self.status
        return "waiting" if status is None else status.state

    @property
    def greatest_batch(self) -> int:
        """How many images may be asked together: 1 until a golden batch of that size was right."""
        return self._batches.greatest

    # -- requests --------------------------------------------------------------------------------------------------

    def submit(
        self,
        feeds: Feeds,
        *,
        due_ns: int | None = None,
        deadline_ns: int | None = None,
        live: bool = False,
        frame: int | None = None,
    ) -> Future[Reply]:
        """See `Served`. While its worker is lost: an error, the fallback's answer, or patience, as `when_lost` says."""
        status = self.status
        if self._forbidden is not None:
            return _failed(same(self._forbidden))
        if self.section.when_lost == "refuse" and (status is None or not status.answers):
            return _failed(ChildError(f"{self._why_not()}", "Ask again when the model is ready."))
        self._check_batch(feeds)
        self.used_ns = time.monotonic_ns()
        future = self.scheduler.submit(feeds, due_ns=due_ns, deadline_ns=deadline_ns, live=live, frame=frame)
        for mirror in self.mirrors:  # the caller has not got the future yet, and so not changed the feeds
            if (copied := mirror.copy(feeds)) is not None:
                future.add_done_callback(partial(mirror.answered, copied))
        future.add_done_callback(self.tally.count)
        return future

    def berth(self, size: int) -> Berth | None:
        """See `Served`."""
        berth = self._runner.berth() if self._runner is not None and len(self._specs.inputs) == 1 else None
        return berth if berth is not None and sum(array.nbytes for array in berth.values()) == size else None

    def _ask(self, feeds: Feeds, *, frame: int | None = None, deadline_ns: int | None = None) -> Future[Reply]:
        """For the scheduler: ask the worker."""
        return self._worker.submit(feeds, deadline_ns=deadline_ns, frame=frame)

    def _dropped(self, reason: Drop, number: int) -> None:
        """Of every version: one that is replaced still ends what it was asked."""
        self._metrics.dropped.labels(self.name, reason).inc(number)

    def _check_batch(self, feeds: Feeds) -> None:
        if self._batches.wrong and any(len(feeds[spec.name]) > 1 for spec in self._specs.inputs if spec.name in feeds):
            raise InputError("This model answers batches wrongly on this device.", "Ask for one image at a time.")

    def _why_not(self) -> str:
        found = self.finding
        return found.reason if found is not None else "The model does not answer."

    @property
    def _worker(self) -> ContainedRunner:
        if self._runner is None:
            raise DeviceStateError(f"The model {self.name} is being loaded.", "Try again in a moment.")
        return self._runner

    # -- life ------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Begin; it does not wait. What cannot be begun is tried again by `tend`."""
        if self._closed.is_set():
            return
        try:
            worker = workers.worker_of(self.section, self.bundle, self._config.golden)
            runner = ContainedRunner(
                worker.spec,
                fallback=worker.fallback,
                limits=worker.limits,
                fallback_limits=worker.fallback_limits,
                on_status=self._changed,
                berths=_BERTHS,
                timed=True,  # what a clinician waits for is told by stages: copies apart from computing
            )
            runner.begin()
        except (EdgemedError, OSError) as error:
            self._broken = error if isinstance(error, EdgemedError) else from_os_error(error)
            log.error("model %s cannot be loaded: %s", self.name, self._broken)
            return
        self._broken, self.why, self._runner = None, worker.why, runner
        if self._closed.is_set():  # meanwhile
            runner.close()
        log.info("model %s is being loaded%s", self.name, f" on ONNX Runtime: {worker.why}" if worker.why else "")

    def close(self) -> None:
        """End its workers; what they were asked for is answered if it does not take long."""
        self._closed.set()
        self.scheduler.close()
        if self._runner is not None:
            self._runner.close()

    def forbid(self, error: EdgemedError) -> None:
        """It may not run any more: nothing is answered, and everybody is told why."""
        self._forbidden = error
        self.close()

    def tend(self, now_ns: int) -> None:
        """Look after it, a few times a second: try again what was given up, check batches, tell how it stands."""
        if self._closed.is_set():
            if self.announced:
                self._announce(now_ns)
            return
        status = self.status
        if self._broken is not None or (status is not None and status.model.state is State.REFUSED):
            self._try_again(now_ns)
        elif status is not None and status.model.state is State.READY:
            self._retry_ns, self._pause_ns = None, RETRY_NS
            self._batches.tend(self._worker, status.model.generation, self.gate)
            self._allow_batches()
        if self.announced:
            self._announce(now_ns)

    def check(self) -> Future[GoldenResult]:
        """A golden inference now, by the model's own worker."""
        try:
            return self._worker.check()
        except EdgemedError as error:
            future: Future[GoldenResult] = Future()
            future.set_exception(error)
            return future

    def rest(self, rests: bool) -> None:
        """Let the device rest between inferences that are not live, or no longer: a quarter of its time is theirs."""
        if rests is self._rests:
            return
        self._rests = rests
        usual_ns = self.tally.median_ns(1) or _USUAL_NS
        self.scheduler.change(pace_ns=_REST * usual_ns if rests else 0)

    def keep_awake(self, now_ns: int, idle_ns: int) -> None:
        """An inference where there was none for so long: clocks of a device that idles go down."""
        if now_ns - self.used_ns > idle_ns and not self.stopped:
            self.used_ns = now_ns
            self.check()

    def _allow_batches(self) -> None:
        together = min(self._batches.greatest, self.section.batch or self._batches.greatest)
        if together != self._together:
            self._together = together
            self.scheduler.change(most=together)

    def _try_again(self, now_ns: int) -> None:
        if self._retry_ns is None:
            self._retry_ns = now_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, RETRY_CAP_NS)
        elif now_ns >= self._retry_ns:
            self._retry_ns = None
            if self._runner is None:
                self.load()
            else:
                self._runner.restart()

    # -- what is told ----------------------------------------------------------------------------------------------

    def _changed(self, status: Status) -> None:
        """In threads of the workers: it does not wait."""
        runner = self._runner
        names = {} if runner is None else {"model": _backend(runner, 0), "fallback": _backend(runner, 1)}
        self.gate.changed(status, names)
        with self._lock:
            more, self._rebuilds = status.model.rebuilds - self._rebuilds, status.model.rebuilds
        if more > 0 and self.announced:
            self._metrics.rebuilds.labels(self.name).inc(more)
        if not self.announced:
            return
        if status.model.state in (State.REBUILDING, State.REFUSED):
            self._alarms.raise_("model-lost", f"The worker of {self.name} was lost: {status.model.reason}", self.name)
        elif status.model.state is State.READY:
            self._alarms.clear("model-lost", self.name)

    def _announce(self, now_ns: int) -> None:
        found = self.finding
        stops = found is not None and found.stops
        self._metrics.ready.labels(self.name).set(0 if stops else 1)
        if found is None or not stops:
            self._down_ns, self._said = None, ""
            self._alarms.clear("not-ready", self.name)
            return
        self._down_ns = self._down_ns or now_ns
        status = self.status
        at_once = self.given_up or (status is not None and (wrong_last(status) or status.answers))
        if (at_once or now_ns - self._down_ns > _GRACE_NS) and found.reason != self._said:
            self._said = found.reason
            self._alarms.raise_("not-ready", f"{self.name}: {found.reason}", self.name)


def _backend(runner: ContainedRunner, which: int) -> str:
    supervisors = (runner.model, runner.fallback)
    supervisor = supervisors[which]
    info = supervisor.info if supervisor is not None else None
    return info.backend if info is not None else "unknown"


def _failed(error: EdgemedError) -> Future[Reply]:
    future: Future[Reply] = Future()
    future.set_exception(error)
    return future
