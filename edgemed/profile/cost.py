"""What the profiler costs by itself: the same loop around a Runner that does nothing, beside a bare loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.profile.load import parse_load
from edgemed.profile.measure import Plan, measure_runner
from edgemed.profile.result import OwnCost
from edgemed.runners.null import NullRunner

_FEW, _MANY = 500, 8_000  # frames of a short and a long run: their difference has no setting up in it
_ROUNDS: Final = 3


def own_cost(folder: Path) -> OwnCost:
    """Processor time of this thread per frame, the median of three rounds; stamps go to `folder` for a moment.

    Processor time, since what else runs on the machine is no cost of ours.
    """
    specs = RunnerSpecs((TensorSpec("x", "float32", (1,)),), (TensorSpec("y", "float32", (1,)),))
    answer = {"y": np.zeros(1, np.float32)}
    runner, feeds = NullRunner(specs, lambda _: answer), {"x": np.zeros(1, np.float32)}
    path = folder / ".cost.npy"

    def bare(frames: int) -> None:
        for _ in range(frames):
            runner.infer(feeds)

    def measured(frames: int) -> None:
        plan = Plan(parse_load("closed"), frames=frames, warmup_frames=0, warmup_ns=0)
        measure_runner(runner, [feeds], plan, path)

    try:
        costs = sorted(_per_frame(measured) - _per_frame(bare) for _ in range(_ROUNDS))
    finally:
        path.unlink(missing_ok=True)
    return OwnCost(per_frame_ns=max(0, round(costs[_ROUNDS // 2])), frames=_ROUNDS * _MANY)


def _per_frame(loop: Callable[[int], None]) -> float:
    times = []
    for frames in (_FEW, _MANY):
        began = time.thread_time_ns()
        loop(frames)
        times.append(time.thread_time_ns() - began)
    return (times[1] - times[0]) / (_MANY - _FEW)
