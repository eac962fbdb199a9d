"""A span log that costs the loop next to nothing: one start and one end for each stage, overwritten by every frame."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType

from edgemed.base.spans import SpanLog

_now = time.monotonic_ns


class _Mark:
    __slots__ = ("end_ns", "start_ns")

    def __init__(self) -> None:
        self.start_ns = 0
        self.end_ns = 0

    def __enter__(self) -> None:
        self.start_ns = _now()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end_ns = _now()


class StageLog(SpanLog):
    """Keeps the last frame's `copy-in`, `compute` and `copy-out`, and no others; no object is made for a frame.

    A Runner that appends finished spans (its stages come from device events) is understood too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._copy_in, self._compute, self._copy_out = _Mark(), _Mark(), _Mark()
        self._marks = {"copy-in": self._copy_in, "compute": self._compute, "copy-out": self._copy_out}
        self._other = _Mark()

    def record(self, name: str, frame: int | None = None) -> AbstractContextManager[None]:  # noqa: ARG002
        """Time the block."""
        return self._marks.get(name, self._other)

    def take(self) -> tuple[int, int, int, int, int, int]:
        """Starts and ends of the three stages since the last `take`; 0 for what was not recorded."""
        if self.spans:
            for span in self.spans:
                mark = self._marks.get(span.name, self._other)
                mark.start_ns, mark.end_ns = span.start_ns, span.end_ns
            self.spans.clear()
        a, b, c = self._copy_in, self._compute, self._copy_out
        times = (a.start_ns, a.end_ns, b.start_ns, b.end_ns, c.start_ns, c.end_ns)
        a.start_ns = a.end_ns = b.start_ns = b.end_ns = c.start_ns = c.end_ns = 0
        return times
