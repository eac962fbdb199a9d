"""A result in lines, for terminals. What is missing is `n/a`, never 0."""

from __future__ import annotations

from edgemed.profile.compare import Comparison
from edgemed.profile.result import Result
from edgemed.profile.stats import Distribution, Percentile
from edgemed.profile.verdict import Verdict

Row = tuple[str, ...]
NA = "n/a"


def ms(value_ns: int | None) -> str:
    """Milliseconds to a microsecond; `n/a` for none."""
    return NA if value_ns is None else f"{value_ns / 1e6:.3f}"


def percentile_rows(latency: Distribution) -> list[Row]:
    """Percentile, value, upper bound, and where they come from."""
    rows: list[Row] = [(p.name, ms(p.value_ns), ms(p.upper_ns), _origin(p)) for p in latency.percentiles]
    return [*rows, ("max", ms(latency.max_ns), "", f"of {latency.n}")]


def _origin(percentile: Percentile) -> str:
    if percentile.value_ns is None:
        return f"needs {percentile.more} more samples"
    rank = f"rank {percentile.rank} of {percentile.n}"
    return rank if percentile.upper_ns is not None else f"{rank}; needs {percentile.more} more samples for a bound"


def stage_rows(result: Result) -> list[Row]:
    """Stage, median, p99, maximum."""
    return [
        (name, ms(stage.median_ns), ms(stage.percentile("99").value_ns), ms(stage.max_ns))
        for name, stage in result.stages.items()
    ]


def head_rows(result: Result) -> list[Row]:
    """What was measured, and how: the honest first page."""
    mark, settings, counts = result.fingerprint, result.settings, result.counts
    device = mark.board or mark.gpu or mark.host.cpu
    lost = ", ".join(f"{count} {reason}" for reason, count in counts.dropped.items() if count)
    where = f"{counts.answered} answered of {counts.arrived}"
    if lost:
        where += f", dropped: {lost}"
    if counts.failed:
        where += f", {counts.failed} failed"
    how = (
        f"{settings.warmup_frames} warm-up frames apart; garbage collection {settings.collector}; "
        f"{settings.inputs_count} inputs ({settings.inputs})"
    )
    rows = [
        ("measured", f"{result.name}, {mark.precision} on {mark.backend}/{mark.device} ({device})"),
        ("load", f"{result.load.text} for {result.duration_ns / 1e9:.1f} s, latency from the intended arrival"),
        ("frames", where),
        ("how", how),
    ]
    first, gap = result.first_frames.first_ns, result.first_frames.after_gap
    rows.append(
        ("first frame", f"{ms(first)} ms" + (f"; after {gap.n} gaps at most {ms(gap.max_ns)} ms" if gap else ""))
    )
    if (misses := result.misses) is not None:
        rate = misses.rate
        rows.append(
            (
                "misses",
                f"{rate.count} of {rate.n} later than {misses.deadline_ns / 1e6:g} ms in {rate.events} events; rate "
                f"{rate.rate:.3g}, at most {rate.upper:.3g}; {misses.longest_burst} in a row at most",
            )
        )
    if (steady := result.steady) is not None:
        when = "not reached" if steady.time_to_steady_ns is None else f"from {steady.time_to_steady_ns / 1e9:.0f} s on"
        rows.append(("steady", f"{when}; median cold {ms(steady.cold.median_ns)}, hot {ms(steady.hot.median_ns)} ms"))
    if result.own_cost is not None:
        rows.append(("own cost", f"{result.own_cost.per_frame_ns / 1e3:.1f} µs per frame"))
    return [*rows, ("not measured", "; ".join(result.not_measured))]


def verdict_rows(verdict: Verdict) -> list[Row]:
    """Clause, limit, value, outcome, why."""
    return [
        (
            clause.clause,
            f"{clause.limit:g}",
            NA if clause.value is None else f"{clause.value:.4g}",
            clause.outcome,
            clause.why + (f"; needs {clause.more} more frames" if clause.more else ""),
        )
        for clause in verdict.clauses
    ]


def change_rows(comparison: Comparison) -> list[Row]:
    """Metric, A, B, change, interval, margin, outcome."""
    rows: list[Row] = []
    for change in comparison.changes:
        unit = "mJ" if change.metric == "energy" else "ms"
        scale = 1.0 if change.metric == "energy" else 1e6
        sides = [NA if side is None else f"{side / scale:.3f} {unit}" for side in (change.a, change.b)]
        between = NA if change.low is None or change.high is None else f"{change.low:+.1%} to {change.high:+.1%}"
        rows.append(
            (
                change.metric,
                *sides,
                NA if change.change is None else f"{change.change:+.1%}",
                between,
                "" if change.margin is None else f"{change.margin:.3g}",
                change.outcome,
            )
        )
    return rows
