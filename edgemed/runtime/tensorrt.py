"""TensorRT on the device: an engine opened in the process's CUDA context, its lane, and the Runner over it.

Tested on real pycuda with a fake TensorRT, and through the real bindings over a stand-in for the library behind them;
not run on TensorRT itself.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from edgemed.base.errors import GpuError
from edgemed.base.runner import RunnerInfo, RunnerSpecs
from edgemed.base.spans import Span, SpanLog
from edgemed.device.board import detect_board
from edgemed.device.gpu import Gpu
from edgemed.device.here import Here
from edgemed.engine.bridge import load_bridge
from edgemed.engine.execution import TensorRtExecution
from edgemed.engine.load import LoadedEngine, load_engine
from edgemed.engine.output import DeviceCalls
from edgemed.engine.plans import Plan, kept_plan
from edgemed.runners.ort import check_feeds
from edgemed.runtime import driver
from edgemed.runtime.arena import keep_forever
from edgemed.runtime.cuda import Arena, Cuda, open_cuda
from edgemed.runtime.cuda_lane import CudaLane
from edgemed.runtime.execution import Execution
from edgemed.runtime.lane import SLOTS, Shapes, Stage
from edgemed.runtime.prepare import Choice, Prepare


class OpenedEngine:
    """An engine in the CUDA context of this process, with its execution contexts.

    Args:
        plan: verified; see `edgemed.engine.plans`.
        contexts: execution contexts, each with its own scratch memory.
        dla_core: DLA core to run on; `None` takes the one that the engine was built for, if any.
        device: index of the GPU.

    Attributes:
        cuda: the device.
        executions: one for each context.
        info: who answers.

    Raises:
        MissingSoftwareError: pycuda, the driver or TensorRT is not installed.
        DeviceStateError: no such GPU or DLA core, or the engine was built for another machine.
        IntegrityError: the plan is not what its record says.
        InputError: it has tensors that a Runner cannot fill.
        GpuError: the GPU failed, or has no memory for it.
    """

    def __init__(self, plan: Plan, *, contexts: int = 1, dla_core: int | None = None, device: int = 0) -> None:
        if contexts < 1:
            raise ValueError("an engine runs in one context at least")
        self.cuda: Cuda = open_cuda(device)
        facts = self.cuda.facts
        bridge = load_bridge(plan.key.flavour)
        self._grown: dict[int, Arena] = {}
        with ExitStack() as undo:
            arena = undo.enter_context(self.cuda.arena())
            self._stream = arena.stream()
            here = Here(detect_board(), Gpu(facts.name, facts.compute_capability))
            with self.cuda.current():
                self._engine: LoadedEngine = load_engine(plan, bridge, here, dla_core=dla_core)
                undo.callback(self._close_engine)
                self.executions: tuple[Execution, ...] = tuple(self._execution() for _ in range(contexts))
            self._undo = undo.pop_all()
        core = plan.key.dla_core if dla_core is None else dla_core
        name = facts.name if core is None else f"{facts.name} DLA {core}"
        self.info = RunnerInfo(plan.key.flavour, plan.key.precision, name, plan.key.bundle)

    @property
    def specs(self) -> RunnerSpecs:
        """What the engine takes and gives."""
        return self.executions[0].specs

    def close(self) -> None:
        """Free contexts, engine and runtime, in that order. Doing it twice does no harm."""
        self._undo.close()

    def _execution(self) -> TensorRtExecution:
        return self._engine.execution(
            DeviceCalls(
                stream=self._stream.handle,
                synchronize=self.cuda.synchronize,
                allocate=self._allocate,
                free=self._free,
                lost=driver.health.record,
            )
        )

    def _close_engine(self) -> None:
        if not self.cuda.usable:
            keep_forever(self._engine)  # in a context that is lost its destructors may hang or crash
            return
        with self.cuda.current():
            self._engine.close()

    def _allocate(self, size: int) -> int:
        """Memory that goes by itself, which an arena's other memory does not."""
        arena = self.cuda.arena()
        try:
            address = arena.device(size)
        except BaseException:
            arena.close()
            raise
        self._grown[address] = arena
        return address

    def _free(self, address: int) -> None:
        self._grown.pop(address).close()


