"""Lanes and frames for tests of the ring: a null Runner whose answers tell which frame they belong to."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.runners.null import NullRunner
from edgemed.runtime.frames import Frame
from edgemed.runtime.runner_lane import RunnerLane

SPECS = RunnerSpecs((TensorSpec("x", "int64", (2,)),), (TensorSpec("y", "int64", (2,)),))


def answer(feeds):
    """The Runner's script: y = 3x + 1."""
    return {"y": 3 * feeds["x"] + 1}


def lane(slots: int = 3, script=answer) -> RunnerLane:
    return RunnerLane(NullRunner(SPECS, script), slots)


def frame(number: int, **more) -> Frame:
    return Frame(number, {"x": np.full(2, number, np.int64)}, time.monotonic_ns(), **more)


def frames(count: int) -> Iterator[Frame]:
    return (frame(number) for number in range(count))


def is_right(outcome) -> bool:
    """Whether an answer is the one of its own frame."""
    return bool((outcome.outputs["y"] == 3 * outcome.frame + 1).all())


class Live:
    """A live source: frames as fast as they are taken, in the thread that takes them."""

    live = True

    def __init__(self, count: int, *, interval_s: float = 0.0, lost: int = 0) -> None:
        self.count = count
        self.lost = lost
        self.interval_s = interval_s
        self.closed = 0

    def __iter__(self) -> Iterator[Frame]:
        for number in range(self.count):
            if self.closed:
                return
            if self.interval_s:
                time.sleep(self.interval_s)
            yield frame(number)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        self.close()
