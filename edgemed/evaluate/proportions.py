"""Proportions and paired differences of proportions, with intervals that hold for small counts and for zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgemed.evaluate.estimate import LEVEL, Interval, bisect, z_of


@dataclass(frozen=True)
class Proportion:
    """`successes` out of `n`, with the score interval.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    Recommended for small n by Brown, Cai and DasGupta, Statistical Science 16 (2001).
    """

    successes: int
    n: int

    @property
    def value(self) -> float:
        return self.successes / self.n

    def interval(self, level: float = LEVEL, scale: float = 1.0) -> Interval:
        z, n, p = z_of(level), self.n * scale, self.value
        centre = p + z * z / (2 * n)
        spread = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        shrink = 1 + z * z / n
        # at 0 and n one end is exact; rounding must not move it
        low = 0.0 if self.successes == 0 else (centre - spread) / shrink
        high = 1.0 if self.successes == self.n else (centre + spread) / shrink
        return Interval(low, high)


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two proportions measured on the same `n` samples, with the score interval.

    The value is `(gained - lost) / n`; samples on which both agree carry no information about the sign.

    Source: T. Tango, Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design, Statistics in Medicine 17 (1998). Unlike McNemar's test it gives an interval, and unlike
    Wald's it stays honest without any discordant pair: then its ends are `±z² / (n + z²)`.

    Args:
        gained: samples that are right in the second measurement only.
        lost: samples that are right in the first measurement only.
        n: all samples.
    """

    gained: int
    lost: int
    n: int

    @property
    def value(self) -> float:
        return (self.gained - self.lost) / self.n

    def interval(self, level: float = LEVEL, scale: float = 1.0) -> Interval:
        z, b, c, n = z_of(level), self.gained * scale, self.lost * scale, self.n * scale
        low = bisect(lambda delta: tango_score(b, c, n, delta) < z, -1.0, self.value)
        high = bisect(lambda delta: tango_score(b, c, n, delta) < -z, self.value, 1.0)
        return Interval(low, high)


def tango_score(gained: float, lost: float, n: float, delta: float) -> float:
    """The score statistic of the hypothesis that the difference is `delta`; falls as `delta` grows."""
    distance = gained - lost - n * delta
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    lost_rate = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # maximum likelihood under the hypothesis
    variance = n * (2 * lost_rate + delta * (1 - delta))
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)
