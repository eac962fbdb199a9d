"""Golden inferences of a model: their history, and whether the last one was right and is recent enough."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time

from edgemed.base.errors import EdgemedError
from edgemed.runners.golden import GoldenResult
from edgemed.runtime.contained.golden import wrong
from edgemed.runtime.contained.runner import Status
from edgemed.runtime.contained.states import Health, State
from edgemed.serve.clock import stamp
from edgemed.serve.config.daemon import GoldenSection
from edgemed.serve.journal.database import Journal
from edgemed.serve.metrics import Metrics
from edgemed.serve.models.workers import LOAD_NS
from edgemed.serve.readiness import Finding

log = logging.getLogger(__name__)


class Gate:
    """Of one version of a model.

    Args:
        name: of the model.
        digest: of its bundle.
        section: how long a verdict is believed.
        journal: takes the history.
        metrics: count it.
    """

    def __init__(self, name: str, digest: str, section: GoldenSection, journal: Journal, metrics: Metrics) -> None:
        self._name, self._digest = name, digest
        self._believed_ns, self._overdue_ns = section.believed_ns, 2 * section.believed_ns + section.every_ns
        self._journal, self._metrics = journal, metrics
        self._lock = threading.Lock()
        self._seen: dict[str, int | None] = {}
        self.wrongs = 0  # verdicts that were wrong
        self.counted = False  # by the figures, which are about the version that answers

    def changed(self, status: Status, backends: dict[str, str]) -> None:
        """Write down verdicts that are new. It does not wait: the caller is the thread that watches the worker.

        Args:
            status: of the contained model.
            backends: names of what its worker and its fallback run on.
        """
        for role, health in (("model", status.model), ("fallback", status.fallback)):
            if health is None or health.golden is None:
                continue
            with self._lock:
                new = health.golden_ns != self._seen.get(role)
                self._seen[role] = health.golden_ns
            if new:
                self.record(health.golden, backends.get(role, role))

    def record(self, result: GoldenResult, backend: str, reason: str = "") -> None:
        """A verdict, for the history and the figures."""
        passed = result.passed
        reason = reason or ("" if passed else wrong(result))
        if self.counted:
            self._metrics.golden.labels(self._name, "right" if passed else "wrong").inc()
        if not passed:
            self.wrongs += 1
            log.error("golden inference of %s on %s: %s", self._name, backend, reason)
        row = (stamp(), self._name, self._digest, backend, int(passed), _worst(result), reason)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO golden (at, model, digest, backend, passed, worst, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )

        try:
            self._journal.submit(work)
        except EdgemedError as error:
            log.error("a golden inference could not be stored: %s", error.what)

    def finding(self, status: Status) -> Finding | None:
        """Why the model is not ready; `None` where the last golden inference of who answers was right and is recent."""
        model = status.model
        if not status.answers:
            return Finding(self._name, _why_not(model))
        answering = status.fallback if status.state == "fallback" else model
        assert answering is not None, "it is what answers"
        age_ns = time.monotonic_ns() - answering.golden_ns if answering.golden_ns is not None else None
        if age_ns is None or age_ns > self._believed_ns:
            return Finding(self._name, "Its last golden inference is too old to be believed.")
        if status.state == "fallback":
            return Finding(self._name, f"The fallback on the CPU answers. {model.reason}".rstrip(), stops=False)
        return None

    def overdue(self, health: Health, now_ns: int) -> bool:
        """Whether a worker stands where its supervisor would not have let it: it is not ready since long before."""
        if health.state is State.READY:
            return health.golden_ns is not None and now_ns - health.golden_ns > self._overdue_ns
        return health.state in (State.STARTING, State.CHECKING) and now_ns - health.since_ns > 2 * LOAD_NS


def wrong_last(status: Status) -> bool:
    """Whether the last verdict on the model's own worker was that it is wrong."""
    return status.model.golden is not None and not status.model.golden.passed


def _why_not(health: Health) -> str:
    words = {
        "new": "It is being loaded.",
        "starting": "It is being loaded.",
        "checking": "Its golden vectors are being checked.",
        "rebuilding": "Its worker was lost and is being built anew.",
        "refused": "It was given up, and is tried again later.",
        "closed": "It is closed.",
    }
    return f"{words[health.state.value]} {health.reason}".rstrip()


def _worst(result: GoldenResult) -> float | None:
    """The greatest difference over its tolerance."""
    ratios = [
        output.difference / output.tolerance if output.tolerance else math.inf if output.difference else 0.0
        for output in result.outputs
    ]
    return max(ratios, default=None)
