"""The running half of the fake TensorRT: `Runtime`, `ICudaEngine`, `IExecutionContext` and what we subclass.

As in fake_tensorrt.py, there is no name, parameter or type here that the real bindings of the era lack; annotations are
the bindings' own, where 11 says `SupportsInt` for `int`. `EngineScript.work` is what an execution does on its stream:
nothing by default, kernels where a CUDA driver is at hand.
"""

# ruff: noqa: F821 - annotations are the bindings' own words, not names of this module
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

Dims = tuple[int, ...]
Tensor = tuple[str, str, str, Dims]  # name, INPUT or OUTPUT, member of DataType, shape (-1 varies)
Report = tuple[str, str]  # member of ErrorCodeTRT, what it says


@dataclass
class Enqueued:
    """What one `execute_async_v3` was given."""

    stream: int
    shapes: Mapping[str, Dims]
    addresses: Mapping[str, int]
    consumed: int
    context: int


@dataclass
class EngineScript:
    """What the engine in the plan is, and what goes wrong with it.

    Attributes:
        profiles: per optimization profile, least, usual and greatest shape of each varying input.
        output_shape: shape of an output for given input shapes; -1 where only the data decides.
        work: puts the work of an execution on its stream; may raise.
        grown_shape: what a data-dependent output turns out to be.
        alive: what was made and not freed yet, in order; `freed` is the order in which it went.
        on_free: called when something goes.
    """

    tensors: tuple[Tensor, ...] = (("x", "INPUT", "FLOAT", (1, 3, 8, 8)), ("y", "OUTPUT", "FLOAT", (1, 2)))
    profiles: tuple[dict[str, tuple[Dims, Dims, Dims]], ...] = ({},)
    output_shape: Callable[[str, Mapping[str, Dims]], Dims] | None = None
    grown_shape: Dims = (5, 6)
    item_bytes: int = 4
    work: Callable[[Enqueued], None] | None = None
    plan_errors: tuple[Report, ...] = ()
    plan_log: tuple[str, ...] = ()
    runtime_is_null: bool = False
    context_errors: tuple[Report, ...] = ()
    contexts_left: int = 99
    context_is_null: bool = False
    refused: dict[str, tuple[Report, ...]] = field(default_factory=dict)
    late: tuple[Report, ...] = ()
    hosted: tuple[str, ...] = ()
    packed: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    contradiction: str = ""
    dla_cores: int = 0
    aux_streams: int = 0
    shares_profiles: bool = True
    capturable: bool = True
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    alive: list[str] = field(default_factory=list)
    freed: list[str] = field(default_factory=list)
    on_free: Callable[[str], None] | None = None


def add_runtime(trt: Any, script: EngineScript, flavour: str, number: tuple[int, ...]) -> None:
    """Give the module the names that running an engine takes."""
    _add_enums(trt, number)
    _add_bases(trt)
    context = _context_class(trt, script, flavour, number)
    engine = _engine_class(trt, script, context)
    runtime = _runtime_class(trt, script, engine)
    trt.IExecutionContext, trt.ICudaEngine, trt.Runtime = context, engine, runtime


def _enum(name: str, *members: str) -> type[IntEnum]:
    return IntEnum(name, [(member, index) for index, member in enumerate(members)])  # type: ignore[return-value]


def _add_enums(trt: Any, number: tuple[int, ...]) -> None:
    trt.TensorIOMode = _enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")
    trt.TensorLocation = _enum("TensorLocation", "DEVICE", "HOST")
    trt.TensorFormat = _enum("TensorFormat", "LINEAR", "CHW2", "HWC8", "CHW4")
    trt.ErrorCodeTRT = _enum(
        "ErrorCodeTRT",
        *("SUCCESS", "UNSPECIFIED_ERROR", "INTERNAL_ERROR", "INVALID_ARGUMENT", "INVALID_CONFIG"),
        *("FAILED_ALLOCATION", "FAILED_INITIALIZATION", "FAILED_EXECUTION", "FAILED_COMPUTATION"),
        *("INVALID_STATE", "UNSUPPORTED_STATE"),
    )
    sharing = ["PROFILE_SHARING_0806"] if number < (11,) else []
    trt.PreviewFeature = _enum("PreviewFeature", *sharing, *(["ALIASED_PLUGIN_IO_10_03"] if number >= (10, 3) else []))


