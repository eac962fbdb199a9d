"""The area under the ROC curve, its interval, and the paired difference of two areas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.evaluate.estimate import LEVEL, Interval, bisect, z_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Area:
    """One area under the ROC curve.

    The interval is DeLong's on the logit scale (M. S. Pepe, The Statistical Evaluation of Medical Tests, 2003, §5.2).
    Where the variance estimate vanishes (perfect separation) or does not exist (one sample in a class), that would
    claim certainty; there R. G. Newcombe's method 5 is used (Statistics in Medicine 25, 2006, part 2).

    Args:
        value: the area.
        variance: DeLong's estimate, `None` if it does not exist.
        positives: samples of the positive class.
        negatives: samples of the negative class.
    """

    value: float
    variance: float | None
    positives: int
    negatives: int

    @property
    def n(self) -> int:
        return self.positives + self.negatives

    def interval(self, level: float = LEVEL, scale: float = 1.0) -> Interval:
        z = z_of(level)
        if not self.variance or not 0 < self.value < 1:
            return _newcombe(self.value, self.positives * scale, self.negatives * scale, z)
        logit = math.log(self.value / (1 - self.value))
        spread = z * math.sqrt(self.variance / scale) / (self.value * (1 - self.value))
        return Interval(_expit(logit - spread), _expit(logit + spread))


@dataclass(frozen=True)
class PairedArea:
    """Difference of two areas measured on the same samples: second minus first.

    Source: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more correlated
    receiver operating characteristic curves, Biometrics 44 (1988).

    Where the variance of the difference vanishes (no pair of a positive and a negative changed its order), "no
    difference at all" would be claimed from any handful of samples. There the bound is that of no event among the
    samples of the smaller class, `±z² / (n + z²)`: a sample whose score moves can change the area by no more than
    its share of its class.
    """

    value: float
    variance: float | None
    positives: int
    negatives: int

    @property
    def n(self) -> int:
        return self.positives + self.negatives

    def interval(self, level: float = LEVEL, scale: float = 1.0) -> Interval:
        z = z_of(level)
        if self.variance:
            spread = z * math.sqrt(self.variance / scale)
        else:
            spread = z * z / (min(self.positives, self.negatives) * scale + z * z)
        return Interval(max(self.value - spread, -1.0), min(self.value + spread, 1.0))


def area(scores: Floats, positive: NDArray[np.bool_]) -> Area:
    """The area under the ROC curve: the probability that a positive scores above a negative, ties counting half.

    Args:
        scores: `(n,)`, larger means more likely positive.
        positive: `(n,)`, the truth.

    Raises:
        InputError: one of the classes is empty.
    """
    areas, covariance = delong(scores[None], positive)
    m = int(positive.sum())
    return Area(float(areas[0]), _variance(covariance, np.ones(1)), m, len(positive) - m)


def paired_area(first: Floats, second: Floats, positive: NDArray[np.bool_]) -> PairedArea:
    """Area of `second` minus area of `first`, on the same samples.

    Raises:
        InputError: one of the classes is empty.
    """
    areas, covariance = delong(np.stack([first, second]), positive)
    m = int(positive.sum())
    contrast = np.array([-1.0, 1.0])
    return PairedArea(float(contrast @ areas), _variance(covariance, contrast), m, len(positive) - m)


def delong(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats | None]:
    """Areas of k score vectors and their covariance matrix.

    Computed from midranks: X. Sun and W. Xu, Fast implementation of DeLong's algorithm, IEEE Signal Processing
    Letters 21 (2014).

    Args:
        scores: `(k, n)`.
        positive: `(n,)`.

    Returns:
        Areas `(k,)`, and covariances `(k, k)` or `None` where a class has a single sample.

    Raises:
        InputError: one of the classes is empty.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0:
        raise InputError("The area under the ROC curve needs samples of both classes.", "Add images of the other one.")
    everyone = np.stack([midranks(row) for row in scores])
    own_positive = np.stack([midranks(row[positive]) for row in scores])
    own_negative = np.stack([midranks(row[~positive]) for row in scores])
    areas: Floats = (everyone[:, positive].mean(axis=1) - (m + 1) / 2) / n
    if m < 2 or n < 2:
        return areas, None
    # share of negatives that each positive beats, and share of positives that beat each negative
    beats = (everyone[:, positive] - own_positive) / n
    beaten = 1 - (everyone[:, ~positive] - own_negative) / m
    covariance: Floats = np.atleast_2d(np.cov(beats)) / m + np.atleast_2d(np.cov(beaten)) / n
    return areas, covariance


def midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean_rank: Floats = (last - (count - 1) / 2)[group.reshape(-1)]
    return mean_rank


def _variance(covariance: Floats | None, contrast: Floats) -> float | None:
    if covariance is None:
        return None
    variance = float(contrast @ covariance @ contrast)
    rounding = 16 * np.finfo(float).eps * float(np.abs(covariance).max())
    return variance if variance > rounding else 0.0


def _newcombe(value: float, positives: float, negatives: float, z: float) -> Interval:
    def outside(theta: float) -> bool:
        others = (positives + negatives) / 2 - 1
        spread = 1 + others * (1 - theta) / (2 - theta) + others * theta / (1 + theta)
        variance = theta * (1 - theta) * max(spread, 1.0) / (positives * negatives)
        return (value - theta) ** 2 > z * z * variance

    low = bisect(lambda theta: not outside(theta), 0.0, value) if value > 0 else 0.0
    high = bisect(outside, value, 1.0) if value < 1 else 1.0
    return Interval(low, high)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
