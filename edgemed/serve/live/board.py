"""What is known now of each live source: the newest picture and answer, for the page and for who asks over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgemed.imaging.results.content import Author, Reading
from edgemed.runtime.frames import Counts


@dataclass(frozen=True, eq=False)
class Shown:
    """One frame that was answered.

    Attributes:
        frame: its number in the source.
        captured_ns: `time.monotonic_ns` of its capture; its age counts from here.
        pixels: `(rows, columns)` or `(rows, columns, 3)`, uint8.
        readings: what the model says of it; empty where there is no answer to this frame.
        author: who answered.
        note: why there is no answer, as a sentence.
    """

    frame: int
    captured_ns: int
    pixels: NDArray[Any]
    readings: tuple[Reading, ...] = ()
    author: Author | None = None
    note: str = ""

    @property
    def age_ns(self) -> int:
        return time.monotonic_ns() - self.captured_ns


@dataclass
class Channel:
    """Of one source.

    Attributes:
        name: of the source.
        model: that looks at it.
        stale_ns: age from which a result is shown as stale.
        shown: the newest frame; `None` before any.
        counts: in = out + dropped, by reason.
        state: `starting`, `running`, `lost`, `ended`.
        reason: of the state, as a sentence.
    """

    name: str
    model: str
    stale_ns: int
    shown: Shown | None = None
    counts: Counts | None = None
    state: str = "starting"
    reason: str = ""
    number: int = 0  # of changes
    changed: threading.Condition = field(default_factory=threading.Condition)
    _watchers: list[Callable[[], object]] = field(default_factory=list)

    def show(self, shown: Shown, counts: Counts) -> None:
        """A newer one."""
        with self.changed:
            self.shown, self.counts = shown, counts
            self._tell()

    def move(self, state: str, reason: str = "", counts: Counts | None = None) -> None:
        """Where the source stands now."""
        with self.changed:
            self.state, self.reason = state, reason
            self.counts = self.counts if counts is None else counts
            self._tell()

    @contextmanager
    def watched(self, tell: Callable[[], object]) -> Iterator[None]:
        """Meanwhile `tell` is called at each change, by the thread that makes it: it must be quick."""
        with self.changed:
            self._watchers.append(tell)
        try:
            yield
        finally:
            with self.changed:
                self._watchers.remove(tell)

    def _tell(self) -> None:
        self.number += 1
        self.changed.notify_all()
        for tell in self._watchers:
            tell()


class Board:
    """All channels by name."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
