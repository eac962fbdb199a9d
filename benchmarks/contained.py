"""What containment costs a request: `python -m benchmarks.contained`.

A float32 frame of 224×224×3 goes to a null Runner here, to the same one in a worker, and through a lane whose slots
the caller has filled already. Rounds take turns; a figure is the median of a round's requests, and the middle of the
rounds. The null Runner computes nothing, so the difference is what containment adds: one copy of the frame into shared
memory, two wake-ups of processes, one of a thread, one copy of the outputs.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.runners.null import NullRunner
from edgemed.runtime.contained.lane import ContainedLane
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.spec import FunctionWorker

SHAPE = (1, 224, 224, 3)
ROUNDS, REQUESTS = 9, 500
_OUTPUT = np.zeros((1, 5), np.float32)


def make() -> NullRunner:
    """The Runner, here and in the worker."""
    specs = RunnerSpecs((TensorSpec("x", "float32", SHAPE),), (TensorSpec("y", "float32", (1, 5)),))
    return NullRunner(specs, lambda _: {"y": _OUTPUT})


def round_us(request: Callable[[], Any]) -> list[float]:
    """Durations of one round's requests, in µs, sorted."""
    times = []
    for _ in range(REQUESTS):
        begun_ns = time.perf_counter_ns()
        request()
        times.append((time.perf_counter_ns() - begun_ns) / 1e3)
    return sorted(times)


def containment_cost() -> dict[str, float]:
    """Medians in µs: `copy` of the frame, `bare` Runner, `contained`, `lane`; `added` is contained less bare."""
    x = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    target = np.empty_like(x)
    runner = ContainedRunner(FunctionWorker(f"{Path(__file__).resolve()}:make"), lane_slots=1)
    with make() as bare, ContainedLane(runner, 1) as lane:
        np.copyto(lane.inputs(0)["x"], x)

        def through_the_lane() -> None:
            lane.start(0)
            lane.finish(0)

        contestants: dict[str, Callable[[], Any]] = {
            "copy": lambda: np.copyto(target, x),
            "bare": lambda: bare.infer({"x": x}),
            "contained": lambda: runner.infer({"x": x}),
            "lane": through_the_lane,
        }
        rounds: dict[str, list[list[float]]] = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, request in contestants.items():
                rounds[name].append(round_us(request))
    result = {name: round(statistics.median(r[REQUESTS // 2] for r in all_of), 1) for name, all_of in rounds.items()}
    result["contained_p99"] = round(statistics.median(r[REQUESTS * 99 // 100] for r in rounds["contained"]), 1)
    result["added"] = round(result["contained"] - result["bare"], 1)
    return result


if __name__ == "__main__":
    print(json.dumps(containment_cost(), indent=2))
