"""Bounds on the sum of events of unequal size: misses that come in bursts.

Source: M. P. Fay, E. J. Feuer, Confidence intervals for directly standardized rates: a method based on the gamma
distribution, Statistics in Medicine 16 (1997). A sum of weighted Poisson counts is bounded by a gamma distribution of
the same mean and variance; the weights are the sizes of the events. With weights of 1 it is Garwood's exact interval of
a Poisson count. Standard library and NumPy only; tests hold the quantiles against SciPy, the coverage by simulation.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgemed.profile.binomial import bisect

_ENOUGH = 1e-15
_MOST_TERMS = 100_000


def compound_at_most(sizes: NDArray[np.int64], confidence: float, repeats: float = 1.0) -> float:
    """Upper bound of the expected sum of event sizes, of which `sizes` (events,) were seen.

    One event more, as large as the largest seen, is taken to have been missed by luck.

    Args:
        sizes: misses of each event.
        confidence: of the bound.
        repeats: as if the same events had been seen so many times: what a longer run would show.
    """
    largest = float(sizes.max(initial=1))
    total = repeats * float(sizes.sum()) + largest
    squares = repeats * float((sizes.astype(np.float64) ** 2).sum()) + largest**2
    return squares / total * gamma_quantile(total**2 / squares, confidence)


def compound_at_least(sizes: NDArray[np.int64], confidence: float) -> float:
    """Lower bound of the expected sum of event sizes."""
    if not len(sizes):
        return 0.0
    total, squares = float(sizes.sum()), float((sizes.astype(np.float64) ** 2).sum())
    return squares / total * gamma_quantile(total**2 / squares, 1 - confidence)


def gamma_quantile(shape: float, p: float) -> float:
    """x at which P(X ≤ x) = p for a gamma distribution of `shape` and scale 1."""
    high = shape + 10 * math.sqrt(shape) + 20
    while gamma_at_most(shape, high) < p:
        high *= 2
    return bisect(lambda x: gamma_at_most(shape, x) < p, 0.0, high)


def gamma_at_most(shape: float, x: float) -> float:
    """P(X ≤ x) for a gamma distribution of `shape` and scale 1: the regularised incomplete gamma function.

    By its power series below the mean, by Legendre's continued fraction above (NIST DLMF 8.7.1 and 8.9.2).
    """
    if x <= 0:
        return 0.0
    scale = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1:
        term = total = 1 / shape
        for k in range(1, _MOST_TERMS):
            term *= x / (shape + k)
            total += term
            if term < total * _ENOUGH:
                break
        return min(1.0, scale * total)
    return 1 - scale * _fraction(shape, x)


def _fraction(shape: float, x: float) -> float:
    """Lentz's evaluation of the continued fraction; the denominators are positive for x > shape."""
    b = x + 1 - shape
    c, d = 1e300, 1 / b
    value = d
    for k in range(1, _MOST_TERMS):
        a = -k * (k - shape)
        b += 2
        d = 1 / (a * d + b)
        c = b + a / c
        step = c * d
        value *= step
        if abs(step - 1) < _ENOUGH:
            break
    return value
