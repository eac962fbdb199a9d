"""Judges a result by its objectives. Tails are judged by how often a limit was exceeded, counted in events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgemed.profile.beside import Energy, Telemetry
from edgemed.profile.distill import Excess, Figures
from edgemed.profile.misses import Misses, RateBounds
from edgemed.profile.result import Ended, Fingerprint, FirstFrames, Result
from edgemed.profile.slo import PERCENTILE_KEYS, Objectives, Slo
from edgemed.profile.stats import Distribution, share_of
from edgemed.profile.steady import Steady
from edgemed.profile.verdict import ClauseResult, Verdict, combine

_NOT_MEASURED = "not measured here"


def limits_of(slo: Slo) -> dict[str, tuple[int, float]]:
    """Latencies (ns) that objectives limit, and the share of frames that may exceed each: by clause."""
    limits = {}
    for key, p in PERCENTILE_KEYS.items():
        limit = getattr(slo.latency, key)
        if limit is not None:
            limits[f"latency.{key}"] = (round(limit * 1e6), float(1 - share_of(p)))
    return limits


@dataclass(frozen=True)
class Evidence:
    """What is judged. What was not measured is left out: its clauses stay open.

    Attributes:
        fingerprint: of what was measured.
        latency: from the intended arrival.
        misses, more_for_misses, excess, lost: see `Figures`.
        duration_ns: from the first measured arrival to the last answer.
        first_frames, energy, telemetry, steady, ended: see `Result`.
    """

    fingerprint: Fingerprint
    latency: Distribution | None
    misses: Misses | None
    excess: Mapping[tuple[int, float], Excess]
    lost: RateBounds | None
    duration_ns: int
    more_for_misses: int | None = None
    first_frames: FirstFrames = field(default_factory=lambda: FirstFrames(first_ns=None, gap_ns=1, after_gap=None))
    energy: tuple[Energy, ...] = ()
    telemetry: tuple[Telemetry, ...] = ()
    steady: Steady | None = None
    ended: Ended | None = None


def judge(objectives: Objectives, result: Result, figures: Figures) -> Verdict:
    """The verdict on a result that was distilled into `figures` with the same objectives."""
    return weigh(
        objectives,
        Evidence(
            fingerprint=result.fingerprint,
            latency=result.latency,
            misses=result.misses,
            excess=figures.excess,
            lost=figures.lost,
            duration_ns=result.duration_ns,
            more_for_misses=figures.more_for_misses,
            first_frames=result.first_frames,
            energy=result.energy,
            telemetry=result.telemetry,
            steady=result.steady,
            ended=result.ended,
        ),
    )


def weigh(objectives: Objectives, evidence: Evidence) -> Verdict:
    """The verdict of objectives on evidence."""
    slo = objectives.slo
    clauses = (
        *_latency(slo, evidence, evidence.excess),
        *_misses(slo, evidence, evidence.more_for_misses),
        *_lost(slo, evidence.lost),
        *_seen(slo, evidence),
    )
    invalid, wrong = tuple(_invalid(slo, evidence)), tuple(_wrong_state(slo, evidence))
    return Verdict(
        outcome=combine(clauses, invalid, wrong),
        confidence=slo.confidence,
        slo_sha256=objectives.sha256,
        clauses=clauses,
        invalid=invalid,
        wrong_state=wrong,
    )


def _latency(slo: Slo, result: Evidence, excess: Mapping[tuple[int, float], Excess]) -> Iterator[ClauseResult]:
    for clause, key in limits_of(slo).items():
        limit_ms, found = key[0] / 1e6, excess.get(key)
        if found is None:
            yield _open(clause, limit_ms, "no frame was measured", n=0)
            continue
        p = PERCENTILE_KEYS[clause.partition(".")[2]]
        seen = None if result.latency is None else result.latency.percentile(p)
        value = None if seen is None or seen.value_ns is None else seen.value_ns / 1e6
        bound = None if seen is None or seen.upper_ns is None else seen.upper_ns / 1e6
        outcome, why = _by_rate(found.bounds, key[1], f"above {limit_ms:g} ms")
        more = found.more if outcome == "inconclusive" else None
        yield ClauseResult(
            clause=clause,
            limit=limit_ms,
            outcome=outcome,
            value=value,
            bound=bound,
            n=found.bounds.n,
            more=more,
            why=why,
        )


Outcome = Literal["pass", "fail", "inconclusive"]


def _by_rate(bounds: RateBounds, allowed: float, what: str) -> tuple[Outcome, str]:
    """Whether a rate is shown to be within what is allowed, or beyond it."""
    level = f"{bounds.confidence:.4g}"
    seen = f"{bounds.count} of {bounds.n} {what}"
    if bounds.events:
        seen += f" in {bounds.events} event{'s' if bounds.events > 1 else ''}"
    if not bounds.events:
        seen += f" (bursts assumed {bounds.assumed_burst} long)"
    if bounds.cautious_upper <= allowed:
        return "pass", f"{seen}: at most {bounds.upper:.3g} of all, at {level}; {allowed:g} may be"
    if bounds.cautious_lower > allowed:
        return "fail", f"{seen}: at least {bounds.lower:.3g} of all, at {level}; {allowed:g} may be"
    if bounds.few_events and (bounds.upper <= allowed or bounds.lower > allowed):
        return "inconclusive", f"{seen}: fewer than 10 events cannot tell how long bursts get"
    return "inconclusive", f"{seen}: between {bounds.lower:.3g} and {bounds.upper:.3g} of all, at {level}"


def _misses(slo: Slo, result: Evidence, more: int | None) -> Iterator[ClauseResult]:
    wanted, misses = slo.misses, result.misses
    if misses is None:
        for key, limit in wanted.model_dump(exclude_none=True).items():
            yield _open(f"misses.{key}", limit, "no frame was measured", n=0)
        return
    n = misses.rate.n
    if wanted.rate is not None:
        outcome, why = _by_rate(misses.rate, wanted.rate, "late or never answered")
        more = more if outcome == "inconclusive" else None
        yield ClauseResult(
            clause="misses.rate",
            limit=wanted.rate,
            outcome=outcome,
            value=misses.rate.rate,
            bound=misses.rate.lower if outcome == "fail" else misses.rate.upper,
            n=n,
            more=more,
            why=why,
        )
    if wanted.burst is not None:
        yield _by_worst("misses.burst", wanted.burst, misses.longest_burst, n, "misses in a row, at most")
    if wanted.events_per_hour is not None:
        low, high, limit = misses.events_per_hour_lower, misses.events_per_hour_upper, wanted.events_per_hour
        outcome = "pass" if high <= limit else "fail" if low > limit else "inconclusive"
        yield ClauseResult(
            clause="misses.events_per_hour",
            limit=limit,
            outcome=outcome,
            value=misses.events_per_hour,
            bound=low if outcome == "fail" else high,
            n=n,
            more=None,
            why=f"{misses.rate.events} events: between {low:.3g} and {high:.3g} an hour, at {slo.confidence:.4g}",
        )
    if wanted.recovery_ms is not None:
        worst = (misses.recovery_max_ns or 0) / 1e6
        clause = _by_worst("misses.recovery_ms", wanted.recovery_ms, worst, n, "slowest recovery")
        if misses.unrecovered and clause.outcome == "pass":
            why = "the run ended before it had recovered"
            clause = clause.model_copy(update={"outcome": "inconclusive", "why": why})
        yield clause


def _lost(slo: Slo, lost: RateBounds | None) -> Iterator[ClauseResult]:
    limit = slo.drops.rate
    if limit is None:
        return
    if lost is None:
        yield _open("drops.rate", limit, "no frame was measured", n=0)
        return
    outcome, why = _by_rate(lost, limit, "never answered")
    yield ClauseResult(
        clause="drops.rate",
        limit=limit,
        outcome=outcome,
        value=lost.rate,
        bound=lost.lower if outcome == "fail" else lost.upper,
        n=lost.n,
        more=None,
        why=why,
    )


def _seen(slo: Slo, result: Evidence) -> Iterator[ClauseResult]:
    """Clauses that are judged by what this run showed; there is no bound for one first frame."""
    first, gap = result.first_frames.first_ns, result.first_frames.after_gap
    energy = result.energy[0] if result.energy else None
    hottest = _hottest(result)
    values: dict[str, tuple[float | None, int | None, str]] = {
        "first_frame.first_ms": (None if first is None else first / 1e6, 1, "the first frame"),
        "first_frame.after_gap_ms": (
            None if gap is None else gap.max_ns / 1e6,
            None if gap is None else gap.n,
            "slowest first frame after a gap",
        ),
        "energy.gross_mj": (None if energy is None else energy.gross_mj, None, "an inference, idle power included"),
        "energy.net_mj": (None if energy is None else energy.net_mj, None, "an inference, above idle"),
        "temperature.junction_c": (None if hottest is None else hottest / 1000, None, "hottest reading"),
    }
    for section in ("first_frame", "energy", "temperature"):
        for key, limit in getattr(slo, section).model_dump(exclude_none=True).items():
            value, n, why = values[f"{section}.{key}"]
            yield (
                _open(f"{section}.{key}", limit, _NOT_MEASURED, n=n)
                if value is None
                else _by_worst(f"{section}.{key}", limit, value, n, why)
            )


def _hottest(result: Evidence) -> int | None:
    readings = [
        channel.max
        for telemetry in result.telemetry
        for channel in telemetry.channels
        if channel.kind == "temperature" and channel.name == telemetry.junction
    ]
    return max(readings, default=None)


def _by_worst(clause: str, limit: float, value: float, n: int | None, why: str) -> ClauseResult:
    outcome: Outcome = "pass" if value <= limit else "fail"
    return ClauseResult(
        clause=clause, limit=limit, outcome=outcome, value=value, bound=None, n=n, more=None, why=f"{why}, in this run"
    )


def _open(clause: str, limit: float, why: str, *, n: int | None) -> ClauseResult:
    return ClauseResult(
        clause=clause, limit=limit, outcome="inconclusive", value=None, bound=None, n=n, more=None, why=why
    )


def _invalid(slo: Slo, result: Evidence) -> Iterator[str]:
    if result.ended is not None:
        yield f"the run ended early: {result.ended.message}"
    if slo.require_steady and result.steady is None:
        yield "the run is shorter than one window, so nothing shows that it was steady"
    elif slo.require_steady and result.steady is not None and not result.steady.reached:
        yield "the run did not become steady"
    if slo.min_duration_s is not None and result.duration_ns < slo.min_duration_s * 1e9:
        yield f"measured for {result.duration_ns / 1e9:.1f} s of the {slo.min_duration_s:g} s asked for"
    for telemetry in result.telemetry:
        if telemetry.throttled:
            yield f"the device throttled ({telemetry.source})"
        if telemetry.clocks_changed:
            yield f"a clock changed during the run ({telemetry.source})"
        if telemetry.lost is not None:
            yield f"nothing shows that it did not throttle: sampling {telemetry.lost} ({telemetry.source})"


def _wrong_state(slo: Slo, result: Evidence) -> Iterator[str]:
    for telemetry in result.telemetry:
        if telemetry.throttled_at_start:
            yield f"the device was throttled before the first frame ({telemetry.source})"
    yield from other_state(slo, result.fingerprint)


def other_state(slo: Slo, mark: Fingerprint) -> Iterator[str]:
    """How a device differs from the one that objectives ask for; known before anything is measured."""
    for key, wanted in slo.state.model_dump(exclude_none=True).items():
        found = getattr(mark, key)
        if found != wanted:
            yield f"{key.replace('_', ' ')} is {found or 'unknown'}, and shall be {wanted}"
