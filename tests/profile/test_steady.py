"""When a run counts as steady: slopes against SciPy, and runs that warm up as a board does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from edgemed.profile.beside import Series
from edgemed.profile.steady import (
    MINUTE,
    PER_NS,
    SteadyRule,
    find_steady,
    slope,
    student_at_most,
    student_quantile,
    windows_of,
)

RULE = SteadyRule()
FPS = 5


@given(freedom=st.integers(1, 60), t=st.floats(0, 50))
def test_students_distribution_is_scipys(freedom, t):
    assert student_at_most(freedom, t) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-12)


@given(freedom=st.integers(1, 60), p=st.sampled_from([0.9, 0.975, 0.995]))
def test_students_quantiles_are_scipys(freedom, p):
    assert student_quantile(freedom, p) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9)


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=20))
def test_slopes_are_those_of_scipys_regression(values):
    assume(max(values) > min(values))  # SciPy has no error of a constant's slope
    at = np.arange(len(values)) * float(MINUTE)
    found = slope(at, np.array(values), 0.95)
    line = stats.linregress(at / PER_NS, values)
    reach = stats.t.ppf(0.975, len(values) - 2) * line.stderr
    scale = max(1.0, np.abs(values).max())  # sums of squares lose what is small beside it
    assert found.value == pytest.approx(line.slope, abs=1e-9 * scale)
    assert found.high - found.low == pytest.approx(2 * reach, abs=1e-6 * scale)


def settle(minutes: int, heating: float, *, tau: float = 5.0, noise: float = 0.001, seed: int = 0):
    """Latencies that rise by `heating` with a time constant of `tau` minutes; a temperature that follows."""
    random = np.random.default_rng(seed)
    since = np.arange(minutes * 60 * FPS) * (10**9 // FPS)
    warm = 1 - np.exp(-since / (tau * MINUTE))
    latency = 10e6 * (1 + heating * warm) * (1 + noise * random.standard_normal(len(since)))
    seconds = np.arange(minutes * 60) * 10**9
    degrees = 45_000 + 20_000 * (1 - np.exp(-seconds / (tau * MINUTE))) + 50 * random.standard_normal(len(seconds))
    series = Series("junction", "temperature", "mC", seconds, degrees.astype(np.int64))
    return since, latency.astype(np.int64), series


def judged(minutes: int, heating: float, temperature: bool = True, **rest):
    since, latency, series = settle(minutes, heating, **rest)
    return settled(since, latency, series if temperature else None)


def settled(since, latency, series=None):
    return find_steady(windows_of(since, latency, RULE, series, 0), RULE, sensor=series is not None)


def test_a_board_that_still_heats_is_not_steady_and_later_it_is():
    young, old = judged(12, 0.3), judged(60, 0.3)
    assert not young.reached
    assert young.time_to_steady_ns is None
    assert old.reached
    # 20 °C in 5-minute time constants: below 0.5 °C per ten minutes once exp(-t/5) < 0.5/20, after some 18 minutes
    assert 15 * MINUTE <= old.time_to_steady_ns <= 45 * MINUTE
    assert old.hot.median_ns > old.cold.median_ns * 1.2


def test_latency_may_be_flat_while_the_junction_still_heats():
    assert judged(12, 0.0, temperature=False).reached
    assert not judged(12, 0.0).reached


def test_a_slope_that_is_not_known_well_is_not_flat():
    assert not judged(8, 0.0, temperature=False, noise=2.0).reached


@pytest.mark.parametrize("seconds", [0, 59, 60 * 4 + 1, 60 * 5 + 1])
def test_short_runs_have_few_windows_and_are_not_steady(seconds):
    since = np.arange(seconds * FPS) * (10**9 // FPS)
    found = settled(since, np.full(len(since), 10**7))
    assert (found is None) == (seconds < 60)
    if found is not None:
        assert len(found.windows) == seconds // 60
        assert found.reached == (seconds >= 300)


def test_a_sensor_that_falls_silent_leaves_it_open():
    since, latency, series = settle(60, 0.0)
    cut = Series("junction", "temperature", "mC", series.times_ns[:-120], series.values[:-120])
    assert not settled(since, latency, cut).reached


def test_a_sensor_that_never_spoke_leaves_it_open():
    since, latency, _ = settle(60, 0.0)
    never = np.empty(0, dtype=np.int64)
    assert not settled(since, latency, Series("junction", "temperature", "mC", never, never)).reached


def test_windows_without_answers_are_not_steady():
    since, latency, _ = settle(10, 0.0)
    hole = (since < 7 * MINUTE) | (since >= 8 * MINUTE)
    windows = windows_of(since[hole], latency[hole], RULE, None, 0)
    assert [window.answered for window in windows][7] == 0
    assert not find_steady(windows, RULE, sensor=False).reached
