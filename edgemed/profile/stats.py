"""Percentiles with rank, n and an upper bound. No sample is ever dropped, nothing is interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemed.base.errors import UsageError
from edgemed.profile.binomial import exceedances_allowed, samples_needed
from edgemed.profile.records import Confidence, Count, Positive, Record

PERCENTILES: Final = ("50", "90", "95", "99", "99.9", "99.99")
CONFIDENCE: Final = 0.95
Samples = NDArray[np.int64]
PercentileName = Annotated[str, Field(pattern=r"^\d{1,2}(\.\d{1,6})?$", description='percent, e.g. "99.9"')]


class Percentile(Record):
    """One percentile by nearest rank, and its one-sided upper bound by order statistics.

    The bound holds where samples are independent. Misses that come in bursts are not: `misses` counts those in events.
    """

    p: PercentileName
    n: Count
    rank: Count | None = Field(description="1 is the smallest; null where n is too small for this percentile")
    value_ns: int | None = Field(description="null where n is too small: it would be the maximum")
    upper_ns: int | None = Field(description="null where no sample can bound it yet")
    upper_rank: Count | None
    confidence: Confidence
    more: Count = Field(description="samples still needed for a value and a bound")

    @property
    def name(self) -> str:
        return f"p{self.p}"


class Distribution(Record):
    """All samples of one quantity, in nanoseconds."""

    n: Positive
    min_ns: int
    median_ns: int
    mad_ns: Count = Field(description="median of the absolute distances from the median")
    max_ns: int
    percentiles: tuple[Percentile, ...]

    def percentile(self, p: str) -> Percentile:
        """One of `percentiles`.

        Raises:
            KeyError: it was not taken.
        """
        for percentile in self.percentiles:
            if percentile.p == p:
                return percentile
        raise KeyError(p)


def share_of(p: str) -> Fraction:
    """`"99.9"` → 999/1000, exactly: in binary, 0.999 · 1000 has the wrong ceiling.

    Raises:
        UsageError: not a percentage between 0 and 100.
    """
    try:
        share = Fraction(p) / 100
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise UsageError(f"'{p}' is not a percentile.", 'Give a percentage between 0 and 100, e.g. "99.9".')
    return share


def nearest_rank(n: int, share: Fraction) -> int:
    """⌈share · n⌉, from 1."""
    return max(1, -(-share.numerator * n // share.denominator))


def least_samples(share: Fraction) -> int:
    """Fewer samples leave less than one beyond the percentile, so that it would be the maximum: p99.9 wants 1000."""
    return -(-share.denominator // (share.denominator - share.numerator))


def distribution(
    samples: Samples, *, percentiles: Sequence[str] = PERCENTILES, confidence: float = CONFIDENCE
) -> Distribution | None:
    """Figures of all samples; `None` of none. The samples are sorted in place: hand in a copy where order matters."""
    if not len(samples):
        return None
    samples.sort()
    median = int(samples[nearest_rank(len(samples), Fraction(1, 2)) - 1])
    return Distribution(
        n=len(samples),
        min_ns=int(samples[0]),
        median_ns=median,
        mad_ns=_mad(samples, median),
        max_ns=int(samples[-1]),
        percentiles=tuple(percentile(samples, p, confidence) for p in percentiles),
    )


def percentile(ordered: Samples, p: str, confidence: float = CONFIDENCE) -> Percentile:
    """One percentile of samples in rising order."""
    n, share = len(ordered), share_of(p)
    rank = nearest_rank(n, share) if n >= least_samples(share) else None
    above = exceedances_allowed(n, 1 - share, confidence) if n else None
    upper_rank = None if above is None else n - above
    needed = max(least_samples(share), samples_needed(0, float(1 - share), confidence))
    return Percentile(
        p=p,
        n=n,
        rank=rank,
        value_ns=None if rank is None else int(ordered[rank - 1]),
        upper_ns=None if upper_rank is None or rank is None else int(ordered[upper_rank - 1]),
        upper_rank=upper_rank if rank is not None else None,
        confidence=confidence,
        more=max(0, needed - n),
    )


def _mad(ordered: Samples, median: int) -> int:
    """Median absolute deviation (nearest rank) of samples in rising order, without a second array of their size.

    The distances below the median and above it are two ordered lists: the k-th of their union is found by bisection.
    """
    n = len(ordered)
    rank = nearest_rank(n, Fraction(1, 2))
    low, high = -1, int(max(median - ordered[0], ordered[-1] - median))
    while high - low > 1:
        distance = (low + high) // 2
        if _within(ordered, median, distance) >= rank:
            high = distance
        else:
            low = distance
    return high


def _within(ordered: Samples, centre: int, distance: int) -> int:
    return int(
        np.searchsorted(ordered, centre + distance, side="right")
        - np.searchsorted(ordered, centre - distance, side="left")
    )


def median_of(values: NDArray[Any]) -> int:
    """Nearest-rank median of values in any order."""
    rank = nearest_rank(len(values), Fraction(1, 2)) - 1
    return int(np.partition(values, rank)[rank])
