"""In the worker: drives a Runner or a Lane, one job per slot of the shared memory, finished in the order of starts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from edgemed.base.runner import Runner
from edgemed.base.spans import SpanLog
from edgemed.runtime.contained.shared import Shapes, Slots
from edgemed.runtime.lane import Lane, Stage

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """A request for what lies in a slot; `shapes` of the inputs that vary."""

    slot: int
    request: int
    shapes: Shapes | None


class Driver(Protocol):
    """What the worker's loop needs."""

    @property
    def room(self) -> bool:
        """Whether another job can be started before one is finished."""
        ...

    @property
    def oldest(self) -> Job | None:
        """The job that `finish` is about."""
        ...

    def start(self, job: Job) -> None:
        """Begin. What this raises is the job's failure; it is not to be finished then."""
        ...

    def finish(self) -> tuple[Arrays, list[Stage]]:
        """End the oldest job: its outputs, good until the next call. What this raises is the job's failure."""
        ...


class RunnerDriver:
    """A Runner computes in `finish`, straight from the shared inputs."""

    def __init__(self, runner: Runner, inputs: Slots) -> None:
        self._runner = runner
        self._inputs = inputs
        self._job: Job | None = None

    @property
    def room(self) -> bool:
        return self._job is None  # nothing is gained by taking two: what comes waits in the socket

    @property
    def oldest(self) -> Job | None:
        return self._job

    def start(self, job: Job) -> None:
        self._job = job

    def finish(self) -> tuple[Arrays, list[Stage]]:
        job, self._job = self._job, None
        assert job is not None, "started before it is finished"
        log = SpanLog()
        outputs = self._runner.infer(self._inputs.arrays(job.slot, job.shapes), frame=job.request, spans=log)
        return outputs, [(span.name, span.start_ns, span.end_ns) for span in log.spans]


class LaneDriver:
    """A Lane has slots and memory of its own: while the oldest is waited for, the device works on the next."""

    def __init__(self, lane: Lane, inputs: Slots) -> None:
        self._lane = lane
        self._inputs = inputs
        self._free = deque(range(lane.slots))
        self._jobs: deque[tuple[Job, int, int]] = deque()  # with the lane's slot, and when it was started

    @property
    def room(self) -> bool:
        return bool(self._free)

    @property
    def oldest(self) -> Job | None:
        return self._jobs[0][0] if self._jobs else None

    def start(self, job: Job) -> None:
        slot = self._free[0]
        for name, target in self._lane.inputs(slot, job.shapes).items():
            np.copyto(target, self._inputs.arrays(job.slot, job.shapes)[name], casting="no")
        self._lane.start(slot)
        self._jobs.append((job, self._free.popleft(), time.monotonic_ns()))

    def finish(self) -> tuple[Arrays, list[Stage]]:
        _, slot, begun_ns = self._jobs.popleft()
        self._free.append(slot)  # its memory stays as it is until the next start
        outputs = self._lane.finish(slot)
        stages = list(self._lane.stages(slot)) if self._lane.timed else [("compute", begun_ns, time.monotonic_ns())]
        return outputs, stages


def is_runner(made: Runner | Lane) -> TypeGuard[Runner]:
    """Which of the two it is; asking for its specs, as `isinstance` does, is too early before it is entered."""
    return hasattr(made, "infer")


def driver_of(made: Runner | Lane, inputs: Slots) -> Driver:
    """The driver for what was built."""
    return RunnerDriver(made, inputs) if is_runner(made) else LaneDriver(cast(Lane, made), inputs)
