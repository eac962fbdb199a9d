"""Deadline misses from the intended arrival: how many, in how many events, and what they allow to say.

A frame misses when its answer came after its deadline, or never: drops and failures miss. Misses come in bursts, so
frames are no independent trials; events are. An **event** begins with a miss and ends once `RECOVERED` frames in a row
were in time. Its **recovery** is the time from the intended arrival of its first miss to that of the first of them.

Bounds of a rate are Clopper and Pearson's, widened to those of a compound Poisson sum of events. Below ten events
nobody knows how long they get: there a verdict must stand with bounds ten times as far (`cautious`), or is left open.
Misses that are common, rather than rare, are no events: see `batches`. Where nothing was missed at all, the length of a
burst is an assumption, and stands beside the bound: of n frames in time, the rate is at most about 3 / n times that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemed.profile.batches import batch_bounds
from edgemed.profile.binomial import bisect, rate_at_least, rate_at_most, samples_needed
from edgemed.profile.compound import compound_at_least, compound_at_most
from edgemed.profile.records import Confidence, Count, Nanoseconds, Positive, Record, Share
from edgemed.profile.stats import CONFIDENCE, median_of

RECOVERED: Final = 10
FEW_EVENTS: Final = 10
ASSUMED_BURST: Final = 1
FEW_EVENTS_FACTOR: Final = 10.0
_LONGEST_WAIT: Final = 1000.0
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
    """A rate with one-sided bounds that hold for misses in bursts. Verdicts are taken from the cautious ones."""

    count: Count
    n: Positive
    events: Count
    rate: Share
    lower: Share
    upper: Share
    cautious_lower: Share = Field(description="as lower; with fewer than ten events, a tenth of it")
    cautious_upper: Share = Field(description="as upper; with one to nine events, ten times that")
    confidence: Confidence
    assumed_burst: Positive = Field(description="frames of an event; used where none was seen, and only there")

    @property
    def few_events(self) -> bool:
        return 0 < self.events < FEW_EVENTS


class Misses(Record):
    """Deadline misses of a run."""

    deadline_ns: Positive
    recovered_frames: Positive = Field(description="frames in time, in a row, that end an event")
    rate: RateBounds
    events: tuple[Event, ...] = Field(description=f"the {KEPT_EVENTS} with the most misses, in order of time")
    events_per_hour: float
    events_per_hour_lower: float = Field(description="one-sided; exact for independent events")
    events_per_hour_upper: float
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
    starts, ends = _stretches(missed)
    if not len(starts):
        return Runs(starts, starts, starts)
    begins = np.concatenate(([0], np.flatnonzero(starts[1:] - ends[:-1] >= recovered) + 1))
    lasts = np.concatenate((begins[1:], [len(starts)])) - 1
    return Runs(starts[begins], ends[lasts] - 1, np.add.reduceat(ends - starts, begins))


def _stretches(missed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First frame of each stretch of misses, and the frame behind it: memory is that of a byte per frame."""
    padded = np.zeros(len(missed) + 2, dtype=np.int8)
    padded[1:-1] = missed
    edges = np.flatnonzero(np.diff(padded)).astype(np.int64)
    return edges[::2], edges[1::2]


