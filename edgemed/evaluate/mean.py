"""The mean of a bounded measure over images; its interval minds skewness, and images of one patient."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemed.base.lazy import require
from edgemed.evaluate.estimate import LEVEL, Interval, z_of

Floats = NDArray[np.float64]

_ROUNDING = 1e-12  # far above the rounding of a mean of values in -1 to 1, far below one pixel of any image
_SYMMETRIC = 1e-3  # a skewness below it moves the ends by less than 1e-3 of the interval, and 0 is divided by


@dataclass(frozen=True)
class Mean:
    """The mean over images; images of one unit (a patient) may depend on each other.

    The interval is Student's, each end moved outward where P. Hall's cubic transformation, which removes the skewness
    of the mean's distribution, puts it farther (On the removal of skewness by transformation, JRSS B 54, 1992;
    recommended for skewed samples by X.-H. Zhou and P. Dinh, Biostatistics 6, 2005). Dice is skewed: most images are
    good, some are lost. Units of several images enter as in a cluster-robust variance: by the sum of their deviations.

    Where nothing varies, or there is one unit, no variance can be estimated. There the bound is that of no event among
    the units, as for a proportion: `z² / (m + z²)` of them may lie at the end of the range.

    Args:
        value: the mean over all images.
        n: images.
        units: independent ones, `m`.
        deviation: standard deviation between units, in the unit of the measure.
        skewness: between units.
        least: what the measure can be.
        most: what the measure can be.
    """

    value: float
    n: int
    units: int
    deviation: float
    skewness: float
    least: float = 0.0
    most: float = 1.0

    def interval(self, level: float = LEVEL, scale: float = 1.0) -> Interval:
        units = self.units * scale
        if self.units < 2 or self.deviation < _ROUNDING:
            z = z_of(level)
            share = z * z / (units + z * z)
            return Interval(
                self.value - share * (self.value - self.least), self.value + share * (self.most - self.value)
            )
        special = require("scipy.special", extra="imaging", purpose="compute intervals")
        quantile = float(special.stdtrit(units - 1, (1 + level) / 2))
        error = self.deviation / math.sqrt(units)
        low = self.value - error * max(quantile, _unskewed(quantile, self.skewness, units))
        high = self.value - error * min(-quantile, _unskewed(-quantile, self.skewness, units))
        return Interval(max(low, self.least), min(high, self.most))


def mean_of(values: Floats, units: Sequence[Hashable], *, least: float = 0.0, most: float = 1.0) -> Mean:
    """The mean of a measure.

    Args:
        values: `(n,)`, one for each image; at least one.
        units: what each image belongs to; images of different units are independent.
        least: of the measure.
        most: of the measure.
    """
    value = float(values.mean())
    totals: dict[Hashable, float] = {}
    for unit, distance in zip(units, values - value, strict=True):
        totals[unit] = totals.get(unit, 0.0) + float(distance)
    count = len(totals)
    if count < 2:
        return Mean(value, len(values), count, 0.0, 0.0, least, most)
    distances = np.array(list(totals.values())) * (count / len(values))
    second = float((distances**2).mean())
    third = float((distances**3).mean())
    skewness = third / second**1.5 if second > _ROUNDING**2 else 0.0
    return Mean(value, len(values), count, math.sqrt(second * count / (count - 1)), skewness, least, most)


def _unskewed(quantile: float, skewness: float, units: float) -> float:
    """The quantile of a studentized mean whose transform has this one: the inverse of Hall's `g1` with 1/3 and 1/6."""
    if abs(skewness) < _SYMMETRIC:
        return quantile
    root = math.sqrt(units)
    return 3 * root / skewness * (float(np.cbrt(1 + skewness * (quantile / root - skewness / (6 * units)))) - 1)
