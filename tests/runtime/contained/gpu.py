"""Runs in the worker: real pycuda on the host-only libcuda, the CUDA lane, and the stand-in engine; told to fail."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.runner import RunnerInfo
from edgemed.runtime.cuda import open_cuda
from edgemed.runtime.cuda_lane import CudaLane
from tests.runtime.contained.faulty import AT_INFER, Control
from tests.runtime.fakecuda import handle
from tests.runtime.standin import GAIN, OFFSET, StandIn

ILLEGAL_ADDRESS, OUT_OF_MEMORY = 700, 2


def expected(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What the stand-in engine gives; x is `(…, rows, columns)`."""
    y = np.float32(GAIN) * x + np.float32(OFFSET)
    return {"y": y, "sum": np.cumsum(x, axis=-1, dtype=np.float32)[..., -1]}


class GpuLane:
    """A `CudaLane` whose device fails when the control file says so.

    Args:
        control: see `faulty`: `sticky` is an illegal address in a kernel, `memory` a driver that has none, `hang` a
            kernel that does not end.
        cache: where the shim was built.
    """

    overlaps = True
    timed = False
    slots = 3
    _lane: Any = None

    def __init__(self, control: str, cache: str) -> None:
        self._control = Control(control)
        handle.fetch.CACHE = Path(cache)  # a worker that a test rebuilds inherits the test's private places

    def __enter__(self) -> GpuLane:
        self._fake = handle.activate()
        cuda = open_cuda()
        self._lane = CudaLane(cuda, [StandIn(cuda)], RunnerInfo("stand-in", "fp32", "shim"), self.slots, graphs=False)
        self._lane.timed = self.timed
        self._lane.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lane.__exit__(kind, value, traceback)

    def start(self, slot: int) -> None:
        fault = self._control.take(AT_INFER)
        if fault == "sticky":
            self._fake.fail_op("kernel", ILLEGAL_ADDRESS)
        elif fault == "memory":
            self._fake.fail("cuMemcpyHtoDAsync_v2", OUT_OF_MEMORY)
        elif fault == "hang":
            self._fake.hang("kernel")
        self._lane.start(slot)

    def __getattr__(self, name: str) -> Any:  # specs, info, inputs, finish, stages
        return getattr(self._lane, name)
