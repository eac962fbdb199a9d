"""Timelines as a Chrome trace: one row for each task, by model; open it in Perfetto."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from edgemed.serve.timeline import Timeline

_BETWEEN: Final = (
    ("wait", "intended", "first_byte"),  # of a replay alone: nobody knows when a patient's image should have come
    ("receive", "first_byte", "last_object"),
    ("collect", "last_object", "complete"),
    ("queue", "complete", "started"),
    ("analyse", "started", "written"),
    ("deliver", "written", "sent"),
)
"""Stages between the points of a timeline; its spans lie inside `analyse`."""


def chrome_trace(lines: Iterable[Timeline], seconds: int, now_ns: int | None = None) -> dict[str, Any]:
    """Of tasks that had a point in the last `seconds`; times in microseconds of the monotonic clock.

    Args:
        lines: tasks that have ended.
        seconds: back from now.
        now_ns: `time.monotonic_ns`.
    """
    since_ns = (time.monotonic_ns() if now_ns is None else now_ns) - seconds * 1_000_000_000
    events: list[dict[str, Any]] = []
    models: dict[str, int] = {}
    for line in lines:
        if max(line.points.values(), default=0) < since_ns:
            continue
        where = {"pid": models.setdefault(line.model, len(models) + 1), "tid": line.task}
        for name, begin, end in _BETWEEN:
            if begin in line.points and end in line.points:
                events.append(_event(name, line.points[begin], line.points[end]) | where)
        events += [_event(span.name, span.start_ns, span.end_ns) | where for span in line.spans]
    names = [{"name": "process_name", "ph": "M", "pid": pid, "args": {"name": model}} for model, pid in models.items()]
    return {"displayTimeUnit": "ms", "traceEvents": names + events}


def _event(name: str, start_ns: int, end_ns: int) -> dict[str, Any]:
    return {"name": name, "ph": "X", "ts": start_ns / 1e3, "dur": (end_ns - start_ns) / 1e3}
