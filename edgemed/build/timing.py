"""Remember what each stage said and how long it took, for the report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgemed.base.progress import Progress, Stage


@dataclass(frozen=True)
class StageRecord:
    """One finished stage."""

    name: str
    seconds: float
    note: str


@dataclass
class TimedProgress:
    """Passes stages on to another `Progress`, and records them."""

    inner: Progress
    stages: list[StageRecord] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage; it is recorded when it ends well."""
        start_ns = time.monotonic_ns()
        with self.inner.stage(name, total) as inner:
            noting = _Noting(inner)
            yield noting
        self.stages.append(StageRecord(name, (time.monotonic_ns() - start_ns) / 1e9, noting.text))


class _Noting:
    def __init__(self, inner: Stage) -> None:
        self._inner = inner
        self.text = ""

    def total(self, steps: int | None) -> None:
        self._inner.total(steps)

    def advance(self, steps: int = 1) -> None:
        self._inner.advance(steps)

    def note(self, text: str) -> None:
        self.text = text
        self._inner.note(text)
