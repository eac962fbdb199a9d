"""Charts of a profile: latency over time, its distribution, misses, and what sensors showed meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.profile.beside import ChannelKind, Series
from edgemed.profile.misses import Misses
from edgemed.profile.overview import SLICES, Overview
from edgemed.profile.steady import Steady
from edgemed.report.chart import Axis, Chart, short, span_of
from edgemed.report.markup import Html

MS: Final = 1e6
COLORS: Final = ("accent", "clip", "percentile", "entropy", "float", "muted")
_FAR: Final = 12.0  # a largest value so many medians away asks for a logarithmic axis
_FEW: Final = 400  # fewer answers are drawn one by one
_GAP: Final = 4.0  # times the usual distance of two points
_HALF: Final = 420  # two of them stand side by side
_MOST_SERIES: Final = len(COLORS)
# what a kind is called, its unit on the page, and how many of the sensor's own units that is
KINDS: Final[dict[ChannelKind, tuple[str, str, float]]] = {
    "temperature": ("Temperature", "°C", 1e3),
    "clock": ("Clocks", "MHz", 1e6),
    "power": ("Power", "W", 1e3),
    "load": ("Load", "%", 10.0),
    "memory": ("Memory", "MB", 1e6),
    "fan": ("Fan", "rpm", 1.0),
    "counter": ("Counters", "events since the start", 1.0),
    "slowdown": ("Slowed down", "state, 0 is not", 1.0),
}


def time_axis(span_ns: float) -> tuple[Axis, float]:
    """An axis of time since the start, and the nanoseconds of its unit."""
    unit, name = next(
        ((scale, name) for scale, name, most in ((1e9, "s", 240), (60e9, "min", 240)) if span_ns < most * scale),
        (3600e9, "h"),
    )
    return Axis(0.0, max(span_ns / unit, 1e-9), f"since the first arrival, {name}"), unit


def over_time(seen: Overview, deadline_ns: int | None) -> Html:
    """Every spike, the median, the deadline, and where frames were lost."""
    axis, unit = time_axis(float(seen.time_ns[-1]))
    low, high, limit = float(seen.low.min()), float(seen.high.max()), deadline_ns or 0
    y = _latency_axis(low, max(high, limit if limit < 4 * high else 0), float(np.median(seen.median)))
    chart, xs = Chart(axis, y, 280), seen.time_ns / unit
    if seen.warm_ns:
        chart.shade(0.0, seen.warm_ns / unit, "muted")
    chart.spans(xs, seen.low / MS, seen.high / MS, "bars")
    if len(xs) <= _FEW:
        chart.dots(xs, seen.median / MS, "accent", 1.8)
    else:
        chart.line(*_broken(xs, seen.median / MS), "accent", 1.4)
    if deadline_ns is not None:
        late = seen.high > deadline_ns
        chart.dots(xs[late], seen.high[late] / MS, "clip", 2.0)
        chart.rule_y(deadline_ns / MS, f"deadline {deadline_ns / MS:g} ms", "clip")
    if len(seen.lost_ns):
        chart.dots(seen.lost_ns / unit, np.full(len(seen.lost_ns), y.high), "bad", 2.4)
    words = f"Latency over time: {low / MS:.3f} to {high / MS:.3f} ms; the largest at {seen.slowest_ns / unit:.1f}"
    return chart.render(words)


def _broken(xs: NDArray[Any], ys: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A line that is interrupted where for some slices nothing was answered, as nobody knows what lies there."""
    steps = np.diff(xs)
    gaps = np.flatnonzero(steps > _GAP * np.median(steps)) + 1
    return np.insert(xs, gaps, np.nan), np.insert(ys, gaps, np.nan)


def _latency_axis(low: float, high: float, typical: float) -> Axis:
    if high > _FAR * max(typical, 1.0):
        return Axis(max(low, 1.0) / MS * 0.8, high / MS * 1.4, "latency, ms (logarithmic)", log=True, text=short)
    return Axis(0.0, high / MS * 1.08, "latency, ms")


def histogram(seen: Overview, deadline_ns: int | None, marks: Sequence[tuple[str, int]]) -> Html:
    """All answers; counts are on a logarithmic axis, so that one slow frame of a million shows.

    Args:
        seen: the run.
        deadline_ns: drawn where the axis reaches it.
        marks: names and latencies (ns) of percentiles.
    """
    low, high = seen.edges[0] / MS, seen.edges[-1] / MS
    if deadline_ns is not None and high < deadline_ns / MS < 4 * high:
        high = deadline_ns / MS * 1.05
    x = Axis(low, high, "latency, ms (logarithmic)", log=True, text=short)
    y = Axis(0.7, float(seen.counts.max()) * 1.6, "frames (logarithmic)", log=True, text=_count)
    chart = Chart(x, y, 250, _HALF)
    chart.bars(seen.edges / MS, seen.counts)
    for name, value in marks:
        chart.rule_x(value / MS, name, "ink")
    if deadline_ns is not None:
        chart.rule_x(deadline_ns / MS, "deadline", "clip")
        if deadline_ns / MS < high:
            chart.shade(max(deadline_ns / MS, low), high)
    return chart.render(f"Histogram of {seen.answered} latencies, {low:.3f} to {seen.edges[-1] / MS:.3f} ms")