def bound_rate(
    missed: NDArray[np.bool_],
    *,
    recovered: int = RECOVERED,
    confidence: float = CONFIDENCE,
    assumed_burst: int = ASSUMED_BURST,
) -> RateBounds:
    """The rate of misses among (n,) frames in order, with its bounds.

    Where nearly all miss, it is the frames in time that are the events; in between, batches of the run are compared.
    """
    n, runs, rests = len(missed), events_of(missed, recovered), events_of(~missed, recovered)
    count = int(runs.misses.sum())
    if (common := batch_bounds(missed, confidence)) is not None:
        lower = min(common[0], rate_at_least(count, n, confidence))
        upper = max(common[1], rate_at_most(count, n, confidence))
        return RateBounds(
            count=count,
            n=n,
            events=len(runs),
            rate=count / n,
            lower=lower,
            upper=upper,
            cautious_lower=lower,
            cautious_upper=upper,
            confidence=confidence,
            assumed_burst=assumed_burst,
        )
    upper, cautious_upper = _upper(runs, n, confidence, assumed_burst)
    rest, cautious_rest = _upper(rests, n, confidence, assumed_burst)
    lower = min(rate_at_least(count, n, confidence), compound_at_least(runs.misses, confidence) / n)
    few = FEW_EVENTS_FACTOR if len(runs) < FEW_EVENTS else 1.0
    return RateBounds(
        count=count,
        n=n,
        events=len(runs),
        rate=count / n,
        lower=min(count / n, max(lower, 1 - rest)),
        upper=upper,
        cautious_lower=min(count / n, max(lower / few, 1 - cautious_rest)),
        cautious_upper=cautious_upper,
        confidence=confidence,
        assumed_burst=assumed_burst,
    )


def _upper(runs: Runs, n: int, confidence: float, assumed_burst: int) -> tuple[float, float]:
    """Upper bound of a rate, and the cautious one."""
    upper = rate_at_most(int(runs.misses.sum()), n, confidence)
    if not len(runs):
        upper = min(1.0, upper * assumed_burst)
        return upper, upper
    upper = min(1.0, max(upper, compound_at_most(runs.misses, confidence) / n))
    return upper, min(1.0, upper * FEW_EVENTS_FACTOR) if len(runs) < FEW_EVENTS else upper


def frames_needed(
    missed: NDArray[np.bool_], limit: float, *, recovered: int, confidence: float, assumed_burst: int = ASSUMED_BURST
) -> int | None:
    """Frames still needed to show that the rate is below `limit`, if things go on as they did.

    Returns:
        `None` where they would not show it: the rate is not below the limit, or not within a thousand times as many.
    """
    n, runs = len(missed), events_of(missed, recovered)
    if not len(runs):
        return max(0, samples_needed(0, limit / assumed_burst, confidence) - n)
    rate = int(runs.misses.sum()) / n
    if rate >= limit:
        return None
    if (common := batch_bounds(missed, confidence)) is not None:
        reach = max(common[1], rate_at_most(int(runs.misses.sum()), n, confidence)) - rate
        return max(0, math.ceil(n * (reach / (limit - rate)) ** 2) - n)

    def shown(times: float) -> bool:
        """Whether `times` as many frames, and events, would do."""
        enough = len(runs) * times >= FEW_EVENTS
        bound = compound_at_most(runs.misses, confidence, times) / (n * times)
        return bound * (1 if enough else FEW_EVENTS_FACTOR) <= limit

    if not shown(_LONGEST_WAIT):
        return None
    return math.ceil(n * bisect(lambda times: not shown(times), 1.0, _LONGEST_WAIT)) - n


def longest_run(missed: NDArray[np.bool_]) -> int:
    """The most misses in a row."""
    starts, ends = _stretches(missed)
    return int((ends - starts).max(initial=0))


def find_misses(
    intended_ns: NDArray[np.int64],
    latency_ns: NDArray[np.int64],
    deadline_ns: int,
    *,
    recovered: int = RECOVERED,
    confidence: float = CONFIDENCE,
    assumed_burst: int = ASSUMED_BURST,
) -> Misses | None:
    """Misses of a run; `None` of no frames.

    Args:
        intended_ns: (n,) rising intended arrivals.
        latency_ns: (n,) from the intended arrival; negative where the frame was never answered.
        deadline_ns: a latency above it misses.
        recovered: see `events_of`.
        confidence: of every bound.
        assumed_burst: see `bound_rate`.
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
        rate=bound_rate(missed, recovered=recovered, confidence=confidence, assumed_burst=assumed_burst),
        events=_worst(runs, intended_ns, latency_ns, done),
        events_per_hour=len(runs) / hours,
        events_per_hour_lower=compound_at_least(np.ones(len(runs), np.int64), confidence) / hours,
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
