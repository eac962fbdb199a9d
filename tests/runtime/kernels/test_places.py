"""Taps read off the recipe's resampling are its weights: they make of any image what it makes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.recipe.operations.resample import resample
from edgemed.runtime.kernels import places

FILTERS = ("antialias", "bilinear", "bicubic", "lanczos", "area")


@given(st.integers(1, 600), st.integers(1, 600), st.sampled_from(FILTERS), st.integers(0, 2**32 - 1))
def test_taps_are_the_filters(old: int, new: int, how: str, seed: int):
    index, weight = places.taps(old, new, how)
    line = np.random.default_rng(seed).random(old).astype(np.float32)
    made = (line[index].astype(np.float64) * weight).sum(axis=1)
    expected = resample(np.repeat(line[None, :, None], 2, axis=2), (1, new, 2), how)[0, :, 0]
    # weights are rounded to FP32 and reach up to 1.3 in sum of sizes; the recipe's own sums may be FP32
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6)
    assert index.shape == weight.shape
    assert index.min() >= 0
    assert index.max() < old
    assert index.shape[1] <= 2 * (places._REACH[how] * max(old / new, 1) + 1)


@pytest.mark.parametrize("how", FILTERS)
def test_taps_of_a_strong_reduction_are_made_in_parts(how: str, monkeypatch: pytest.MonkeyPatch):
    whole = places.taps(900, 2, how)
    monkeypatch.setattr(places, "_MOST", 9_000)  # ten combs at once
    for one, other in zip(places.taps(900, 2, how), whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_longest_line_takes_little_memory():
    index, weight = places.taps(16_384, 1, "area")
    assert index.shape == (1, 16_384)
    np.testing.assert_array_equal(weight, np.float32(1 / 16_384))
