"""The same load through the real ring, on a lane of the null Runner: drops, order, accounts."""

from __future__ import annotations

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.base.runner import RunnerInfo
from edgemed.profile.distill import Question, distill
from edgemed.profile.load import parse_load
from edgemed.profile.measure import Plan, measure_ring
from edgemed.profile.stamps import ANSWERED, COMPUTE_END, COMPUTE_START, DONE, DROPPED, FILLED, INTENDED, OUTCOME, TAKEN
from edgemed.runtime.policy import Policy
from edgemed.runtime.ring import Ring
from edgemed.runtime.runner_lane import RunnerLane
from tests.profile.scripted import ANSWER, FEEDS, null_runner, scripted_runner

MS = 10**6
INFO = RunnerInfo("null", "none", "none")


def measure(tmp_path, runner, load: str, frames: int, policy: str = "lossless", **rest):
    plan = Plan(parse_load(load), frames=frames, **{"warmup_frames": 0, "warmup_ns": 0, **rest})

    def make(on_drop):
        return Ring(RunnerLane(runner), policy=Policy.parse(policy), on_drop=on_drop, spans=True)

    return measure_ring(make, lambda: INFO, FEEDS, plan, tmp_path / "s.npy")


def rows_of(measured) -> np.ndarray:
    return next(iter(measured.samples.chunks())).copy()


@pytest.mark.parametrize("load", ["rate:100", "closed", "poisson:200"])
def test_every_frame_is_stamped_in_order(tmp_path, load):
    measured = measure(tmp_path, scripted_runner([MS]), load, 40)
    rows = rows_of(measured)
    assert len(rows) == 40
    assert (rows[:, 0] & OUTCOME == ANSWERED).all()
    stamps = rows[:, [INTENDED, TAKEN, FILLED, COMPUTE_START, COMPUTE_END, DONE]]
    assert (np.diff(stamps, axis=1) >= 0).all()
    assert {"wait", "pre", "queue", "compute", "post"} <= distill(measured, Question()).stages.keys()


def test_a_lossless_ring_lets_a_stall_be_seen_by_those_behind_it(tmp_path):
    rows = rows_of(measure(tmp_path, scripted_runner([0] * 5 + [200 * MS] + [0] * 40), "rate:100", 40))
    latency = rows[:, DONE] - rows[:, INTENDED]
    for behind in range(15):
        assert latency[5 + behind] >= (200 - 10 * behind) * MS


def test_a_ring_that_keeps_the_latest_drops_and_says_which(tmp_path):
    measured = measure(tmp_path, scripted_runner([50 * MS]), "rate:100", 60, "latest")
    found = distill(measured, Question())
    rows = rows_of(measured)
    assert found.counts.arrived == len(rows) == 60
    assert found.counts.answered + found.counts.dropped["superseded"] == 60
    assert found.counts.dropped["superseded"] >= 30  # 20 a second can be answered of 100
    assert ((rows[:, 0] & OUTCOME == DROPPED) == (rows[:, TAKEN] == 0)).all()
    assert found.lost.count == found.counts.dropped["superseded"]


def test_a_frame_that_fails_is_counted(tmp_path):
    calls = iter(range(10**6))

    def script(feeds):
        if next(calls) == 3:
            raise InputError("no")
        return ANSWER

    found = distill(measure(tmp_path, null_runner(script), "rate:200", 10), Question())
    assert (found.counts.answered, found.counts.failed) == (9, 1)


def test_a_first_frame_that_fails_is_told_at_once(tmp_path):
    def script(feeds):
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        measure(tmp_path, null_runner(script), "rate:200", 10)


def test_a_run_that_is_content_ends_and_does_not_wait_for_the_next_arrival(tmp_path):
    (tmp_path / "times.txt").write_text("0\n0.01\n300\n")
    load = f"replay:{tmp_path / 'times.txt'}"
    measured = measure(tmp_path, null_runner(), load, 100, until=lambda *_: True, window_ns=1)
    assert len(measured.samples) == 2
    assert measured.end_ns < measured.start_ns + 300 * 10**9  # before the third was meant to arrive
