"""A source through a ring, to the end: outcomes in order, and an account of every frame."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemed.base.spans import Span
from edgemed.base.store import write_atomic
from edgemed.runtime.durations import Durations
from edgemed.runtime.fill import Fill
from edgemed.runtime.frames import Answer, Counts, Drop, Outcome, Source
from edgemed.runtime.lane import Lane
from edgemed.runtime.policy import Policy
from edgemed.runtime.ring import Ring

_MOST_TRACED = 1_000_000  # spans: some 100 MB of JSON


@dataclass
class Account:
    """What became of the frames of a stream.

    Attributes:
        counts: of the ring; `submitted = answered + failed + dropped`, once the stream has ended.
        late: answers that came after the frame's deadline.
        elapsed_ns: from the first look at the source to the end.
        stages: durations by name. `age`: from the capture to the answer; `wait`: from the capture until a slot was
            found; then the ring's own: `fill`, `queue`, and what the lane tells, such as `compute`.
    """

    counts: Counts = field(default_factory=lambda: Counts(0, 0, 0, {}, 0))
    late: int = 0
    elapsed_ns: int = 0
    stages: dict[str, Durations] = field(default_factory=dict)

    def add(self, answer: Answer) -> None:
        """Count an answer's times."""
        self.late += answer.late
        self._stage("age", answer.answered_ns - answer.captured_ns)
        if answer.spans:
            self._stage("wait", answer.spans[0].start_ns - answer.captured_ns)
        for span in answer.spans:
            self._stage(span.name, span.duration_ns)

    def _stage(self, name: str, duration_ns: int) -> None:
        self.stages.setdefault(name, Durations()).add(duration_ns)

    def to_json(self) -> dict[str, Any]:
        """One document for programs."""
        counts = self.counts
        return {
            "frames": counts.submitted,
            "answered": counts.answered,
            "failed": counts.failed,
            "dropped": dict(counts.dropped),
            "lost": counts.lost,
            "late": self.late,
            "elapsed_ns": self.elapsed_ns,
            "stages": {
                name: {
                    "count": found.count,
                    "median_ns": found.quantile(0.5),
                    "p99_ns": found.quantile(0.99),
                    "max_ns": found.max_ns,
                }
                for name, found in self.stages.items()
            },
        }

    def lines(self) -> list[str]:
        """For people."""
        counts = self.counts
        dropped = sum(counts.dropped.values())
        reasons = ", ".join(f"{number} {reason}" for reason, number in counts.dropped.items() if number)
        texts = [f"{counts.answered} answered", f"{dropped} dropped{f' ({reasons})' if reasons else ''}"]
        first = f"{_count(counts.submitted, 'frame')} = {' + '.join(texts)} + {counts.failed} failed"
        if counts.lost:
            first += f"; {counts.lost} more lost before they reached us"
        if self.late:
            first += f"; {_count(self.late, 'answer')} late"
        seconds = self.elapsed_ns / 1e9
        rate = counts.answered / seconds if seconds else 0.0
        lines = [first, f"{seconds:.1f} s, {rate:.1f} answers per second"]
        width = max(map(len, self.stages), default=0)
        for name, found in self.stages.items():
            median, p99, most = (
                f"{value / 1e6:.2f}" for value in (found.quantile(0.5), found.quantile(0.99), found.max_ns)
            )
            lines.append(f"{name:<{width}}  median {median} ms, p99 {p99} ms, max {most} ms")
        return lines


class Trace:
    """Spans as a file that chrome://tracing and ui.perfetto.dev open (the Trace Event Format's complete events)."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self.left_out = 0

    def add(self, spans: tuple[Span, ...]) -> None:
        """Keep spans, up to a million."""
        room = _MOST_TRACED - len(self._spans)
        self._spans += spans[:room]
        self.left_out += max(len(spans) - room, 0)

    def write(self, path: Path) -> None:
        """Write the file, or leave the one that is there.

        Raises:
            ResourceError: it cannot be written.
        """
        lanes = {name: index for index, name in enumerate(dict.fromkeys(span.name for span in self._spans), start=1)}
        names = [
            {"ph": "M", "pid": 1, "tid": index, "name": "thread_name", "args": {"name": name}}
            for name, index in lanes.items()
        ]
        events = [
            {
                "ph": "X",
                "pid": 1,
                "tid": lanes[span.name],
                "name": span.name,
                "ts": span.start_ns / 1000,
                "dur": span.duration_ns / 1000,
                "args": {"frame": span.frame},
            }
            for span in self._spans
        ]
        write_atomic(path, json.dumps({"traceEvents": [*names, *events], "displayTimeUnit": "ms"}).encode())


class SourceRun:
    """One run of a source through a lane: iterate once for the outcomes, each good until the next is asked for.

    However the iteration ends (the source's end, `close`, an error, Ctrl-C), `account` then tells of every frame.

    Args:
        lane: not entered yet.
        source: its frames are not taken yet. Closed in the end, also where the lane cannot be entered.
        fill: writes a frame into a slot.
        policy: what happens to frames that come too fast.
        on_drop: told of each frame that is dropped.
        trace: is given all spans.
    """

    def __init__(
        self,
        lane: Lane,
        source: Source,
        fill: Fill,
        policy: Policy,
        *,
        on_drop: Callable[[Drop], None] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._ring = Ring(lane, policy=policy, fill=fill, on_drop=on_drop, spans=True)
        self._source = source
        self._trace = trace
        self._opened = False
        self.account = Account()

    @property
    def counts(self) -> Counts:
        """Where all frames are now; from any thread."""
        return self._ring.counts() if self._opened else self.account.counts

    def __iter__(self) -> Iterator[Outcome]:
        with ExitStack() as stack:
            stack.callback(self._source.close)  # preprocessing may have opened it while the lane was entered
            stack.callback(self._take_counts)  # once the ring has let go of every frame
            stack.enter_context(self._ring)
            self._opened = True
            yield from self._outcomes()

    def _take_counts(self) -> None:
        if self._opened:
            self.account.counts = self._ring.counts()

    def _outcomes(self) -> Iterator[Outcome]:
        begun_ns = time.monotonic_ns()
        try:
            with self._source:
                begun_ns = time.monotonic_ns()
                with closing(self._ring.run(self._source)) as outcomes:
                    for outcome in outcomes:
                        if isinstance(outcome, Answer):
                            self.account.add(outcome)
                            if self._trace is not None:
                                self._trace.add(outcome.spans)
                        yield outcome
        finally:
            self.account.elapsed_ns = time.monotonic_ns() - begun_ns


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