def _add_bases(trt: Any) -> None:
    class IErrorRecorder:
        def num_errors(self) -> int:
            return self.get_num_errors()  # as pybind11's trampoline: C++ looks up this name

        def get_error_code(self, arg0: int) -> ErrorCodeTRT:
            raise NotImplementedError

        def get_error_desc(self, arg0: int) -> str:
            raise NotImplementedError

        def has_overflowed(self) -> bool:
            raise NotImplementedError

        def clear(self) -> None:
            raise NotImplementedError

        def report_error(self, arg0: ErrorCodeTRT, arg1: str) -> bool:
            raise NotImplementedError

    class IOutputAllocator:
        pass

    trt.IErrorRecorder, trt.IOutputAllocator = IErrorRecorder, IOutputAllocator


class _Part:
    """An object of C++: it counts among the living until its last reference dies."""

    def __init__(self, script: EngineScript, label: str) -> None:
        self._script, self._label = script, label
        script.alive.append(label)

    def __del__(self) -> None:
        self._script.alive.remove(self._label)
        self._script.freed.append(self._label)
        if self._script.on_free is not None:
            self._script.on_free(self._label)


def _report(trt: Any, part: Any, reports: tuple[Report, ...]) -> None:
    """To the object's own recorder, else to the log."""
    for code, message in reports:
        if part.error_recorder is not None:
            part.error_recorder.report_error(trt.ErrorCodeTRT[code], message)
        else:
            part._logger.log(trt.ILogger.Severity.ERROR, message)


def _runtime_class(trt: Any, script: EngineScript, engine_class: Any) -> Any:
    class Runtime(_Part):
        DLA_core = -1
        num_DLA_cores = property(lambda self: script.dla_cores)
        engine_host_code_allowed = False
        error_recorder: Any = None

        def __init__(self, logger: ILogger) -> None:
            self._logger = logger
            if script.runtime_is_null:
                script.alive.append("null")
                self._script, self._label = script, "null"
                logger.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            super().__init__(script, "runtime")
            script.calls.append(("Runtime",))

        def deserialize_cuda_engine(self, serialized_engine: buffer) -> ICudaEngine:
            script.calls.append(("deserialize", bytes(serialized_engine), self.engine_host_code_allowed, self.DLA_core))
            for message in script.plan_log:
                self._logger.log(trt.ILogger.Severity.ERROR, message)
            _report(trt, self, script.plan_errors)
            return None if script.plan_log or script.plan_errors else engine_class(self)

    return Runtime


def _engine_class(trt: Any, script: EngineScript, context_class: Any) -> Any:
    rows = {row[0]: row for row in script.tensors}

    class ICudaEngine(_Part):
        num_io_tensors = property(lambda self: len(script.tensors))
        num_optimization_profiles = property(lambda self: len(script.profiles))
        num_aux_streams = property(lambda self: script.aux_streams)
        error_recorder: Any = None

        def __init__(self, runtime: Any) -> None:
            super().__init__(script, "engine")
            self._runtime, self._logger = runtime, runtime._logger  # keep_alive<0, 1>
            self._made = 0

        def get_tensor_name(self, index: int) -> str:
            return script.tensors[index][0]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return trt.TensorIOMode[rows[name][1]]

        def get_tensor_dtype(self, name: str) -> DataType:
            return trt.DataType[rows[name][2]]

        def get_tensor_shape(self, name: str) -> Dims:
            return rows[name][3]

        def get_tensor_location(self, name: str) -> TensorLocation:
            return trt.TensorLocation["HOST" if name in script.hosted else "DEVICE"]

        def get_tensor_format(self, name: str) -> TensorFormat:
            return trt.TensorFormat[script.packed.get(name, "LINEAR")]

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
            return list(script.profiles[profile_index][name])

        def create_execution_context(self) -> IExecutionContext:
            _report(trt, self, script.context_errors)
            if script.context_is_null or self._made >= script.contexts_left:
                return None
            self._made += 1
            return context_class(self, self._made)

    return ICudaEngine


