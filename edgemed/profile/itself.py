"""A run held against itself (an A/A comparison): what a comparison would find where there is nothing to find.

The run is cut into pairs of neighbouring blocks of frames, A and B by turns (A B, B A, …, so that a steady drift falls
out). The share by which B is slower than A is 0 but for chance; its interval says how small a change this run could
have shown at all, and one that leaves 0 out says that something comes and goes with time.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemed.profile.records import Confidence, Positive, Record, Text
from edgemed.profile.stats import CONFIDENCE
from edgemed.profile.steady import student_quantile

PAIRS: Final = 10
_LEAST: Final = {"50": 20, "99": 500}  # frames of a block: five lie above its p99


class Itself(Record):
    """One percentile of B against A, as a share of A; above 0 is slower."""

    percentile: Text
    change: float
    low: float = Field(description="two-sided interval, from the spread between pairs (Student's t)")
    high: float

    @property
    def nothing(self) -> bool:
        """Whether it found nothing, as it should."""
        return self.low <= 0 <= self.high


class ItselfComparison(Record):
    """The run against itself."""

    pairs: Positive
    block_frames: Positive
    confidence: Confidence
    found: tuple[Itself, ...]


def compare_with_itself(latencies: NDArray[np.int64], *, confidence: float = CONFIDENCE) -> ItselfComparison | None:
    """A/A comparison of one run.

    Args:
        latencies: ns, in the order of arrival.
        confidence: of the two-sided intervals.

    Returns:
        `None` where there are too few frames for blocks, or a latency is 0.
    """
    size = len(latencies) // (2 * PAIRS)
    if size < min(_LEAST.values()):
        return None
    blocks = latencies[: 2 * PAIRS * size].reshape(2 * PAIRS, size)
    t = student_quantile(PAIRS - 1, 1 - (1 - confidence) / 2)
    found = []
    for name, least in _LEAST.items():
        if size < least:
            continue
        rank = math.ceil(float(name) / 100 * size) - 1
        values = np.array([np.partition(block, rank)[rank] for block in blocks], dtype=np.float64)
        if not (values > 0).all():
            return None
        logs = np.log(values).reshape(PAIRS, 2)
        differences = (logs[:, 1] - logs[:, 0]) * np.where(np.arange(PAIRS) % 2, -1, 1)
        middle, reach = differences.mean(), t * differences.std(ddof=1) / math.sqrt(PAIRS)
        low, high = middle - reach, middle + reach
        found.append(Itself(percentile=name, change=math.expm1(middle), low=math.expm1(low), high=math.expm1(high)))
    return ItselfComparison(pairs=PAIRS, block_frames=size, confidence=confidence, found=tuple(found))
