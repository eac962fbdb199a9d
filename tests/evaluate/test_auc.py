"""Areas under the ROC curve: against counting pairs and sums by hand, invariants, coverage by simulation."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.evaluate.auc import area, delong, midranks, paired_area
from edgemed.evaluate.estimate import z_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def by_pairs(scores: Floats, positive: Bools) -> float:
    """The definition: count pairs, ties half."""
    wins = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    return float(np.mean(wins))


@st.composite
def cases(draw: st.DrawFn, rows: int = 1) -> tuple[Floats, Bools]:
    """Scores with many ties, and labels of both classes."""
    n = draw(st.integers(4, 30))
    scores = draw(st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=rows, max_size=rows))
    positives = draw(st.integers(2, n - 2))
    return np.array(scores, dtype=np.float64), np.arange(n) < positives


def test_midranks_by_hand() -> None:
    assert midranks(np.array([7.0, 1.0, 7.0, 3.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


@given(case=cases())
def test_area_is_the_share_of_ordered_pairs(case: tuple[Floats, Bools]) -> None:
    (scores,), positive = case
    found = area(scores, positive)
    assert found.value == pytest.approx(by_pairs(scores, positive), abs=1e-12)  # rounding of sums only
    interval = found.interval()
    assert 0 <= interval.low <= found.value + 1e-12
    assert found.value - 1e-12 <= interval.high <= 1


@given(case=cases())
def test_area_ignores_monotone_maps_and_mirrors(case: tuple[Floats, Bools]) -> None:
    (scores,), positive = case
    assert area(np.exp(scores), positive) == area(scores, positive)
    assert area(-scores, positive).value == pytest.approx(1 - area(scores, positive).value, abs=1e-12)  # rounding


@given(case=cases(rows=2))
def test_delong_covariance_is_its_definition(case: tuple[Floats, Bools]) -> None:
    """The placements summed pair by pair, as DeLong et al. write them, instead of by ranks."""
    scores, positive = case
    m, n = int(positive.sum()), int((~positive).sum())
    wins = np.array(
        [[[(p > q) + 0.5 * (p == q) for q in row[~positive]] for p in row[positive]] for row in scores]
    )  # (2, m, n)
    expected = np.cov(wins.mean(axis=2)) / m + np.cov(wins.mean(axis=1)) / n
    _, covariance = delong(scores, positive)
    assert covariance is not None
    np.testing.assert_allclose(covariance, expected, atol=1e-12)  # rounding of sums of at most 900 terms


def test_variance_by_hand() -> None:
    """Positives 3, 1; negatives 2, 0: wins are (1, 1), (0, 1), so the area is 3/4.

    Placements of positives 1, 1/2 (variance 1/8), of negatives 1/2, 1 (1/8): 1/16 + 1/16 = 1/8.
    """
    found = area(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False]))
    assert found.value == 0.75
    assert found.variance == pytest.approx(0.125, abs=1e-15)  # rounding


@given(case=cases(rows=2))
def test_paired_difference_is_antisymmetric(case: tuple[Floats, Bools]) -> None:
    scores, positive = case
    one, other = paired_area(scores[0], scores[1], positive), paired_area(scores[1], scores[0], positive)
    assert one.value == pytest.approx(-other.value, abs=1e-12)  # rounding
    assert one.interval().low == pytest.approx(-other.interval().high, abs=1e-9)  # rounding below a square root


def test_perfect_separation_is_not_certainty() -> None:
    positive = np.arange(40) < 20
    found = area(np.where(positive, 1.0, 0.0), positive)
    assert found.value == 1.0
    interval = found.interval()
    assert interval.high == 1.0
    assert 0.8 < interval.low < 0.95  # 20 of 20 right is at least 0.83 by Wilson: the same order, not 1


def test_no_changed_order_is_not_certainty() -> None:
    positive = np.arange(40) < 10
    scores = np.random.default_rng(0).normal(size=40)
    found = paired_area(scores, scores * 2, positive)
    z2 = z_of(0.95) ** 2
    assert found.value == 0.0
    assert found.interval().high == pytest.approx(z2 / (10 + z2), rel=1e-12)  # rounding


def test_a_single_positive_still_has_an_interval() -> None:
    positive = np.arange(10) < 1
    scores = np.arange(10.0)[::-1] * np.where(np.arange(10) == 0, 0.5, 1.0)
    found = area(scores, positive)
    assert found.variance is None
    assert found.interval().low < found.value < found.interval().high


@pytest.mark.parametrize("value", [True, False])
def test_one_class_only_is_refused(value: bool) -> None:
    with pytest.raises(InputError, match="both classes"):
        area(np.arange(4.0), np.full(4, value))


def test_intervals_cover_in_simulation() -> None:
    """Binormal scores of two readers with correlation 0.9, 60 + 60 samples, 600 repetitions.

    With a true 95 % the share of 600 has a standard deviation of 0.9 %; the band of 92-98 % is 3.4 of them, and the
    seed is fixed.
    """
    rng = np.random.default_rng(20260101)
    positive = np.arange(120) < 60
    truth = [NormalDist().cdf(d / math.sqrt(2)) for d in (1.4, 1.3)]
    single = paired = 0
    repetitions = 600
    for _ in range(repetitions):
        common, own = rng.normal(size=120), rng.normal(size=(2, 120))
        scores = math.sqrt(0.9) * common + math.sqrt(0.1) * own + np.outer([1.4, 1.3], positive)
        interval = area(scores[0], positive).interval()
        single += interval.low <= truth[0] <= interval.high
        interval = paired_area(scores[0], scores[1], positive).interval()
        paired += interval.low <= truth[1] - truth[0] <= interval.high
    assert 0.92 <= single / repetitions <= 0.98
    assert 0.92 <= paired / repetitions <= 0.98
