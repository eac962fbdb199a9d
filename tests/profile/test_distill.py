"""From stamps to figures, on runs whose truth is known."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.profile.distill import Question, distill
from edgemed.profile.stamps import AFTER_GAP, ANSWERED, DROP_REASONS, DROPPED, FAILED, REASON_SHIFT, STAGES, WARMUP
from edgemed.profile.stats import share_of
from tests.profile.scripted import START, measurement, one_server

SECOND = 10**9
MS = 10**6


def figures(rows: np.ndarray, **question):
    with tempfile.TemporaryDirectory() as folder:
        return distill(measurement(Path(folder) / "s.npy", rows), Question(**question))


@given(service=st.lists(st.integers(1, 40 * MS), min_size=1, max_size=200), deadline=st.integers(1, 200 * MS))
def test_every_figure_is_that_of_the_schedule(service, deadline):
    """One server, 30 frames a second: latencies by hand, percentiles by counting, misses by comparing."""
    arrivals = [i * SECOND // 30 for i in range(len(service))]
    found = figures(one_server(arrivals, service), deadline_ns=deadline)
    free, latency = 0, []
    for arrival, duration in zip(arrivals, service, strict=True):
        free = max(arrival, free) + duration
        latency.append(free - arrival)
    assert found.counts.arrived == found.counts.answered == len(service)
    assert (found.latency.min_ns, found.latency.max_ns) == (min(latency), max(latency))
    for percentile in found.latency.percentiles:
        if percentile.value_ns is not None:
            rank = -(-share_of(percentile.p) * len(latency) // 1)
            assert percentile.value_ns == sorted(latency)[int(rank) - 1]
    assert found.misses.rate.count == sum(each > deadline for each in latency)
    assert found.stages["compute"].max_ns == max(service)
    assert found.stages["wait"].max_ns == max(a - b for a, b in zip(latency, service, strict=True))
    assert found.duration_ns == free


def test_coordinated_omission_a_stall_shows_in_every_frame_that_it_delayed():
    """A 10 ms model at 30 fps with a frame of a second each minute, for ten minutes.

    The j-th frame after that one waits 1000 - 23 1/3 j ms: 18 of each 1800 are above 580 ms, 42 above the period. The
    computation alone, which is what a closed loop times, says 10 ms at p99.9.
    """
    n = 18_000
    service = np.full(n, 10 * MS)
    service[900::1800] = SECOND
    arrivals = [i * SECOND // 30 for i in range(n)]
    found = figures(one_server(arrivals, service.tolist()), deadline_ns=SECOND // 30)
    assert found.stages["compute"].percentile("99.9").value_ns == 10 * MS
    # arrivals are cut to whole nanoseconds
    assert found.latency.percentile("99").value_ns == pytest.approx(580 * MS, abs=1)
    assert found.latency.percentile("99.9").value_ns == pytest.approx((1000 - 70 / 3) * MS, abs=1)
    assert found.misses.rate.count == 10 * 42
    assert found.misses.rate.events == 10
    assert found.misses.longest_burst == 42
    assert found.misses.recovery_max_ns == pytest.approx(42 * SECOND / 30, abs=1)


@given(
    outcomes=st.lists(st.sampled_from(["answered", "failed", "open", *DROP_REASONS]), min_size=1, max_size=100),
    warm=st.integers(0, 100),
)
def test_every_frame_is_accounted_for_and_the_warm_up_is_apart(outcomes, warm):
    rows = np.zeros((len(outcomes), 11), dtype=np.int64)
    for i, outcome in enumerate(outcomes):
        status = {"answered": ANSWERED, "failed": FAILED, "open": 0}.get(outcome)
        if status is None:
            status = DROPPED | (DROP_REASONS.index(outcome) + 1) << REASON_SHIFT
        begin = START + i * SECOND
        rows[i] = [status | (WARMUP if i < warm else 0), begin, *[0] * 8, begin + 5 * MS]
        rows[i, 2] = begin if outcome == "answered" else 0
    found, measured = figures(rows), outcomes[warm:]
    assert found.warmup_frames == min(warm, len(outcomes))
    counts = found.counts
    assert (
        counts.arrived
        == len(measured)
        == counts.answered + counts.failed + counts.unfinished + sum(counts.dropped.values())
    )
    assert counts.answered == measured.count("answered")
    assert counts.dropped == {reason: measured.count(reason) for reason in DROP_REASONS if reason in measured}
    assert (found.latency is None) == (counts.answered == 0)
    if measured:
        assert found.lost.count == len(measured) - counts.answered


def test_first_frames_are_told_apart():
    rows = one_server([0, SECOND, 2 * SECOND, 2 * SECOND + MS], [90 * MS, 50 * MS, 70 * MS, 5 * MS])
    rows[[0, 1, 2], 0] |= AFTER_GAP
    rows[0, 0] |= WARMUP
    found = figures(rows)
    assert found.first_frames.first_ns == 90 * MS
    assert (found.first_frames.after_gap.n, found.first_frames.after_gap.max_ns) == (3, 90 * MS)
    assert found.latency.n == 3


def test_lateness_of_arrivals_is_told_where_the_loop_was_idle():
    rows = one_server([0, SECOND, SECOND + MS], [5 * MS] * 3)
    rows[:2, 2] += 300
    found = figures(rows)
    assert (found.jitter.arrival.n, found.jitter.arrival.max_ns) == (2, 300)
    assert found.stages["wait"].max_ns == 4 * MS


def test_excess_counts_frames_without_an_answer():
    rows = one_server([i * SECOND for i in range(100)], [5 * MS] * 100)
    rows[7, 0] = DROPPED | 1 << REASON_SHIFT
    rows[50, -1] += 20 * MS
    limit = (10 * MS, 0.05)
    found = figures(rows, limits=(limit,))
    assert found.excess[limit].bounds.count == 2


def test_stages_that_were_not_stamped_are_absent():
    found = figures(one_server([0, SECOND], [MS, MS]))
    assert set(found.stages) == set(STAGES) - {"pre", "copy-in", "copy-out"}


def test_a_run_without_frames_has_no_figures():
    found = figures(np.empty((0, 11), np.int64), deadline_ns=1)
    assert found.latency is None
    assert found.misses is None
    assert found.steady is None


@pytest.mark.parametrize("n", [999, 1000])
def test_the_tail_over_the_median_is_refused_with_p99_9(n):
    found = figures(one_server([i * SECOND for i in range(n)], [5 * MS] * n))
    assert (found.jitter.tail_ns is None) == (Fraction(n, 1000) < 1)