def _context_class(trt: Any, script: EngineScript, flavour: str, number: tuple[int, ...]) -> Any:
    reallocation = "reallocate_output" if number < (10,) else "reallocate_output_async"

    class IExecutionContext(_Part):
        error_recorder: Any = None

        def __init__(self, engine: Any, made: int) -> None:
            super().__init__(script, f"context {made}")
            self._engine, self._logger, self._made = engine, engine._logger, made  # keep_alive<0, 1>
            self._profile = 0 if made == 1 or script.shares_profiles else -1
            self._shapes = {t[0]: t[3] for t in script.tensors if t[1] == "INPUT" and -1 not in t[3]}
            self._addresses: dict[str, int] = {}
            self._allocators: dict[str, Any] = {}
            self._consumed = 0

        @property
        def active_optimization_profile(self) -> int:
            return self._profile

        def set_aux_streams(self, aux_streams: list[int]) -> None:
            script.calls.append(("set_aux_streams", tuple(aux_streams)))

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            script.calls.append(("set_optimization_profile_async", profile_index, stream_handle))
            self._profile = profile_index
            for name in script.profiles[profile_index]:
                self._shapes.pop(name, None)  # a new profile forgets them
            return self._accept("set_optimization_profile_async")

        def set_input_shape(self, name: str, shape: Dims) -> bool:
            script.calls.append(("set_input_shape", name, shape))
            least, _, greatest = script.profiles[self._profile][name]
            if not all(low <= size <= high for low, size, high in zip(least, shape, greatest, strict=True)):
                _report(trt, self, (("INVALID_ARGUMENT", f"{name}: outside profile {self._profile}"),))
                return False
            self._shapes[name] = shape
            return self._accept("set_input_shape")

        def infer_shapes(self) -> list[str]:
            script.calls.append(("infer_shapes",))
            if script.contradiction:
                _report(trt, self, (("INVALID_ARGUMENT", script.contradiction),))
                raise RuntimeError("infer_shapes error code: -1")
            unset = [t[0] for t in script.tensors if t[1] == "INPUT" and t[0] not in self._shapes]
            return [*unset, *script.missing]

        def get_tensor_shape(self, name: str) -> Dims:
            if name in self._shapes:
                return self._shapes[name]
            if script.output_shape is not None:
                return script.output_shape(name, self._shapes)
            return {row[0]: row for row in script.tensors}[name][3]

        def set_tensor_address(self, name: str, memory: int) -> bool:
            script.calls.append(("set_tensor_address", name, memory))
            self._addresses[name] = memory
            return self._accept("set_tensor_address")

        def set_output_allocator(self, name: str, output_allocator: IOutputAllocator) -> bool:
            script.calls.append(("set_output_allocator", name, output_allocator is not None))
            if output_allocator is None:
                self._allocators.pop(name, None)
            else:
                self._allocators[name] = output_allocator
            return self._accept("set_output_allocator")

        def set_input_consumed_event(self, event: int) -> bool:
            script.calls.append(("set_input_consumed_event", event))
            self._consumed = event
            return self._accept("set_input_consumed_event")

        def execute_async_v3(self, stream_handle: int) -> bool:
            script.calls.append(("execute_async_v3", self._made, stream_handle))
            if not self._accept("execute_async_v3") or not self._allocate(stream_handle):
                return False
            if unbound := [t[0] for t in script.tensors if not self._addresses.get(t[0])]:
                _report(trt, self, (("INVALID_STATE", f"no address for {', '.join(unbound)}"),))
                return False
            if script.work is not None:
                given = dict(self._addresses)
                script.work(Enqueued(stream_handle, dict(self._shapes), given, self._consumed, self._made))
            for name, allocator in self._allocators.items():
                allocator.notify_shape(name, script.grown_shape)
            _report(trt, self, script.late)
            return True

        def _allocate(self, stream: int) -> bool:
            """As C++ does: `reallocate_output_async` from 10 on; NULL ends the execution."""
            size = script.item_bytes
            for dim in script.grown_shape:
                size *= dim
            for name, allocator in self._allocators.items():
                more = () if number < (10,) else (stream,)
                address = getattr(allocator, reallocation)(name, self._addresses.get(name, 0), size, 256, *more)
                if not address:
                    _report(trt, self, (("FAILED_ALLOCATION", f"no memory for output {name}"),))
                    return False
                self._addresses[name] = address
            return True

        def _accept(self, call: str) -> bool:
            reports = script.refused.get(call)
            _report(trt, self, reports or ())
            return reports is None

    if flavour == "tensorrt_rtx":

        def is_stream_capturable(self: Any, stream: int) -> bool:
            return script.capturable

        IExecutionContext.is_stream_capturable = is_stream_capturable  # type: ignore[attr-defined]
    return IExecutionContext