def tail(seen: Overview, deadline_ns: int | None) -> Html:
    """The distribution from its far end: how many frames are slower than so much, each decade a nine."""
    low, high = float(seen.tail_ns[0]) / MS, float(seen.tail_ns[-1]) / MS
    least = 1.0 / seen.answered
    x = Axis(low * 0.98, max(high * 1.05, low * 1.1), "latency, ms (logarithmic)", log=True, text=short)
    nines = tuple(s for s in (1.0, 0.5, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7) if s >= least * 0.8)
    y = Axis(least * 0.7, 1.0, "share of frames at least as slow", log=True, text=_nines, ticks=nines)
    chart = Chart(x, y, 250, _HALF)
    chart.line(seen.tail_ns / MS, seen.tail_share, "accent", 2.0, steps=True)
    if deadline_ns is not None:
        chart.rule_x(deadline_ns / MS, "deadline", "clip")
    return chart.render(f"Share of frames at least as slow as a latency; the slowest took {high:.3f} ms")


def _nines(share: float) -> str:
    return {1.0: "all", 0.5: "p50"}.get(share, f"p{100 - 100 * share:.10g}")


def _count(value: float) -> str:
    return f"{value:,.0f}"


def bursts(misses: Misses, span_ns: int) -> Html:
    """Events of misses over time: as tall as they have misses."""
    axis, unit = time_axis(float(max(span_ns, *(event.start_ns for event in misses.events))))
    starts = np.array([event.start_ns for event in misses.events]) / unit
    counts = np.array([event.misses for event in misses.events], dtype=np.float64)
    high = float(counts.max())
    y = Axis(0.0, max(high * 1.15, 4.0), "misses in the event", text=_count, ticks=() if high > 4 else (0, 1, 2, 3, 4))
    chart = Chart(axis, y, 180)
    chart.spans(starts, np.zeros(len(starts)), counts, "clip", 1.4)
    chart.dots(starts, counts, "clip", 2.4)
    return chart.render(f"{misses.rate.events} events of deadline misses over time, at most {high:.0f} misses in one")


def windows(steady: Steady) -> Html:
    """Median and p99 of each window, and from when on it was steady."""
    last = steady.windows[-1].start_ns + steady.rule.window_ns
    axis, unit = time_axis(float(last))
    axis = Axis(axis.low, axis.high, axis.label.replace("the first arrival", "the start"))
    middle = np.array([w.start_ns + steady.rule.window_ns / 2 for w in steady.windows]) / unit
    rows = [[np.nan if v is None else v / MS for v in (w.median_ns, w.p99_ns)] for w in steady.windows]
    values = np.array(rows, dtype=np.float64)
    low, high = span_of(values)
    chart = Chart(axis, Axis(max(0.0, low), high, "latency of a window, ms"), 220)
    chart.line(middle, values[:, 1], "bars", 1.4)
    chart.line(middle, values[:, 0], "accent", 2.0)
    if steady.time_to_steady_ns is not None:
        chart.rule_x(steady.time_to_steady_ns / unit, "steady from here on", "good")
    return chart.render("Median and p99 of each window of the run")


def sensors(kind: ChannelKind, series: Sequence[Series], start_ns: int, span_ns: int) -> Html:
    """All sensors of one kind, beside the run.

    Args:
        kind: which.
        series: of that kind, at most six are drawn.
        start_ns: intended arrival of the first frame.
        span_ns: the length of the charts above it.
    """
    name, unit_name, scale = KINDS[kind]
    drawn = series[:_MOST_SERIES]
    axis, unit = time_axis(float(span_ns))
    values = [each.values / scale for each in drawn]
    if kind == "counter":
        values = [each - each[0] for each in values]
    low, high = span_of(*values)
    chart = Chart(axis, Axis(low, high, f"{name.lower()}, {unit_name}"), 180)
    for each, value, color in zip(drawn, values, COLORS, strict=False):
        times = (each.times_ns - start_ns) / unit
        inside = (times >= 0) & (times <= axis.high)
        xs, ys = _thinned(times[inside], value[inside])
        chart.line(xs, ys, color, 1.5)
    return chart.render(f"{name} of {len(drawn)} sensors over the run, {unit_name}")


def _thinned(xs: NDArray[Any], ys: NDArray[Any], most: int = 2 * SLICES) -> tuple[NDArray[Any], NDArray[Any]]:
    """At most `most` points; of each group its smallest and its largest, in order."""
    if len(xs) <= most:
        return xs, ys
    groups = np.array_split(np.arange(len(xs)), most // 2)
    ends = [sorted((int(g[np.argmin(ys[g])]), int(g[np.argmax(ys[g])]))) for g in groups]
    kept = np.unique(np.array(ends))
    return xs[kept], ys[kept]
