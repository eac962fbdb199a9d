"""A thousand points of any number of frames: no spike is lost, no frame is counted twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.profile.overview import overview
from edgemed.profile.stamps import DROPPED, REASON_SHIFT, WARMUP, StampFile
from tests.profile.scripted import one_server

MS = 10**6


def look(folder, rows, **sizes):
    with StampFile(folder / "s.npy") as file:
        for index, row in enumerate(rows.tolist()):
            file.put(index, *row)
        samples = file.close()
    return overview(samples, **sizes)


@settings(max_examples=40, deadline=None)
@given(
    service=st.lists(st.integers(1, 50 * MS), min_size=1, max_size=300),
    slices=st.integers(1, 40),
    bins=st.integers(1, 30),
)
def test_every_extreme_and_every_frame_is_kept(tmp_path_factory, service, slices, bins):
    rows = one_server([i * 5 * MS for i in range(len(service))], service)
    seen = look(tmp_path_factory.mktemp("o"), rows, slices=slices, bins=bins)
    latency = rows[:, -1] - rows[:, 1]
    assert seen.high.max() == latency.max()
    assert seen.low.min() == latency.min()
    assert (seen.low <= seen.median).all()
    assert (seen.median <= seen.high).all()
    assert seen.counts.sum() == len(service)
    assert len(seen.time_ns) <= slices
    assert seen.tail_ns[-1] == latency.max()
    shares = [(latency >= value).mean() for value in np.unique(seen.tail_ns)]
    assert all(
        np.isclose(seen.tail_share[seen.tail_ns == value].max(), share)
        for value, share in zip(np.unique(seen.tail_ns), shares, strict=True)
        if (latency == value).sum() == 1
    )
    assert seen.slowest_ns == rows[np.argmax(latency), 1] - rows[0, 1]


def test_one_slow_frame_of_many_is_drawn(tmp_path):
    service = [1 * MS] * 20_000
    service[12_345] = 40 * MS
    seen = look(tmp_path, one_server([i * 2 * MS for i in range(20_000)], service))
    slow = np.flatnonzero(seen.high >= 40 * MS)
    assert len(slow) == 1
    assert abs(seen.time_ns[slow[0]] - 12_345 * 2 * MS) < 20_000 * 2 * MS / 700
    assert seen.counts[-1] >= 1
    assert seen.tail_share[-1] == 1 / 20_000


def test_warm_up_is_drawn_but_not_counted_and_lost_frames_are_marked(tmp_path):
    rows = one_server([i * 10 * MS for i in range(100)], [2 * MS] * 100)
    rows[:10, 0] |= WARMUP
    rows[50, 0] = DROPPED | 1 << REASON_SHIFT
    seen = look(tmp_path, rows, slices=100)
    assert seen.answered == 89
    assert seen.warm_ns == 10 * 10 * MS
    assert len(seen.lost_ns) == 1
    assert abs(seen.lost_ns[0] - 500 * MS) <= 10 * MS


def test_nothing_answered_is_nothing_to_draw(tmp_path):
    rows = one_server([0], [1])
    rows[0, 0] = DROPPED
    assert look(tmp_path, rows) is None
