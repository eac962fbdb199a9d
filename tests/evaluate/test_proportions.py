"""Intervals of proportions: published values, hand-computed ends, exact coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.evaluate.estimate import z_of
from edgemed.evaluate.proportions import PairedDifference, Proportion, tango_score


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), "Two-sided confidence intervals for the single proportion",
        # table I, method 3; printed with four digits
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_the_published_table(successes: int, n: int, low: float, high: float) -> None:
    interval = Proportion(successes, n).interval()
    assert interval.low == pytest.approx(low, abs=5e-5)  # half of the last printed digit
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_wilson_at_its_ends() -> None:
    z2 = z_of(0.95) ** 2
    assert Proportion(0, 50).interval().low == 0.0
    assert Proportion(0, 50).interval().high == pytest.approx(z2 / (50 + z2), rel=1e-12)  # rounding only
    assert Proportion(50, 50).interval().high == 1.0


@given(n=st.integers(1, 500), data=st.data(), level=st.floats(0.5, 0.999))
def test_wilson_holds_its_value_and_narrows(n: int, data: st.DataObject, level: float) -> None:
    proportion = Proportion(data.draw(st.integers(0, n)), n)
    interval = proportion.interval(level)
    assert 0 <= interval.low <= proportion.value <= interval.high <= 1
    more = proportion.interval(level, scale=4)
    assert more.high - more.low < interval.high - interval.low


@pytest.mark.parametrize("p", [0.02, 0.1, 0.37, 0.5, 0.8, 0.95])
def test_wilson_covers(p: float) -> None:
    """Exact, over all outcomes. Discreteness lets it dip below 95 % (Brown et al. show about 93 % at n = 50)."""
    n = 50
    covered = 0.0
    for k in range(n + 1):
        interval = Proportion(k, n).interval()
        if interval.low <= p <= interval.high:
            covered += math.comb(n, k) * p**k * (1 - p) ** (n - k)
    assert 0.92 <= covered <= 0.99


@given(n=st.integers(1, 300), data=st.data())
def test_tango_holds_its_value_is_antisymmetric_and_narrows(n: int, data: st.DataObject) -> None:
    gained = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, n - gained))
    difference = PairedDifference(gained, lost, n)
    interval = difference.interval()
    mirrored = PairedDifference(lost, gained, n).interval()
    assert -1 <= interval.low <= difference.value <= interval.high <= 1
    assert interval.low == pytest.approx(-mirrored.high, abs=1e-9)  # bisection stops at 2e-18; square roots cost half
    more = difference.interval(scale=3)
    assert more.high - more.low < interval.high - interval.low


@pytest.mark.parametrize("n", [10, 200])
def test_tango_without_discordant_pairs(n: int) -> None:
    """By hand: n·Δ / sqrt(n·Δ(1-Δ)) = z gives Δ = z² / (n + z²)."""
    z2 = z_of(0.95) ** 2
    interval = PairedDifference(0, 0, n).interval()
    assert interval.high == pytest.approx(z2 / (n + z2), rel=1e-9)  # bisection and rounding
    assert interval.low == pytest.approx(-z2 / (n + z2), rel=1e-9)


@pytest.mark.parametrize(("gained", "lost", "n", "delta"), [(3, 7, 50, 0.05), (1, 4, 30, -0.2), (0, 5, 40, 0.02)])
def test_tango_against_a_brute_force_likelihood(gained: int, lost: int, n: int, delta: float) -> None:
    """The restricted maximum of the trinomial likelihood, found on a grid instead of in closed form."""
    q = np.linspace(max(0.0, -delta) + 1e-9, (1 - delta) / 2 - 1e-9, 1_000_001)
    likelihood = np.zeros_like(q)
    for count, chance in ((gained, q + delta), (lost, q), (n - gained - lost, 1 - 2 * q - delta)):
        if count:
            likelihood += count * np.log(np.maximum(chance, 1e-300))
    best = q[likelihood.argmax()]
    statistic = (gained - lost - n * delta) / math.sqrt(n * (2 * best + delta * (1 - delta)))
    # the grid step of 5e-7 moves the variance by less than 1e-5 of itself
    assert tango_score(gained, lost, n, delta) == pytest.approx(statistic, rel=1e-4)


@pytest.mark.parametrize(("p_gained", "p_lost"), [(0.02, 0.02), (0.01, 0.06), (0.10, 0.05), (0.0, 0.05)])
def test_tango_one_sided_bound_covers(p_gained: float, p_lost: float) -> None:
    """Exact, over all outcomes of 60 pairs. Tango's own table finds 93 % and more where 95 % is meant."""
    n, delta = 60, p_gained - p_lost
    covered = 0.0
    for b in range(16):  # more than 15 of 60 has a chance below 1e-3 at 10 %
        for c in range(16):
            chance = _trinomial(n, b, c, p_gained, p_lost)
            if chance > 1e-9 and PairedDifference(b, c, n).interval(0.90).low <= delta:
                covered += chance
    assert covered >= 0.93


def _trinomial(n: int, b: int, c: int, p_b: float, p_c: float) -> float:
    ways = math.factorial(n) / (math.factorial(b) * math.factorial(c) * math.factorial(n - b - c))
    return float(ways * p_b**b * p_c**c * (1 - p_b - p_c) ** (n - b - c))
