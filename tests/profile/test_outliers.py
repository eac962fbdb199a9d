"""Frames above a limit are found in whatever chunk they lie, and told with their neighbours and the sensors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.device.sysfs import Tree
from edgemed.profile.beside import Series
from edgemed.profile.outliers import AFTER, BEFORE, find_outliers, write_outliers
from edgemed.profile.stamps import DROPPED, STATUS, WARMUP
from edgemed.profile.telemetry.sensors import kernel_sensors
from tests.profile.scripted import START, measurement, one_server

MS = 10**6


def run(tmp_path: Path, slow: dict[int, int], n: int = 400, mark=lambda rows: None):
    """Frames every 20 ms that take 5 ms, but for some."""
    rows = one_server([i * 20 * MS for i in range(n)], [slow.get(i, 5 * MS) for i in range(n)])
    mark(rows)
    return measurement(tmp_path / "s.npy", rows).samples


def test_an_outlier_with_its_neighbours(tmp_path):
    samples = run(tmp_path, {200: 70 * MS})
    found = find_outliers(samples, 60 * MS)
    assert (found.frames, found.events) == (1, ((200, 200),))
    times = START + np.arange(-50, 150, dtype=np.int64) * 100 * MS
    write_outliers(samples, found, [Series("tj", "temperature", "mC", times, np.arange(200))], tmp_path / "o.jsonl")
    (event,) = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    frames = {frame["frame"]: frame for frame in event["frames"]}
    assert list(frames) == list(range(200 - BEFORE, 200 + AFTER + 1))
    assert frames[200]["latency_ns"] == 70 * MS
    assert sum(frames[200]["stages_ns"].values()) == 70 * MS
    assert frames[201]["stages_ns"]["wait"] == 50 * MS  # it waited for the slow one
    assert [frame for frame, told in frames.items() if told["over"]] == [200]
    at = event["sensors"]["tj"]["at_ns"]
    assert at[0] >= START + (200 - BEFORE) * 20 * MS - 2000 * MS
    assert at[-1] <= START + (200 + AFTER) * 20 * MS + 5 * MS + 2000 * MS
    assert len(at) == 48


def test_outliers_close_to_each_other_are_one_event_and_one_that_does_not_end_is_cut(tmp_path):
    samples = run(tmp_path, {**dict.fromkeys(range(100, 300), 19 * MS), 350: 19 * MS})
    found = find_outliers(samples, 10 * MS)
    assert (found.frames, found.events) == (201, ((100, 299), (350, 350)))
    write_outliers(samples, found, (), tmp_path / "o.jsonl")
    first = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])
    assert (first["first_frame"], first["last_frame"], len(first["frames"])) == (100, 299, 2 * BEFORE + AFTER + 1)


def test_the_warm_up_and_lost_frames_are_no_outliers(tmp_path):
    def mark(rows):
        rows[3, STATUS] |= WARMUP
        rows[10, STATUS] = DROPPED

    samples = run(tmp_path, {3: 15 * MS, 10: 15 * MS, 12: 15 * MS}, mark=mark)
    found = find_outliers(samples, 10 * MS)
    assert found.events == ((12, 12),)
    write_outliers(samples, found, (), tmp_path / "o.jsonl")
    event = json.loads((tmp_path / "o.jsonl").read_text())
    assert {"frame": 10, "intended_ns": START + 200 * MS, "answered": False} in event["frames"]
    assert event["sensors"] == {}


def test_a_run_without_outliers_leaves_an_empty_file(tmp_path):
    samples = run(tmp_path, {})
    write_outliers(samples, find_outliers(samples, 10 * MS), (), tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl").read_bytes() == b""


@given(st.sets(st.integers(0, 399), max_size=40))
def test_every_slow_frame_lies_in_exactly_one_event(tmp_path_factory, slow):
    samples = run(tmp_path_factory.mktemp("o"), dict.fromkeys(slow, 19 * MS))
    found = find_outliers(samples, 10 * MS)
    assert found.frames == len(slow)
    assert all(sum(first <= frame <= last for first, last in found.events) == 1 for frame in slow)
    assert all(b[0] - a[1] > BEFORE for a, b in zip(found.events, found.events[1:], strict=False))


def test_what_the_kernel_counts_of_a_process():
    """The real files of this process; counters only rise."""
    sensors = kernel_sensors(Tree(), os.getpid())
    before = {sensor.name: sensor.read() for sensor in sensors}
    assert {"own minor faults", "own waits", "own evictions", "context switches", "runnable threads"} <= set(before)
    touched = bytearray(64 << 20)  # its pages are new
    after = {sensor.name: sensor.read() for sensor in sensors}
    assert after["own minor faults"] > before["own minor faults"]
    assert after["context switches"] >= before["context switches"]
    assert len(touched) == 64 << 20


def test_the_name_of_a_program_does_not_shift_the_fields(tmp_path):
    (tmp_path / "proc/7").mkdir(parents=True)
    fields = " ".join(str(number) for number in range(100, 150))
    (tmp_path / "proc/7/stat").write_text(f"7 (a) b (c)) S {fields}\n")
    said = {sensor.name: sensor.read() for sensor in kernel_sensors(Tree(tmp_path), 7)}
    assert said == {"own minor faults": 106, "own major faults": 108, "own user ticks": 110, "own system ticks": 111}


@pytest.mark.parametrize("text", ["", "7 (x", "7 (x) S 1 2"])
def test_a_file_that_is_cut_says_nothing(tmp_path, text):
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/stat").write_text(text)
    assert {sensor.read() for sensor in kernel_sensors(Tree(tmp_path), 7)} == {None}
