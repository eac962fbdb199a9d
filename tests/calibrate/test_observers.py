"""Histograms merge exactly; thresholds are what their definitions say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.base.errors import UsageError
from edgemed.calibrate.observers import BINS, LEVELS, Histogram, amax_of, entropy_amax, noise_of, percentile_amax


def histogram_of(values: np.ndarray) -> Histogram:
    """The definition, in plain numpy."""
    amax = float(np.abs(values).max())
    exponent = math.floor(math.log2(amax)) + 1 if amax > 0 else -100
    index = (np.abs(values.astype(np.float64)) * (BINS / 2.0**exponent)).astype(np.int64)
    histogram = Histogram()
    histogram.add(exponent, np.bincount(index, minlength=BINS), amax)
    return histogram


chunks = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20).map(lambda x: np.array(x, np.float32)),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(chunks, st.randoms(use_true_random=False))
def test_order_and_sharding_do_not_matter(batches, random):
    whole = histogram_of(np.concatenate(batches))
    shuffled = list(batches)
    random.shuffle(shuffled)
    left, right = Histogram(), Histogram()
    for index, batch in enumerate(shuffled):
        (left if index % 2 else right).merge(histogram_of(batch))
    left.merge(right)
    assert left.exponent == whole.exponent
    assert left.amax == whole.amax
    np.testing.assert_array_equal(left.counts, whole.counts)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e4, width=32), min_size=1, max_size=300), st.floats(50, 100))
def test_percentile_keeps_at_least_its_share_and_not_a_bin_more(values, percentile):
    values = np.array(values, np.float32)
    histogram = histogram_of(values)
    edge = percentile_amax(histogram.counts, histogram.bin_width, percentile)
    needed = math.ceil(len(values) * percentile / 100)
    exact = values.astype(np.float64)  # FP32 would round the edge of a subnormal bin to 0
    assert (exact < edge).sum() >= needed
    assert (exact < edge - histogram.bin_width).sum() < needed


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["minmax", "percentile", "entropy"]))
def test_a_threshold_is_positive_and_never_above_the_largest_value(seed, method):
    values = np.random.default_rng(seed).standard_normal(2000).astype(np.float32)
    histogram = histogram_of(values)
    assert 0 < amax_of(histogram, method) <= histogram.amax


def test_entropy_clips_a_far_outlier_and_minmax_does_not():
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    values[0] = 100.0
    histogram = histogram_of(values)
    assert amax_of(histogram, "minmax") == 100.0
    # 99.9 % of a standard normal lies below 3.3; a threshold near the outlier would waste 95 % of the levels
    assert 2.0 < amax_of(histogram, "entropy") < 20.0


def test_entropy_keeps_a_uniform_distribution_whole():
    values = np.linspace(0, 0.999, 200_000, dtype=np.float32)
    histogram = histogram_of(values)
    # clipping would move mass onto the last bin; one candidate step is 16 of 2048 bins
    assert amax_of(histogram, "entropy") >= 0.999 - 16 / BINS


def test_few_occupied_bins_need_no_search():
    counts = np.zeros(BINS, np.int64)
    counts[[0, 3, LEVELS - 1]] = 1
    assert entropy_amax(counts, 0.5) == LEVELS * 0.5


def test_a_tensor_of_zeros_has_range_zero():
    histogram = histogram_of(np.zeros(5, np.float32))
    assert amax_of(histogram, "minmax") == 0
    assert amax_of(histogram, "entropy") == 0
    assert noise_of(histogram, 0.0).sqnr_db is None


def test_an_unknown_method_is_refused():
    with pytest.raises(UsageError, match="no calibration method"):
        amax_of(histogram_of(np.ones(3, np.float32)), "mean")  # type: ignore[arg-type]


def test_a_saturated_image_is_not_clipped_by_its_own_maximum():
    values = np.r_[np.ones(500), np.linspace(0, 1, 500)].astype(np.float32)
    noise = noise_of(histogram_of(values), 1.0)
    assert noise.clipped == 0.0
    assert noise.sqnr_db > 45  # 8 bits of a value at full scale: 20 log10(127) + 10.8 = 52.9 dB


@pytest.mark.parametrize("amax", [1.0, 2.5, 4.5])
def test_predicted_noise_is_the_measured_noise(amax):
    values = np.random.default_rng(1).standard_normal(200_000).astype(np.float32)
    noise = noise_of(histogram_of(values), amax)
    scale = amax / 127
    restored = np.clip(np.rint(values / scale), -127, 127) * scale
    measured = 10 * math.log10((values**2).sum() / ((values - restored) ** 2).sum())
    # bin centres stand for values: a bin is 8 / 2048 wide against a scale of 0.008 or more
    assert noise.sqnr_db == pytest.approx(measured, abs=0.3)
    assert noise.clipped == pytest.approx((np.abs(values) > amax).mean(), abs=1e-3)
