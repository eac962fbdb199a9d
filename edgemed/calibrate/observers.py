"""Range observers: mergeable histograms of |x|, and the three ways to read a range off them.

A histogram has a fixed number of bins whose width is a power of two. Two histograms of one tensor are merged by
folding pairs of bins of the finer one until the widths are equal. Folding is exact (`floor(x / 2w)` equals
`floor(floor(x / w) / 2)`), so neither the order of images nor a split over machines changes the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import UsageError
from edgemed.graph.scales import INT8_MAX, Method, scale_of

BINS = 2048
LEVELS = INT8_MAX + 1  # magnitudes 0..127
DEFAULT_PERCENTILE = 99.99

_ENTROPY_STEP = 16  # candidates every 16 of 2048 bins: the KL curve is flat on that scale, and it is 16x the speed


@dataclass
class Histogram:
    """Counts of |x| in `BINS` bins of width `2**exponent / BINS`, and the exact largest |x|.

    Attributes:
        exponent: all values are below `2**exponent`; `None` while nothing was seen.
        counts: int64, `(BINS,)`.
        amax: largest |x|.
    """

    exponent: int | None = None
    counts: NDArray[np.int64] | None = None
    amax: float = 0.0

    @property
    def bin_width(self) -> float:
        """Width of one bin, in the tensor's own unit."""
        return 0.0 if self.exponent is None else 2.0**self.exponent / BINS

    def add(self, exponent: int, counts: NDArray[Any], amax: float) -> None:
        """Merge the counts of one more batch, taken with bins of width `2**exponent / BINS`."""
        self.amax = max(self.amax, amax)
        counts = counts.astype(np.int64)
        if self.exponent is None or self.counts is None:
            self.exponent, self.counts = exponent, counts
            return
        target = max(exponent, self.exponent)
        self.counts = fold(self.counts, target - self.exponent) + fold(counts, target - exponent)
        self.exponent = target

    def merge(self, other: Histogram) -> None:
        """Merge another histogram of the same tensor, e.g. from another shard."""
        if other.exponent is not None and other.counts is not None:
            self.add(other.exponent, other.counts, other.amax)
        self.amax = max(self.amax, other.amax)


def fold(counts: NDArray[np.int64], times: int) -> NDArray[np.int64]:
    """Double the bin width `times` times by adding pairs of bins; the number of bins stays `BINS`."""
    if times <= 0:
        return counts
    folded = np.zeros(BINS, dtype=np.int64)
    group = 1 << min(times, BINS.bit_length())
    sums = np.add.reduceat(counts, np.arange(0, BINS, group))
    folded[: len(sums)] = sums
    return folded


def split_counts(counts: NDArray[Any], narrower: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts of |x| and of relu(x), from counts of x on both sides of zero.

    Args:
        counts: `(2 * BINS,)`: bins of values above zero first; those of values below it from the end, the outermost
            one (which would be the first of that half) always empty. The first bin holds what lies next to zero.
        narrower: how many times the bins above zero are halved; |x| gets the wider ones.
    """
    counts = counts.astype(np.int64)
    above, below = counts[:BINS], counts[:BINS:-1]
    magnitudes = fold(above, narrower).copy()
    magnitudes[1:] += below
    rectified = above.copy()
    rectified[0] += below.sum()
    return magnitudes, rectified


def amax_of(histogram: Histogram, method: Method, percentile: float = DEFAULT_PERCENTILE) -> float:
    """Clipping threshold by one of the three methods, never above the largest |x| seen.

    Raises:
        UsageError: unknown method.
    """
    if method == "minmax" or histogram.counts is None:
        return histogram.amax
    if method == "percentile":
        return min(percentile_amax(histogram.counts, histogram.bin_width, percentile), histogram.amax)
    if method == "entropy":
        return min(entropy_amax(histogram.counts, histogram.bin_width), histogram.amax)
    raise UsageError(f"There is no calibration method '{method}'.", "Use minmax, percentile or entropy.")


def percentile_amax(counts: NDArray[np.int64], bin_width: float, percentile: float) -> float:
    """Upper edge of the first bin up to which at least `percentile` % of all values lie."""
    total = counts.sum()
    cumulative = np.cumsum(counts)
    # integers on both sides, so that 100 % means all values whatever their number
    needed = math.ceil(float(total) * percentile / 100)
    return float(np.searchsorted(cumulative, min(needed, int(total))) + 1) * bin_width


def entropy_amax(counts: NDArray[np.int64], bin_width: float) -> float:
    """Threshold with the smallest Kullback-Leibler divergence between the clipped values and their 128 levels.

    Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017 (histogram of 2048 bins, 128 levels, values beyond the
    threshold counted in its last bin). Bin 0 is left out, so that the zeros a ReLU makes do not outweigh the rest.
    """
    weights: NDArray[np.float64] = counts.astype(np.float64)
    weights[0] = 0
    occupied = np.flatnonzero(weights)
    if occupied.size == 0:
        return bin_width
    last = int(occupied[-1]) + 1
    if last <= LEVELS:
        return last * bin_width
    candidates = [*range(LEVELS, last, _ENTROPY_STEP), last]
    divergences = [_divergence(weights, stop) for stop in candidates]
    best: int = candidates[int(np.argmin(divergences))]
    return best * bin_width


def _divergence(counts: NDArray[np.float64], stop: int) -> float:
    """KL(P || Q) of the values below bin `stop`, outliers clipped into the last bin, against 128 levels."""
    inside = counts[:stop]
    clipped = inside.copy()
    clipped[-1] += counts[stop:].sum()
    level = np.arange(stop) * LEVELS // stop
    occupied = inside > 0
    per_level = np.bincount(level, weights=inside, minlength=LEVELS)
    occupied_per_level = np.bincount(level, weights=occupied, minlength=LEVELS)
    spread = np.divide(per_level, occupied_per_level, out=np.zeros(LEVELS), where=occupied_per_level > 0)[level]
    spread *= occupied
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    support = p > 0
    floor = 1e-9  # a bin that only outliers fill has q = 0: an expensive but finite mismatch
    return float(np.sum(p[support] * np.log(p[support] / np.maximum(q[support], floor))))


@dataclass(frozen=True)
class QuantizationNoise:
    """Expected effect of INT8 on one tensor, from its histogram."""

    sqnr_db: float | None
    clipped: float


def noise_of(histogram: Histogram, amax: float) -> QuantizationNoise:
    """Signal-to-quantization-noise ratio (dB) and clipped fraction for a clipping threshold.

    Bin centres, or the largest value where it lies lower, stand for their values. Inside the range the rounding error
    of a uniform quantizer is `scale² / 12` (B. Widrow, "Statistical theory of quantization", 1996); values that round
    to zero carry their own square. A bin counts as clipped when all of it lies beyond the threshold.
    """
    if histogram.counts is None or histogram.amax == 0:
        return QuantizationNoise(None, 0.0)
    edges = np.arange(BINS) * histogram.bin_width
    values = np.minimum(edges + histogram.bin_width / 2, histogram.amax)
    counts = histogram.counts.astype(np.float64)
    clipped = float(counts[edges >= amax].sum() / counts.sum()) if amax < histogram.amax else 0.0
    counts[0] = 0.0  # mostly exact zeros of a ReLU: no signal, no noise
    scale = scale_of(amax)
    error = np.where(values > amax, (values - amax) ** 2, scale**2 / 12)
    error = np.where(values < scale / 2, values**2, error)
    signal, noise = float(counts @ values**2), float(counts @ error)
    sqnr = 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None
    return QuantizationNoise(sqnr, clipped)
