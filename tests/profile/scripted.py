"""Runs whose truth is known: stamps written by hand, and Runners that take as long as a script says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgemed.base.runner import RunnerInfo, RunnerSpecs, TensorSpec
from edgemed.profile.facts import Usage
from edgemed.profile.load import Load, parse_load
from edgemed.profile.measure import Measurement, Plan
from edgemed.profile.stamps import ANSWERED, StampFile
from edgemed.runners.null import NullRunner

START = 10**15
SPECS = RunnerSpecs((TensorSpec("x", "float32", (1,)),), (TensorSpec("y", "float32", (1,)),))
FEEDS = [{"x": np.zeros(1, np.float32)}]
ANSWER = {"y": np.zeros(1, np.float32)}


def null_runner(script=lambda feeds: ANSWER) -> NullRunner:
    """A Runner that calls `script` on each frame."""
    return NullRunner(SPECS, script)


def scripted_runner(durations_ns: Sequence[int]) -> NullRunner:
    """Frame i takes `durations_ns[i]`; those after the last take as long as that."""
    calls = iter(range(10**9))

    def script(feeds):
        index = min(next(calls), len(durations_ns) - 1)
        time.sleep(durations_ns[index] / 1e9)
        return ANSWER

    return NullRunner(SPECS, script)


def one_server(arrivals: Sequence[int], service_ns: Sequence[int]) -> np.ndarray:
    """(n, 11) rows of frames that one server takes in order: what the loop must stamp, without its own time."""
    rows = np.zeros((len(arrivals), 11), dtype=np.int64)
    free = 0
    for i, (arrival, service) in enumerate(zip(arrivals, service_ns, strict=True)):
        taken = max(arrival, free)
        free = taken + service
        begin, end = START + taken, START + free
        rows[i] = [ANSWERED, START + arrival, begin, 0, 0, 0, begin, end, 0, 0, end]
    return rows


def measurement(
    path: Path, rows: np.ndarray, load: Load | None = None, stop: BaseException | None = None
) -> Measurement:
    """A finished run with these rows."""
    file = StampFile(path)
    for index, row in enumerate(rows.tolist()):
        file.put(index, *row)
    plan = Plan(load or parse_load("rate:30"), frames=max(1, len(rows)), warmup_frames=0, warmup_ns=0)
    end = int(rows[:, -1].max(initial=START))
    info = RunnerInfo("null", "none", "none")
    usage = Usage.now()
    return Measurement(file.close(), START, end, usage.until(usage), stop, info, plan)
