"""Whether a run was still changing: heat makes minute 1 and minute 30 two different devices.

A run is steady over the last windows when two-sided intervals of both slopes, of the windows' median latencies and of
the junction temperature, lie within margins. A slope whose interval is wide has not been shown to be flat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemed.profile.beside import Series
from edgemed.profile.binomial import bisect
from edgemed.profile.records import Count, Nanoseconds, Positive, Record
from edgemed.profile.stats import nearest_rank

MINUTE: Final = 60_000_000_000
PER_NS: Final = 10 * MINUTE  # slopes are told per ten minutes
KEPT_WINDOWS: Final = 2000


class SteadyRule(Record):
    """When a run counts as steady. The proposals are those of the field: 1 % and 0.5 °C per ten minutes."""

    window_ns: Positive = MINUTE
    windows: Annotated[int, Field(ge=3, le=1000)] = 5
    latency_margin: Annotated[float, Field(gt=0)] = Field(0.01, description="share of the median, per ten minutes")
    temperature_margin_mc: Positive = Field(500, description="millidegrees Celsius per ten minutes")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Slope(Record):
    """Change per ten minutes, with its two-sided interval."""

    value: float
    low: float
    high: float

    def within(self, margin: float) -> bool:
        return -margin <= self.low and self.high <= margin


class Window(Record):
    """One window of the run."""

    start_ns: Nanoseconds = Field(description="since the start of the run")
    answered: Count
    median_ns: Nanoseconds | None
    p99_ns: Nanoseconds | None = Field(description="null below 100 answers")
    temperature_mc: int | None


class Steady(Record):
    """How a run settled."""

    rule: SteadyRule
    reached: bool
    time_to_steady_ns: Nanoseconds | None = Field(description="start of the first windows that were steady together")
    latency: Slope | None = Field(description="share of the median; of the last windows")
    temperature: Slope | None = Field(description="millidegrees; null: no sensor, so latency alone decided")
    cold: Window
    hot: Window = Field(description="the last whole window")
    windows: tuple[Window, ...]


def summarize(start_ns: int, latency_ns: NDArray[np.int64], temperature_mc: int | None) -> Window:
    """Figures of one window, whose latencies are reordered: a copy of ten million is 80 MB."""
    n = len(latency_ns)
    ranks = [nearest_rank(n, share) - 1 for share in (Fraction(1, 2), Fraction(99, 100))] if n else []
    ordered = latency_ns
    if n:
        ordered.partition(ranks)
    return Window(
        start_ns=start_ns,
        answered=n,
        median_ns=int(ordered[ranks[0]]) if n else None,
        p99_ns=int(ordered[ranks[1]]) if n >= 100 else None,
        temperature_mc=temperature_mc,
    )


def windows_of(
    since_ns: NDArray[np.int64],
    latency_ns: NDArray[np.int64],
    rule: SteadyRule,
    temperature: Series | None,
    start_ns: int,
) -> list[Window]:
    """Whole windows of a run.

    Args:
        since_ns: (n,) rising arrivals of answered frames since the start of the run.
        latency_ns: (n,) their latencies; reordered within each window.
        rule: how long a window is.
        temperature: of the junction, if there is a sensor.
        start_ns: of the run, on the clock of `temperature`.
    """
    if not len(since_ns):
        return []
    edges = np.arange(0, int(since_ns[-1]) + 1, rule.window_ns)
    cuts = np.searchsorted(since_ns, edges)
    return [
        summarize(int(a), latency_ns[i:j], mean_between(temperature, start_ns + int(a), start_ns + int(b)))
        for a, b, i, j in zip(edges, edges[1:], cuts, cuts[1:], strict=False)
    ]


def mean_between(series: Series | None, start_ns: int, end_ns: int) -> int | None:
    """Mean of what a sensor showed in [start, end); `None` where it showed nothing."""
    if series is None:
        return None
    i, j = np.searchsorted(series.times_ns, [start_ns, end_ns])
    return round(float(series.values[i:j].mean())) if j > i else None


def is_steady(windows: Sequence[Window], rule: SteadyRule, *, sensor: bool) -> tuple[bool, Slope | None, Slope | None]:
    """Whether these windows are flat, and their slopes: of latency (share), of temperature (millidegrees).

    A sensor that fell silent leaves the question open; only where there is none, latency alone decides.
    """
    medians = [window.median_ns for window in windows if window.median_ns is not None]
    if len(windows) < rule.windows or len(medians) < len(windows):
        return False, None, None
    at = np.array([window.start_ns for window in windows], dtype=np.float64)
    values = np.array(medians, dtype=np.float64)
    latency = slope(at, values / values.mean(), rule.confidence)
    degrees = [window.temperature_mc for window in windows if window.temperature_mc is not None]
    if sensor and len(degrees) < len(windows):
        return False, latency, None
    temperature = slope(at, np.array(degrees, dtype=np.float64), rule.confidence) if sensor else None
    flat = latency.within(rule.latency_margin)
    return flat and (temperature is None or temperature.within(rule.temperature_margin_mc)), latency, temperature


def find_steady(windows: Sequence[Window], rule: SteadyRule, *, sensor: bool) -> Steady | None:
    """How a run settled; `None` where it has no whole window.

    Steady is judged at its end. The time to it is the start of the first windows from which on it stayed so.
    """
    if not windows:
        return None
    size = rule.windows
    reached, latency, temperature = is_steady(windows[-size:], rule, sensor=sensor)
    first = len(windows) - size if reached else None
    while first and is_steady(windows[first - 1 : first - 1 + size], rule, sensor=sensor)[0]:
        first -= 1
    return Steady(
        rule=rule,
        reached=reached,
        time_to_steady_ns=None if first is None else windows[first].start_ns,
        latency=latency,
        temperature=temperature,
        cold=windows[0],
        hot=windows[-1],
        windows=tuple(windows[:KEPT_WINDOWS]),
    )


def slope(at_ns: NDArray[np.float64], values: NDArray[np.float64], confidence: float) -> Slope:
    """Least-squares slope per ten minutes, with Student's interval of n - 2 degrees of freedom; n ≥ 3."""
    x = (at_ns - at_ns.mean()) / PER_NS
    spread = float((x**2).sum())
    rise = float((x * (values - values.mean())).sum()) / spread
    rest = values - values.mean() - rise * x
    freedom = len(values) - 2
    error = math.sqrt(float((rest**2).sum()) / freedom / spread)
    reach = student_quantile(freedom, 0.5 + confidence / 2) * error
    return Slope(value=rise, low=rise - reach, high=rise + reach)


def student_quantile(freedom: int, p: float) -> float:
    """t at which P(T ≤ t) = p ≥ 1/2 for Student's distribution."""
    high = 1.0
    while student_at_most(freedom, high) < p:
        high *= 2
    return bisect(lambda t: student_at_most(freedom, t) < p, 0.0, high)


def student_at_most(freedom: int, t: float) -> float:
    """P(T ≤ t) for t ≥ 0, by the finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3-4)."""
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    k = 1 if odd else 0
    while k <= freedom - 2:
        total += term
        term *= square * (k + 1) / (k + 2)
        k += 2
    inner = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 0.5 + inner / 2
