"""Deadline misses from the intended arrival: how many, in how many events, and what they allow to say.

A frame misses when its answer came after its deadline, or never: drops and failures miss. Misses come in bursts, so
frames are no independent trials; events are. An **event** begins with a miss and ends once `RECOVERED` frames in a row
were in time. Its **recovery** is the time from the intended arrival of its first miss to that of the first of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemed.profile.binomial import rate_at_least, rate_at_most
from edgemed.profile.compound import compound_at_least, compound_at_most
from edgemed.profile.records import Confidence, Count, Nanoseconds, Positive, Record, Share
from edgemed.profile.stats import CONFIDENCE, median_of

RECOVERED: Final = 10
FEW_EVENTS: Final = 10
FEW_EVENTS_FACTOR: Final = 10.0
KEPT_EVENTS: Final = 1000  # the worst ones, in the record


class Event(Record):
    """One event: from its first miss to the last before recovery."""

    first_frame: Count
    last_frame: Count
    misses: Positive
    start_ns: int = Field(description="intended arrival of the first miss, since the start of the run")
    recovery_ns: Nanoseconds | None = Field(description="null: the run ended before it recovered")
    worst_ns: int | None = Field(description="largest latency in it; null where no frame of it was answered")


class RateBounds(Record):
    """A rate with one-sided bounds that hold for misses in bursts.

    `few_events`: fewer than ten events are behind it, so the bounds rest on a guess of how long bursts get.
    """

    count: Count
    n: Positive
    events: Count
    rate: Share
    lower: Share
    upper: Share
    confidence: Confidence
    few_events: bool


class Misses(Record):
    """Deadline misses of a run."""

    deadline_ns: Positive
    recovered_frames: Positive = Field(description="frames in time, in a row, that end an event")
    rate: RateBounds
    events: tuple[Event, ...] = Field(description=f"the {KEPT_EVENTS} with the most misses, in order of time")
    events_per_hour: float
    events_per_hour_upper: float = Field(description="one-sided; exact for independent events")
    longest_burst: Count = Field(description="misses in a row, at most")
    longest_event: Count = Field(description="frames from first to last miss of an event, at most")
    recovery_median_ns: Nanoseconds | None
    recovery_max_ns: Nanoseconds | None
    unrecovered: bool = Field(description="the run ended within an event")


@dataclass(frozen=True)
class Runs:
    """Events as arrays: index of the first and last miss, and the misses, of each; (events,) int64."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    misses: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)


def events_of(missed: NDArray[np.bool_], recovered: int = RECOVERED) -> Runs:
    """Group misses into events.

    Args:
        missed: (n,) in order of intended arrival.
        recovered: so many frames in time, in a row, end an event.
    """
    where = np.flatnonzero(missed).astype(np.int64)
    if not len(where):
        return Runs(where, where, where)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(where) > recovered) + 1))
    ends = np.concatenate((starts[1:], [len(where)]))
    return Runs(where[starts], where[ends - 1], (ends - starts).astype(np.int64))


def bound_rate(runs: Runs, n: int, confidence: float = CONFIDENCE) -> RateBounds:
    """Rate of misses with bounds: exact binomial, widened to those of a compound Poisson of events."""
    count = int(runs.misses.sum())
    lower, upper = rate_at_least(count, n, confidence), rate_at_most(count, n, confidence)
    if count:
        lower = min(lower, compound_at_least(runs.misses, confidence) / n)
        upper = min(1.0, max(upper, compound_at_most(runs.misses, confidence) / n))
    few = 0 < len(runs) < FEW_EVENTS
    return RateBounds(
        count=count,
        n=n,
        events=len(runs),
        rate=count / n,
        lower=lower,
        upper=upper,
        confidence=confidence,
        few_events=few,
    )


def longest_run(missed: NDArray[np.bool_]) -> int:
    """The most misses in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], missed.view(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def find_misses(
    intended_ns: NDArray[np.int64],
    latency_ns: NDArray[np.int64],
    deadline_ns: int,
    *,
    recovered: int = RECOVERED,
    confidence: float = CONFIDENCE,
) -> Misses | None:
    """Misses of a run; `None` of no frames.

    Args:
        intended_ns: (n,) rising intended arrivals.
        latency_ns: (n,) from the intended arrival; negative where the frame was never answered.
        deadline_ns: a latency above it misses.
        recovered: see `events_of`.
        confidence: of every bound.
    """
    n = len(intended_ns)
    if not n:
        return None
    missed = (latency_ns > deadline_ns) | (latency_ns < 0)
    runs = events_of(missed, recovered)
    after = runs.last + 1
    done = after + recovered <= n
    recoveries = intended_ns[after[done]] - intended_ns[runs.first[done]]
    hours = max(1, int(intended_ns[-1] - intended_ns[0])) / 3.6e12
    return Misses(
        deadline_ns=deadline_ns,
        recovered_frames=recovered,
        rate=bound_rate(runs, n, confidence),
        events=_worst(runs, intended_ns, latency_ns, done),
        events_per_hour=len(runs) / hours,
        events_per_hour_upper=compound_at_most(np.ones(len(runs), np.int64), confidence) / hours,
        longest_burst=longest_run(missed),
        longest_event=int((runs.last - runs.first + 1).max(initial=0)),
        recovery_median_ns=median_of(recoveries) if len(recoveries) else None,
        recovery_max_ns=int(recoveries.max()) if len(recoveries) else None,
        unrecovered=bool(len(runs)) and not bool(done[-1]),
    )


def _worst(
    runs: Runs, intended_ns: NDArray[np.int64], latency_ns: NDArray[np.int64], done: NDArray[np.bool_]
) -> tuple[Event, ...]:
    chosen: Sequence[int] = sorted(np.argsort(-runs.misses, kind="stable")[:KEPT_EVENTS].tolist())
    events = []
    for i in chosen:
        first, last = int(runs.first[i]), int(runs.last[i])
        worst = int(latency_ns[first : last + 1].max())
        recovery = int(intended_ns[last + 1] - intended_ns[first]) if done[i] else None
        events.append(
            Event(
                first_frame=first,
                last_frame=last,
                misses=int(runs.misses[i]),
                start_ns=int(intended_ns[first] - intended_ns[0]),
                recovery_ns=recovery,
                worst_ns=worst if worst >= 0 else None,
            )
        )
    return tuple(events)
