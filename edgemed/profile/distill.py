"""Stamps → figures. Memory is that of two columns, however many stages there are: each is read for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from edgemed.profile.beside import Series
from edgemed.profile.itself import ItselfComparison, compare_with_itself
from edgemed.profile.measure import Measurement
from edgemed.profile.misses import ASSUMED_BURST, RECOVERED, Misses, RateBounds, bound_rate, find_misses, frames_needed
from edgemed.profile.result import Counts, FirstFrames, Jitter
from edgemed.profile.stamps import (
    AFTER_GAP,
    ANSWERED,
    DONE,
    DROP_REASONS,
    DROPPED,
    FAILED,
    INTENDED,
    OPEN,
    OUTCOME,
    REASON_SHIFT,
    STAGES,
    STATUS,
    TAKEN,
    WARMUP,
    Samples,
    stage_of,
)
from edgemed.profile.stats import CONFIDENCE, Distribution, distribution
from edgemed.profile.steady import Steady, SteadyRule, find_steady, windows_of

Rows = NDArray[np.int64]


class Rules(TypedDict):
    """Arguments of everything that counts events."""

    recovered: int
    confidence: float
    assumed_burst: int


@dataclass(frozen=True)
class Question:
    """What is asked of the stamps.

    Attributes:
        deadline_ns: for misses.
        miss_rate: the rate of misses that is allowed.
        recovered: frames in time that end an event.
        limits: latencies (ns) whose excess is to be bounded, with the rate that is allowed.
        confidence: of all bounds.
        assumed_burst: frames of an event, where none was seen.
        rule: when it counts as steady.
        junction: temperature beside the run.
    """

    deadline_ns: int | None = None
    miss_rate: float | None = None
    recovered: int = RECOVERED
    limits: tuple[tuple[int, float], ...] = ()
    confidence: float = CONFIDENCE
    assumed_burst: int = ASSUMED_BURST
    rule: SteadyRule = field(default_factory=SteadyRule)
    junction: Series | None = None

    @property
    def rules(self) -> Rules:
        """How events are counted and bounded."""
        return {"recovered": self.recovered, "confidence": self.confidence, "assumed_burst": self.assumed_burst}


@dataclass(frozen=True)
class Excess:
    """How often a latency was above a limit, frames that were never answered included.

    `more`: frames still needed to show that it is rare enough; `None`: unknown.
    """

    bounds: RateBounds
    more: int | None


@dataclass(frozen=True)
class Figures:
    """What the stamps say.

    `start_ns` is the first measured arrival (`time.monotonic_ns`); `excess` is by (limit, allowed rate); `lost` are
    frames without an answer.
    """

    warmup_frames: int
    start_ns: int
    duration_ns: int
    counts: Counts
    latency: Distribution | None
    stages: dict[str, Distribution]
    first_frames: FirstFrames
    jitter: Jitter
    misses: Misses | None
    more_for_misses: int | None
    steady: Steady | None
    excess: dict[tuple[int, float], Excess]
    lost: RateBounds | None
    itself: ItselfComparison | None


def distill(measurement: Measurement, question: Question) -> Figures:
    """All figures of a run. The warm-up is in none of them but the first frames and the steady state."""
    samples, gap_ns = measurement.samples, measurement.plan.load.gap_ns
    scan = _Scan(len(samples))
    for rows in samples.chunks():
        scan.add(rows)
    intended, latency = scan.columns()
    misses = lost = more = None
    if question.deadline_ns is not None:
        misses = find_misses(intended, latency, question.deadline_ns, **question.rules)
        if question.miss_rate is not None and len(latency):
            more = excess_of(latency, question.deadline_ns, question.miss_rate, question).more
    excess = {limit: excess_of(latency, *limit, question) for limit in question.limits if len(latency)}
    if len(latency):
        lost = bound_rate(latency < 0, **question.rules)
    start = int(intended[0]) if len(intended) else measurement.start_ns
    duration = scan.last_done - start if len(intended) else 0
    del intended
    answered = latency if scan.all_answered else latency[latency >= 0]
    del latency
    scan.release()
    itself = compare_with_itself(answered)  # before the order of arrival is lost
    whole = distribution(answered, confidence=question.confidence)
    del answered
    gaps = _gathered(samples, _after_gap)
    return Figures(
        warmup_frames=scan.warmup,
        start_ns=start,
        duration_ns=max(0, duration),
        counts=scan.counts(),
        latency=whole,
        stages=stages_of(samples, question.confidence),
        first_frames=FirstFrames(
            first_ns=scan.first_ns, gap_ns=gap_ns, after_gap=distribution(gaps, confidence=question.confidence)
        ),
        jitter=Jitter(
            arrival=None if measurement.plan.load.closed else _arrival(samples, question.confidence),
            tail_ns=_tail(whole),
        ),
        misses=misses,
        more_for_misses=more,
        steady=_steady(samples, measurement.start_ns, question),
        excess=excess,
        lost=lost,
        itself=itself,
    )


class _Scan:
    """One pass over all rows: intended arrival and latency of the measured ones, and counts."""

    def __init__(self, rows: int) -> None:
        self._intended = np.empty(rows, dtype=np.int64)
        self._latency = np.empty(rows, dtype=np.int64)
        self._n = 0
        self._rows = 0
        self._outcomes = np.zeros(4, dtype=np.int64)
        self._reasons = np.zeros(len(DROP_REASONS) + 1, dtype=np.int64)
        self.warmup = 0
        self.first_ns: int | None = None
        self.last_done = 0

    def add(self, rows: Rows) -> None:
        if self._rows == 0 and rows[0, STATUS] & OUTCOME == ANSWERED:
            self.first_ns = int(rows[0, DONE] - rows[0, INTENDED])
        self._rows += len(rows)
        measured = rows[(rows[:, STATUS] & WARMUP) == 0]
        # a row whose frame was never finished nor told of its arrival is empty
        measured = measured[measured[:, INTENDED] > 0]
        self.warmup += int(np.count_nonzero(rows[:, STATUS] & WARMUP))
        if not len(measured):
            return
        status = measured[:, STATUS]
        outcome = status & OUTCOME
        self._outcomes += np.bincount(outcome, minlength=4)
        dropped = status[outcome == DROPPED] >> REASON_SHIFT
        self._reasons += np.bincount(dropped, minlength=len(self._reasons))
        end = self._n + len(measured)
        self._intended[self._n : end] = measured[:, INTENDED]
        self._latency[self._n : end] = np.where(outcome == ANSWERED, measured[:, DONE] - measured[:, INTENDED], -1)
        self._n = end
        self.last_done = max(self.last_done, int(measured[:, DONE].max()))

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._intended[: self._n], self._latency[: self._n]

    def release(self) -> None:
        self._intended = self._latency = np.empty(0, dtype=np.int64)

    @property
    def all_answered(self) -> bool:
        return int(self._outcomes[ANSWERED]) == self._n

    def counts(self) -> Counts:
        reasons = zip(DROP_REASONS, self._reasons[1:].tolist(), strict=True)
        return Counts(
            arrived=self._n,
            answered=int(self._outcomes[ANSWERED]),
            dropped={reason: count for reason, count in reasons if count},
            failed=int(self._outcomes[FAILED]),
            unfinished=int(self._outcomes[OPEN]),
        )


def stages_of(samples: Samples, confidence: float = CONFIDENCE) -> dict[str, Distribution]:
    """Distributions of the stages that were stamped, over the measured frames that were answered."""
    found = {}
    for name in STAGES:
        taken = distribution(_gathered(samples, partial(_stage, name)), confidence=confidence)
        if taken is not None:
            found[name] = taken
    return found


def _stage(name: str, rows: Rows) -> Rows:
    durations, known = stage_of(measured_answers(rows), name)
    kept: Rows = durations[known]
    return kept


def measured_answers(rows: Rows) -> Rows:
    """Rows that were answered and are no warm-up."""
    kept: Rows = rows[(rows[:, STATUS] & (OUTCOME | WARMUP)) == ANSWERED]
    return kept


def _after_gap(rows: Rows) -> Rows:
    """Latencies of first frames after a gap, in the warm-up too; the very first arrival is told apart."""
    status = rows[:, STATUS]
    chosen = rows[((status & OUTCOME) == ANSWERED) & ((status & AFTER_GAP) != 0)]
    latency: Rows = chosen[:, DONE] - chosen[:, INTENDED]
    return latency


def _gathered(samples: Samples, choose: Callable[[Rows], Rows]) -> Rows:
    """What `choose` takes of each chunk, in one array that is allocated once."""
    out = np.empty(len(samples), dtype=np.int64)
    n = 0
    for rows in samples.chunks():
        part = choose(rows)
        out[n : n + len(part)] = part
        n += len(part)
    return out[:n]


def _arrival(samples: Samples, confidence: float) -> Distribution | None:
    """How late frames were taken while nothing was in the works: the timer's and the scheduler's own lateness."""
    busy_until = 0

    def idle(rows: Rows) -> Rows:
        nonlocal busy_until
        done = np.maximum.accumulate(np.concatenate(([busy_until], rows[:, DONE])))
        busy_until = int(done[-1])
        free = (done[:-1] < rows[:, INTENDED]) & ((rows[:, STATUS] & (OUTCOME | WARMUP)) == ANSWERED)
        late: Rows = rows[free, TAKEN] - rows[free, INTENDED]
        return late

    return distribution(_gathered(samples, idle), confidence=confidence)


def excess_of(latency: NDArray[np.int64], limit_ns: int, allowed: float, question: Question) -> Excess:
    """How often latencies (ns; negative: never answered) in order of arrival exceed a limit that a share may exceed."""
    above = latency > limit_ns
    above |= latency < 0
    return Excess(bound_rate(above, **question.rules), frames_needed(above, allowed, **question.rules))


def _tail(latency: Distribution | None) -> int | None:
    far = None if latency is None else latency.percentile("99.9").value_ns
    return None if far is None or latency is None else far - latency.median_ns


def _steady(samples: Samples, start_ns: int, question: Question) -> Steady | None:
    """By windows over the whole run, the warm-up included: what is cold is part of the story."""
    last = _last_arrival(samples)
    if last - start_ns < question.rule.window_ns:
        return None
    since, latency = np.empty(len(samples), dtype=np.int64), np.empty(len(samples), dtype=np.int64)
    n = 0
    for rows in samples.chunks():
        done = rows[(rows[:, STATUS] & OUTCOME) == ANSWERED]
        since[n : n + len(done)] = done[:, INTENDED] - start_ns
        latency[n : n + len(done)] = done[:, DONE] - done[:, INTENDED]
        n += len(done)
    windows = windows_of(since[:n], latency[:n], question.rule, question.junction, start_ns)
    return find_steady(windows, question.rule, sensor=question.junction is not None)


def _last_arrival(samples: Samples) -> int:
    last = 0
    for rows in samples.chunks():
        last = max(last, int(rows[:, INTENDED].max(initial=0)))
    return last
