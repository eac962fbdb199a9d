"""A stand-in for the `tensorrt` module of one era, for the control flow that needs no GPU.

It has no name, parameter or type that the real bindings of its era lack (test_engine_signatures.py). What a network
holds, and what goes wrong, is scripted.
"""

# ruff: noqa: F821 - annotations are the bindings' own words, not names of this module
from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tests.engine.fake_runtime import EngineScript, add_runtime

FP32 = "FLOAT"


@dataclass
class Script:
    """What the fake shall find and do, and what it was asked."""

    inputs: tuple[tuple[str, str, tuple[int, ...]], ...] = (("x", FP32, (1, 3, 8, 8)),)
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...] = (("y", FP32, (1, 2)),)
    parser_errors: tuple[tuple[int, str, str, str], ...] = ()
    builder_is_null: bool = False
    build_errors: tuple[str, ...] = ()
    dla_cores: int = 0
    accepts_cache: bool = True
    phases: tuple[tuple[str, ...], ...] = ()
    calls: list[tuple[Any, ...]] = field(default_factory=list)


def make_fake(
    version: str, script: Script, engine: EngineScript | None = None, flavour: str = "tensorrt"
) -> ModuleType:
    """The module as that version has it; `engine` is what its plans hold."""
    number = tuple(int(part) for part in version.split("."))
    trt: Any = ModuleType(flavour)
    trt.__version__ = version
    trt.__spec__ = ModuleSpec(flavour, None)  # `find_spec` asks for it
    _add_enums(trt, number)
    _add_interfaces(trt, number)
    _add_network(trt, script, number)
    add_runtime(trt, engine if engine is not None else EngineScript(), flavour, number)
    _add_builder(trt, script, number)
    return trt


def _enum(name: str, *members: str) -> type[IntEnum]:
    return IntEnum(name, [(member, index) for index, member in enumerate(members)])  # type: ignore[return-value]


def _add_enums(trt: Any, number: tuple[int, ...]) -> None:
    flags = ["EXPLICIT_BATCH"] if number < (11,) else []
    trt.NetworkDefinitionCreationFlag = _enum(
        "NetworkDefinitionCreationFlag", *flags, *(["STRONGLY_TYPED"] if number >= (9, 3) else [])
    )
    weak = ("FP16", "INT8") if number < (11,) else ()
    trt.BuilderFlag = _enum("BuilderFlag", "GPU_FALLBACK", "TF32", *weak)
    since_10 = ["INT64", "BF16"] if number >= (10,) else []
    trt.DataType = _enum("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "FP8", *since_10)
    trt.MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
    trt.DeviceType = _enum("DeviceType", "GPU", "DLA")


def _add_interfaces(trt: Any, number: tuple[int, ...]) -> None:
    class ILogger:
        Severity = _enum("Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")

        def log(self, severity: Any, msg: str) -> None:
            raise NotImplementedError

    trt.ILogger = ILogger
    if number < (9, 3):
        return

    class IProgressMonitor:
        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None: ...

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None: ...

    trt.IProgressMonitor = IProgressMonitor


def _add_network(trt: Any, script: Script, number: tuple[int, ...]) -> None:
    class ITensor:
        def __init__(self, row: tuple[str, str, tuple[int, ...]]) -> None:
            self.name, self.dtype, self.shape = row[0], trt.DataType[row[1]], row[2]

    class INetworkDefinition:
        num_inputs = property(lambda self: len(script.inputs))
        num_outputs = property(lambda self: len(script.outputs))
        num_layers = property(lambda self: 3)

        def get_input(self, index: int) -> ITensor:
            return ITensor(script.inputs[index])

        def get_output(self, index: int) -> ITensor:
            return ITensor(script.outputs[index])

    class ParserError:
        def __init__(self, row: tuple[int, str, str, str]) -> None:
            self._row = row

        def node(self) -> int:
            return self._row[0]

        def desc(self) -> str:
            return self._row[3]

    if number >= (9, 3):
        ParserError.node_name = lambda self: self._row[1]  # type: ignore[attr-defined]
        ParserError.node_operator = lambda self: self._row[2]  # type: ignore[attr-defined]

    class OnnxParser:
        num_errors = property(lambda self: len(script.parser_errors))

        def __init__(self, network: INetworkDefinition, logger: Any) -> None: ...

        def parse(self, model: buffer, path: str | None = None) -> bool:
            script.calls.append(("parse", model))
            return not script.parser_errors

        def parse_from_file(self, model: str) -> bool:
            script.calls.append(("parse_from_file", model))
            return not script.parser_errors

        def get_error(self, index: int) -> IParserError:
            return ParserError(script.parser_errors[index])

    trt.ITensor, trt.INetworkDefinition, trt.ParserError, trt.OnnxParser = (
        ITensor,
        INetworkDefinition,
        ParserError,
        OnnxParser,
    )


def _add_builder(trt: Any, script: Script, number: tuple[int, ...]) -> None:
    class IOptimizationProfile:
        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            script.calls.append(("set_shape", input, min, opt, max))

    class ITimingCache:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> IHostMemory:
            return self._data + b"+measured"

    class IBuilderConfig:
        builder_optimization_level = 3
        default_device_type = trt.DeviceType.GPU
        DLA_core = -1

        def set_flag(self, flag: Any) -> None:
            script.calls.append(("set_flag", flag.name))

        def clear_flag(self, flag: Any) -> None:
            script.calls.append(("clear_flag", flag.name))

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            script.calls.append(("set_memory_pool_limit", pool.name, pool_size))

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            script.calls.append(("add_optimization_profile",))
            return 0

        def set_preview_feature(self, feature: Any, enable: bool) -> None:
            script.calls.append(("set_preview_feature", feature.name, enable))

        def create_timing_cache(self, serialized_timing_cache: buffer) -> ITimingCache:
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            return script.accepts_cache

    if number >= (9, 3):
        IBuilderConfig.progress_monitor = None  # type: ignore[attr-defined]

    class Builder:
        num_DLA_cores = property(lambda self: script.dla_cores)

        def __init__(self, logger: Any) -> None:
            self._logger = logger
            if script.builder_is_null:
                logger.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure with error: 100")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int = 0) -> Any:
            names = [flag.name for flag in trt.NetworkDefinitionCreationFlag if flags & (1 << flag)]
            script.calls.append(("create_network", *names))
            return trt.INetworkDefinition()

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: IBuilderConfig) -> IHostMemory | None:
            script.calls.append(("config", dict(vars(config))))
            monitor = getattr(config, "progress_monitor", None)
            for name, *arguments in script.phases if monitor is not None else ():
                if getattr(monitor, name)(*arguments) is False:
                    self._logger.log(trt.ILogger.Severity.ERROR, "Error Code 7: BuildCanceled")
                    return None
            for message in script.build_errors:
                self._logger.log(trt.ILogger.Severity.ERROR, message)
            return None if script.build_errors else b"plan of " + trt.__version__.encode()

    trt.IOptimizationProfile, trt.ITimingCache = IOptimizationProfile, ITimingCache
    trt.IBuilderConfig, trt.Builder = IBuilderConfig, Builder
