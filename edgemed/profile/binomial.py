"""Exact bounds on rare events: binomial tails, Clopper-Pearson, and the sample sizes that follow from them.

Standard library only: it runs on the board, where SciPy may not be. Tests hold every function against SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_NEGLIGIBLE = 1e-18  # of the sum: terms below it cannot change a double


def tail_at_most(k: int, n: int, q: float) -> float:
    """P(X ≤ k) for X ~ Binomial(n, q): summed from the term at k downwards, or from above where that is shorter."""
    if k < 0:
        return 0.0
    if k >= n or q <= 0:
        return 1.0
    if q >= 1:
        return 0.0
    if k > n * q:
        return max(0.0, 1.0 - _sum_down(n - k - 1, n, 1.0 - q))
    return _sum_down(k, n, q)


def _sum_down(k: int, n: int, q: float) -> float:
    """P(X ≤ k) where k lies below the mean or near it: terms fall from k on."""
    log_term = _log_term(k, n, q)
    total, term, odds = 1.0, 1.0, (1 - q) / q
    while k > 0:
        term *= k / (n - k + 1) * odds
        total += term
        k -= 1
        if term < _NEGLIGIBLE * total:
            break
    return min(1.0, math.exp(log_term) * total)


def _log_term(k: int, n: int, q: float) -> float:
    """log P(X = k), by the saddle point of C. Loader, Fast and accurate computation of binomial probabilities (2000).

    Differences of `lgamma` lose eight digits at n = 10⁷; this does not.
    """
    if k == 0:
        return n * math.log1p(-q)
    if k == n:
        return n * math.log(q)
    deviance = _deviance(k, n * q) + _deviance(n - k, n * (1 - q))
    error = _stirling_error(n) - _stirling_error(k) - _stirling_error(n - k)
    return error - deviance - _HALF_LOG_2PI + 0.5 * (math.log(n) - math.log(k) - math.log(n - k))


def _deviance(x: float, mean: float) -> float:
    """x log(x/mean) + mean - x, without cancellation where x is near the mean."""
    if abs(x - mean) > 0.1 * (x + mean):
        return x * math.log(x / mean) + mean - x
    v = (x - mean) / (x + mean)
    total, term, j = (x - mean) * v, 2 * x * v, 1
    while True:
        term *= v * v
        j += 2
        new = total + term / j
        if new == total:
            return total
        total = new


def _stirling_error(n: int) -> float:
    """log n! minus Stirling's approximation."""
    if n <= 15:
        return math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - _HALF_LOG_2PI
    square = 1.0 / (n * n)
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - square / 1188) * square) * square) * square) / n


def rate_at_most(k: int, n: int, confidence: float) -> float:
    """Upper bound of a rate of which k of n were seen.

    Source: C. J. Clopper, E. S. Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934), one-sided.
    """
    _check(k, n)
    if k == n:
        return 1.0
    return bisect(lambda q: tail_at_most(k, n, q) > 1 - confidence, k / n, 1.0)


def rate_at_least(k: int, n: int, confidence: float) -> float:
    """Lower bound of a rate of which k of n were seen; Clopper and Pearson's, one-sided."""
    _check(k, n)
    if k == 0:
        return 0.0
    return bisect(lambda q: 1 - tail_at_most(k - 1, n, q) < 1 - confidence, 0.0, k / n)


def samples_needed(k: int, q: float, confidence: float) -> int:
    """The least n at which k events show, at `confidence`, that their rate is below `q`.

    The rule of early stopping in MLPerf's LoadGen, with a tolerance of zero.
    """
    if k < 0 or not 0 < q < 1:
        raise ValueError(f"no sample size shows anything of k = {k}, q = {q}")
    low, high = k, max(2 * (k + 1), math.ceil((k + 1) / q))
    while tail_at_most(k, high, q) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if tail_at_most(k, middle, q) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def exceedances_allowed(n: int, q: Fraction, confidence: float) -> int | None:
    """How many of n samples may lie above an upper bound of the (1 - q) quantile; `None` where n is too small for any.

    The bound is then the (n - m)-th order statistic: at most m of n lie above the true quantile with a probability
    of 1 - confidence or less.
    """
    rate = float(q)
    if tail_at_most(0, n, rate) > 1 - confidence:
        return None
    low, high = 0, max(1, math.ceil(n * rate) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if tail_at_most(middle, n, rate) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def bisect(below: Callable[[float], bool], low: float, high: float) -> float:
    """Where `below` turns from true to false between `low` and `high`; to the last bit."""
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            return high
        if below(middle):
            low = middle
        else:
            high = middle


def _check(k: int, n: int) -> None:
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"{k} of {n} is no proportion")
