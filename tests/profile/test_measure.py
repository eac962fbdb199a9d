"""The loop on the null Runner: what it stamps is what happened. Scripts are checked against their own clock."""

from __future__ import annotations

import gc
import os
import signal
import time

import numpy as np
import pytest

from edgemed.base.errors import GpuError, InputError, UsageError
from edgemed.base.runner import RunnerInfo
from edgemed.base.spans import Span
from edgemed.profile.clock import wait_until
from edgemed.profile.cost import own_cost
from edgemed.profile.distill import Question, distill
from edgemed.profile.load import parse_load
from edgemed.profile.measure import Plan, measure_runner
from edgemed.profile.stagelog import StageLog
from edgemed.profile.stamps import (
    AFTER_GAP,
    ANSWERED,
    COMPUTE_END,
    COMPUTE_START,
    DONE,
    FAILED,
    INTENDED,
    OUTCOME,
    STATUS,
    TAKEN,
    WARMUP,
)
from tests.profile.scripted import ANSWER, FEEDS, SPECS, null_runner, scripted_runner

MS = 10**6


def plan(load: str, frames: int | None = None, **rest) -> Plan:
    return Plan(parse_load(load), frames=frames, **{"warmup_frames": 0, "warmup_ns": 0, **rest})


def rows_of(measured) -> np.ndarray:
    return next(iter(measured.samples.chunks())).copy()


def test_a_stall_delays_the_frames_behind_it_from_when_they_were_meant(tmp_path):
    """100 frames a second, one of 200 ms: those behind it wait for it, and say so."""
    runner = scripted_runner([0] * 5 + [200 * MS] + [0] * 30)
    measured = measure_runner(runner, FEEDS, plan("rate:100", 36), tmp_path / "s.npy")
    rows = rows_of(measured)
    assert rows[:, INTENDED].tolist() == [measured.start_ns + i * 10 * MS for i in range(36)]
    latency = rows[:, DONE] - rows[:, INTENDED]
    assert latency[5] >= 200 * MS
    for behind in range(1, 15):  # sleeping never ends early, so these are lower bounds whatever the machine does
        assert latency[5 + behind] >= (200 - 10 * behind) * MS
    assert (rows[:, DONE] - rows[:, TAKEN])[6:20].max() < latency[6:20].max()


def test_every_stamp_is_in_order_and_frames_follow_each_other(tmp_path):
    rows = rows_of(measure_runner(scripted_runner([MS]), FEEDS, plan("poisson:200", 50), tmp_path / "s.npy"))
    order = rows[:, [INTENDED, TAKEN, COMPUTE_START, COMPUTE_END, DONE]]
    assert (np.diff(order, axis=1) >= 0).all()
    assert (rows[1:, TAKEN] >= rows[:-1, DONE]).all()
    assert (rows[:, COMPUTE_END] - rows[:, COMPUTE_START] >= MS).all()


def test_a_closed_load_means_each_frame_when_the_one_before_is_done(tmp_path):
    rows = rows_of(measure_runner(null_runner(), FEEDS, plan("closed", 100), tmp_path / "s.npy"))
    assert (rows[:, TAKEN] == rows[:, INTENDED]).all()
    assert (rows[1:, INTENDED] >= rows[:-1, DONE]).all()


@pytest.mark.parametrize(("warm", "rows", "marked"), [({"warmup_frames": 7}, 17, 7), ({"warmup_ns": 50 * MS}, 15, 5)])
def test_the_warm_up_is_kept_and_marked(tmp_path, warm, rows, marked):
    measured = measure_runner(null_runner(), FEEDS, plan("rate:100", 10, **warm), tmp_path / "s.npy")
    marks = rows_of(measured)[:, STATUS] & WARMUP
    assert len(marks) == rows
    assert np.flatnonzero(marks).tolist() == list(range(marked))


def test_a_duration_counts_arrivals_after_the_warm_up(tmp_path):
    measured = measure_runner(
        null_runner(), FEEDS, plan("rate:100", duration_ns=200 * MS, warmup_ns=100 * MS), tmp_path / "s.npy"
    )
    assert len(measured.samples) == 30


def test_a_replay_ends_with_its_file(tmp_path):
    (tmp_path / "t.txt").write_text("0\n0.01\n0.7\n")
    measured = measure_runner(null_runner(), FEEDS, plan(f"replay:{tmp_path / 't.txt'}"), tmp_path / "s.npy")
    status = rows_of(measured)[:, STATUS]
    assert (status & AFTER_GAP != 0).tolist() == [True, False, True]


def test_a_load_without_end_is_refused():
    with pytest.raises(UsageError, match="no end"):
        plan("rate:30")


def test_frames_get_the_inputs_in_turn(tmp_path):
    seen = []
    feeds = [{"x": np.full(1, i, np.float32)} for i in range(3)]
    runner = null_runner(lambda f: seen.append(float(f["x"][0])) or ANSWER)
    measure_runner(runner, feeds, plan("closed", 7), tmp_path / "s.npy")
    assert seen == [0, 1, 2, 0, 1, 2, 0]


