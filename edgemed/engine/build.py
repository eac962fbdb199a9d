"""Graph to plan: one function for every TensorRT, weakly typed up to 10.11 and strongly typed after."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgemed.base.errors import DeviceStateError, EdgemedError, InputError, ResourceError
from edgemed.base.onnx_bytes import require_whole
from edgemed.base.progress import Stage
from edgemed.base.runner import TensorSpec
from edgemed.engine.bridge import Bridge, Flavour, Native, one_line
from edgemed.engine.failure import NO_GPU, NO_MEMORY
from edgemed.engine.monitor import PhaseTree, interruptible, make_monitor
from edgemed.engine.tensors import dtype_name, varying

Precision = Literal["fp32", "fp16", "int8"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class BuildRequest:
    """What to build a plan from, and for what.

    Attributes:
        onnx: the graph, as a file or as its bytes (bytes that were verified cannot change before they are parsed).
        precision: what the plan shall use. A weakly typed TensorRT gets it as flags; a strongly typed one takes
            it from the graph, which must be of that precision already.
        strongly_typed: whether types come from the graph; None: as this TensorRT prefers.
        compute_capabilities: GPUs to compile for, e.g. `("8.6", "12.0")`; TensorRT-RTX only. Empty: this machine's.
        profiles: least, usual and greatest shape of each input that has a varying dimension.
        workspace_bytes: cap of the builder's scratch memory; None: TensorRT's own.
        optimization_level: 0 (quick build) to 5 (quick engine); None: TensorRT's own.
        timing_cache: measurements of an earlier build on the same device; `b""` starts a new cache, None keeps none.
        dla_core: DLA core to build for, the GPU doing what the DLA cannot; None: the GPU alone.
    """

    onnx: Path | bytes
    precision: Precision
    strongly_typed: bool | None = None
    compute_capabilities: tuple[str, ...] = ()
    profiles: Mapping[str, tuple[Shape, Shape, Shape]] = field(default_factory=dict)
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: bytes | None = None
    dla_core: int | None = None


@dataclass(frozen=True)
class BuiltPlan:
    """A plan and what is known of it. A plan is code: it is loaded only from where its hash is kept."""

    plan: bytes
    flavour: Flavour
    version: str
    precision: Precision
    strongly_typed: bool
    compute_capabilities: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layer_count: int
    seconds: float
    timing_cache: bytes | None = None


def build_plan(bridge: Bridge, request: BuildRequest, stage: Stage) -> BuiltPlan:
    """Parse a graph and build its plan.

    Raises:
        InputError: TensorRT refuses the graph (the ONNX node is named), or a varying input has no profile.
        IntegrityError: the graph reads tensors from other files.
        DeviceStateError: no usable GPU or DLA core, where one is needed.
        ResourceError: out of memory.
        KeyboardInterrupt: Ctrl-C; the build was cancelled.
    """
    phases = PhaseTree(stage)
    # the whole of it in the other thread: a signal handler must not raise inside a callback from C++
    return interruptible(lambda: _build(bridge, request, phases), phases.cancelled)


def _build(bridge: Bridge, request: BuildRequest, phases: PhaseTree) -> BuiltPlan:
    start_ns = time.monotonic_ns()
    strong = bridge.strongly_typed if request.strongly_typed is None else request.strongly_typed
    builder = bridge.builder()
    network = builder.create_network(_creation_flags(bridge, strong))
    _parse(bridge, network, request.onnx)
    config = builder.create_builder_config()
    if not strong:
        _set_precision(bridge, config, request.precision)
    if request.precision == "fp32":
        config.clear_flag(bridge.trt.BuilderFlag.TF32)  # on by default: 10 bits of mantissa where 23 were asked for
    _set_targets(bridge, config, request.compute_capabilities)
    _set_profiles(bridge, builder, network, config, request.profiles)
    _set_dla(bridge, builder, config, request.dla_core)
    cache = _set_tuning(bridge, config, request)
    return BuiltPlan(
        inputs=tuple(_spec(network.get_input(i)) for i in range(network.num_inputs)),
        outputs=tuple(_spec(network.get_output(i)) for i in range(network.num_outputs)),
        layer_count=network.num_layers,
        plan=_serialize(bridge, builder, network, config, phases),
        flavour=bridge.flavour,
        version=bridge.version,
        precision=request.precision,
        strongly_typed=strong,
        compute_capabilities=request.compute_capabilities,
        seconds=(time.monotonic_ns() - start_ns) / 1e9,
        timing_cache=None if cache is None else bytes(cache.serialize()),
    )


def _creation_flags(bridge: Bridge, strong: bool) -> int:
    """EXPLICIT_BATCH is required on 8.x, ignored on 10 and gone in 11; each flag is set where its name exists."""
    names = ["NetworkDefinitionCreationFlag.EXPLICIT_BATCH"]
    if strong:
        names.append("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
    flags = 0
    for name in names:
        flag = bridge.find(name)
        if flag is not None:
            flags |= 1 << int(flag)
    return flags


def _parse(bridge: Bridge, network: Native, onnx: Path | bytes) -> None:
    if isinstance(onnx, Path) and not onnx.is_file():
        raise InputError(f"{onnx} does not exist.", "Give an ONNX file.")
    if isinstance(onnx, bytes):
        require_whole(onnx)
    parser = bridge.trt.OnnxParser(network, bridge.logger)
    if parser.parse_from_file(str(onnx)) if isinstance(onnx, Path) else parser.parse(onnx):
        return
    errors = [_parser_error(bridge, parser.get_error(i)) for i in range(parser.num_errors)]
    what = errors[0] if errors else "it gives no reason"
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    raise InputError(
        f"{bridge.flavour} {bridge.version} cannot read the graph: {what}{more}.",
        "Build the bundle anew, or keep the part that TensorRT has no operator for out of the model.",
    )


def _parser_error(bridge: Bridge, error: Native) -> str:
    reason, index = _text(error.desc), error.node()
    if index < 0:
        return reason
    if bridge.has("ParserError.node_name"):
        return f"node {index} '{_text(error.node_name)}' ({_text(error.node_operator)}): {reason}"
    return f"node {index}: {reason}"


def _text(read: Callable[[], str]) -> str:
    """A string of the bindings; they decode bytes of the file as UTF-8, and raise where it is none."""
    try:
        return one_line(read())
    except UnicodeDecodeError:
        return "(not text)"


def _set_precision(bridge: Bridge, config: Native, precision: Precision) -> None:
    """Builder flags of a weakly typed network. INT8 comes with FP16, or its other layers would run in FP32."""
    wanted = {"fp32": (), "fp16": ("BuilderFlag.FP16",), "int8": ("BuilderFlag.FP16", "BuilderFlag.INT8")}[precision]
    for name in wanted:
        config.set_flag(bridge.find(name))


def _set_targets(bridge: Bridge, config: Native, capabilities: tuple[str, ...]) -> None:
    if not capabilities:
        return
    if not bridge.targets_other_gpus:
        raise InputError(
            f"{bridge.flavour} builds for the GPU it runs on, not for {', '.join(capabilities)}.",
            "Build on the device itself: edgemed build NAME.edgemed",
        )
    members = bridge.trt.ComputeCapability.__members__
    known = {f"{name[2:-1]}.{name[-1]}": member for name, member in members.items() if name.startswith("SM")}
    for capability in capabilities:
        if capability not in known:
            raise InputError(
                f"{bridge.flavour} {bridge.version} knows no compute capability {capability}.",
                f"It knows {', '.join(sorted(known, key=float))}.",
            )
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(known[capability], index)


def _set_profiles(
    bridge: Bridge,
    builder: Native,
    network: Native,
    config: Native,
    profiles: Mapping[str, tuple[Shape, Shape, Shape]],
) -> None:
    specs = [_spec(network.get_input(i)) for i in range(network.num_inputs)]
    varying = [spec for spec in specs if None in spec.shape]
    for spec in varying:
        _check_profile(spec, profiles.get(spec.name))
    if unknown := sorted(set(profiles) - {spec.name for spec in varying}):
        raise InputError(f"'{unknown[0]}' is not an input with a varying dimension.", "Give profiles for those only.")
    if not varying:
        return
    profile = builder.create_optimization_profile()
    for spec in varying:
        profile.set_shape(spec.name, *profiles[spec.name])
    config.add_optimization_profile(profile)
    sharing = bridge.find("PreviewFeature.PROFILE_SHARING_0806")
    if sharing is not None:  # 8.6 would give the one profile to one context only; from 9 on it is so anyway
        config.set_preview_feature(sharing, True)


def _check_profile(spec: TensorSpec, shapes: tuple[Shape, Shape, Shape] | None) -> None:
    if shapes is None:
        raise InputError(
            f"Input {spec} has a dimension that varies, and no range is given for it.",
            f"Give its least, usual and greatest shape, or fix it with: --input {spec.name}=SHAPE",
        )
    ranks_agree = all(len(shape) == len(spec.shape) for shape in shapes)
    ordered = ranks_agree and all(0 < low <= usual <= high for low, usual, high in zip(*shapes, strict=True))
    fixed_agree = ordered and all(
        d is None or d == low == high for d, low, high in zip(spec.shape, shapes[0], shapes[2], strict=True)
    )
    if not fixed_agree:
        raise InputError(f"The shapes {shapes} do not fit input {spec}.", "Give least ≤ usual ≤ greatest, same rank.")


def _set_dla(bridge: Bridge, builder: Native, config: Native, core: int | None) -> None:
    if core is None:
        return
    if not 0 <= core < builder.num_DLA_cores:
        raise DeviceStateError(
            f"There is no DLA core {core}; TensorRT {bridge.version} sees {builder.num_DLA_cores} here.",
            "Build for the GPU, or on a module with DLA and a TensorRT that drives it (`edgemed devices`).",
        )
    config.default_device_type = bridge.trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(bridge.trt.BuilderFlag.GPU_FALLBACK)


def _set_tuning(bridge: Bridge, config: Native, request: BuildRequest) -> Native | None:
    """Memory, effort and timing cache. Returns the cache, which must outlive the build."""
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(bridge.trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    if request.optimization_level is not None:
        config.builder_optimization_level = request.optimization_level
    if request.timing_cache is None or bridge.targets_other_gpus:  # RTX times on the device; a cache asks for a GPU
        return None
    cache = config.create_timing_cache(request.timing_cache)
    if not config.set_timing_cache(cache, False):
        raise InputError("The timing cache is of another device or TensorRT.", "Build without it.")
    return cache


def _spec(tensor: Native) -> TensorSpec:
    return TensorSpec(tensor.name, dtype_name(tensor.dtype), varying(tensor.shape))


def _serialize(bridge: Bridge, builder: Native, network: Native, config: Native, phases: PhaseTree) -> bytes:
    monitor = make_monitor(bridge.trt, phases) if bridge.can_cancel else None  # must outlive the build
    if monitor is not None:
        config.progress_monitor = monitor
    bridge.log.errors.clear()
    memory = builder.build_serialized_network(network, config)
    if memory is None:
        raise _build_error(bridge)
    return bytes(memory)


def _build_error(bridge: Bridge) -> EdgemedError:
    errors = list(bridge.log.errors)
    text = "\n".join(errors).lower()
    reason = one_line(errors[0]) if errors else "it gives no reason"
    who = f"{bridge.flavour} {bridge.version}"
    if any(sign in text for sign in NO_MEMORY):
        return ResourceError(f"{who} ran out of memory: {reason}.", "Close other programs, or add swap, and try again.")
    if any(sign in text for sign in NO_GPU):
        return DeviceStateError(f"{who} cannot use the GPU: {reason}.", "See that the NVIDIA driver works.")
    return InputError(f"{who} cannot build this graph: {reason}.", "Run again with --debug for TensorRT's full log.")
