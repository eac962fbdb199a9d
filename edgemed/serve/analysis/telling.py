"""What the rest of the daemon is told of analyses: timelines, metrics, alarms."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from edgemed.base.spans import Span
from edgemed.imaging.results.content import Content
from edgemed.serve.analysis.task import Task
from edgemed.serve.clock import utc
from edgemed.serve.services import Services
from edgemed.serve.states import State

log = logging.getLogger(__name__)

_WINDOW: Final = 100
_RAISE: Final = 0.05  # of the last results; two at least, for one may be a cough
_CLEAR: Final = 0.01
_COUNTED: Final = {"decode": "decode", "preprocess": "preprocess", "postprocess": "postprocess", "write": "write"}
_INFER: Final = ("h2d", "compute", "d2h")


class Teller:
    """One for all models."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._late: dict[str, deque[bool]] = {}

    def began(self, task: int, model: str) -> None:
        """An analysis was begun."""
        timelines = self._services.timelines
        timelines.reached(task, "started")
        line = timelines.get(task)
        if line is None:
            return
        stage = self._services.metrics.stage
        points = [line.points.get(name) for name in ("first_byte", "last_object", "complete", "started")]
        for name, first, last in zip(("receive", "collect", "queue"), points, points[1:], strict=False):
            if first is not None and last is not None:
                stage.labels(model, name).observe(max(0, last - first) / 1e9)

    def written(self, task: Task, content: Content, spans: list[Span], due_ns: int, end: State | None) -> None:
        """Its results are in the spool and in the journal.

        Args:
            task: which.
            content: what was said.
            spans: stages of the analysis.
            due_ns: when it was due.
            end: where it has ended, if nothing is to be delivered.
        """
        services, now_ns = self._services, time.monotonic_ns()
        services.timelines.reached(task.number, "written", spans)
        for stage, seconds in _seconds(spans).items():
            services.metrics.stage.labels(task.model, stage).observe(seconds)
        line = services.timelines.get(task.number)
        last_ns = None if line is None else line.points.get("last_object")
        latency_s = (utc() - task.completed).total_seconds() if last_ns is None else (now_ns - last_ns) / 1e9
        services.metrics.latency.labels(task.model).observe(max(0.0, latency_s))
        self._deadline(task.model, now_ns > due_ns)
        what = "answered" if content.refusal is None else "not analysed"
        log.info("task %d of %s: %s, %.3f s after its last image", task.number, task.model, what, latency_s)
        if end is not None:
            self._ended(task, end)

    def broke(self, task: Task, reason: str, digest: str) -> None:
        """It has failed."""
        log.error("task %d of %s failed: %s (bundle %s)", task.number, task.model, reason, digest[:12])
        self._services.alarms.raise_("input-failed", f"An input of {task.model} failed: {reason}", task.model)
        self._ended(task, State.FAILED)

    def _ended(self, task: Task, end: State) -> None:
        self._services.timelines.ended(task.number)
        self._services.metrics.ends.labels(task.model, end.value).inc()

    def _deadline(self, model: str, late: bool) -> None:
        """Count it; too many of the last hundred are an alarm, which ends when they are rare again."""
        if late:
            self._services.metrics.deadline_missed.labels(model).inc()
        with self._lock:
            window = self._late.setdefault(model, deque(maxlen=_WINDOW))
            window.append(late)
            missed = sum(window)
            share = missed / len(window)
        if missed >= 2 and share >= _RAISE:
            text = f"{missed} of the last {len(window)} results of {model} came after their deadline."
            self._services.alarms.raise_("deadline-missed", text, model)
        elif share <= _CLEAR:
            self._services.alarms.clear("deadline-missed", model)


def _seconds(spans: Iterable[Span]) -> dict[str, float]:
    """Of each stage of the metrics, in all of a task's frames."""
    total: dict[str, float] = {}
    for span in spans:
        stage = _COUNTED.get(span.name) or ("infer" if span.name in _INFER else None)
        if stage is not None:
            total[stage] = total.get(stage, 0.0) + span.duration_ns / 1e9
    return total
