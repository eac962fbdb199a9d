"""When each stage of an input was reached: behind histograms, traces, and the claim from C-STORE to result."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from edgemed.base.spans import Span

POINTS: Final = ("first_byte", "last_object", "complete", "started", "written", "sent")
"""Of a task, in their order; stages between `started` and `written` are spans."""

_OPEN: Final = 4096
_KEPT: Final = 2048


@dataclass
class Timeline:
    """Of one task; `time.monotonic_ns`. It lives in memory: after a restart only the journal's calendar times are left.

    Attributes:
        task: its number in the journal.
        model: it is for.
        points: name of `POINTS` to its moment.
        spans: stages of the analysis: decode, preprocess, queue, h2d, compute, d2h, postprocess, write.
    """

    task: int
    model: str
    points: dict[str, int] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)


class Timelines:
    """Those of tasks that are open, and of the last ones that ended.

    Attributes:
        on_ended: told of each that has ended, in the thread that ended it: be quick.
    """

    def __init__(self) -> None:
        self.on_ended: list[Callable[[Timeline], None]] = []
        self._lock = threading.Lock()
        self._arrivals: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._open: OrderedDict[int, Timeline] = OrderedDict()
        self._ended: deque[Timeline] = deque(maxlen=_KEPT)

    def arrived(self, object_number: int, first_ns: int) -> None:
        """An object was received: first byte then, kept now."""
        with self._lock:
            self._arrivals[object_number] = (first_ns, time.monotonic_ns())
            while len(self._arrivals) > _OPEN:
                self._arrivals.popitem(last=False)

    def opened(self, task: int, model: str, objects: Sequence[int]) -> None:
        """Objects belong to a task; called again for more of them."""
        with self._lock:
            line = self._open.setdefault(task, Timeline(task, model))
            for number in objects:
                if number in self._arrivals:
                    first_ns, kept_ns = self._arrivals[number]
                    line.points["first_byte"] = min(first_ns, line.points.get("first_byte", first_ns))
                    line.points["last_object"] = max(kept_ns, line.points.get("last_object", kept_ns))
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)

    def reached(self, task: int, point: str, spans: Sequence[Span] = ()) -> None:
        """A task has reached one of `POINTS`."""
        with self._lock:
            line = self._open.get(task)
            if line is not None:
                line.points[point] = time.monotonic_ns()
                line.spans.extend(spans)

    def get(self, task: int) -> Timeline | None:
        """Of a task that is open, where this run knows it."""
        with self._lock:
            return self._open.get(task)

    def ended(self, task: int) -> Timeline | None:
        """A task has ended; its timeline, where it is known."""
        with self._lock:
            line = self._open.pop(task, None)
            if line is not None:
                self._ended.append(line)
        if line is not None:
            for tell in self.on_ended:
                tell(line)
        return line

    def point(self, task: int, name: str) -> int | None:
        """When an open task reached a point."""
        with self._lock:
            line = self._open.get(task)
            return None if line is None else line.points.get(name)

    @property
    def answered(self) -> list[Timeline]:
        """Of tasks with a result on the disk, oldest first: whether it has been delivered does not matter."""
        with self._lock:
            lines = [*self._ended, *self._open.values()]
        return sorted((each for each in lines if "written" in each.points), key=lambda each: each.points["written"])

    @property
    def recent(self) -> list[Timeline]:
        """The last ones that ended, oldest first."""
        with self._lock:
            return list(self._ended)
