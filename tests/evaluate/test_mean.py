"""The interval of a mean: against Student's by hand, its invariants, and its coverage where values are skewed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.evaluate.estimate import z_of
from edgemed.evaluate.mean import mean_of

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def test_students_interval_by_hand() -> None:
    """Symmetric values have no skewness: 0.5 ± t(0.975; 4) * sqrt(0.025) / sqrt(5), and t is 2.776 in every table."""
    interval = mean_of(np.array([0.3, 0.4, 0.5, 0.6, 0.7]), range(5)).interval()
    spread = 2.776 * math.sqrt(0.025 / 5)
    assert interval.low == pytest.approx(0.5 - spread, abs=1e-4)  # the table's last digit
    assert interval.high == pytest.approx(0.5 + spread, abs=1e-4)


def test_halls_transformation_solves_its_equation() -> None:
    """The end that Student's does not set satisfies `g1(T) = t`: T + γ(T²/3 + 1/6)/√n + γ²T³/(27 n), as published."""
    values = np.array([0.95, 0.94, 0.93, 0.9, 0.9, 0.88, 0.85, 0.3])
    mean = mean_of(values, range(8))
    deviations = values - values.mean()
    skewness = (deviations**3).mean() / (deviations**2).mean() ** 1.5
    assert mean.skewness == pytest.approx(skewness)
    t = (values.mean() - mean.interval().low) * math.sqrt(8) / values.std(ddof=1)
    transformed = t + skewness * (t * t / 3 + 1 / 6) / math.sqrt(8) + skewness**2 * t**3 / (27 * 8)
    assert transformed == pytest.approx(2.3646, abs=1e-4)  # t(0.975; 7), the table's last digit


@given(values=VALUES, level=st.floats(0.6, 0.999))
def test_the_interval_holds_its_value_and_narrows(values: list[float], level: float) -> None:
    mean = mean_of(np.array(values), range(len(values)))
    interval = mean.interval(level)
    assert 0 <= interval.low <= mean.value + 1e-12
    assert mean.value - 1e-12 <= interval.high <= 1  # a mean is rounded
    wider = mean.interval(level + (1 - level) / 2)
    assert wider.low <= interval.low
    assert wider.high >= interval.high
    planned = mean.interval(level, scale=100)
    assert planned.high - planned.low <= interval.high - interval.low


@given(values=st.lists(st.floats(-1, 1), min_size=2, max_size=30))
def test_a_difference_turned_round_has_its_interval_turned_round(values: list[float]) -> None:
    one = mean_of(np.array(values), range(len(values)), least=-1).interval()
    other = mean_of(-np.array(values), range(len(values)), least=-1).interval()
    assert one.low == pytest.approx(-other.high, abs=1e-9)  # rounding
    assert one.high == pytest.approx(-other.low, abs=1e-9)


@pytest.mark.parametrize("n", [1, 5, 80])
def test_without_variance_the_bound_is_that_of_no_event(n: int) -> None:
    share = z_of(0.95) ** 2 / (n + z_of(0.95) ** 2)
    same = mean_of(np.zeros(n), range(n), least=-1).interval()
    assert (same.low, same.high) == (pytest.approx(-share), pytest.approx(share))
    perfect = mean_of(np.ones(n), range(n)).interval()
    assert (perfect.low, perfect.high) == (pytest.approx(1 - share), 1.0)


def test_images_of_one_patient_count_once() -> None:
    """Repeating every image within its patient adds no knowledge: same value, same interval, more images."""
    values = np.array([0.9, 0.8, 0.5, 0.95, 0.7])
    once, thrice = mean_of(values, range(5)), mean_of(np.repeat(values, 3), np.repeat(np.arange(5), 3).tolist())
    assert (thrice.n, thrice.units) == (15, 5)
    assert thrice.interval().low == pytest.approx(once.interval().low)
    assert thrice.interval().high == pytest.approx(once.interval().high)
    one_patient = mean_of(values, ["a"] * 5).interval()
    assert one_patient.high - one_patient.low > 0.75  # five slices of one patient say next to nothing of others


def test_patients_of_different_size_by_hand() -> None:
    """Deviations from 0.6 sum to -0.2 and 0.2 in two patients, times 2/3: the variance of the mean is 0.2² · (2/3)²."""
    mean = mean_of(np.array([0.4, 0.6, 0.8]), ["a", "a", "b"])
    assert mean.value == pytest.approx(0.6)
    assert mean.deviation / math.sqrt(2) == pytest.approx(0.2 * 2 / 3)


def _good(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.beta(8, 1.5, n)


def _good_and_lost(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.beta(8, 1.5, n) * (rng.random(n) > 0.3)


def _worse(rng: np.random.Generator, n: int) -> np.ndarray:
    return -np.minimum(rng.exponential(0.01, n), 1)


def _either(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.laplace(-0.005, 0.01, n)


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize(
    ("draw", "truth"), [(_good, 8 / 9.5), (_good_and_lost, 0.7 * 8 / 9.5), (_worse, -0.01), (_either, -0.005)]
)
def test_the_interval_covers(draw, truth: float, n: int) -> None:  # type: ignore[no-untyped-def]
    """1,500 data sets each: a share of 0.95 has a standard error of 0.0056, so three of them below are 0.933.

    One-sided bounds, which decide gates, may err in 5 % on either side: 0.05 + 3 * 0.0056 is 0.067, and the most skewed
    of these add 0.01 at n = 20 (Student's interval alone errs in 8 to 11 %).
    """
    rng = np.random.default_rng(7)
    covered, above, below, count = 0, 0, 0, 1500
    for _ in range(count):
        mean = mean_of(draw(rng, n), range(n), least=-1)
        both, one = mean.interval(0.95), mean.interval(0.90)
        covered += both.low <= truth <= both.high
        above += one.low > truth
        below += one.high < truth
    assert covered / count >= 0.933
    assert max(above, below) / count <= 0.077


def test_patients_cover_where_images_would_not() -> None:
    """Ten images of each of 20 patients who differ: taken as independent, intervals would be three times too narrow."""
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(20), 10).tolist()
    covered, naive = 0, 0
    for _ in range(600):
        values = np.clip(0.7 + np.repeat(rng.normal(0, 0.1, 20), 10) + rng.normal(0, 0.03, 200), 0, 1)
        right, wrong = mean_of(values, patients).interval(), mean_of(values, range(200)).interval()
        covered += right.low <= 0.7 <= right.high
        naive += wrong.low <= 0.7 <= wrong.high
    assert covered / 600 >= 0.92  # 0.95 less three standard errors of 0.009
    assert naive / 600 < 0.6
