"""Misses, events and their bounds: known truth by construction, coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.profile.misses import bound_rate, events_of, find_misses, frames_needed, longest_run

PERIOD = 33_333_333
IN_TIME, LATE, NEVER = 10_000_000, 90_000_000, -1


def arrivals(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int64) * PERIOD


def run(missed: np.ndarray, recovered: int = 10, late: int = LATE):
    latency = np.where(missed, late, IN_TIME).astype(np.int64)
    return find_misses(arrivals(len(missed)), latency, 33_000_000, recovered=recovered)


@given(
    bursts=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 20)), max_size=15),
    recovered=st.integers(1, 12),
    head=st.integers(0, 20),
)
def test_events_are_those_that_were_put_in(bursts, recovered, head):
    """Bursts of misses with so many frames in time after each; short gaps join them."""
    frames = [False] * head
    events: list[list[int]] = []
    open_ = False
    for length, gap in bursts:
        first = len(frames)
        frames += [True] * length + [False] * gap
        if open_:
            events[-1][1:] = [first + length - 1, events[-1][2] + length]
        else:
            events.append([first, first + length - 1, length])
        open_ = gap < recovered
    found = events_of(np.array(frames, dtype=bool), recovered)
    # a gap of exactly `recovered` frames in time ends an event
    assert np.stack([found.first, found.last, found.misses], axis=1).tolist() == events


@given(missed=st.lists(st.booleans(), min_size=1, max_size=200))
def test_the_longest_burst_is_the_longest_run_of_misses(missed):
    runs = "".join("x" if m else "." for m in missed).split(".")
    assert longest_run(np.array(missed)) == max(map(len, runs))


def test_recovery_runs_from_the_first_miss_to_the_first_frame_in_time():
    missed = np.zeros(100, dtype=bool)
    missed[[20, 21, 25]] = True
    found = run(missed)
    (event,) = found.events
    assert (event.first_frame, event.last_frame, event.misses) == (20, 25, 3)
    assert event.start_ns == 20 * PERIOD
    assert event.recovery_ns == 6 * PERIOD == found.recovery_max_ns == found.recovery_median_ns
    assert (found.longest_burst, found.longest_event, found.unrecovered) == (2, 6, False)


@pytest.mark.parametrize(("last", "unrecovered"), [(89, False), (90, True), (99, True)])
def test_a_run_that_ends_within_an_event_has_no_recovery_of_it(last, unrecovered):
    missed = np.zeros(100, dtype=bool)
    missed[last] = True
    found = run(missed)
    assert found.unrecovered is unrecovered
    assert (found.events[0].recovery_ns is None) is unrecovered


def test_a_latency_of_exactly_the_deadline_is_in_time():
    latency = np.array([100, 101], dtype=np.int64)
    assert find_misses(arrivals(2), latency, 100).rate.count == 1


def test_frames_that_were_never_answered_miss():
    missed = np.zeros(50, dtype=bool)
    missed[7] = True
    found = run(missed, late=NEVER)
    assert found.rate.count == 1
    assert found.events[0].worst_ns is None


def test_of_no_frames_there_are_no_misses():
    assert find_misses(arrivals(0), arrivals(0), 1) is None


def test_only_the_worst_events_are_kept_in_order_of_time():
    missed = np.zeros(60_000, dtype=bool)
    missed[::20] = True
    missed[40_001] = True
    found = run(missed)
    assert found.rate.events == 3000
    assert len(found.events) == 1000
    starts = [event.start_ns for event in found.events]
    assert starts == sorted(starts)
    assert max(event.misses for event in found.events) == 2


@given(missed=st.lists(st.booleans(), min_size=1, max_size=300))
def test_bounds_enclose_the_rate_and_caution_widens_them(missed):
    bounds = bound_rate(np.array(missed))
    assert 0 <= bounds.cautious_lower <= bounds.rate <= bounds.upper <= bounds.cautious_upper <= 1
    assert bounds.lower <= bounds.rate


@given(n=st.integers(10, 10_000))
def test_without_misses_the_bound_falls_as_n_grows(n):
    few, many = bound_rate(np.zeros(n, dtype=bool)), bound_rate(np.zeros(n + 1, dtype=bool))
    assert many.upper < few.upper
    assert few.upper == few.cautious_upper


def test_a_device_that_is_always_late_is_shown_to_be():
    bounds = bound_rate(np.ones(1000, dtype=bool))
    assert bounds.cautious_lower > 0.9


@pytest.mark.parametrize("events", [0, 10, 40])
def test_frames_needed_are_enough_if_things_go_on(events):
    n = 20_000
    missed = np.zeros(n, dtype=bool)
    for i in range(events):
        missed[i * 400 : i * 400 + 3] = True
    limit = max(1e-4, events * 3 / n * 1.2)
    more = frames_needed(missed, limit, recovered=10, confidence=0.95)
    longer = np.concatenate([missed] * (1 + (n + more) // n))[: n + more]
    assert bound_rate(longer).cautious_upper == pytest.approx(limit, rel=0.1)  # whole events come in jumps
    assert bound_rate(missed).cautious_upper > limit


def test_frames_needed_are_unknown_where_the_rate_is_above_the_limit():
    missed = np.zeros(1000, dtype=bool)
    missed[::50] = True
    assert frames_needed(missed, 0.01, recovered=10, confidence=0.95) is None


def simulate(random: np.random.Generator, n: int, rate: float, burst: float) -> np.ndarray:
    """Bursts at random times; lengths are geometric with the given mean; `rate` is the share of frames that miss."""
    missed = np.zeros(n, dtype=bool)
    starts = np.flatnonzero(random.random(n) < rate / burst)
    for start, length in zip(starts, random.geometric(1 / burst, len(starts)), strict=True):
        missed[start : start + length] = True
    return missed


@pytest.mark.parametrize("burst", [1.0, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("n", [3000, 30_000])
def test_bounds_cover_the_truth_or_say_that_there_are_few_events(n, burst):
    """With ten events or more the nominal bound covers, with fewer the cautious one, with none the assumed burst."""
    random, runs, rate = np.random.default_rng(int(n + burst)), 400, 0.003
    truth = float(
        np.mean([simulate(random, 200_000, rate, burst).mean() for _ in range(50)])
    )  # bursts overlap a little
    upper = lower = 0
    for _ in range(runs):
        bounds = bound_rate(simulate(random, n, rate, burst), assumed_burst=int(burst))
        upper += bounds.cautious_upper >= truth
        lower += bounds.cautious_lower <= truth
    allowed = 0.95 - 4 * (0.95 * 0.05 / runs) ** 0.5  # 4 sigma of the simulation
    assert min(upper, lower) / runs >= allowed


@pytest.mark.parametrize("burst", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_bounds_of_common_misses_cover_too(rate, burst):
    """Two states with geometric stays; a percentile near the middle is judged by such rates."""
    random, runs, n, covered = np.random.default_rng(int(100 * rate + burst)), 300, 6000, np.zeros(2)
    longer = burst * max(rate, 1 - rate) / min(rate, 1 - rate)  # mean stay in the commoner state
    late, in_time = (burst, longer) if rate < 0.5 else (longer, burst)
    for _ in range(runs):
        stays = np.stack([random.geometric(1 / late, n), random.geometric(1 / in_time, n)], axis=1)
        missed = np.repeat(np.tile([True, False], n), stays.ravel())[1000 : 1000 + n]
        bounds = bound_rate(missed)
        covered += [bounds.cautious_lower <= rate, bounds.cautious_upper >= rate]
    assert covered.min() / runs >= 0.95 - 0.02 - 4 * (0.95 * 0.05 / runs) ** 0.5  # batches are not quite independent


def test_a_median_can_be_shown_to_be_below_a_limit():
    """Two of five frames above it, one by one: plainly fewer than half, though they are one endless event."""
    missed = np.random.default_rng(0).random(5000) < 0.4
    bounds = bound_rate(missed)
    assert bounds.cautious_upper < 0.5
    assert bounds.cautious_lower > 0.3


def test_one_long_stall_is_an_event_and_shows_no_rate():
    missed = np.zeros(5000, dtype=bool)
    missed[1000:3500] = True
    bounds = bound_rate(missed)
    assert bounds.cautious_lower < 0.01
    assert bounds.cautious_upper == 1


def test_frames_taken_as_independent_would_not_cover_bursts():
    """The reason for all this: on the same runs, a plain binomial bound covers far less than it says."""
    from edgemed.profile.binomial import rate_at_most

    random = np.random.default_rng(3)
    runs = [simulate(random, 30_000, 0.003, 10.0) for _ in range(400)]
    plain = np.mean([rate_at_most(int(missed.sum()), len(missed), 0.95) >= 0.003 for missed in runs])
    assert plain < 0.85
