"""A run held against itself: it finds nothing where nothing is, at the stated rate, and what comes by turns."""

from __future__ import annotations

import numpy as np
import pytest

from edgemed.profile.itself import PAIRS, compare_with_itself


def noise(rng: np.random.Generator, frames: int) -> np.ndarray:
    return (1e6 * rng.lognormal(0, 0.2, frames)).astype(np.int64)


def test_the_interval_covers_nothing_at_its_stated_rate():
    rng = np.random.default_rng(1)
    found = [compare_with_itself(noise(rng, 1000)) for _ in range(400)]
    held = sum(each.found[0].nothing for each in found)
    # 95 % of 400 are 380; a binomial of that rate lies in 366 to 392 with probability 0.997
    assert 366 <= held <= 392


def test_a_steady_drift_falls_out():
    frames = np.arange(20_000)
    drifting = (1e6 * (1 + frames / 20_000)).astype(np.int64)  # twice as slow at the end
    (p50, p99) = compare_with_itself(drifting).found
    assert abs(p50.change) < 0.01
    assert p50.nothing
    assert p99.nothing


def test_what_comes_by_turns_is_found():
    size = 1000
    blocks = noise(np.random.default_rng(2), 2 * PAIRS * size).reshape(2 * PAIRS, size)
    for pair in range(PAIRS):
        blocks[2 * pair + (pair + 1) % 2] *= 2
    p50 = compare_with_itself(blocks.reshape(-1)).found[0]
    assert not p50.nothing
    assert p50.change == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("frames", "percentiles"), [(399, None), (400, ["50"]), (9_999, ["50"]), (10_000, ["50", "99"])]
)
def test_it_says_only_what_blocks_can_tell(frames, percentiles):
    found = compare_with_itself(noise(np.random.default_rng(3), frames))
    assert (None if found is None else [each.percentile for each in found.found]) == percentiles


def test_latencies_of_nothing_have_no_ratio():
    assert compare_with_itself(np.zeros(1000, np.int64)) is None
