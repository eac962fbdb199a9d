"""Bounds on a rate that is not rare: batch means. Half the frames above a limit are one endless event, not many.

Source: A. M. Law, Simulation Modeling and Analysis (5th ed., 2015), section 9.5.3: a run is cut into batches that are
long beside the dependence of its frames, and their means are taken as independent.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgemed.profile.steady import student_quantile

BATCHES: Final = 20  # more make batches short, fewer make the interval wide
_LEAST: Final = 10  # frames in a batch
_MIXED: Final = 10  # batches with frames on both sides: else there were a few long stalls, which are events
_COMMON: Final = 0.1


def batch_bounds(missed: NDArray[np.bool_], confidence: float) -> tuple[float, float] | None:
    """One-sided bounds of the rate among (n,) frames; `None` where misses are rare, or nearly all, or in few stalls."""
    size = len(missed) // BATCHES
    if size < _LEAST or not _COMMON < missed.mean() < 1 - _COMMON:
        return None
    rates = missed[: size * BATCHES].reshape(BATCHES, size).mean(axis=1)
    if np.count_nonzero((rates > 0) & (rates < 1)) < _MIXED:
        return None
    reach = student_quantile(BATCHES - 1, confidence) * float(rates.std(ddof=1)) / math.sqrt(BATCHES)
    rate = float(missed.mean())
    return max(0.0, rate - reach), min(1.0, rate + reach)
