"""What a bundle's model takes and gives, and which of its graphs ONNX Runtime runs."""

from __future__ import annotations

from typing import Final, Literal

from edgemed.base.errors import InputError
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.bundle.manifest import GraphName
from edgemed.bundle.read import Bundle

RunPrecision = Literal["fp32", "fp16", "int8"]

GRAPHS: Final[dict[RunPrecision, GraphName]] = {"fp32": "float", "fp16": "fp16", "int8": "int8"}
"""The graph that ONNX Runtime runs for a precision."""


def specs_of(bundle: Bundle) -> RunnerSpecs:
    """What the manifest says that the model takes and gives."""
    manifest = bundle.manifest
    return RunnerSpecs(
        tuple(TensorSpec(t.name, t.dtype, t.shape) for t in manifest.inputs),
        tuple(TensorSpec(t.name, t.dtype, t.shape) for t in manifest.outputs),
    )


def precisions(bundle: Bundle) -> list[RunPrecision]:
    """Precisions that ONNX Runtime can run from this bundle, float first."""
    return [precision for precision, graph in GRAPHS.items() if graph in bundle.manifest.graphs]


def graph_of(bundle: Bundle, precision: RunPrecision | None = None) -> tuple[RunPrecision, GraphName]:
    """The graph for a precision; by default the bundle's own.

    Raises:
        InputError: the bundle has no graph of that precision.
    """
    if precision is None:
        precision = bundle.manifest.precision
    if precision not in precisions(bundle):
        have = ", ".join(precisions(bundle))
        raise InputError(f"{bundle.path.name} has no {precision} graph.", f"It has: {have}.")
    return precision, GRAPHS[precision]
