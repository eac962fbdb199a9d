"""Percentiles by nearest rank: every printed number is a sample, its rank is right, and its bound covers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import UsageError
from edgemed.profile.stats import (
    PERCENTILES,
    distribution,
    least_samples,
    median_of,
    nearest_rank,
    percentile,
    share_of,
)

SAMPLES = st.lists(st.integers(0, 10**12), min_size=1, max_size=300)


@pytest.mark.parametrize(
    ("n", "p", "rank"), [(1000, "99.9", 999), (1001, "99.9", 1000), (100, "99", 99), (3, "50", 2), (1, "50", 1)]
)
def test_ranks_are_exact(n, p, rank):
    assert nearest_rank(n, share_of(p)) == rank  # in binary, 0.999 * 1000 is above 999


@given(samples=SAMPLES, p=st.sampled_from(PERCENTILES))
def test_a_percentile_has_at_least_its_share_at_or_below_it(samples, p):
    found = percentile(np.sort(np.array(samples, dtype=np.int64)), p)
    if found.value_ns is None:
        assert len(samples) < least_samples(share_of(p))
        return
    share = share_of(p)
    assert sum(sample <= found.value_ns for sample in samples) >= share * len(samples)
    assert sum(sample < found.value_ns for sample in samples) < share * len(samples)


@given(samples=SAMPLES)
def test_percentiles_rise_and_bounds_lie_above_them(samples):
    found = distribution(np.array(samples, dtype=np.int64))
    values = [p.value_ns for p in found.percentiles if p.value_ns is not None]
    assert values == sorted(values)
    for p in found.percentiles:
        if p.upper_ns is not None:
            assert p.value_ns <= p.upper_ns <= found.max_ns
            assert p.more == 0


@given(samples=SAMPLES)
def test_no_sample_is_dropped_and_centre_and_spread_are_nearest_rank(samples):
    found = distribution(np.array(samples, dtype=np.int64))
    ordered = sorted(samples)
    half = (len(samples) + 1) // 2 - 1
    assert (found.n, found.min_ns, found.max_ns) == (len(samples), ordered[0], ordered[-1])
    assert found.median_ns == ordered[half] == median_of(np.array(samples))
    assert found.mad_ns == sorted(abs(s - found.median_ns) for s in samples)[half]


@pytest.mark.parametrize(("p", "least"), [("50", 2), ("99", 100), ("99.9", 1000), ("99.99", 10_000)])
def test_a_percentile_is_refused_below_the_n_at_which_it_were_the_maximum(p, least):
    ordered = np.arange(least, dtype=np.int64)
    refused = percentile(ordered[:-1], p)
    assert (refused.value_ns, refused.upper_ns, refused.rank) == (None, None, None)
    assert refused.more > 0
    assert percentile(ordered, p).value_ns == least - 2


@pytest.mark.parametrize(("n", "more"), [(1000, 1995), (2994, 1), (2995, 0), (5000, 0)])
def test_p99_9_says_how_many_more_samples_bound_it(n, more):
    found = percentile(np.arange(n, dtype=np.int64), "99.9")
    assert found.more == more
    assert (found.upper_ns is None) == (more > 0)


def test_of_no_samples_there_is_no_distribution():
    assert distribution(np.empty(0, dtype=np.int64)) is None


@pytest.mark.parametrize("text", ["0", "100", "101", "-1", "p99", "", "1/0", "nan"])
def test_what_is_no_percentile_is_refused(text):
    with pytest.raises(UsageError, match="not a percentile"):
        share_of(text)


@pytest.mark.parametrize(("p", "n"), [("50", 101), ("99", 1000), ("99.9", 5000)])
def test_bounds_cover_the_true_percentile_at_their_rate(p, n):
    """Independent samples of a known distribution; the simulation's own binomial error is allowed for."""
    random, runs, share = np.random.default_rng(6), 2000, float(Fraction(p) / 100)
    truth = -np.log(1 - share) * 1e9  # of an exponential distribution with a mean of a second
    covered = sum(
        percentile(np.sort(np.rint(random.exponential(1e9, n)).astype(np.int64)), p).upper_ns >= truth
        for _ in range(runs)
    )
    error = (0.95 * 0.05 / runs) ** 0.5
    assert covered / runs >= 0.95 - 4 * error  # 4 sigma: a right bound fails once in 30,000 seeds
