"""The slot ring on a device: what overlapping gains over a synchronous loop, what graphs gain, and that answers hold.

The engine is the tests' stand-in: copies of real size, and kernels that give checkable numbers and take a set time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.runner import RunnerInfo
from edgemed.runtime.cuda import Cuda
from edgemed.runtime.cuda_lane import CudaLane
from edgemed.runtime.frames import Answer, Frame
from edgemed.runtime.ring import Ring
from tests.runtime.standin import GAIN, OFFSET, StandIn

Report = dict[str, Any]
_ROWS = _COLUMNS = 1024  # 4 MiB in and as much out
_FRAMES = 300
_ROUNDS = 3
_STAGES = ("copy-in", "compute", "copy-out")


def overlap(cuda: Cuda, image: bytes, compute_ns: int) -> Report:
    """Frames per second of a synchronous loop and of rings with 1 to 4 slots, interleaved; medians of 3 rounds."""
    ways = {"synchronous": (1, False), **{f"{n} slots": (n, True) for n in (1, 2, 3, 4)}}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    stages: dict[str, float] = {}
    for _ in range(_ROUNDS):
        for name, (slots, graphs) in ways.items():
            rate, spent = _stream(cuda, image, compute_ns, slots, graphs=graphs, one_by_one=name == "synchronous")
            rates[name].append(rate)
            stages = spent if name == "3 slots" else stages
    medians = {name: round(statistics.median(taken), 1) for name, taken in rates.items()}
    slowest = max(stages.values())
    return {
        "frame_mib": _ROWS * _COLUMNS * 4 / (1 << 20),
        "frames_per_s": medians,
        "stages_us": {name: round(ns / 1e3, 1) for name, ns in stages.items()},
        "vs_synchronous": round(medians["3 slots"] / medians["synchronous"], 2),
        "of_limit": round(medians["3 slots"] * slowest / 1e9, 3),
    }


def graph_gain(cuda: Cuda, image: bytes) -> Report:
    """Host time of a frame on a tiny model, with and without graph replay."""
    taken: dict[str, list[float]] = {"with": [], "without": []}
    state = ""
    for _ in range(_ROUNDS):
        for name, graphs in (("with", True), ("without", False)):
            execution = StandIn(cuda, image=image)
            with CudaLane(cuda, [execution], _info(cuda), 1, graphs=graphs) as lane, Ring(lane) as ring:
                feeds = {"x": np.ones((4, 8), np.float32)}
                times = []
                for _ in range(500):
                    start_ns = time.monotonic_ns()
                    ring.infer(feeds)
                    times.append(time.monotonic_ns() - start_ns)
                state = lane.graphs if graphs else state
            execution.close()
            taken[name].append(statistics.median(times) / 1e3)
    medians = {name: round(statistics.median(values), 1) for name, values in taken.items()}
    return {"infer_us": medians, "graphs": state, "gain": round(medians["without"] / medians["with"], 2)}


def _info(cuda: Cuda) -> RunnerInfo:
    return RunnerInfo("stand-in", "fp32", cuda.facts.name)


def _stream(
    cuda: Cuda, image: bytes, compute_ns: int, slots: int, *, graphs: bool, one_by_one: bool
) -> tuple[float, dict[str, float]]:
    """Frames per second, and the median of each stage in ns. Every answer is checked."""
    execution = StandIn(cuda, columns=_COLUMNS, rows=(_ROWS,) * 3, compute_ns=compute_ns, image=image)
    lane = CudaLane(cuda, [execution], _info(cuda), slots, graphs=graphs)
    lane.timed = True
    pictures = [np.full((_ROWS, _COLUMNS), number, np.float32) for number in range(8)]
    spent: dict[str, list[int]] = {name: [] for name in _STAGES}
    try:
        with Ring(lane, spans=True) as ring:
            start_ns = time.monotonic_ns()
            if one_by_one:
                for number in range(_FRAMES):
                    _check(number, ring.infer({"x": pictures[number % len(pictures)]}))
            else:
                for outcome in ring.run(_frames(pictures)):
                    if not isinstance(outcome, Answer):
                        raise outcome.error
                    _check(outcome.frame, outcome)
                    for span in outcome.spans:
                        if span.name in spent:
                            spent[span.name].append(span.duration_ns)
            seconds = (time.monotonic_ns() - start_ns) / 1e9
    finally:
        execution.close()
    return _FRAMES / seconds, {name: statistics.median(ns) for name, ns in spent.items() if ns}


def _frames(pictures: list[NDArray[np.float32]]) -> Iterator[Frame]:
    for number in range(_FRAMES):
        yield Frame(number, {"x": pictures[number % len(pictures)]}, time.monotonic_ns())


def _check(number: int, answer: Answer) -> None:
    expected = GAIN * (number % 8) + OFFSET
    corners = answer.outputs["y"][[0, -1], [0, -1]]  # all of it would cost more than the frame
    if not (corners == expected).all():
        raise ValueError(f"frame {number} came back as {corners}, not {expected}")
