"""Rewrites of graphs: what a pass is, the passes, and the standard list that makes a graph clean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgemed.graph.passes.base import (
    GraphPass,
    PassChange,
    PassError,
    PassesResult,
    PassResult,
    count_nodes,
    run_passes,
)
from edgemed.graph.passes.fold import FoldChannelAffine
from edgemed.graph.passes.resize import NearestResizeMode, ResizeSizes
from edgemed.graph.passes.shapes import InferShapes
from edgemed.graph.passes.shared import SplitSharedWeights
from edgemed.graph.passes.slim import Slim
from edgemed.graph.passes.tidy import (
    FiniteWeights,
    LiftConstants,
    RemoveIdentity,
    RemoveUnused,
    StripDocumentation,
    UniqueNames,
)
from edgemed.graph.passes.upsampling import NearestUpsampling

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "FiniteWeights",
    "FoldChannelAffine",
    "GraphPass",
    "InferShapes",
    "LiftConstants",
    "NearestResizeMode",
    "NearestUpsampling",
    "PassChange",
    "PassError",
    "PassResult",
    "PassesResult",
    "RemoveIdentity",
    "RemoveUnused",
    "ResizeSizes",
    "Slim",
    "SplitSharedWeights",
    "StripDocumentation",
    "UniqueNames",
    "clean_graph",
    "count_nodes",
    "run_passes",
    "standard_passes",
]


def standard_passes() -> tuple[GraphPass, ...]:
    """Return the passes of `clean_graph`, in their order.

    onnxslim comes early, because it folds what the others match on, and ties equal weights, which they part again.
    """
    return (
        FiniteWeights(),
        LiftConstants(),
        RemoveIdentity(),
        ResizeSizes(),
        Slim(),
        LiftConstants(),
        NearestUpsampling(),
        NearestResizeMode(),
        InferShapes(),
        FoldChannelAffine(),
        RemoveUnused(),
        UniqueNames(),
        SplitSharedWeights(),
        StripDocumentation(),
        InferShapes(),
    )


def clean_graph(model: ir.Model) -> PassesResult:
    """Make a converted graph ready for calibration and quantization.

    Afterwards BatchNorms are folded, weights are unshared initializers, names are unique, shapes are known, and
    graph inputs and outputs are called as before. The same model gives the same graph.

    Args:
        model: the graph; it may be changed, use the result's.

    Raises:
        InputError: weights are not finite, shapes contradict each other, or the model is too large.
        PassError: a pass failed.
    """
    return run_passes(model, standard_passes())
