"""Spans: the one timing record, shared by daemon and profiler. Monotonic nanoseconds, integers only."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
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
        return _Timing(self.spans, name, frame)


class _Timing(AbstractContextManager[None]):
    def __init__(self, spans: list[Span], name: str, frame: int | None) -> None:
        self._spans, self._name, self._frame = spans, name, frame

    def __enter__(self) -> None:
        self._start_ns = time.monotonic_ns()

    def __exit__(self, *_: object) -> None:
        self._spans.append(Span(self._name, self._start_ns, time.monotonic_ns(), self._frame))
