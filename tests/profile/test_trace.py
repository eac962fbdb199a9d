"""Traces: every slice where its stamps were, none overlapping another of its track, arrows from slice to slice."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.profile.beside import Series
from edgemed.profile.stamps import DROPPED, FAILED, REASON_SHIFT, StampFile
from edgemed.profile.trace import write_trace
from tests.profile.scripted import START, one_server

MS = 10**6


def traced(folder, rows, **options):
    with StampFile(folder / "s.npy") as file:
        for index, row in enumerate(rows.tolist()):
            file.put(index, *row)
        samples = file.close()
    kept = write_trace(samples, folder / "t.json", name="m", **options)
    return json.loads((folder / "t.json").read_text()), kept


def tracks_of(trace) -> dict[tuple[int, int], list[tuple[int, int, str]]]:
    found = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            start, length = round(event["ts"] * 1000), round(event["dur"] * 1000)
            found[event["pid"], event["tid"]].append((start, start + length, event["name"]))
    return found


def check_nesting(trace) -> None:
    """Slices of a track lie within one another or apart, as the format demands."""
    for slices in tracks_of(trace).values():
        open_: list[int] = []
        for start, end, _ in sorted(slices, key=lambda s: (s[0], -s[1])):
            while open_ and open_[-1] <= start:
                open_.pop()
            assert not open_ or end <= open_[-1]
            open_.append(end)


def staged(arrivals, service) -> np.ndarray:
    """Frames in flight at once: copies and computation of neighbours overlap."""
    rows = one_server(arrivals, service)
    rows[:, 3] = rows[:, 2] + 10
    rows[:, 4], rows[:, 5] = rows[:, 3], rows[:, 3] + 100
    rows[:, 6] = np.maximum(rows[:, 5], rows[:, 6])
    rows[:, 7] = rows[:, 6] + service
    rows[:, 8], rows[:, 9] = rows[:, 7], rows[:, 7] + 50
    rows[:, 10] = rows[:, 9] + 7
    return rows


@settings(max_examples=40, deadline=None)
@given(data=st.lists(st.tuples(st.integers(0, 3 * MS), st.integers(1, 5 * MS)), min_size=1, max_size=120))
def test_slices_nest_and_hold_every_stage_of_every_frame(tmp_path_factory, data):
    arrivals = np.cumsum([gap for gap, _ in data]).tolist()
    rows = staged(arrivals, [length for _, length in data])
    trace, kept = traced(tmp_path_factory.mktemp("t"), rows)
    assert kept == (0, len(rows))
    check_nesting(trace)
    compute = {e["args"]["frame"]: e for e in trace["traceEvents"] if e["ph"] == "X" and e["name"] == "compute"}
    assert set(compute) == set(range(len(rows)))
    base = int(rows[0, 1])
    for frame, event in compute.items():
        assert round(event["ts"] * 1000) == rows[frame, 6] - base
        assert round(event["dur"] * 1000) == rows[frame, 7] - rows[frame, 6]
    names = {e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] == "thread_name"}
    used = {e["tid"] for e in trace["traceEvents"] if e["ph"] == "X"}
    named = {e["tid"] for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] == "thread_name"}
    assert used <= named
    assert any(name.startswith("compute") for name in names)


def test_arrows_start_and_end_in_slices(tmp_path):
    rows = staged([i * MS for i in range(30)], [3 * MS] * 30)
    trace, _ = traced(tmp_path, rows)
    tracks = tracks_of(trace)
    ends = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] in "sf":
            at = round(event["ts"] * 1000)
            assert any(start <= at < end for start, end, _ in tracks[event["pid"], event["tid"]])
            ends[event["id"]].append((event["ph"], at))
    assert set(ends) == set(range(30))
    for frame, ((_, start), (_, end)) in ends.items():
        assert start == rows[frame, 1] - rows[0, 1] or start == rows[frame, 2] - rows[0, 1]
        assert end == rows[frame, 9] - rows[0, 1]


def test_lost_frames_late_ones_and_sensors_are_there(tmp_path):
    rows = one_server([i * 10 * MS for i in range(20)], [2 * MS] * 19 + [30 * MS])
    rows[5, 0], rows[6, 0] = DROPPED | 1 << REASON_SHIFT, FAILED
    rows[7] = [0, START + 70 * MS, *[0] * 9]
    sensor = Series("tj", "temperature", "mC", START + np.arange(3) * 50 * MS, np.array([40_000, 41_000, 42_500]))
    trace, _ = traced(tmp_path, rows, series=[sensor], deadline_ns=5 * MS)
    events = trace["traceEvents"]
    assert [e["name"] for e in events if e["ph"] == "i"] == ["dropped: superseded", "failed", "unfinished"]
    assert {e["args"]["frame"] for e in events if e["ph"] == "X" and e["cat"] == "late"} == {19}
    counters = [(e["ts"], e["args"]["value"]) for e in events if e["ph"] == "C"]
    assert counters == [(0.0, 40.0), (50_000.0, 41.0), (100_000.0, 42.5)]


def test_of_a_long_run_the_slowest_is_kept(tmp_path):
    service = [MS] * 1000
    service[700] = 8 * MS
    rows = one_server([i * 10 * MS for i in range(1000)], service)
    trace, (first, end) = traced(tmp_path, rows, most=100)
    assert (first, end) == (650, 750)
    assert trace["otherData"]["frames"] == 1000
    frames = {e["args"]["frame"] for e in trace["traceEvents"] if e["ph"] == "X"}
    assert frames == set(range(650, 750))


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_frames_make_a_trace_too(tmp_path, n):
    trace, _ = traced(tmp_path, one_server([0] * n, [MS] * n).reshape(n, 11))
    assert len([e for e in trace["traceEvents"] if e["ph"] == "X"]) == (2 if n else 0) - n
