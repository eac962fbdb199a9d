"""Any Runner as a lane: slots of ordinary memory, computed when they are waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import Runner, RunnerInfo, RunnerSpecs, TensorSpec
from edgemed.runtime.lane import Shapes, Stage


class RunnerLane:
    """Gives a Runner a lane's slots. `finish` computes, in the thread that waits for the answer.

    So a source in a thread fills slots while frames are computed. Frames are not computed side by side: ONNX Runtime
    uses all processors for one.

    Args:
        runner: entered and left with the lane.
        slots: frames that may be filled, computed or held at a time.
    """

    overlaps = False
    timed = False  # two readings of the clock: taken always

    def __init__(self, runner: Runner, slots: int = 3) -> None:
        if slots < 1:
            raise ValueError("a lane has at least one slot")
        self._runner = runner
        self._slots = slots
        self._memory: list[dict[str, NDArray[Any]]] = []
        self._stages: tuple[Stage, ...] = ()

    @property
    def specs(self) -> RunnerSpecs:
        return self._runner.specs

    @property
    def info(self) -> RunnerInfo:
        return self._runner.info

    @property
    def slots(self) -> int:
        return self._slots

    def __enter__(self) -> RunnerLane:
        self._runner.__enter__()
        self._memory = [_allocate(self._runner.specs) for _ in range(self._slots)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._memory = []
        self._runner.__exit__(kind, value, traceback)

    def inputs(self, slot: int, shapes: Shapes | None = None) -> Mapping[str, NDArray[Any]]:
        """See `Lane.inputs`. Memory of a shape that varies is made anew when the shape changes."""
        memory = self._memory[slot]
        if shapes is not None:
            for spec in self._runner.specs.inputs:
                shape = shapes.get(spec.name, memory[spec.name].shape)
                if memory[spec.name].shape != shape:
                    memory[spec.name] = np.empty(_admitted(spec, shape), spec.dtype)
        return memory

    def start(self, slot: int) -> None:
        """Nothing yet: see `finish`."""

    def finish(self, slot: int) -> Mapping[str, NDArray[Any]]:
        begun_ns = time.monotonic_ns()
        outputs = self._runner.infer(self._memory[slot])
        self._stages = (("compute", begun_ns, time.monotonic_ns()),)
        return outputs

    def stages(self, slot: int) -> Sequence[Stage]:
        del slot  # the one finished last
        return self._stages


def _allocate(specs: RunnerSpecs) -> dict[str, NDArray[Any]]:
    # a dimension that varies is 0 until the first frame says better
    return {spec.name: np.zeros([n or 0 for n in spec.shape], spec.dtype) for spec in specs.inputs}


def _admitted(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    if not spec.admits(spec.dtype, shape):
        raise InputError(f"Input {spec} cannot be {'×'.join(map(str, shape))}.", "Give what the model takes.")
    return shape
