"""A kept plan becomes an engine that can run. Its bytes are verified and its key compared before TensorRT sees them.

Written against the real bindings and held to their names and signatures by the conformance test; it cannot run where
there is no GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from edgemed.base.errors import DeviceStateError, InputError, IntegrityError
from edgemed.base.runner import TensorSpec
from edgemed.device.here import Here
from edgemed.engine.bridge import Bridge, Native
from edgemed.engine.execution import Profile, Shape, TensorRtExecution
from edgemed.engine.failure import gpu_error, load_error
from edgemed.engine.output import DeviceCalls
from edgemed.engine.plans import Plan, kept_plan, require_key
from edgemed.engine.recorder import ErrorBook, make_recorder
from edgemed.engine.tensors import NUMPY_NAMES, dtype_name, varying

_BUILD_AGAIN = "Build it anew: edgemed build NAME.edgemed --force"


@dataclass
class Natives:
    """What TensorRT made for one engine, freed in the order that it asks for."""

    book: ErrorBook
    runtime: Native = None
    engine: Native = None
    recorders: list[Native] = field(default_factory=list)

    def recorder(self, bridge: Bridge, book: ErrorBook) -> Native:
        """A recorder that lives until all is closed: an object calls its recorder for as long as it lives."""
        recorder = make_recorder(bridge.trt, book)
        self.recorders.append(recorder)
        return recorder

    def new_context(self, bridge: Bridge, recorder: Native) -> Native:
        """A new `IExecutionContext` that reports to `recorder`.

        Raises:
            GpuError: TensorRT gives none.
        """
        logged = bridge.log.total
        context = self.engine.create_execution_context()
        if context is not None and not self.book:
            context.error_recorder = recorder
            return context
        context = None
        reported = self.book.take()
        messages = [report.message for report in reported] or bridge.log.since(logged)
        raise gpu_error(bridge, "make an execution context", [report.code for report in reported], messages)

    def close(self) -> None:
        """Free the engine, then the runtime. Contexts are gone before."""
        self.engine = None
        self.runtime = None
        self.recorders = []


class LoadedEngine:
    """A deserialised engine. Made, used and closed with the CUDA context current.

    Attributes:
        key: what it was built for.
        specs: what it takes and gives; `None` marks a dimension that may vary.
        profiles: least, usual and greatest shape of each varying input, for each optimization profile.
    """

    def __init__(self, bridge: Bridge, plan: Plan, natives: Natives) -> None:
        self.key = plan.key
        self.specs = plan.specs
        self._bridge = bridge
        self._place = plan.place
        self._natives = natives
        self._executions: list[TensorRtExecution] = []
        self._check_tensors()
        self.profiles: tuple[Profile, ...] = self._read_profiles()

    @property
    def aux_streams(self) -> int:
        """How many auxiliary streams it works on beside the one it is enqueued on."""
        return int(self._engine.num_aux_streams)

    def execution(self, device: DeviceCalls) -> TensorRtExecution:
        """A new context, with memory and errors of its own.

        Raises:
            GpuMemoryError: the GPU has no memory for another one.
            GpuError: TensorRT refuses.
        """
        if self._engine is None:
            raise RuntimeError("the engine was closed")
        book = ErrorBook()
        execution = TensorRtExecution(
            self._bridge,
            self._natives.new_context(self._bridge, self._natives.recorder(self._bridge, book)),
            book,
            self.specs,
            self.profiles,
            device,
            graphs=self.key.dla_core is None,  # cuDLA's work is no node of a CUDA graph
            closed=self._forget,
        )
        self._executions.append(execution)
        try:
            execution.start()
        except BaseException:
            execution.close()
            raise
        return execution

    def close(self) -> None:
        """Free contexts, then the engine, then the runtime. Doing it twice does no harm."""
        for execution in list(self._executions):
            execution.close()
        self._natives.close()

    def __enter__(self) -> LoadedEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _engine(self) -> Native:
        """Never in a local variable: an exception keeps those of its frames, and the engine must go in `close`."""
        return self._natives.engine

    def _forget(self, execution: TensorRtExecution) -> None:
        self._executions = [other for other in self._executions if other is not execution]

    def _check_tensors(self) -> None:
        """The engine's tensors are those of the record, in memory and types that a Runner can fill.

        Raises:
            InputError: a tensor in host memory, in a packed format, or of a type that numpy lacks.
            IntegrityError: it is another engine than the record tells of.
        """
        found: dict[str, TensorSpec] = {}
        inputs: set[str] = set()
        for index in range(self._engine.num_io_tensors):
            spec = self._tensor(self._engine.get_tensor_name(index))
            found[spec.name] = spec
            if self._engine.get_tensor_mode(spec.name) == self._bridge.trt.TensorIOMode.INPUT:
                inputs.add(spec.name)
        promised = {spec.name: spec for spec in (*self.specs.inputs, *self.specs.outputs)}
        if found != promised or inputs != {spec.name for spec in self.specs.inputs}:
            raise IntegrityError(
                f"{self._place} holds an engine with {_listed(found)}, and its record says {_listed(promised)}.",
                _BUILD_AGAIN,
            )

    def _tensor(self, name: str) -> TensorSpec:
        trt = self._bridge.trt
        if self._engine.get_tensor_location(name) == trt.TensorLocation.HOST:
            raise InputError(
                f"Tensor {name} of the engine is read from host memory, as values that decide shapes are.",
                "Build from a model whose shapes depend on the shapes of its inputs only.",
            )
        if self._engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
            raise InputError(
                f"Tensor {name} of the engine is packed as {self._engine.get_tensor_format(name).name}.",
                "Build the engine with edgemed, which asks for the plain layout.",
            )
        dtype = dtype_name(self._engine.get_tensor_dtype(name))
        if dtype not in NUMPY_NAMES.values():
            raise InputError(
                f"Tensor {name} of the engine is {dtype}, which numpy has not.",
                "Build from a graph whose inputs and outputs are float32 or float16.",
            )
        return TensorSpec(name, dtype, varying(self._engine.get_tensor_shape(name)))

    def _read_profiles(self) -> tuple[Profile, ...]:
        names = [spec.name for spec in self.specs.inputs if None in spec.shape]
        if not names:
            return ()
        return tuple(self._profile(names, index) for index in range(self._engine.num_optimization_profiles))

    def _profile(self, names: list[str], index: int) -> Mapping[str, tuple[Shape, Shape, Shape]]:
        profile: dict[str, tuple[Shape, Shape, Shape]] = {}
        for name in names:
            least, usual, greatest = (tuple(dims) for dims in self._engine.get_tensor_profile_shape(name, index))
            profile[name] = (least, usual, greatest)
        return profile


def load_engine(source: Path | Plan, bridge: Bridge, here: Here, *, dla_core: int | None = None) -> LoadedEngine:
    """Deserialise an engine that was built for this very machine. Called with the CUDA context current.

    Args:
        source: an engine folder, or a plan; its bytes are read and verified here.
        bridge: the TensorRT to load it with.
        here: this machine.
        dla_core: DLA core to run on; `None` takes the one that the engine was built for, if any.

    Raises:
        IntegrityError: the folder is damaged, or the plan is not what its record says.
        DeviceStateError: it was built for another machine or software (the message names every difference), TensorRT
            finds no GPU, or there is no such DLA core.
        InputError: it has tensors that a Runner cannot fill.
        GpuMemoryError: the GPU has no memory for it.
        GpuError: the GPU failed.
    """
    plan = kept_plan(source) if isinstance(source, Path) else source
    require_key(plan, bridge, here)
    natives = _deserialize(bridge, plan, dla_core)
    try:
        return LoadedEngine(bridge, plan, natives)
    except BaseException:
        natives.close()
        raise


def _deserialize(bridge: Bridge, plan: Plan, dla_core: int | None) -> Natives:
    data = plan.read()
    natives = Natives(ErrorBook())
    recorder = natives.recorder(bridge, natives.book)
    natives.runtime = bridge.runtime()
    try:
        natives.runtime.error_recorder = recorder
        natives.runtime.engine_host_code_allowed = False  # a version-compatible plan would bring host code of its own
        _choose_dla(bridge, natives, plan, dla_core)
        logged = bridge.log.total
        natives.engine = natives.runtime.deserialize_cuda_engine(data)
        if natives.engine is None or natives.book:
            messages = [report.message for report in natives.book.take()] or bridge.log.since(logged)
            raise load_error(bridge, messages)
        natives.engine.error_recorder = recorder
    except BaseException:
        natives.close()
        raise
    return natives


def _choose_dla(bridge: Bridge, natives: Natives, plan: Plan, wanted: int | None) -> None:
    built = plan.key.dla_core
    if built is None and wanted is not None:
        raise DeviceStateError(
            f"{plan.place} was built for the GPU, not for a DLA core.",
            f"Build one for the DLA: edgemed build NAME.edgemed --fp16 --dla-core {wanted}",
        )
    core = built if wanted is None else wanted
    if core is None:
        return
    if not 0 <= core < natives.runtime.num_DLA_cores:
        raise DeviceStateError(
            f"There is no DLA core {core}; TensorRT {bridge.version} sees {natives.runtime.num_DLA_cores} here.",
            "Run on the GPU, or on a module with DLA and a TensorRT that drives it (`edgemed devices`).",
        )
    natives.runtime.DLA_core = core


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(str(spec) for spec in specs.values()) or "no tensors"
