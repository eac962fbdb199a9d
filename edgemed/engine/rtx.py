"""TensorRT-RTX plans, compiled ahead of time for GPUs that are not here. No GPU is needed."""

from __future__ import annotations

from pathlib import Path

from edgemed.base.errors import IntegrityError
from edgemed.base.progress import Stage
from edgemed.engine.bridge import Bridge, load_bridge
from edgemed.engine.build import BuildRequest, BuiltPlan, Precision, Shape, build_plan

CAPABILITIES = ("8.6", "8.9", "12.0")  # Ampere, Ada and Blackwell RTX
_MALFORMED = 32  # EngineInvalidityDiagnostics.MALFORMED_ENGINE; the diagnostics come as a plain bit mask


def compile_ahead(
    onnx: Path | bytes,
    precision: Precision,
    stage: Stage,
    *,
    capabilities: tuple[str, ...] = CAPABILITIES,
    profiles: dict[str, tuple[Shape, Shape, Shape]] | None = None,
) -> BuiltPlan:
    """Compile one plan that holds code for all `capabilities`; kernels are finished on the device at first load.

    That it compiles proves that NVIDIA's parser and compiler accept the graph. It proves nothing about speed, and
    nothing about a Jetson, whose GPUs TensorRT-RTX does not know.

    Args:
        onnx: the graph; types come from it, so it must be of `precision` already.
        precision: recorded in the result.
        stage: progress.
        capabilities: compute capabilities, e.g. `("8.6", "12.0")`.
        profiles: as in `BuildRequest`.

    Raises:
        MissingSoftwareError: tensorrt_rtx is not installed.
        InputError: the graph is refused; the ONNX node is named.
        KeyboardInterrupt: Ctrl-C; the compilation was cancelled.
    """
    bridge = load_bridge("tensorrt_rtx")
    request = BuildRequest(onnx, precision, compute_capabilities=capabilities, profiles=profiles or {})
    built = build_plan(bridge, request, stage)
    check_header(bridge, built.plan)
    return built


def check_header(bridge: Bridge, plan: bytes) -> None:
    """Refuse bytes that are no plan at all.

    Without a GPU every plan is INVALID and only the MALFORMED_ENGINE bit means something: a wrong magic number, or
    fewer bytes than a header. A flipped byte further in is not seen; hashes are for that.

    Raises:
        IntegrityError: not a TensorRT-RTX plan.
    """
    _, diagnostics = bridge.trt.Runtime(bridge.logger).get_engine_validity(plan)
    if int(diagnostics) & _MALFORMED:
        raise IntegrityError("These bytes are not a TensorRT-RTX plan.", "Build it anew.")
