"""Which Runner a bundle runs on here: its TensorRT engine where this device has one, else ONNX Runtime, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edgemed.base.errors import DeviceStateError, InputError, MissingSoftwareError, UsageError
from edgemed.base.runner import Runner
from edgemed.bundle.model import RunPrecision, graph_of, specs_of
from edgemed.bundle.read import Bundle
from edgemed.device.here import Here, detect_here
from edgemed.engine.onboard import find_plan
from edgemed.engine.plans import Plan
from edgemed.runners.ort import OnnxRuntimeRunner
from edgemed.runtime.contained.spec import Backend
from edgemed.runtime.cuda import require_cuda
from edgemed.runtime.lane import SLOTS, Lane
from edgemed.runtime.prepare import Choice
from edgemed.runtime.runner_lane import RunnerLane
from edgemed.runtime.tensorrt import TensorRtLane, TensorRtRunner

RunnerName = Literal["auto", "tensorrt", "onnxruntime"]


@dataclass(frozen=True)
class OpenedRunner:
    """A Runner that is not entered yet.

    Attributes:
        why: why it is not TensorRT although nobody ruled it out, with what to do; `None` where there is nothing to
            say: it was asked for, or there is no NVIDIA GPU here.
    """

    runner: Runner
    why: str | None = None


@dataclass(frozen=True)
class OpenedLane:
    """A lane that is not entered yet; `why` as of `OpenedRunner`."""

    lane: Lane
    why: str | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether it is that of an engine."""
        return isinstance(self.lane, TensorRtLane)


def open_runner(
    bundle: Bundle,
    *,
    runner: RunnerName = "auto",
    precision: RunPrecision | None = None,
    dla_core: int | None = None,
    here: Here | None = None,
    **options: Any,
) -> OpenedRunner:
    """Choose the Runner of a verified bundle. Nothing of the GPU is touched before it is entered.

    `auto` takes ONNX Runtime where TensorRT cannot be had here: no GPU, no TensorRT or pycuda, no engine of this very
    key, or no graph that this TensorRT takes. An engine that is there and damaged, or that fails, is an error and no
    reason to answer with something else.

    Args:
        bundle: from `open_bundle`.
        runner: `tensorrt` or `onnxruntime` to have that one or an error.
        precision: of the engine or the graph; `None` takes the bundle's own.
        dla_core: DLA core of the engine; only TensorRT has one.
        here: this machine; `None` looks.
        options: for `TensorRtRunner`, where it is that.

    Raises:
        UsageError: a DLA core with ONNX Runtime.
        DeviceStateError: `tensorrt`, and no GPU, or no engine of this bundle is kept for this device.
        MissingSoftwareError: `tensorrt`, and TensorRT or pycuda is not installed.
        InputError: the bundle has no graph for the precision.
        IntegrityError: the engine that is kept is damaged.
    """
    found, why = _find(bundle, runner, precision, dla_core, here)
    return OpenedRunner(TensorRtRunner(found, **options) if isinstance(found, Plan) else found, why)


def open_lane(
    bundle: Bundle,
    *,
    slots: int = SLOTS,
    runner: RunnerName = "auto",
    precision: RunPrecision | None = None,
    dla_core: int | None = None,
    here: Here | None = None,
    prepare: Choice | None = None,
    **options: Any,
) -> OpenedLane:
    """The same as a lane of so many slots.

    Args:
        prepare: chooses kernels that make the input of raw frames; asked on a `TensorRtLane` only, when it is entered.
            Every other lane takes the model's own input.
        options: those of `TensorRtLane`, where it is that.
    """
    found, why = _find(bundle, runner, precision, dla_core, here)
    if isinstance(found, Plan):
        return OpenedLane(TensorRtLane(found, slots, prepare=prepare, **options))
    return OpenedLane(RunnerLane(found, slots), why)


def choose_backend(
    bundle: Bundle, *, runner: RunnerName = "auto", precision: RunPrecision | None = None, here: Here | None = None
) -> tuple[Backend, str | None]:
    """What `open_runner` would take, and why it is not TensorRT, as a name for a worker of its own.

    Raises:
        EdgemedError: as `open_runner`.
    """
    found, why = _find(bundle, runner, precision, None, here)
    return ("tensorrt" if isinstance(found, Plan) else "onnxruntime"), why


def _find(
    bundle: Bundle, runner: RunnerName, precision: RunPrecision | None, dla_core: int | None, here: Here | None
) -> tuple[Plan | OnnxRuntimeRunner, str | None]:
    """What to run, and why it is not TensorRT."""
    if runner == "onnxruntime":
        if dla_core is not None:
            raise UsageError("ONNX Runtime runs on no DLA core.", "Leave out the DLA core, or take --runner tensorrt.")
        return _onnxruntime(bundle, precision), None
    here = here if here is not None else detect_here()
    try:
        plan = find_plan(bundle, precision=precision, dla_core=dla_core, here=here)
        require_cuda()
        return plan, None
    except (DeviceStateError, MissingSoftwareError, InputError) as error:
        if runner == "tensorrt" or dla_core is not None:
            raise
        alone = here.gpu is None and here.board is None
        return _onnxruntime(bundle, precision), None if alone else str(error)


def _onnxruntime(bundle: Bundle, precision: RunPrecision | None) -> OnnxRuntimeRunner:
    chosen, graph = graph_of(bundle, precision)
    return OnnxRuntimeRunner(
        bundle.graph_source(graph), precision=chosen, bundle_digest=bundle.digest, promised=specs_of(bundle)
    )