class TensorRtLane:
    """The lane of an engine that is opened on entering: see `CudaLane`. The device is freed on leaving.

    Args:
        plan: a verified plan, or an engine folder.
        slots: see `lane.SLOTS`.
        contexts: execution contexts of the engine; with several, frames compute side by side.
        dla_core: DLA core to run on; `None` takes the one that the engine was built for, if any.
        graphs: replay a CUDA graph where the engine allows it.
        prepare: kernels that make inputs of raw frames; or what chooses them, once the engine is loaded.
        device: index of the GPU.

    Attributes:
        timed: whether `stages` is wanted; set before entering.
    """

    overlaps = True

    def __init__(
        self,
        plan: Plan | Path,
        slots: int = SLOTS,
        *,
        contexts: int = 1,
        dla_core: int | None = None,
        graphs: bool = True,
        prepare: Prepare | Choice | None = None,
        device: int = 0,
    ) -> None:
        self.timed = False
        self._plan = plan
        self._wanted_slots = slots
        self._contexts = contexts
        self._dla_core = dla_core
        self._graphs = graphs
        self._prepare = prepare
        self._device = device
        self._lane: CudaLane | None = None
        self._undo = ExitStack()

    @property
    def plan(self) -> Plan:
        """What it runs.

        Raises:
            IntegrityError: it is that of a folder, whose record is missing or damaged.
        """
        if isinstance(self._plan, Path):
            self._plan = kept_plan(self._plan)
        return self._plan

    @property
    def cuda(self) -> CudaLane:
        """The lane that drives the engine, once entered."""
        if self._lane is None:
            raise RuntimeError("the lane was not entered")
        return self._lane

    @property
    def specs(self) -> RunnerSpecs:
        return self.cuda.specs

    @property
    def info(self) -> RunnerInfo:
        return self.cuda.info

    @property
    def slots(self) -> int:
        return self._wanted_slots if self._lane is None else self._lane.slots

    @property
    def poisoned(self) -> GpuError | None:
        """The sticky error after which every frame fails, if there was one: the process has to be replaced."""
        return self.cuda.poisoned

    def __enter__(self) -> TensorRtLane:
        """Load the engine and allocate everything; see `OpenedEngine` for what it raises. A failure leaves nothing."""
        if self._lane is not None:
            raise RuntimeError("the lane is entered already")
        with ExitStack() as undo:
            engine = OpenedEngine(self.plan, contexts=self._contexts, dla_core=self._dla_core, device=self._device)
            undo.callback(engine.close)
            prepare = self._prepare
            lane = CudaLane(
                engine.cuda,
                engine.executions,
                engine.info,
                self._wanted_slots,
                graphs=self._graphs,
                prepare=prepare(engine.cuda.facts) if callable(prepare) else prepare,
            )
            lane.timed = self.timed
            self._lane = undo.enter_context(lane)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lane = None
        self._undo.close()

    def inputs(self, slot: int, shapes: Shapes | None = None) -> Mapping[str, NDArray[Any]]:
        """See `CudaLane.inputs`."""
        return self.cuda.inputs(slot, shapes)

    def start(self, slot: int) -> None:
        """See `CudaLane.start`."""
        self.cuda.start(slot)

    def finish(self, slot: int) -> Mapping[str, NDArray[Any]]:
        """See `CudaLane.finish`."""
        return self.cuda.finish(slot)

    def stages(self, slot: int) -> Sequence[Stage]:
        """See `CudaLane.stages`."""
        return self.cuda.stages(slot)


class TensorRtRunner:
    """Runs an engine, one inference at a time. Neither transposes nor casts: feeds match `specs`, or are refused.

    The device is touched on entering, and freed on leaving. A batch that varies may be any that a profile takes.

    Args:
        plan: a verified plan, or an engine folder.
        contexts, dla_core, graphs, device: as of `TensorRtLane`.
        timed: spans are the device's own, of copies and computation; else one, `compute`, from feeds to fetches.
    """

    def __init__(
        self,
        plan: Plan | Path,
        *,
        contexts: int = 1,
        dla_core: int | None = None,
        graphs: bool = True,
        timed: bool = False,
        device: int = 0,
    ) -> None:
        self.plan = plan
        self._lock = threading.Lock()
        self._timed = timed
        self._lane = TensorRtLane(plan, 1, contexts=contexts, dla_core=dla_core, graphs=graphs, device=device)
        self._lane.timed = timed

    @property
    def specs(self) -> RunnerSpecs:
        return self._lane.specs

    @property
    def info(self) -> RunnerInfo:
        return self._lane.info

    @property
    def lane(self) -> CudaLane:
        """The lane of one slot that it drives, once entered; its `graphs` says what came of them."""
        return self._lane.cuda

    def __enter__(self) -> TensorRtRunner:
        """Load the engine; see `OpenedEngine` for what it raises."""
        self._lane.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:  # an inference of another thread ends first
            self._lane.__exit__(kind, value, traceback)

    def infer(
        self, feeds: Mapping[str, NDArray[Any]], *, frame: int | None = None, spans: SpanLog | None = None
    ) -> dict[str, NDArray[Any]]:
        """See `Runner.infer`; threads take turns.

        Raises:
            InputError: a feed is missing, unknown, has another dtype or shape, or a batch that no profile takes.
            GpuError: the GPU failed; `sticky` where this process can use it no more.
        """
        lane = self._lane.cuda
        check_feeds(lane.specs, feeds)
        shapes = {spec.name: feeds[spec.name].shape for spec in lane.specs.inputs if None in spec.shape}
        with self._lock:
            with nullcontext() if spans is None or self._timed else spans.record("compute", frame):
                memory = lane.inputs(0, shapes or None)
                for name, array in feeds.items():
                    memory[name][...] = array
                lane.start(0)
                answer = {name: value.copy() for name, value in lane.finish(0).items()}
            if spans is not None and self._timed:
                spans.spans.extend(Span(name, start, end, frame) for name, start, end in lane.stages(0))
        return answer
