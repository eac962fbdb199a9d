"""What a profile runs on: chosen as by every command, measured, and asked afterwards what it was."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from edgemed.base.runner import Runner, RunnerInfo
from edgemed.bundle.model import RunPrecision
from edgemed.bundle.read import Bundle
from edgemed.device.gpu import Gpu
from edgemed.engine.plans import Plan as EnginePlan
from edgemed.profile.beside import Beside
from edgemed.profile.measure import Arrays, Measurement, Plan, measure_ring, measure_runner
from edgemed.runtime.cuda_lane import CudaLane
from edgemed.runtime.frames import Drop
from edgemed.runtime.lane import Lane
from edgemed.runtime.open import RunnerName, open_lane, open_runner
from edgemed.runtime.policy import Policy
from edgemed.runtime.ring import Ring
from edgemed.runtime.tensorrt import TensorRtLane, TensorRtRunner

SLOTS: Final = 3


@dataclass(frozen=True)
class Backend:
    """What answered, and how.

    Attributes:
        info: who answers.
        version: of ONNX Runtime or TensorRT.
        tensorrt: version of TensorRT.
        engine_sha256: of the plan that ran.
        gpu: the device; `None` where the processor answers.
        sync: how the host waits.
        cuda_graph: whether one was replayed; `None` without CUDA.
        no_cuda_graph: why none was.
        copies_counted: whether copies to and from the device are in the latency; `None`: there are none.
    """

    info: RunnerInfo
    version: str | None = None
    tensorrt: str | None = None
    engine_sha256: str | None = None
    gpu: Gpu | None = None
    sync: Literal["spin", "blocking", "host"] = "host"
    cuda_graph: bool | None = None
    no_cuda_graph: str | None = None
    copies_counted: bool | None = None


class Subject:
    """A bundle on the Runner that was chosen for it; each run opens it anew, and on the same one.

    Attributes:
        runner: what was chosen.
        why: why that is not TensorRT although nobody ruled it out; `None` where there is nothing to say.
        backend: of the last run; before the first, what is known without opening it.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        runner: RunnerName = "auto",
        precision: RunPrecision | None = None,
        dla_core: int | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Choose. Nothing of the GPU is touched.

        Args:
            bundle: verified.
            runner, precision, dla_core: as of `open_runner`, which says what is raised.
            policy: of the ring that frames go through; `None` for one frame at a time.
        """
        opened = open_runner(bundle, runner=runner, precision=precision, dla_core=dla_core)
        chosen: RunnerName = "tensorrt" if isinstance(opened.runner, TensorRtRunner) else "onnxruntime"
        self.runner = chosen
        self.why = opened.why
        self.backend = _expected(opened.runner)
        self._bundle = bundle
        self._policy = policy
        self._options: dict[str, Any] = {"runner": chosen, "precision": precision, "dla_core": dla_core}

    @property
    def ring(self) -> str | None:
        """Policy and slots; `None` for one frame at a time."""
        return None if self._policy is None else f"{self._policy}, {SLOTS} slots"

    def measure(self, feeds: Sequence[Arrays], plan: Plan, stamps: Path, beside: Sequence[Beside] = ()) -> Measurement:
        """One run; see `measure_runner` and `measure_ring`. What answered stands in `backend` afterwards.

        Raises:
            EdgemedError: it cannot be opened, or the very first frame failed.
        """
        if self._policy is None:
            return self._measure_runner(feeds, plan, stamps, beside)
        return self._measure_ring(self._policy, feeds, plan, stamps, beside)

    def _measure_runner(
        self, feeds: Sequence[Arrays], plan: Plan, stamps: Path, beside: Sequence[Beside]
    ) -> Measurement:
        with open_runner(self._bundle, timed=True, **self._options).runner as runner:
            try:
                return measure_runner(runner, feeds, plan, stamps, beside)
            finally:
                self.backend = _of_runner(runner)

    def _measure_ring(
        self, policy: Policy, feeds: Sequence[Arrays], plan: Plan, stamps: Path, beside: Sequence[Beside]
    ) -> Measurement:
        lane = open_lane(self._bundle, slots=SLOTS, **self._options).lane

        @contextmanager
        def make(on_drop: Callable[[Drop], None]) -> Iterator[Ring]:
            with Ring(lane, policy=policy, on_drop=on_drop, spans=True) as ring:
                try:
                    yield ring
                finally:
                    self.backend = _of_lane(lane)

        return measure_ring(make, lambda: lane.info, feeds, plan, stamps, beside)


def _expected(runner: Runner) -> Backend:
    if isinstance(runner, TensorRtRunner) and isinstance(runner.plan, EnginePlan):
        plan, key = runner.plan, runner.plan.key
        info = RunnerInfo(key.flavour, key.precision, key.board, key.bundle)
        return Backend(info, key.version, tensorrt=key.version, engine_sha256=plan.sha256, sync="blocking")
    return _of_runner(runner)


def _of_runner(runner: Runner) -> Backend:
    if isinstance(runner, TensorRtRunner) and isinstance(runner.plan, EnginePlan):
        return _of_engine(runner.plan, runner.lane)
    return Backend(runner.info, importlib.metadata.version("onnxruntime"))


def _of_lane(lane: Lane) -> Backend:
    if isinstance(lane, TensorRtLane):
        return _of_engine(lane.plan, lane.cuda)
    return Backend(lane.info, importlib.metadata.version("onnxruntime"))


def _of_engine(plan: EnginePlan, lane: CudaLane) -> Backend:
    replayed = lane.graphs == "replayed"
    return Backend(
        info=lane.info,
        version=plan.key.version,
        tensorrt=plan.key.version,
        engine_sha256=plan.sha256,
        gpu=Gpu(lane.facts.name, lane.facts.compute_capability),
        sync="spin" if lane.spins else "blocking",
        cuda_graph=replayed,
        no_cuda_graph=None if replayed else lane.graphs.removeprefix("not used: "),
        copies_counted=None if lane.zero_copy else True,
    )
