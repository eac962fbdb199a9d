"""Bounds against SciPy, against exact arithmetic, and against the published table of sample sizes."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgemed.profile.binomial import (
    exceedances_allowed,
    rate_at_least,
    rate_at_most,
    samples_needed,
    tail_at_most,
)
from edgemed.profile.compound import compound_at_least, compound_at_most, gamma_at_most, gamma_quantile

# percentile -> confidence -> samples needed at 0, 1, 2, 5 and 10 above the limit (exact binomial, as LoadGen stops)
TABLE = {
    ("99", 0.95): (299, 473, 628, 1049, 1693),
    ("99", 0.99): (459, 662, 838, 1307, 2010),
    ("99.9", 0.95): (2995, 4742, 6294, 10_511, 16_959),
    ("99.9", 0.99): (4603, 6636, 8403, 13_105, 20_140),
    ("99.99", 0.95): (29_956, 47_437, 62_956, 105_128, 169_619),
    ("99.99", 0.99): (46_050, 66_381, 84_057, 131_081, 201_442),
}


@pytest.mark.parametrize(("claim", "sizes"), TABLE.items())
def test_samples_needed_are_those_of_the_table(claim, sizes):
    percentile, confidence = claim
    rate = float(1 - Fraction(percentile) / 100)
    assert tuple(samples_needed(k, rate, confidence) for k in (0, 1, 2, 5, 10)) == sizes


@given(k=st.integers(0, 200), rate=st.floats(1e-5, 0.5), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_samples_needed_are_the_least(k, rate, confidence):
    n = samples_needed(k, rate, confidence)
    assert tail_at_most(k, n, rate) <= 1 - confidence < tail_at_most(k, n - 1, rate)


@pytest.mark.parametrize(("n", "bound"), [(3687, None), (3688, 0)])
def test_a_two_sided_95_percent_interval_of_p99_9_is_finite_from_3688(n, bound):
    assert exceedances_allowed(n, Fraction(1, 1000), 0.975) == bound


@given(n=st.integers(1, 5000), data=st.data(), rate=st.floats(1e-6, 1 - 1e-6))
def test_tails_are_scipys(n, data, rate):
    k = data.draw(st.integers(0, n))
    # SciPy's own error against exact arithmetic is some 1e-10 in the far tail (see below), ours some 1e-14
    assert tail_at_most(k, n, rate) == pytest.approx(stats.binom.cdf(k, n, rate), rel=1e-8, abs=1e-300)


def test_tails_are_exact_where_scipy_is_not():
    k, n, rate = 3, 10**7, 1e-6
    with localcontext() as context:
        context.prec = 50
        q = Decimal(rate)
        term = total = (1 - q) ** n
        for i in range(1, k + 1):
            term *= q / (1 - q) * (n - i + 1) / i
            total += term
    assert tail_at_most(k, n, rate) == pytest.approx(float(total), rel=1e-13)  # a few hundred roundings of a double


@pytest.mark.parametrize(("k", "expected"), [(-1, 0.0), (10, 1.0), (11, 1.0)])
def test_tails_end_at_0_and_1(k, expected):
    assert tail_at_most(k, 10, 0.3) == expected
    assert tail_at_most(3, 10, 0.0) == 1.0
    assert tail_at_most(3, 10, 1.0) == 0.0


@given(n=st.integers(1, 100_000), data=st.data(), confidence=st.sampled_from([0.9, 0.95, 0.999]))
def test_rates_are_clopper_and_pearsons(n, data, confidence):
    k = data.draw(st.integers(0, n))
    upper = 1.0 if k == n else stats.beta.ppf(confidence, k + 1, n - k)
    lower = 0.0 if k == 0 else stats.beta.ppf(1 - confidence, k, n - k + 1)
    # SciPy's quantile is the looser of the two: its tails agree with ours to 1e-8
    assert rate_at_most(k, n, confidence) == pytest.approx(upper, rel=1e-7)
    assert rate_at_least(k, n, confidence) == pytest.approx(lower, rel=1e-7)


@pytest.mark.parametrize("wrong", [(-1, 10), (11, 10), (0, 0)])
def test_what_is_no_proportion_is_refused(wrong):
    with pytest.raises(ValueError, match="no proportion"):
        rate_at_most(*wrong, 0.95)


@given(n=st.integers(1, 20_000), share=st.sampled_from(["50", "90", "99", "99.9"]), confidence=st.floats(0.6, 0.999))
def test_the_bound_of_a_percentile_is_the_lowest_order_statistic_that_covers_it(n, share, confidence):
    q = 1 - Fraction(share) / 100
    above = exceedances_allowed(n, q, confidence)
    least = -1 if above is None else above
    if above is not None:
        assert stats.binom.cdf(above, n, float(q)) <= (1 - confidence) * (1 + 1e-9)
    assert stats.binom.cdf(least + 1, n, float(q)) > (1 - confidence) * (1 - 1e-9)


@given(shape=st.floats(0.3, 1e5), ratio=st.floats(0.2, 3))
def test_gamma_tails_are_scipys(shape, ratio):
    # the logarithm of the density is of the size of the shape: 1e5 leaves ten digits
    assert gamma_at_most(shape, shape * ratio) == pytest.approx(stats.gamma.cdf(shape * ratio, shape), abs=1e-9)


@given(shape=st.floats(0.3, 1e4), p=st.sampled_from([0.01, 0.05, 0.5, 0.95, 0.99]))
def test_gamma_quantiles_are_scipys(shape, p):
    assert gamma_quantile(shape, p) == pytest.approx(stats.gamma.ppf(p, shape), rel=1e-7)


@given(events=st.integers(0, 500), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_events_of_one_frame_have_garwoods_exact_poisson_interval(events, confidence):
    sizes = np.ones(events, dtype=np.int64)
    upper = stats.chi2.ppf(confidence, 2 * (events + 1)) / 2
    lower = 0.0 if not events else stats.chi2.ppf(1 - confidence, 2 * events) / 2
    assert compound_at_most(sizes, confidence) == pytest.approx(upper, rel=1e-7)
    assert compound_at_least(sizes, confidence) == pytest.approx(lower, rel=1e-7)


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=100))
def test_compound_bounds_enclose_what_was_seen(sizes):
    array = np.array(sizes, dtype=np.int64)
    assert compound_at_least(array, 0.95) <= array.sum() <= compound_at_most(array, 0.95)