def failing(error, at):
    calls = iter(range(10**6))

    def script(feeds):
        if next(calls) in at:
            raise error
        return ANSWER

    return null_runner(script)


def test_a_frame_that_fails_is_counted_and_the_run_goes_on(tmp_path):
    measured = measure_runner(failing(InputError("no"), {3, 4}), FEEDS, plan("closed", 10), tmp_path / "s.npy")
    outcomes = rows_of(measured)[:, STATUS] & OUTCOME
    assert outcomes.tolist() == [ANSWERED] * 3 + [FAILED] * 2 + [ANSWERED] * 5
    assert measured.stop is None


def test_a_first_frame_that_fails_is_told_at_once(tmp_path):
    with pytest.raises(InputError, match="no"):
        measure_runner(failing(InputError("no"), {0}), FEEDS, plan("closed", 10), tmp_path / "s.npy")


def test_a_lost_gpu_ends_the_run_with_what_was_measured(tmp_path):
    error = GpuError("gone", sticky=True)
    measured = measure_runner(failing(error, {5}), FEEDS, plan("closed", 10), tmp_path / "s.npy")
    assert measured.stop is error
    assert len(measured.samples) == 6


def test_ctrl_c_ends_in_order_with_what_was_measured(tmp_path):
    calls = iter(range(10**6))

    def script(feeds):
        if next(calls) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return ANSWER

    measured = measure_runner(null_runner(script), FEEDS, plan("rate:200", 1000), tmp_path / "s.npy")
    assert isinstance(measured.stop, KeyboardInterrupt)
    found = distill(measured, Question())
    assert found.counts.arrived == found.counts.answered
    assert found.counts.arrived in (20, 21, 22)  # raised at once, or as soon as Python looks for signals
    assert gc.isenabled()


@pytest.mark.parametrize("collector", ["off", "on"])
def test_the_collector_is_as_the_plan_says_and_as_before_afterwards(tmp_path, collector):
    seen = []
    runner = null_runner(lambda f: seen.append((gc.isenabled(), gc.get_freeze_count() > 0)) or ANSWER)
    measure_runner(runner, FEEDS, plan("closed", 3, collector=collector), tmp_path / "s.npy")
    assert set(seen) == {(collector == "on", True)}
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_run_ends_where_the_plan_is_content(tmp_path):
    asked = []

    def until(file, first, end):
        asked.append((first, end, len(file.read(first, end))))
        return len(asked) == 2

    measured = measure_runner(
        null_runner(), FEEDS, plan("rate:100", 1000, until=until, window_ns=100 * MS), tmp_path / "s.npy"
    )
    assert [(first, end) for first, end, _ in asked] == [(0, 11), (11, 21)]
    assert [n for *_, n in asked] == [11, 10]
    assert len(measured.samples) == 21


class Beside:
    """Notes when it is entered and left."""

    series = ()
    junction = None

    def __init__(self) -> None:
        self.log: list[str] = []

    def findings(self, measured):
        return ()

    def __enter__(self) -> Beside:
        self.log.append("in")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("out")


def test_what_goes_on_beside_is_left_also_when_nothing_could_be_measured(tmp_path):
    beside = Beside()
    with pytest.raises(InputError):
        measure_runner(failing(InputError("no"), {0}), FEEDS, plan("closed", 10), tmp_path / "s.npy", [beside])
    assert beside.log == ["in", "out"]


def test_waiting_never_ends_early():
    for wait_ns in (0, 1000, 300_000, 3 * MS):
        target = time.monotonic_ns() + wait_ns
        assert wait_until(target) >= target


def test_a_stage_log_forgets_the_frame_before():
    log = StageLog()
    with log.record("compute", 0), log.record("else", 0):
        pass
    first = log.take()
    assert (first[0], first[1], first[4], first[5]) == (0, 0, 0, 0)
    assert 0 < first[2] <= first[3]
    assert log.take() == (0,) * 6


def test_a_stage_log_takes_spans_that_come_from_device_events():
    log = StageLog()
    log.spans += [Span("copy-in", 1, 2), Span("compute", 3, 4), Span("copy-out", 5, 6), Span("other", 7, 8)]
    assert log.take() == (1, 2, 3, 4, 5, 6)
    assert log.take() == (0,) * 6


def test_the_profilers_own_cost_is_measured_and_leaves_no_file(tmp_path):
    cost = own_cost(tmp_path)
    # a millisecond would be a defect on any machine; on a busy one the difference may drown, and is none then
    assert 0 <= cost.per_frame_ns < MS
    assert cost.frames > 0
    assert list(tmp_path.iterdir()) == []


def test_who_answered_is_told(tmp_path):
    measured = measure_runner(null_runner(), FEEDS, plan("closed", 1), tmp_path / "s.npy")
    assert measured.info == RunnerInfo("null", "none", "none")
    assert SPECS.inputs[0].name == "x"
    assert measured.usage.wall_ns >= 0
