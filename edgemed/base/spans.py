"""Spans: the one timing record, shared by daemon and profiler. Monotonic nanoseconds, integers only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """One timed stage of one frame; times are `time.monotonic_ns` values."""

    name: str
    start_ns: int
    end_ns: int
    frame: int | None = None

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


@dataclass
class SpanLog:
    """Collects spans in the order in which they end."""

    spans: list[Span] = field(default_factory=list)

    def record(self, name: str, frame: int | None = None) -> AbstractContextManager[None]:
        """Time the block; the span is kept also when the block raises."""
        return self._record(name, frame)

    @contextmanager
    def _record(self, name: str, frame: int | None) -> Iterator[None]:
        start_ns = time.monotonic_ns()
        try:
            yield
        finally:
            self.spans.append(Span(name, start_ns, time.monotonic_ns(), frame))
