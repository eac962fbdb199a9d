"""An estimate is a value with the number of samples behind it and an interval at any confidence level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

LEVEL = 0.95
ONE_SIDED_LEVEL = 0.90  # both ends of a two-sided 90 % interval are one-sided 95 % bounds

_BISECTIONS = 60  # halves an interval of width 2 to below 2e-18, the resolution of a double near 0


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


class Estimate(Protocol):
    """What every metric and every paired difference is."""

    @property
    def value(self) -> float: ...

    @property
    def n(self) -> int: ...

    def interval(self, level: float = LEVEL, scale: float = 1.0) -> Interval:
        """The two-sided interval.

        Args:
            level: confidence, e.g. 0.95.
            scale: answer as if there were `scale` times as many samples that behave alike (for planning).
        """
        ...


def z_of(level: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def bisect(crossed: Callable[[float], bool], low: float, high: float) -> float:
    """The point in `[low, high]` where `crossed` turns from false to true."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if crossed(middle):
            high = middle
        else:
            low = middle
    return (low + high) / 2
