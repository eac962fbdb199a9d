"""One input's way through the daemon: when it was meant to come, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from edgemed.base.spans import Span

POINTS: Final = ("first_byte", "last_object", "complete", "started", "written", "sent")
"""In their order, as the daemon names them."""

STAGES: Final = (
    "wait",
    "receive",
    "collect",
    "queue",
    "decode",
    "preprocess",
    "inference queue",
    "h2d",
    "compute",
    "d2h",
    "postprocess",
    "write",
    "other",
    "deliver",
)
"""In their order: `other` is what of the analysis lies between its stages. They add up to the latency."""

_BEFORE: Final = ("wait", "receive", "collect", "queue")
End = Literal["answered", "not-analysed", "failed", "unfinished"]


@dataclass(frozen=True)
class Passage:
    """Of one task.

    Attributes:
        model: that it was for.
        repetition: of the study, from 0.
        intended_ns: `time.monotonic_ns` at which its study was meant to be sent.
        end: what became of it.
        points: name of `POINTS` to its moment.
        spans: stages of the analysis, of all its frames; they may overlap.
        delivered: whether its way ends at a destination, else with the result on the disk.
    """

    model: str
    repetition: int
    intended_ns: int
    end: End
    points: Mapping[str, int]
    spans: Sequence[Span] = ()
    delivered: bool = True

    @property
    def done_ns(self) -> int | None:
        """When the result had got where it goes; `None` where there is none."""
        return self.points.get("sent" if self.delivered else "written") if self.end == "answered" else None

    @property
    def latency_ns(self) -> int:
        """From the intended arrival; -1 where there is no result."""
        return -1 if self.done_ns is None else max(0, self.done_ns - self.intended_ns)

    def stages(self) -> dict[str, int]:
        """Nanoseconds of each stage; nothing where a point is not known. Their sum is the latency."""
        wanted = POINTS if self.delivered else POINTS[:-1]
        if self.done_ns is None or any(name not in self.points for name in wanted):
            return {}
        times = [self.intended_ns]
        for name in wanted:  # threads stamp them: two that are next to each other may have changed places
            times.append(max(times[-1], min(self.points[name], self.done_ns)))
        found = dict(zip(_BEFORE, (b - a for a, b in pairwise(times)), strict=False))
        started, written = times[4], times[5]
        inside = wall_times(self.spans, started, written)
        found |= inside
        found["other"] = written - started - sum(inside.values())
        if self.delivered:
            found["deliver"] = times[6] - written
        return found


def wall_times(spans: Sequence[Span], start_ns: int, end_ns: int) -> dict[str, int]:
    """Time of each kind of span within a stretch of time, with none counted twice.

    Where spans overlap, as the frames of a clip do, a moment belongs to the one that began last.
    """
    inside = [
        (
            max(span.start_ns, start_ns),
            min(span.end_ns, end_ns),
            "inference queue" if span.name == "queue" else span.name,
        )
        for span in sorted(spans, key=lambda span: span.start_ns)
        if span.end_ns > start_ns and span.start_ns < end_ns
    ]
    found = {name: 0 for _, _, name in inside}
    open_: list[tuple[int, str]] = []  # ends; the one that began last is the last
    now = start_ns
    for begin, end, name in [*inside, (end_ns, end_ns, "")]:
        while open_ and now < begin:
            last, of = open_[-1]
            upto = min(last, begin)
            found[of] += max(0, upto - now)
            now = max(now, upto)
            if last <= now:
                open_.pop()
        now = max(now, begin)
        open_.append((end, name))
    return found
